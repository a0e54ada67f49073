"""Input images and targets in folders."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from torch import Tensor

from semipix.data.batches.skipped import OnError
from semipix.data.files.bands import Bands, Pairs
from semipix.data.files.decode import ARRAY, check_same_size, image_size, read_header, read_values
from semipix.data.files.listing import PAIRS, SPLITS, UNLABELED, Listing, Remarks, list_folder, stems
from semipix.data.files.mattes import MatteFiles, MatteReader
from semipix.data.files.names import composed
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.sources.paired import ImageTargets, MatteTargets, PairedSource
from semipix.data.sources.scene_folders import SceneFolders
from semipix.data.survey import first_and_count, in_threads, turned_warning
from semipix.data.targets import check_target_kind
from semipix.errors import SemipixError, UnreadableFileError

EXTRAS = ("trimaps", "foregrounds", "backgrounds")


class MapTargets(ImageTargets):
    """Targets are maps of numbers in the units of the data.

    Args:
        root: the folder that names are relative to.
        targets: the target's name by the input's name.
        unit: factor by which stored numbers are multiplied.
        missing: stored number of pixels without a value; by default a TIFF's own nodata.

    Attributes:
        channels: number of channels of the first target, which all targets must have; None if it cannot be read.
    """

    def __init__(self, root: Path, targets: Mapping[str, str], unit: float, missing: float | None) -> None:
        super().__init__(root, targets)
        self.unit = unit
        self.missing = missing
        self.channels: int | None = None

    def values(self, path: Path, reader: Reader) -> Tensor:
        values = read_values(path, self.missing, max_pixels=reader.max_pixels)
        if self.channels not in (None, len(values)):
            raise SemipixError(
                f"{path}: found {len(values)} channels, but the first target has {self.channels}; expected equally many"
            )
        return values * self.unit

    def count_channels(self, max_pixels: int) -> None:
        """Set `channels` from the first target. If it cannot be read, the error is raised when it is used."""
        with contextlib.suppress(SemipixError, StopIteration):
            first = self.root / next(iter(self.targets.values()))
            self.channels = len(read_values(first, max_pixels=max_pixels))


class PairsSource(PairedSource):
    """Images in `inputs/{train,val,test}` and targets of the same stems in `targets/{train,val,test}`.

    An input in `inputs/train` without a target is unlabeled, and so is every image in the optional folder `unlabeled`.
    The optional file `scenes.txt` lists folders whose images show one scene (see `SceneFolders`).
    What the targets are depends on the kind:
    - denoising, enhancement: images of 8 or 16 bits a channel;
    - regression: numbers in the units of the data: `.npy` of (H, W) or (C, H, W), float TIFF, or the pixels of 8 or
      16-bit images as they are stored; numbers that are not finite are ignored;
    - matting: grey alphas. These folders are optional: `trimaps/{train,val,test,unlabeled}` (values 0, 128 and 255; a
      file without unknown pixels is taken for a mask, around whose edges they are added);
      `foregrounds/{train,val,test}` and `backgrounds/{train,val,test}` with the colours of each image; and photographs
      directly in `backgrounds/`, with which training replaces the background of known foregrounds. If an image has no
      trimap, one is made from its alpha.

    Args:
        root: the data folder.
        kind: denoising, enhancement, matting or regression.
        unit: for regression, the factor by which stored numbers are multiplied, e.g. 0.001 for millimetres.
        missing: for regression, the stored number of pixels without a value, e.g. 0; by default a TIFF's own nodata.
        trimap_widths: for matting, smallest and largest number of pixels by which the unknown region of a trimap made
            from an alpha extends beyond the fractional alphas.
        replace_background: for matting, share of the training samples with a known foreground whose background is
            replaced.
        max_pixels: most pixels of a file that is read.
        on_error: with skip, training pairs that cannot be read raise no error.
        bands: for regression, the bands of the inputs that are read, see `FolderSource`.
        range: the stored numbers of the inputs that become 0 and 1, see `FolderSource`.
        mean: mean of each band, as a value from 0 to 1; by default it is measured on training images.
        std: standard deviation of each band.
        needed_splits: parts whose headers are checked at once; if empty, no file is opened before it is used.

    Raises:
        SemipixError: the folder is missing or has another layout, no training input has a target, or an input and its
            target differ in size or cannot be opened.
    """

    labels_by_scene: ClassVar[bool] = False

    def __init__(
        self,
        root: str | Path,
        kind: str,
        unit: float = 1.0,
        missing: float | None = None,
        trimap_widths: Sequence[int] = (1, 25),
        replace_background: float = 0.5,
        max_pixels: int = MAX_PIXELS,
        on_error: OnError = "stop",
        needed_splits: Sequence[str] = SPLITS,
        bands: Sequence[int] | Literal["all"] | None = None,
        range: Pairs | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        check_target_kind(kind, self.kinds)
        self.bands = Bands.of(bands, range, mean, std)
        if self.bands is not None and kind != "regression":
            raise SemipixError(
                f"data.bands: found it with data.kind={kind}, whose images are colours; expected data.kind=regression, "
                "or leave data.bands and data.range out"
            )
        folder = Path(root).expanduser()
        listing = list_folder(folder, PAIRS if self.bands is None else replace(PAIRS, image_arrays=True))
        unlabeled = [*listing.bare["train"], *listing.unlabeled]
        targets = {name: target for part in SPLITS for name, target in sorted(listing.labels.get(part, {}).items())}
        reading: MapTargets | MatteTargets | None = None
        if kind == "regression":
            reading = MapTargets(folder, targets, unit, missing)
            reading.count_channels(max_pixels)
        elif kind == "matting" and folder.is_dir():
            mattes = _matte_files(folder, listing)
            pool = background_pool(folder, mattes)
            matting = MatteReader(check_widths(trimap_widths), pool, check_share(replace_background))
            reading = MatteTargets(mattes, matting)
        self.refuse(listing.problems)
        scenes = SceneFolders(folder)
        images = [*targets, *unlabeled]
        named = {name: scenes.scene(name) for name in images} if scenes.folders else {}
        super().__init__(folder, kind, listing.labels, unlabeled, named, reading, listing.left_out)
        self.reader = Reader(max_pixels=max_pixels, bands=self.bands)
        if isinstance(reading, MapTargets):
            self.channels = reading.channels
        problems, warnings = self._misfits(needed_splits, on_error)
        self.warnings = [*warnings, *scenes.warnings(images)]
        self.refuse(problems)

    def refuse(self, problems: Sequence[str]) -> None:
        """Raise the first of some problems as an error.

        Raises:
            SemipixError: there is a problem.
        """
        if problems:
            raise SemipixError(problems[0])

    def _misfits(self, splits: Sequence[str], on_error: OnError) -> tuple[list[str], list[str]]:
        """Problems and warnings from the headers: pairs that differ in size or type, or cannot be opened."""
        word, most = "alpha" if self.kind == "matting" else "target", self.reader.max_pixels

        def look(name: str) -> SemipixError | str | None:
            image, target = self.reading.file(name), self.root / self._targets[name]
            try:
                self._check_storage(target)
                header, size = self.reader.header(image), image_size(target, max_pixels=most)
                check_same_size(image, target, header.size, size, word)
                array = target.suffix.lower() == ARRAY
                orientation = 1 if array else read_header(target, max_pixels=most).orientation
                return turned_warning(image, target, header, orientation, size, word)
            except SemipixError as error:
                return error

        names = [name for split in splits for name in self._pairs[split]]
        skipped = self._pairs["train"] if on_error == "skip" else {}
        problems, turned = [], []
        for name, found in zip(names, in_threads(look, names, "reading headers"), strict=True):
            if isinstance(found, str):
                turned.append(found)
            elif found and not (name in skipped and isinstance(found, UnreadableFileError)):
                problems.append(str(found))
        return problems, first_and_count(turned, f"{word}s")


def check_widths(widths: Sequence[int]) -> tuple[int, int]:
    """Check the `data.trimap_widths` setting.

    Raises:
        SemipixError: the value is not two integers in ascending order, 0 or more.
    """
    if len(widths) != 2 or not 0 <= widths[0] <= widths[1]:
        raise SemipixError(f"data.trimap_widths={list(widths)}: expected [fewest,most] pixels, 0 or more")
    return int(widths[0]), int(widths[1])


def check_share(share: float) -> float:
    """Check the `data.replace_background` setting.

    Raises:
        SemipixError: the value is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise SemipixError(f"data.replace_background={share}: expected a share from 0 to 1")
    return share


def background_pool(root: Path, mattes: dict[str, MatteFiles], folder: str = "backgrounds") -> tuple[Path, ...]:
    """The photographs directly in a folder of backgrounds.

    Raises:
        SemipixError: there are photographs, but no sample has a foreground.
    """
    pool = [root / name for stem, name in stems(root, folder, Remarks()).items() if "/" not in stem]
    if pool and not any(files.foreground for files in mattes.values()):
        raise SemipixError(
            f"{root / folder}: found {len(pool)} photographs to put behind foregrounds, but no foreground; add "
            "foregrounds/train with the stems of the inputs, or remove the photographs"
        )
    return tuple(pool)


def _matte_files(root: Path, listing: Listing) -> dict[str, MatteFiles]:
    """The files of each sample, by the name of the image; problems are added to the listing."""
    parts = {split: {**listing.labels[split], **dict.fromkeys(listing.bare[split])} for split in SPLITS}
    parts[UNLABELED] = dict.fromkeys(listing.unlabeled)
    found: dict[str, MatteFiles] = {}
    for part, names in parts.items():
        extras = {extra: stems(root, f"{extra}/{part}", listing) for extra in EXTRAS}
        folder = part if part == UNLABELED else f"inputs/{part}"
        by_stem = {composed(str(PurePosixPath(name).relative_to(folder).with_suffix(""))): name for name in names}
        for extra, candidates in extras.items():
            listing.problems += [
                f"{root / name}: {extra[:-1]} without an input; expected {folder}/{stem} with one of the image "
                f"extensions, add the input or remove the {extra[:-1]}"
                for stem, name in candidates.items()
                if stem not in by_stem
            ]
        for stem, name in by_stem.items():
            alpha = names[name]
            trimap, foreground, background = (
                root / candidates[stem] if stem in candidates else None for candidates in extras.values()
            )
            found[name] = MatteFiles(root / name, root / alpha if alpha else None, trimap, foreground, background)
            if trimap is None and alpha is None and (part in ("train", UNLABELED)):
                listing.problems.append(
                    f"{root / name}: found neither trimap nor alpha; add trimaps/{part}/{stem}, a trimap of 0, 128 and "
                    "255, or a mask of 0 and 255"
                )
    return found
