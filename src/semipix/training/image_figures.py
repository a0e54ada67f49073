"""`evaluation-SPLIT.csv`: what each image adds to the metrics of a run, for intervals and for the worst images.

One row for each image:

- `name`;
- `checkpoint`: the network that was measured, `best` or `last`; `best, tiled` if large images were computed in tiles;
  `best, unfinished` while the training had not ended;
- `scene`: the scene that it shows; its own name where the data name none. Files of earlier versions lack it;
- `pixels` that count;
- the primary metric of this image alone, such as `miou`; empty if it has none;
- the figures whose sums over images give the metric of all of them. Of segmentation these are `intersection/CLASS` and
  `union/CLASS` in pixels, and mIoU is the mean of their ratios over the classes with a union. Of other metrics they are
  `sum/METRIC` and `count/METRIC`, whose ratio is the metric, or `square_sum/METRIC`, where it is the ratio's root.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semipix.atomic import write_text
from semipix.errors import SemipixError
from semipix.functional.bootstrap import ANY, SHARE, Floats, ImageFigures, Metric, Range, mean_ratio, root_mean_ratio
from semipix.tasks.base import Task

FIXED = ("name", "checkpoint", "scene", "pixels")
"""The first columns; the next one is the primary metric."""

SCENE = FIXED.index("scene")
"""The column that files of earlier versions lack."""

SHARES = ("miou", "accuracy")
"""Metrics that are shares, from 0 to 1."""

ERRORS = ("mae", "mse", "rmse", "sad", "grad", "conn")
"""Metrics that are 0 at best."""

TILED = ", tiled"
"""Follows the network where large images were computed in tiles."""

UNFINISHED = ", unfinished"
"""Ends `checkpoint` while the training of the run had not ended."""

RATIOS: dict[str, tuple[str, Metric]] = {
    "intersection": ("union", mean_ratio),
    "sum": ("count", mean_ratio),
    "square_sum": ("count", root_mean_ratio),
}
"""Kinds of numerators, each with its denominators and the metric that they give."""


class ImageRecords:
    """Collects the figures of images while a run is tested; rows of a large image may come in parts.

    Attributes:
        metric: the task's primary metric; empty before the first image.
        rows: for each image its figures by column.
        scene: names the scene that an image shows.
    """

    def __init__(self, scene: Callable[[str], str] = str) -> None:
        self.metric = ""
        self.scene = scene
        self.rows: dict[str, dict[str, float]] = {}

    def add(self, names: Sequence[str], task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add images, or further rows of them.

        Args:
            names: of B images.
            task: says what they add to its metric.
            prediction: (B, K, H, W), activated.
            target: labels (B, ...).
        """
        self.metric = task.primary
        figures = {"pixels": task.counted(target).flatten(1).sum(1), **task.image_figures(prediction, target)}
        columns = torch.stack([value.cpu().double() for value in figures.values()], 1).tolist()
        for name, row in zip(names, columns, strict=True):
            kept = self.rows.setdefault(name, dict.fromkeys(figures, 0))
            for key, value in zip(figures, row, strict=True):
                kept[key] += value

    def write(self, path: Path, checkpoint: str) -> None:
        """Write the file; images are sorted by name.

        Args:
            path: of the file.
            checkpoint: the network that was measured.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        columns = list(next(iter(self.rows.values()), {"pixels": 0}))[1:]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*FIXED, self.metric, *columns])
        for name in sorted(self.rows):
            row = self.rows[name]
            numerators, denominators, metric = _parts(columns, np.array([[row[key] for key in columns]]))
            value = float(metric(numerators, denominators)[0])
            figures = [_text(row[key]) for key in columns]
            alone = "" if math.isnan(value) else repr(value)
            table.writerow([name, checkpoint, self.scene(name), int(row["pixels"]), alone, *figures])
        write_text(path, text.getvalue(), errors="surrogateescape")


@dataclass(frozen=True)
class MeasuredImages:
    """The content of a file.

    Attributes:
        metric: name of the primary metric.
        checkpoint: the network that was measured, see the module.
        parts: names of the K ratios: the classes, or the metric.
        scenes: (N,) the scene that each image shows.
        pixels: (N,) that count, of each image.
        figures: of each image.
        function: computes the metric from sums of the figures.
    """

    metric: str
    checkpoint: str
    parts: tuple[str, ...]
    scenes: tuple[str, ...]
    pixels: tuple[int, ...]
    figures: ImageFigures
    function: Metric

    @property
    def value(self) -> float:
        """The primary metric of all images together."""
        return self.figures.value(self.function)

    @property
    def within(self) -> Range:
        """The values that the metric and its parts can have."""
        return SHARE if self.metric in SHARES else (0.0, math.inf) if self.metric in ERRORS else ANY

    @cached_property
    def independent(self) -> ImageFigures:
        """The figures of each scene: what intervals are computed from, since images of one scene are alike."""
        return self.figures if len(set(self.scenes)) == len(self.scenes) else self.figures.summed_by(self.scenes)

    @property
    def alone(self) -> dict[str, float]:
        """The primary metric of each image alone, by its name; NaN where it has none."""
        values = self.function(self.figures.numerators, self.figures.denominators).tolist()
        return dict(zip(self.figures.names, values, strict=True))

    def of_part(self, number: int) -> ImageFigures:
        """The figures of one class in each scene."""
        figures = self.independent
        chosen = slice(number, number + 1)
        return ImageFigures(figures.names, figures.numerators[:, chosen], figures.denominators[:, chosen])


def read_images(path: Path) -> MeasuredImages:
    """Read what `ImageRecords.write` wrote.

    Raises:
        SemipixError: the file is missing, empty or damaged.
    """
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text("utf-8", errors="surrogateescape")))
        if header[SCENE : SCENE + 1] != ["scene"]:
            header = [*header[:SCENE], "scene", *header[SCENE:]]
            rows = [[*row[:SCENE], row[0], *row[SCENE:]] for row in rows]
        metric, columns = header[len(FIXED)], header[len(FIXED) + 1 :]
        if tuple(header[: len(FIXED)]) != FIXED or not rows or any(len(row) != len(header) for row in rows):
            raise ValueError
        values = np.array([[float(value) for value in row[len(FIXED) + 1 :]] for row in rows])
        numerators, denominators, function = _parts(columns, values)
        parts = [column.partition("/")[2] for column in columns[: numerators.shape[1]]]
        return MeasuredImages(
            metric,
            rows[0][1],
            tuple(parts),
            tuple(row[SCENE] for row in rows),
            tuple(int(row[SCENE + 1]) for row in rows),
            ImageFigures(tuple(row[0] for row in rows), numerators, denominators),
            function,
        )
    except FileNotFoundError:
        raise SemipixError(f"{path}: no such file; semipix evaluate writes it") from None
    except (ValueError, IndexError, KeyError, csv.Error):
        raise SemipixError(
            f"{path}: damaged, a row of figures for each image expected; remove it and evaluate again"
        ) from None


def with_shared_scenes(measured: Sequence[MeasuredImages]) -> list[MeasuredImages]:
    """The figures of runs that are compared, with one grouping of their images.

    Runs may have been evaluated before and after the data named scenes, or by an earlier version. Images that show one
    scene in any of the runs are of one scene in all of them, under the name of its first image.

    Args:
        measured: the figures of each run.
    """
    if len({(each.figures.names, each.scenes) for each in measured}) < 2:
        return list(measured)
    above: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while (parent := above.setdefault(node, node)) != node:
            above[node] = above[parent]
            node = parent
        return node

    images = 0  # scenes of the runs are numbered from 1: the same word may be an image here and a scene there
    for run, each in enumerate(measured, 1):
        for name, scene in zip(each.figures.names, each.scenes, strict=True):
            first, second = sorted((root((images, name)), root((run, scene))))
            above[second] = first
    return [replace(each, scenes=tuple(root((images, name))[1] for name in each.figures.names)) for each in measured]


def kept_images(run: Path, split: str, checkpoint: str) -> MeasuredImages | None:
    """The figures of a network that a run folder has; None where they are missing, damaged or of another one.

    Args:
        run: run folder.
        split: of the images.
        checkpoint: the network, see the module.
    """
    try:
        found = read_images(run / f"evaluation-{split}.csv")
    except SemipixError:
        return None
    return found if found.checkpoint == checkpoint else None


def _parts(columns: Sequence[str], values: Floats) -> tuple[Floats, Floats, Metric]:
    """Numerators (N, K), denominators (N, K) and the metric of figures (N, columns).

    Raises:
        ValueError: the columns are not of one kind of `RATIOS`.
    """
    kinds = {column.partition("/")[0] for column in columns}
    kind = next((kind for kind, (below, _) in RATIOS.items() if kinds == {kind, below}), None)
    if kind is None:
        raise ValueError(f"columns {', '.join(columns)}")
    below, metric = RATIOS[kind]
    half = len(columns) // 2
    if [*columns] != [f"{part}/{column.partition('/')[2]}" for part in (kind, below) for column in columns[:half]]:
        raise ValueError(f"columns {', '.join(columns)}")
    return values[:, :half], values[:, half:], metric


def _text(value: float) -> str:
    """A number with all its digits, without a point where it is whole."""
    return str(int(value)) if value.is_integer() else repr(value)
