"""Looking through a data folder for everything that is wrong with it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor
from tqdm import tqdm

from semipix.data.decode import bits, check_size, read_image, read_values
from semipix.data.decode_masks import read_mask
from semipix.data.folder import binary_problem, infer_classes, lookup_table, outside_problem, read_classes
from semipix.data.layout import PAIRS, SPLITS, Listing, duplicates, list_folder
from semipix.data.pairs import EXTRAS, PairsSource
from semipix.data.source import VOID
from semipix.errors import SemipixError

T = TypeVar("T")


@dataclass
class Report:
    """What a data folder holds.

    Attributes:
        root: the folder.
        masked: number of images with a label, by split.
        unmasked: number of images without one, by split and for the folder `unlabeled`.
        sizes: number of readable images by (height, width).
        classes: class names, from `classes.txt` or counted.
        pixels: number of pixels by class index (255 is void) over all readable masks.
        problems: one line for each thing to mend.
        warnings: one line for each thing that may be meant so.
        label: what a label is called.
        kind: what the targets of pairs were taken for; empty for masks.
    """

    root: Path
    masked: dict[str, int]
    unmasked: dict[str, int]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)
    pixels: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
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
        lines += [f"  warnings  {len(self.warnings):>7}", *(f"    {warning}" for warning in self.warnings)]
        lines.append(f"  problems  {len(self.problems):>7}")
        return lines + [f"    {problem}" for problem in self.problems]

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


def check(root: str | Path, mask_values: Mapping[int, int] | None = None, kind: str | None = None) -> Report:
    """Read every file of a data folder and report what it holds and each problem.

    Args:
        root: a folder laid out as `FolderSource` or, if it holds `inputs`, as `PairsSource` expects it.
        mask_values: as for `FolderSource`.
        kind: as for `PairsSource`; by default what the files look like.

    Returns:
        The report. Nothing that is wrong with the data raises.

    Raises:
        SemipixError: `mask_values` is out of range.
    """
    root = Path(root).expanduser()
    pairs = (root / PAIRS.images.partition("/")[0]).is_dir()
    report = _check_pair_folder(root, kind) if pairs else _check_mask_folder(root, mask_values)
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _check_mask_folder(root: Path, mask_values: Mapping[int, int] | None) -> Report:
    listing = list_folder(root)
    report = _begin(root, listing)
    names = _collected(report, read_classes, root)
    table = lookup_table(mask_values) if mask_values else None
    total = sum(report.masked.values()) + sum(report.unmasked.values())
    pairs = [pair for masks in listing.labels.values() for pair in masks.items()]
    with tqdm(total=total, desc="reading", leave=False, disable=None) as bar:  # None: only on a terminal
        masks = _check_pairs(report, pairs, table, bar)
        for name in _unmasked(listing):
            _read(report, root / name)
            bar.update()
    present = {value for name in listing.labels.get("train", {}) for value in masks.get(name, {})}
    if names and (problem := binary_problem(root, present)):
        report.problems.append(problem)
    report.classes = names or (_collected(report, infer_classes, root, present) if present else None) or []
    if report.classes:
        _check_values(report, dict(pairs), masks)
    return report


class _Unrefused(PairsSource):
    """A source whose layout may have problems."""

    def refuse(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)


def _check_pair_folder(root: Path, kind: str | None) -> Report:
    listing = list_folder(root, PAIRS)
    report = _begin(root, listing)
    report.label, report.kind = PAIRS.label, kind or guess_kind(root, listing)
    source = _collected(report, _Unrefused, root, report.kind)
    if source is None:
        return report
    report.problems = source.problems
    labeled = [name for names in listing.labels.values() for name in names]
    for name in tqdm(labeled + _unmasked(listing), desc="reading", leave=False, disable=None):
        image = _collected(report, source.image, name)
        if image is not None:
            report.sizes[image.shape[-2], image.shape[-1]] += 1
        if name in labeled:
            _collected(report, source.target, name)
    return report


def guess_kind(root: Path, listing: Listing) -> str:
    """What the targets of a folder of pairs seem to be: matting, regression or denoising (images, as enhancement's)."""
    if any((root / extra).is_dir() for extra in EXTRAS):
        return "matting"
    first = next((root / name for names in listing.labels.values() for name in names.values()), None)
    try:
        numbers = first is not None and (bits(first) == "float" or len(read_values(first)) != 3)
    except SemipixError:
        numbers = False
    return "regression" if numbers else "denoising"


def _begin(root: Path, listing: Listing) -> Report:
    """A report of what can be told from file names and lengths."""
    return Report(
        root,
        {split: len(listing.labels.get(split, {})) for split in SPLITS},
        {**{split: len(listing.bare.get(split, ())) for split in SPLITS}, "unlabeled": len(listing.unlabeled)},
        problems=list(listing.problems),
        warnings=[
            f"{root / later}: same content as {earlier} of another part; evaluation needs images of its own"
            for later, earlier in duplicates(root, listing.parts())
        ],
    )


def _check_pairs(
    report: Report, pairs: list[tuple[str, str]], table: Tensor | None, bar: "tqdm[Any]"
) -> dict[str, Counter[int]]:
    """Read images with their masks; returns the pixels of each class index by image name."""
    counts: dict[str, Counter[int]] = {}
    for image_name, mask_name in pairs:
        image, mask = report.root / image_name, report.root / mask_name
        whole = _read(report, image)
        values = _collected(report, read_mask, mask)
        if values is not None:
            indices = values if table is None else table[values]
            # numpy, because torch's threads wait for each other where a training keeps the processors busy.
            pixels = np.bincount(indices.numpy().ravel())
            counts[image_name] = Counter({int(value): int(pixels[value]) for value in pixels.nonzero()[0]})
            report.pixels += counts[image_name]
            if whole:
                _collected(report, check_size, image, mask, indices)
        bar.update()
    return counts


def _check_values(report: Report, masks: dict[str, str], counts: dict[str, Counter[int]]) -> None:
    """Report masks with values that are no class; needs the classes, which may be known only after all are read."""
    classes = len(report.classes)
    for image_name, pixels in counts.items():
        outside = {value: count for value, count in pixels.items() if value >= classes and value != VOID}
        if outside:
            report.problems.append(outside_problem(report.root / masks[image_name], outside, classes))


def _read(report: Report, path: Path) -> bool:
    """Read an image and note its size; False where it cannot be read."""
    image = _collected(report, read_image, path)
    if image is not None:
        report.sizes[image.shape[-2], image.shape[-1]] += 1
    return image is not None


def _unmasked(listing: Listing) -> list[str]:
    return [name for names in listing.bare.values() for name in names] + [*listing.unlabeled]


def _collected(report: Report, function: Callable[..., T], *args: Any) -> T | None:
    """Call a function; a problem goes to the report instead of being raised."""
    try:
        return function(*args)
    except SemipixError as error:
        report.problems.append(str(error))
        return None
