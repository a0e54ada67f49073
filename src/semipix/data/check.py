"""Looking through a data folder for everything that is wrong with it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from semipix.data.decode import read_image, read_mask
from semipix.data.folder import (
    SPLITS,
    Listing,
    binary_problem,
    check_indices,
    check_size,
    list_folder,
    lookup_table,
    read_classes,
)
from semipix.data.source import VOID
from semipix.errors import SemipixError


@dataclass
class Report:
    """What a data folder holds.

    Attributes:
        root: the folder.
        masked: number of images with a mask, by split.
        unmasked: number of images without one, by split and for the folder `unlabeled`.
        sizes: number of readable images by (height, width).
        classes: class names, from `classes.txt` or counted.
        pixels: number of pixels by class index (255 is void) over all readable masks.
        problems: one line for each thing to mend.
    """

    root: Path
    masked: dict[str, int]
    unmasked: dict[str, int]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)
    pixels: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def labeled_share(self) -> float:
        """Share of the training images that have a mask, in [0, 1]."""
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
            f"  {split:<10}{self.masked.get(split, 0):>7} with mask {count:>7} without"
            for split, count in self.unmasked.items()
        ]
        lines.append(f"  labeled   {self.labeled_share:>7.1%} of the training images")
        lines += self._size_lines() + self._class_lines()
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
        valid = max(1, self.pixels.total() - self.pixels[VOID])
        lines = [f"  classes   {len(self.classes):>7}, shares of the pixels that are not void:"]
        lines += [
            f"    {index:>3} {name:<20}{self.pixels[index] / valid:>8.2%}" for index, name in enumerate(self.classes)
        ]
        return [*lines, f"  void      {self.void_share:>7.1%} of all mask pixels"]


def check(root: str | Path, mask_values: Mapping[int, int] | None = None) -> Report:
    """Read every file of a data folder and report what it holds and each problem.

    Args:
        root: a folder laid out as `FolderSource` expects it.
        mask_values: as for `FolderSource`.

    Returns:
        The report. Nothing that is wrong with the data raises.

    Raises:
        SemipixError: `mask_values` is out of range.
    """
    root = Path(root).expanduser()
    listing = list_folder(root)
    report = Report(
        root,
        {split: len(listing.masks.get(split, {})) for split in SPLITS},
        {**{split: len(listing.unmasked.get(split, [])) for split in SPLITS}, "unlabeled": len(listing.unlabeled)},
        problems=list(listing.problems),
    )
    names = _collected(report, read_classes, root)
    pairs = [pair for masks in listing.masks.values() for pair in masks.items()]
    with tqdm(total=len(pairs) + sum(report.unmasked.values()), desc="reading", leave=False) as bar:
        masks = _check_pairs(report, pairs, lookup_table(mask_values or {}), bar)
        for name in _unmasked(listing):
            _read(report, root / name)
            bar.update()
    train = {value for name in listing.masks["train"] for value in masks.get(name, {})} if listing.masks else set()
    if problem := binary_problem(root, train):
        report.problems.append(problem)
    report.classes = names or _counted(train)
    if report.classes:
        _check_values(report, dict(pairs), masks)
    return report


def _check_pairs(
    report: Report, pairs: list[tuple[str, str]], table: Tensor, bar: "tqdm[None]"
) -> dict[str, Counter[int]]:
    """Read images with their masks; returns the pixels of each class index by image name."""
    counts: dict[str, Counter[int]] = {}
    for image_name, mask_name in pairs:
        image, mask = report.root / image_name, report.root / mask_name
        whole = _read(report, image)
        values = _collected(report, read_mask, mask)
        if values is not None:
            indices = table[values]
            present, pixels = torch.unique(indices, return_counts=True)
            counts[image_name] = Counter(dict(zip(present.tolist(), pixels.tolist(), strict=True)))
            report.pixels += counts[image_name]
            if whole:
                _collected(report, check_size, image, mask, indices)
        bar.update()
    return counts


def _check_values(report: Report, masks: dict[str, str], counts: dict[str, Counter[int]]) -> None:
    """Report masks with values that are no class; needs the classes, which may be known only after all are read."""
    for image_name, pixels in counts.items():
        values = torch.tensor(list(pixels.elements())) if max(pixels) >= len(report.classes) else torch.empty(0)
        _collected(report, check_indices, report.root / masks[image_name], values, len(report.classes))


def _read(report: Report, path: Path) -> bool:
    """Read an image and note its size; False where it cannot be read."""
    image = _collected(report, read_image, path)
    if image is not None:
        report.sizes[image.shape[-2], image.shape[-1]] += 1
    return image is not None


def _unmasked(listing: Listing) -> list[str]:
    return [name for names in listing.unmasked.values() for name in names] + listing.unlabeled


def _counted(values: set[int]) -> list[str]:
    """Class names for the values in masks without `classes.txt`, as `FolderSource` counts them."""
    top = max((value for value in values if value != VOID), default=None)
    return [] if top is None else [str(index) for index in range(max(2, top + 1))]


def _collected[**P, T](report: Report, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function; a problem goes to the report instead of being raised."""
    try:
        return function(*args, **kwargs)
    except SemipixError as error:
        report.problems.append(str(error))
        return None
