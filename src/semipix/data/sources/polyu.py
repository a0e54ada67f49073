"""PolyU: noisy photographs, with the mean of many shots as target (Xu et al., arXiv 1804.02603)."""

from pathlib import Path, PurePosixPath
from typing import ClassVar

from semipix.data.files.listing import Remarks, stems
from semipix.data.sources.paired import PairedSource, check_root, matched, read_split
from semipix.errors import SemipixError


class PolyUSource(PairedSource):
    """Crops in `noisy/`, clean crops of the same stems in `clean/`, and optionally more noisy crops in `unlabeled/`.

    A crop is called CAMERA_..._OBJECT_NUMBER. Crops of one object by one camera are one scene, and labels are counted
    by scene. The optional file `split.json` lists the stems of `train` and `val`; without it `data.val` scenes are set
    aside.

    Args:
        root: the data folder.

    Raises:
        SemipixError: the folder has another layout.
    """

    kinds: ClassVar[tuple[str, ...]] = ("denoising",)

    def __init__(self, root: str | Path) -> None:
        folder = check_root(root, "noisy", "clean")
        remarks = Remarks()
        noisy, clean, more = (stems(folder, part, remarks) for part in ("noisy", "clean", "unlabeled"))
        if remarks.problems:
            raise SemipixError(remarks.problems[0])
        targets = matched(folder, noisy, clean)
        lists = read_split(folder / "split.json", noisy, "train", "val") or {"train": list(noisy)}
        pairs = {part: {noisy[stem]: targets[noisy[stem]] for stem in names} for part, names in lists.items()}
        unlabeled = list(more.values())
        scenes = {name: camera_and_object(name) for name in [*targets, *unlabeled]}
        super().__init__(folder, "denoising", pairs, unlabeled, scenes, left_out=remarks.left_out)


def camera_and_object(name: str) -> str:
    """The scene of a crop: camera and object, such as "Canon5D2/chair".

    The example is the scene of "noisy/Canon5D2_5_160_3200_chair_11.jpg".
    """
    parts = PurePosixPath(name).stem.split("_")
    return f"{parts[0]}/{parts[-2]}" if len(parts) > 2 else name
