"""`semipix data check`: read a whole data folder and report every problem."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from tqdm import tqdm

from semipix.batch import VOID
from semipix.config import Node
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.bands import Bands
from semipix.data.files.decode import bits, read_values
from semipix.data.files.listing import MASKS, PAIRS, SPLITS, Listing, duplicates, list_folder
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.rasters import Contents, contents, stored_values
from semipix.data.files.reader import Reader
from semipix.data.source import Source
from semipix.data.sources.class_names import read_classes
from semipix.data.sources.colour_classes import read_colour_table
from semipix.data.sources.folder import FolderSource, check_keys, check_masks, lookup_table
from semipix.data.sources.pairs import EXTRAS, PairsSource
from semipix.data.sources.scene_folders import SceneFolders
from semipix.data.splits import Scenes, Split, check_overlap
from semipix.data.survey import SEVERAL_PAGES, first_and_count, further_parts, in_threads
from semipix.errors import SemipixError, one_line

T = TypeVar("T")

_BANDS_SAMPLE = 50
"""Images whose numbers are looked at, band by band; of more, as many are taken evenly from their list."""

_MOST_OUTSIDE = 0.02
"""Share of a band's numbers outside of `data.range` above which there is a warning."""

_MOST_NAMED = 3
"""Files that a message about bands names."""


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
        bands: number and type of the bands of the first image; empty for colours.
        bands_sample: number of images whose numbers were looked at.
        band_ranges: these numbers by band.
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
    bands: str = ""
    bands_sample: int = 0
    band_ranges: dict[int, "BandRange"] = field(default_factory=dict)

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
        lines += self._size_lines() + self._band_lines() + self._class_lines()
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

    def _band_lines(self) -> list[str]:
        if not self.bands:
            return []
        lines = [f"  bands     {self.bands:>7}; their numbers in {self.bands_sample} images:"]
        return lines + [
            f"    {number:>3} {each.low:>12.6g} to {each.high:<12.6g}{each.missing:>7.1%} nodata"
            f"{each.outside:>8.1%} outside of data.range"
            for number, each in self.band_ranges.items()
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
    if kind is not None and root.is_dir():  # of no folder, that it is missing is all there is to say
        given["kind"] = kind
    node = Node.parse("data", given, Source, SemiSupervisedDataModule)
    options = {key: value for key, value in options.items() if node.takes(key)}
    bands = Bands.of_options(options)
    if source is PairsSource:
        report = _check_pair_folder(root, kind, options)
    else:
        report = _check_mask_folder(
            root,
            options.get("mask_values"),
            options.get("max_pixels", MAX_PIXELS),
            options.get("colours", False),
            bands,
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


def _check_mask_folder(
    root: Path, mask_values: Mapping[int, int] | None, max_pixels: int, colours: bool, bands: Bands | None
) -> Report:
    check_keys(mask_values, colours)
    table = lookup_table(mask_values) if mask_values else None
    listing = list_folder(root, MASKS if bands is None else replace(MASKS, image_arrays=True))
    reader = Reader(max_pixels=max_pixels, bands=bands)
    report = _begin(root, listing, reader)
    by_colour = _collected(report, read_colour_table, root) if colours else None
    if colours and by_colour is None:  # without the table no mask can be read
        return report
    names = by_colour.names if by_colour else _collected(report, read_classes, root)
    images = [root / name for part in listing.parts().values() for name in part]
    _read_images(report, images, reader)
    if bands is not None:
        _check_bands(report, images, bands, max_pixels)
    stated = frozenset(map(int, mask_values or ()))
    colour_table = by_colour and by_colour.table
    findings = check_masks(root, listing, names, table, max_pixels, MASKS, colour_table, bands, stated)
    report.problems += [*findings.by_image.values(), *findings.of_all]
    report.warnings += findings.warnings
    _check_scenes(report, listing)
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
    bands, max_pixels = Bands.of_options(options), options.get("max_pixels", MAX_PIXELS)
    listing = list_folder(root, PAIRS if bands is None else replace(PAIRS, image_arrays=True))
    report = _begin(root, listing, Reader(max_pixels=max_pixels, bands=bands))
    report.label, report.kind = PAIRS.label, kind or guess_kind(root, listing)
    source = _collected(report, _LenientPairsSource, root, report.kind, **options)
    if source is None:
        return report
    report.problems = source.problems
    report.warnings += source.warnings
    _check_scenes(report, listing, warn=False)
    labeled = [name for names in listing.labels.values() for name in names]
    unlabeled = [name for names in listing.bare.values() for name in names] + [*listing.unlabeled]
    for name in tqdm(labeled + unlabeled, desc="reading", leave=False, disable=None):
        image = _collected(report, source.image, name)
        if image is not None:
            report.sizes[image.shape[-2], image.shape[-1]] += 1
        if name in labeled:
            _collected(report, source.target, name)
    if bands is not None:
        _check_bands(report, [root / name for name in labeled + unlabeled], bands, max_pixels)
    return report


def _begin(root: Path, listing: Listing, reader: Reader) -> Report:
    """A report of everything that file names, lengths and headers show."""
    parts = listing.parts()
    return Report(
        root,
        {split: len(listing.labels.get(split, {})) for split in SPLITS},
        {**{split: len(listing.bare.get(split, ())) for split in SPLITS}, "unlabeled": len(listing.unlabeled)},
        problems=list(listing.problems),
        left_out=[
            *listing.left_out,
            *further_parts(listing.files(root, SEVERAL_PAGES), reader),
        ],
        warnings=[
            f"{root / later}: same content as {earlier} of another part; expected different images for "
            "evaluation, remove one of the two"
            for later, earlier in duplicates(root, parts)
        ],
    )


def _check_scenes(report: Report, listing: Listing, warn: bool = True) -> None:
    """Report a scene that is in training and in evaluation, and folders of `scenes.txt` that hold no image."""
    scenes = _collected(report, SceneFolders, report.root)
    if scenes is None:
        return
    unlabeled = [*listing.bare["train"], *listing.unlabeled]
    labels = {split: sorted(listing.labels[split]) for split in SPLITS}
    split = Split(labels["train"], sorted(unlabeled), labels["val"], labels["test"])
    _collected(report, check_overlap, split, scenes)
    report.warnings += _copies_in_training(report.root, split, scenes)
    if warn:
        report.warnings += scenes.warnings(name for names in listing.parts().values() for name in names)


def _copies_in_training(root: Path, split: Split, scenes: Scenes) -> list[str]:
    """A warning about copies of labeled images, of which `data.val` may set one aside and leave the other in training.

    With validation images of their own, and for copies of one scene, nothing is set aside like that.
    """
    if split.val:
        return []
    labeled = set(split.labeled)
    pairs = [
        (root / later, earlier)
        for later, earlier in duplicates(root, {name: [name] for name in (*split.labeled, *split.unlabeled)})
        if earlier in labeled and scenes.scene(later) != scenes.scene(earlier)
    ]
    lines = [
        f"{later}: same content as {earlier}, which has a label and may be set aside for validation by data.val while "
        "its copy trains; remove one of the two, or list a folder with both in scenes.txt"
        for later, earlier in pairs
    ]
    return first_and_count(lines, "copies")


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


@dataclass
class BandRange:
    """What the stored numbers of a band are, over some images.

    Attributes:
        low, high: smallest and largest number; NaN if none is known.
        missing: share of the pixels without a number.
        outside: share of the numbers that `data.range` does not include.
    """

    low: float
    high: float
    missing: float
    outside: float


def _check_bands(report: Report, paths: Sequence[Path], bands: Bands, max_pixels: int) -> None:
    """Compare the bands of all images by their headers, and look at the numbers of a sample."""

    def look(path: Path) -> Contents | None:
        try:
            return contents(path, max_pixels)
        except SemipixError:  # reported when the image was read
            return None

    found = {path: each for path, each in zip(paths, in_threads(look, paths, "reading headers"), strict=True) if each}
    if not found:
        return
    counts, types = ({path: value(each) for path, each in found.items()} for value in (_count_of, _type_of))
    for values, what in ((counts, "bands"), (types, "numbers")):
        usual, number = Counter(values.values()).most_common(1)[0]
        others = [path for path, value in values.items() if value != usual]
        if others:
            named = ", ".join(f"{path.name} has {values[path]}" for path in others[:_MOST_NAMED])
            line = (
                f"{others[0].parent}: {number} images have {usual} {what}, {len(others)} others ({named}"
                f"{', ...' if len(others) > _MOST_NAMED else ''}); "
            )
            if what == "bands" and bands.chosen is None:
                report.problems.append(f"{line}expected equally many, name the bands to read in data.bands=[0,...]")
            else:
                report.warnings.append(f"{line}expected the same in all")
    first = next(iter(found.values()))
    report.bands = f"{first.bands} {first.dtype}"
    step = max(1, -(-len(found) // _BANDS_SAMPLE))
    sample = list(found)[::step]
    report.bands_sample = len(sample)

    def measure(path: Path) -> list[tuple[int, BandRange, int]]:
        try:
            return [_range_of(bands, place, *each) for place, each in enumerate(stored_values(path, bands, max_pixels))]
        except SemipixError:
            return []

    parts: dict[int, list[tuple[BandRange, int]]] = {}
    for measured in in_threads(measure, sample, "reading bands"):
        for number, each, pixels in measured:
            parts.setdefault(number, []).append((each, pixels))
    report.band_ranges = {number: _joined(some) for number, some in sorted(parts.items())}
    for number, each in report.band_ranges.items():
        if each.outside > _MOST_OUTSIDE:
            report.warnings.append(
                f"{report.root}: {each.outside:.0%} of the numbers of band {number} are outside of data.range, and "
                "become 0 or 1; set it to the range of the data"
            )


def _count_of(each: Contents) -> int | str:
    return each.bands


def _type_of(each: Contents) -> int | str:
    return each.dtype


def _range_of(bands: Bands, place: int, number: int, values: NDArray[Any], pixels: int) -> tuple[int, BandRange, int]:
    """The number of a band, what its known numbers (n,) are, and how many pixels it has."""
    missing = 1 - values.size / pixels
    if not values.size:
        return number, BandRange(math.nan, math.nan, missing, 0.0), pixels
    outside = 0.0
    if bands.limits is not None:
        low, high = bands.limits[min(place, len(bands.limits) - 1)]
        outside = float(((values < low) | (values > high)).mean())
    return number, BandRange(float(values.min()), float(values.max()), missing, outside), pixels


def _joined(parts: Sequence[tuple[BandRange, int]]) -> BandRange:
    """The numbers of a band over several images; each image counts by its pixels, or by those that have a number."""
    total = max(1, sum(pixels for _, pixels in parts))
    numbers = sum((1 - each.missing) * pixels for each, pixels in parts)
    known = [each for each, _ in parts if not math.isnan(each.low)]
    return BandRange(
        min((each.low for each in known), default=math.nan),
        max((each.high for each in known), default=math.nan),
        sum(each.missing * pixels for each, pixels in parts) / total,
        sum(each.outside * (1 - each.missing) * pixels for each, pixels in parts) / max(1, numbers),
    )


def _collected(report: Report, function: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """The result of a function; its error goes to the report, and the result is None."""
    try:
        return function(*args, **options)
    except SemipixError as error:
        report.problems.append(str(error))
        return None
