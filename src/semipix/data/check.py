"""`semipix data check`: read a whole data folder and report every problem."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from semipix.batch import VOID
from semipix.config import Node
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.decode import bits, read_values
from semipix.data.files.listing import MASKS, PAIRS, SPLITS, Listing, duplicates, list_folder
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.source import Source
from semipix.data.sources.class_names import read_classes
from semipix.data.sources.colour_classes import read_colour_table
from semipix.data.sources.folder import FolderSource, check_keys, check_masks, lookup_table
from semipix.data.sources.pairs import EXTRAS, PairsSource
from semipix.data.survey import SEVERAL_PAGES, further_parts, in_threads
from semipix.errors import SemipixError, one_line

T = TypeVar("T")


@dataclass
class Report:
    """Contents and problems of a data folder.

    Attributes:
        root: the folder.
        masked: number of images with a label, by split.
        unmasked: number of images without one, by split and for the folder `unlabeled`.
        sizes: number of readable images by (height, width).
        classes: class names, from `classes.txt` or counted.
        pixels: number of pixels by class index (255 is void) over all readable masks.
        problems: one line for each thing that has to be fixed.
        warnings: one line for each thing that is unusual but may be intended.
        left_out: one line, with a count, for each kind of file or part of a file that is not read.
        label: what a label is called.
        kind: the kind of the targets in a folder of pairs, given or guessed; empty for masks.
    """

    root: Path
    masked: dict[str, int]
    unmasked: dict[str, int]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)
    pixels: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    label: str = "mask"
    kind: str = ""

    @property
    def labeled_share(self) -> float:
        """Share of the training images that have a label, in [0, 1]."""
        total = self.masked["train"] + self.unmasked["train"] + self.unmasked["unlabeled"]
        return self.masked["train"] / total if total else 0.0

    @property
    def void_share(self) -> float:
        """Share of mask pixels that are void, in [0, 1]."""
        return self.pixels[VOID] / max(1, self.pixels.total())

    def lines(self) -> list[str]:
        """The report as text, problems last."""
        lines = [f"{self.root}"]
        lines += [
            f"  {split:<10}{self.masked.get(split, 0):>7} with {self.label} {count:>7} without"
            for split, count in self.unmasked.items()
        ]
        lines.append(f"  labeled   {self.labeled_share:>7.1%} of the training images")
        lines += [f"  kind      {self.kind:>7}"] if self.kind else []
        lines += self._size_lines() + self._class_lines()
        lines += [f"  left out  {len(self.left_out):>7}", *_indented(self.left_out)]
        lines += [f"  warnings  {len(self.warnings):>7}", *_indented(self.warnings)]
        lines.append(f"  problems  {len(self.problems):>7}")
        return lines + _indented(self.problems)

    def _size_lines(self) -> list[str]:
        if not self.sizes:
            return []
        heights, widths = zip(*self.sizes, strict=True)
        return [
            f"  sizes     {len(self.sizes):>7} distinct, {min(widths)}-{max(widths)} wide, "
            f"{min(heights)}-{max(heights)} high"
        ]

    def _class_lines(self) -> list[str]:
        if not self.classes:
            return []
        valid = max(1, self.pixels.total() - self.pixels[VOID])
        lines = [f"  classes   {len(self.classes):>7}, shares of the pixels that are not void:"]
        lines += [
            f"    {index:>3} {name:<20}{self.pixels[index] / valid:>8.2%}" for index, name in enumerate(self.classes)
        ]
        return [*lines, f"  void      {self.void_share:>7.1%} of all mask pixels"]


def check_folder(root: str | Path, kind: str | None = None, **options: Any) -> Report:
    """Read every file of a data folder and report its contents and all problems.

    Args:
        root: a folder laid out as `FolderSource` or, if it holds `inputs`, as `PairsSource` expects it.
        kind: as for `PairsSource`; by default guessed from the files.
        **options: keys of `data` as training takes them. Keys of the source, such as `mask_values` and `max_pixels`,
            have the same effect as in training. The other keys are checked, but have no effect.

    Returns:
        The report. Problems of the data are listed in it; they raise no error.

    Raises:
        SemipixError: an option has an unknown key, or a value of a wrong type or out of range.
    """
    root = Path(root).expanduser()
    source = PairsSource if (root / PAIRS.images.partition("/")[0]).is_dir() else FolderSource
    given = {"_target_": f"{source.__module__}.{source.__qualname__}", "root": str(root), **options}
    given = {**given, **({} if kind is None else {"kind": kind})}
    node = Node.parse("data", given, Source, SemiSupervisedDataModule)
    options = {key: value for key, value in options.items() if node.takes(key)}
    if source is PairsSource:
        report = _check_pair_folder(root, kind, options)
    else:
        report = _check_mask_folder(
            root, options.get("mask_values"), options.get("max_pixels", MAX_PIXELS), options.get("colours", False)
        )
    report.problems = list(dict.fromkeys(report.problems))
    return report


def guess_kind(root: Path, listing: Listing) -> str:
    """Guess the kind of targets in a folder of pairs: matting, regression or denoising.

    Targets of denoising and enhancement are both images; denoising is returned for either.
    """
    if any((root / extra).is_dir() for extra in EXTRAS):
        return "matting"
    first = next((root / name for names in listing.labels.values() for name in names.values()), None)
    try:
        numbers = first is not None and (bits(first) == "float" or len(read_values(first)) != 3)
    except SemipixError:
        numbers = False
    return "regression" if numbers else "denoising"


def _indented(messages: Sequence[str]) -> list[str]:
    return [f"    {one_line(message)}" for message in messages]


def _check_mask_folder(root: Path, mask_values: Mapping[int, int] | None, max_pixels: int, colours: bool) -> Report:
    check_keys(mask_values, colours)
    table = lookup_table(mask_values) if mask_values else None
    listing = list_folder(root)
    report = _begin(root, listing, max_pixels)
    by_colour = _collected(report, read_colour_table, root) if colours else None
    if colours and by_colour is None:  # without the table no mask can be read
        return report
    names = by_colour.names if by_colour else _collected(report, read_classes, root)
    images = [root / name for part in listing.parts().values() for name in part]
    _read_images(report, images, Reader(max_pixels=max_pixels))
    findings = check_masks(root, listing, names, table, max_pixels, MASKS, by_colour and by_colour.table)
    report.problems += [*findings.by_image.values(), *findings.of_all]
    report.warnings += findings.warnings
    report.classes, report.pixels = findings.classes, findings.pixels
    return report


class _LenientPairsSource(PairsSource):
    """A source that collects problems of the layout in `problems` instead of raising the first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.problems: list[str] = []
        super().__init__(*args, **options)

    def refuse(self, problems: Sequence[str]) -> None:
        self.problems += problems


def _check_pair_folder(root: Path, kind: str | None, options: Mapping[str, Any]) -> Report:
    listing = list_folder(root, PAIRS)
    report = _begin(root, listing, options.get("max_pixels", MAX_PIXELS))
    report.label, report.kind = PAIRS.label, kind or guess_kind(root, listing)
    source = _collected(report, _LenientPairsSource, root, report.kind, **options)
    if source is None:
        return report
    report.problems = source.problems
    report.warnings += source.warnings
    labeled = [name for names in listing.labels.values() for name in names]
    unlabeled = [name for names in listing.bare.values() for name in names] + [*listing.unlabeled]
    for name in tqdm(labeled + unlabeled, desc="reading", leave=False, disable=None):
        image = _collected(report, source.image, name)
        if image is not None:
            report.sizes[image.shape[-2], image.shape[-1]] += 1
        if name in labeled:
            _collected(report, source.target, name)
    return report


def _begin(root: Path, listing: Listing, max_pixels: int) -> Report:
    """A report of everything that file names, lengths and headers show."""
    parts = listing.parts()
    return Report(
        root,
        {split: len(listing.labels.get(split, {})) for split in SPLITS},
        {**{split: len(listing.bare.get(split, ())) for split in SPLITS}, "unlabeled": len(listing.unlabeled)},
        problems=list(listing.problems),
        left_out=[
            *listing.left_out,
            *further_parts(listing.files(root, SEVERAL_PAGES), max_pixels),
        ],
        warnings=[
            f"{root / later}: same content as {earlier} of another part; expected different images for "
            "evaluation, remove one of the two"
            for later, earlier in duplicates(root, parts)
        ],
    )


def _read_images(report: Report, paths: Sequence[Path], reader: Reader) -> None:
    """Read images at their own size and count the sizes."""

    def read(path: Path) -> tuple[int, int] | SemipixError:
        try:
            height, width = reader.image(path, whole=True).shape[-2:]
        except SemipixError as error:
            return error
        return height, width

    for found in in_threads(read, paths, "reading images"):
        if isinstance(found, SemipixError):
            report.problems.append(str(found))
        else:
            report.sizes[found] += 1


def _collected(report: Report, function: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """The result of a function; its error goes to the report, and the result is None."""
    try:
        return function(*args, **options)
    except SemipixError as error:
        report.problems.append(str(error))
        return None
