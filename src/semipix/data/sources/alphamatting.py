"""The training set of alphamatting.com (Rhemann et al., CVPR 2009), or other images in the same folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from semipix.data.files.listing import Remarks, stems
from semipix.data.files.mattes import MatteFiles, MatteReader
from semipix.data.sources.paired import MatteTargets, PairedSource, check_root, matched, read_split
from semipix.data.sources.pairs import background_pool, check_share, check_widths
from semipix.errors import SemipixError

MADE = "made"


class MattingSource(PairedSource):
    """Images in `images/`, alphas in `alpha/` and trimaps in `trimap1/` (tight) or `trimap2/` (wide), by stem.

    The optional file `split.json` lists stems of `train`, `val` and `test`; without it `data.val` images are set aside.
    The optional folder `foregrounds` contains the colours of foregrounds. Training replaces the background of these
    images by photographs from `backgrounds`.

    Args:
        root: the data folder.
        trimap: folder of the trimaps, or "made": each training sample gets a new trimap, made from the alpha.
        trimap_widths: smallest and largest number of pixels by which the unknown region of a trimap that is made from
            an alpha extends beyond the fractional alphas.
        unlabeled: a folder of images without alpha.
        unlabeled_trimaps: a folder with the trimaps of these images, or with masks (0 and 255, or 0 and 1), around
            whose edges unknown pixels are added.
        backgrounds: a folder of photographs that may replace backgrounds.
        replace_background: share of the training samples with a known foreground whose background is replaced.

    Raises:
        SemipixError: the folder has another layout, or an unlabeled image has no trimap.
    """

    kinds: ClassVar[tuple[str, ...]] = ("matting",)

    def __init__(
        self,
        root: str | Path,
        trimap: str = "trimap1",
        trimap_widths: Sequence[int] = (1, 25),
        unlabeled: str | None = None,
        unlabeled_trimaps: str | None = None,
        backgrounds: str | None = None,
        replace_background: float = 0.5,
    ) -> None:
        given = () if trimap == MADE else (trimap,)
        folder = check_root(root, "images", "alpha", *given)
        remarks = Remarks()
        images, alphas, foregrounds = (stems(folder, part, remarks) for part in ("images", "alpha", "foregrounds"))
        trimaps = stems(folder, trimap, remarks) if given else {}
        if remarks.problems:
            raise SemipixError(remarks.problems[0])
        targets = matched(folder, images, alphas, "alpha")
        if given:
            matched(folder, images, trimaps, "trimap")
        mattes = {
            name: MatteFiles(
                folder / name,
                folder / alphas[stem],
                folder / trimaps[stem] if given else None,
                folder / foregrounds[stem] if stem in foregrounds else None,
            )
            for stem, name in images.items()
        }
        lists = read_split(folder / "split.json", images, "train", "val", "test") or {"train": list(images)}
        pairs = {part: {images[stem]: targets[images[stem]] for stem in names} for part, names in lists.items()}
        more = _unlabeled(unlabeled, unlabeled_trimaps, remarks)
        pool = (
            () if backgrounds is None else background_pool(check_root(backgrounds, key="data.backgrounds"), mattes, "")
        )
        matting = MatteReader(check_widths(trimap_widths), pool, check_share(replace_background))
        reading = MatteTargets(mattes | more, matting)
        super().__init__(folder, "matting", pairs, list(more), reading=reading, left_out=remarks.left_out)


def _unlabeled(images: str | None, trimaps: str | None, remarks: Remarks) -> dict[str, MatteFiles]:
    """The files of the samples without alpha, by the name that the source gives them."""
    if images is None or trimaps is None:
        if images is not None:
            raise SemipixError(
                "data.unlabeled_trimaps is missing: expected a folder with the trimaps of data.unlabeled"
            )
        return {}
    image_root = check_root(images, key="data.unlabeled")
    trimap_root = check_root(trimaps, key="data.unlabeled_trimaps")
    names, masks = stems(image_root, "", remarks), stems(trimap_root, "", remarks)
    if remarks.problems:
        raise SemipixError(remarks.problems[0])
    if missing := sorted(names.keys() - masks.keys()):
        raise SemipixError(f"{image_root}/{missing[0]}: found no trimap of this stem in {trimap_root}; add it")
    return {
        f"unlabeled/{name}": MatteFiles(image_root / name, None, trimap_root / masks[stem])
        for stem, name in names.items()
    }
