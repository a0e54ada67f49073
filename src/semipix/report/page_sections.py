"""Sections that pages of one run and of several runs share, made from what evaluation left in run folders."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semipix.errors import SemipixError
from semipix.functional.bootstrap import Interval, mean_interval
from semipix.inference.evaluate import CONFUSION, ERRORS, maps_of
from semipix.report.page import Chart, Pictures, Section, Table
from semipix.report.page_charts import Line, bar_chart, confusion_chart, line_chart
from semipix.report.pictures import ImageRow
from semipix.training.image_figures import MeasuredImages, read_images

METRICS = {
    "miou": "mIoU",
    "accuracy": "pixel accuracy",
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "sad": "SAD",
}
"""Titles of metrics; others have their names."""

MEASURES = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "risk80": "errors in the surest 80 %",
    "aurc": "AURC",
    "ece": "ECE",
    "ause": "AUSE",
    "correlation": "correlation over pixels",
    "image_spearman": "correlation over images",
}
"""Titles of the measures of error maps, in the order of the columns."""

MOST_POINTS = 400
"""Points of a learning curve; of more, each n-th is drawn."""

FEW = 30
"""Points of losses below which they are marked."""


@dataclass(frozen=True)
class MeasuredRun:
    """What a run folder holds of its evaluation.

    Attributes:
        title: of the run on the page.
        folder: the run folder.
        split: `test` or `val`.
        figures: metrics by name; NaN where there is none.
        confusion: `classes` and `pixels`, or None.
        curves: of error maps, see `ErrorMapMetric.curves`; empty where the run was measured by an older version.
        images: figures of each image, or None where there are none.
    """

    title: str
    folder: Path
    split: str
    figures: dict[str, float]
    confusion: Mapping[str, Any] | None
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    images: MeasuredImages | None


def read_measured(title: str, folder: Path, split: str = "test") -> MeasuredRun:
    """What `semipix evaluate` left in a run folder.

    Raises:
        SemipixError: the run was not evaluated on this split, or a file is damaged.
    """
    path = folder / f"evaluation-{split}.json"
    found = _json(path)
    curves = folder / f"evaluation-{split}-curves.json"
    images = folder / f"evaluation-{split}.csv"
    return MeasuredRun(
        title,
        folder,
        split,
        {name: math.nan if value is None else value for name, value in found.items() if name != CONFUSION},
        found.get(CONFUSION),
        _json(curves) if curves.exists() else {},
        read_images(images) if images.exists() else None,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict):
            return found
    except FileNotFoundError:
        raise SemipixError(f"{path}: no such file; semipix evaluate writes it") from None
    except ValueError:
        pass
    raise SemipixError(f"{path}: damaged, JSON with figures expected; remove it and evaluate again")


def metric_title(name: str) -> str:
    """How a metric is called on the page."""
    return METRICS.get(name, name)


def shown(value: float) -> str:
    """A figure as `semipix evaluate` prints it; `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def between(found: Interval | None) -> str:
    """The bounds of an interval as text."""
    return "-" if found is None or math.isnan(found.low) else f"{found.low:.4f} to {found.high:.4f}"


def primary_interval(run: MeasuredRun) -> Interval | None:
    """The primary metric with its 95 % interval over images, or scenes; None without figures of images."""
    images = run.images
    return None if images is None else mean_interval([images.independent], images.function, within=images.within)


def metrics_table(run: MeasuredRun) -> Table:
    """All metrics of one run but those of classes and error maps; the primary one with its interval."""
    names = [name for name in run.figures if not name.startswith((ERRORS, "iou/"))]
    primary = None if run.images is None else run.images.metric
    rows = [
        [
            metric_title(name),
            shown(run.figures[name]),
            between(primary_interval(run) if name == primary else None),
        ]
        for name in names
    ]
    marked = [names.index(primary)] if primary in names else []
    note = f"Intervals are over {drawn([run])}, by 2,000 bootstrap draws; they say nothing of another training. "
    return Table(["metric", "value", "95 % interval"], rows, note + on_images([run]), marked)


def drawn(runs: Sequence[MeasuredRun]) -> str:
    """What intervals are over: scenes where the data name some, otherwise images."""
    found = [run.images for run in runs if run.images is not None]
    return "scenes" if any(images.independent is not images.figures for images in found) else "images"


def on_images(runs: Sequence[MeasuredRun], seeds: Sequence[int] = ()) -> str:
    """What figures were measured on: images and trainings."""
    counts = sorted({len(run.images.figures.names) for run in runs if run.images is not None})
    images = " or ".join(f"{count:,}" for count in counts) or "all"
    trainings = "one training" if len(runs) == 1 else f"one training each of {len(runs)}"
    if seeds:
        trainings += f", seed {', '.join(map(str, seeds))}"
    return f"Measured on {images} {runs[0].split} images, {trainings}."


def classes_section(runs: Sequence[MeasuredRun], note: str) -> Section:
    """IoU of each class, and the confusion matrix of each run; without parts in regression."""
    runs = [run for run in runs if run.confusion is not None]
    if not runs:
        return Section("Classes", [])
    assert runs[0].confusion is not None
    names: list[str] = list(runs[0].confusion["classes"])
    found = {run.title: [_class_iou(run, number, name) for number, name in enumerate(names)] for run in runs}
    labels = [sum(row) for row in runs[0].confusion["pixels"]]
    columns = ["class", "share of the label's pixels"]
    for run in runs:
        columns += [f"IoU of {run.title}" if len(runs) > 1 else "IoU", "95 % interval"]
    rows = [
        [
            name,
            f"{labels[number] / max(1, sum(labels)):.4f}",
            *(cell for run in runs for cell in _iou_cells(found[run.title][number])),
        ]
        for number, name in enumerate(names)
    ]
    bars = {title: [(iou.estimate, iou.low, iou.high) for iou in ious] for title, ious in found.items()}
    parts: list[Table | Chart | Pictures] = [
        Chart("IoU of each class", bar_chart(bars, names, "IoU"), f"With 95 % intervals over {drawn(runs)}. {note}"),
    ]
    for run in runs:
        assert run.confusion is not None
        title = "Confusion matrix" + (f" of {run.title}" if len(runs) > 1 else "")
        text = "Of each label (row), the shares of its pixels that are predicted as each class (column)."
        parts.append(Chart(title, confusion_chart(names, run.confusion["pixels"]), f"{text} {note}"))
    parts.append(Table(columns, rows, "Absent: the class is in no label and in no prediction."))
    return Section("Classes", parts)


def _class_iou(run: MeasuredRun, number: int, name: str) -> Interval:
    """The IoU of a class as it was measured, with its interval over images where there is one."""
    value = run.figures.get(f"iou/{name}", math.nan)
    images = run.images
    if images is None or number >= len(images.parts):
        return Interval(value, math.nan, math.nan)
    found = mean_interval([images.of_part(number)], images.function, within=images.within)
    return found._replace(estimate=value)


def _iou_cells(iou: Interval) -> list[str]:
    return ["absent" if math.isnan(iou.estimate) else shown(iou.estimate), between(iou)]


def learning_section(runs: Mapping[str, Path], metric: str, note: str = "") -> Section:
    """The validation metric over the steps of each run, and of a single run its losses."""
    tables = {title: _columns(folder) for title, folder in runs.items()}
    validation = [
        Line(title, *_thinned(table[f"val/{metric}"]), colour=number, points=True)
        for number, (title, table) in enumerate(tables.items())
        if f"val/{metric}" in table
    ]
    parts: list[Table | Chart | Pictures] = []
    if validation:
        figure = line_chart(validation, "step", metric_title(metric))
        parts.append(Chart(f"{metric_title(metric)} on the validation images", figure, note))
    if len(runs) == 1:
        table = next(iter(tables.values()))
        names = [name for name in table if name.startswith("train/")]
        losses = [
            Line(name.removeprefix("train/"), *_thinned(table[name]), colour=number, points=len(table[name]) < FEW)
            for number, name in enumerate(names)
        ]
        if losses:
            figure = line_chart(losses, "step", "loss")
            parts.append(Chart("Losses", figure, "Of single batches, weighted as they are summed."))
    return Section("Learning curves", parts)


def _columns(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The tables of metrics of a run folder, all of them: step and value by column."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("metrics/*/metrics.csv"), key=lambda path: (len(path.parent.name), path)):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    try:
                        found.setdefault(name, {})[int(row["step"]) + 1] = float(text)  # Lightning counts from 0
                    except (TypeError, ValueError, KeyError):  # an empty cell, or a line that was cut off
                        continue
    return {name: sorted(points.items()) for name, points in found.items() if points}


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    every = math.ceil(len(points) / MOST_POINTS)
    kept = [point for place, point in enumerate(points) if place % every == 0 or place == len(points) - 1]
    return [step for step, _ in kept], [value for _, value in kept]


MAPS = {
    "map": "map is what semipix predict writes",
    "flaw": "flaw the detector's map",
    "softmax": "softmax one minus the largest class probability",
    "entropy": "entropy that of the probabilities",
    "disagreement": "disagreement that of the two models",
}
"""What the maps are, in the order in which they are named."""

EXPLAINED = {
    "auroc": "AUROC is the probability that a wrong pixel has a higher value than a right one (0.5 is chance)",
    "aupr": "AUPR the mean precision of the wrong pixels",
    "aurc": "AURC the mean share of errors when the surest pixels are accepted first (lower is better)",
    "ece": "ECE the distance from a probability of an error (lower is better; only for maps that are meant as "
    "probabilities)",
    "ause": "AUSE is the area between the sparsification curves of the map and of the true errors (0 is best)",
    "image_spearman": "the last column the rank correlation of an image's mean value with its error",
}
"""What the measures are."""


def error_maps_section(
    runs: Sequence[MeasuredRun], note: str, with_curves: Sequence[MeasuredRun] | None = None
) -> Section:
    """The figures of the error maps of each run, and curves of some of them, by default of all."""
    maps = {run.title: maps_of(run.figures) for run in runs}
    there = {measure for of_run in maps.values() for figures in of_run.values() for measure in figures}
    measures = [measure for measure in MEASURES if measure in there]
    rows = [
        [*([title] if len(runs) > 1 else []), name, *(_short(figures.get(measure, math.nan)) for measure in measures)]
        for title, of_run in maps.items()
        for name, figures in of_run.items()
    ]
    if not rows:
        return Section("Error maps", [])
    columns = [*(["training"] if len(runs) > 1 else []), "map", *(MEASURES[measure] for measure in measures)]
    used = {name for of_run in maps.values() for name in of_run}
    text = ", ".join(explained for name, explained in MAPS.items() if name in used) + ". "
    text += ", ".join(explained for measure, explained in EXPLAINED.items() if measure in measures) + "."
    parts: list[Table | Chart | Pictures] = [Table(columns, rows, note, texts=(0, 1) if len(runs) > 1 else (0,))]
    for run in runs if with_curves is None else with_curves:
        parts += _map_charts(run, note, f" of {run.title}" if len(runs) > 1 else "")
    return Section("Which map finds the errors", parts, f"{text[0].upper()}{text[1:]}")


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


CURVES = {
    "roc": ("ROC", "false_alarms", "found", "right pixels above a threshold", "wrong pixels above it", True),
    "risk": ("Risk and coverage", "coverage", "risk", "accepted pixels", "wrong among them", False),
    "reliability": ("Reliability", "score", "risk", "value of the map", "wrong pixels", True),
    "sparsification": ("Sparsification", "removed", "error", "pixels left out", "error of the others", False),
}
"""Kinds of curves: title, keys of the coordinates, titles of the axes as shares, whether both axes are from 0 to 1."""

CURVE_NOTES = {
    "roc": "A map without any information is on the diagonal.",
    "risk": "Pixels with the lowest values are accepted first.",
    "reliability": "A map that is a probability of an error is on the diagonal. Of these, semipix predict writes map; "
    "flaw, entropy and disagreement are not meant as probabilities.",
    "sparsification": "Pixels with the highest values are left out first; the error is a share of that of all pixels. "
    "Oracle leaves out those with the largest true errors.",
}


def _map_charts(run: MeasuredRun, note: str, suffix: str) -> list[Chart]:
    """A chart for each kind of curve with a line for each map."""
    found = []
    names = [*MAPS, "oracle"]
    for kind, (title, x, y, x_title, y_title, square) in CURVES.items():
        lines = [
            Line(
                name,
                run.curves[f"{name}/{kind}"][x],
                run.curves[f"{name}/{kind}"][y],
                colour=number,
                dashed=name == "oracle",
                points=kind == "reliability",
            )
            for number, name in enumerate(names)
            if run.curves.get(f"{name}/{kind}", {}).get(x)
        ]
        if not lines:
            continue
        if square:
            lines.append(Line("diagonal", [0, 1], [0, 1], colour=7, dashed=True, legend=False))
        figure = line_chart(lines, x_title, y_title, square=square)
        found.append(Chart(title + suffix, figure, f"{CURVE_NOTES[kind]} {note}"))
    return found


def pictures_section(rows: Sequence[ImageRow], note: str, pair: tuple[str, str]) -> Section:
    """Pictures of some images; without parts if there are none."""
    return Section("Images", [Pictures(rows, note, pair)] if rows else [])
