"""The page of several runs: `semipix compare RUNS --out DIR`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from semipix.errors import SemipixError, one_line
from semipix.report.comparison import ALL_LABELS, BASELINE, Comparison, Row
from semipix.report.comparison_statistics import LABELED_ALONE
from semipix.report.comparison_tables import COST, NEEDED, cells, forecasts, level
from semipix.report.page import Chart, Page, Pictures, Section, Table, write_page
from semipix.report.page_charts import Line, bar_chart, confusion_chart, line_chart
from semipix.report.page_sections import (
    MeasuredRun,
    error_maps_section,
    metric_title,
    pictures_section,
    read_measured,
)
from semipix.report.pictures import ImageRow, chosen, gallery

FILE = "compare.html"
"""Name of the page in the folder of a comparison."""

RECOMMENDED = "gct_strong"
"""The variant whose images are shown, where it is among the runs."""

MOST_PICTURED = 8
"""Most variants with pictures, so that the page stays small."""

FEW = 4
"""Variants up to which two images of each kind are shown."""


def write_comparison_page(
    comparison: Comparison, folder: Path, *, root: Path | None = None, trust: bool = False
) -> Path:
    """Write the page of a comparison.

    Args:
        comparison: what was found.
        folder: gets `compare.html`.
        root: the data folder, if it was moved.
        trust: allow run folders to name code outside of the known packages.

    Returns:
        The file.

    Raises:
        SemipixError: Plotly is not installed.
        OSError: the file cannot be written.
        Interrupted: a signal was received.
    """
    pictured = _pictured(comparison)
    remarks = list(comparison.notes)
    runs: list[MeasuredRun] = []
    rows: list[ImageRow] = []
    try:
        runs = [read_measured(title, path, comparison.split) for title, path in pictured.items()]
        rows = _rows(comparison, pictured, runs, root, trust)
    except (SemipixError, OSError) as error:  # the figures are there without them
        remarks.append(f"Pictures are left out: {one_line(str(error))}")
    page = Page(
        title=f"{comparison.task}: {metric_title(comparison.metric)} of {len(comparison.rows)} trainings compared",
        sentence=comparison.sentence,
        remarks=remarks,
        sections=[
            _figures(comparison),
            _labels(comparison),
            _pictures(comparison, pictured, rows),
            _classes(comparison, runs),
            _learning(comparison),
            error_maps_section(runs, _of_one_training(comparison), _shown_maps(runs)),
            _runs(comparison),
        ],
    )
    file = folder / FILE
    write_page(page, file)
    return file


def _variants(comparison: Comparison) -> list[str]:
    """The variants, whose places are their colours in all charts."""
    return list(dict.fromkeys(row.variant for row in comparison.rows))


def _measured_on(comparison: Comparison, labels: int | None = None) -> str:
    """The images and the seeds, of all rows or of those with as many labels."""
    rows = [row for row in comparison.rows if labels in (None, row.labels)] or comparison.rows
    numbers = sorted({len(row.seeds) for row in rows})
    seeds = f"{_range(numbers)} seed{'' if numbers == [1] else 's'}"
    each = " each" if len(numbers) > 1 else ""
    return f"Measured on {comparison.measured_on}, {seeds}{each}."


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _over(comparison: Comparison) -> str:
    """What the intervals are over."""
    images = comparison.drawn
    if all(len(row.seeds) == 1 for row in comparison.rows):
        return f"{images} alone, since each training has one seed"
    alone = f"; of one seed, over {images} alone" if any(len(row.seeds) == 1 for row in comparison.rows) else ""
    return f"{images} and seeds{alone}"


def _of_one_training(comparison: Comparison) -> str:
    return f"Measured on {comparison.measured_on}, one training each: those with pictures."


def _axis(comparison: Comparison) -> str:
    title = metric_title(comparison.metric)
    return f"{title} in {comparison.unit}" if comparison.unit and comparison.unit not in title else title


def _figures(comparison: Comparison) -> Section:
    """The table that the terminal shows, as two: figures and costs side by side are wider than a window."""
    found = cells(comparison)
    marked = [number for number, row in enumerate(comparison.rows) if row.ahead]
    note = (
        f"{_measured_on(comparison)} Intervals of {level(comparison)} are over {_over(comparison)}. A row is ahead or "
        f"behind only where the interval of its difference to {BASELINE} excludes 0, and on two seeds at least."
    )
    figures, cost = (
        [number for number, title in enumerate(found[0]) if number < 3 or (title in COST) == of_cost]
        for of_cost in (False, True)
    )
    parts: list[Table | Chart | Pictures] = []
    for columns, text in ((figures, note), (cost, "Minutes and cost of a step: the mean (smallest to largest).")):
        titles, *rows = ([row[column] for column in columns] for row in found)
        if len(titles) > 3:
            wrapped = tuple(number for number, title in enumerate(titles) if title in ("variant", NEEDED))
            parts.append(Table(titles, rows, text, marked, texts=wrapped))
    return Section("Figures", parts)


def _labels(comparison: Comparison) -> Section:
    """The metric over the number of labels, with intervals and forecasts; bars where there is one number."""
    by_variant: dict[str, list[Row]] = {}
    for row in comparison.rows:
        by_variant.setdefault(row.variant, []).append(row)
    scale, note = comparison.scale, f"{_measured_on(comparison)} Bars are intervals of {level(comparison)}."
    numbers = sorted({row.labels for row in comparison.rows if row.variant != ALL_LABELS})
    parts: list[Table | Chart | Pictures] = []
    if len(numbers) < 2:
        names = [f"{row.variant}, {row.labels} labels" for row in comparison.rows]
        values = [tuple(scale * value for value in row.mean) for row in comparison.rows]
        figure = bar_chart({_axis(comparison): [(a, b, c) for a, b, c in values]}, names, _axis(comparison))
        parts.append(Chart(f"{metric_title(comparison.metric)} of each training", figure, note))
    else:
        lines = []
        for number, (variant, rows) in enumerate(by_variant.items()):
            rows = sorted(rows, key=lambda row: row.labels)
            means = [[scale * value for value in row.mean] for row in rows]
            estimates, low, high = ([mean[place] for mean in means] for place in range(3))
            labels = [row.labels for row in rows]
            lines.append(Line(variant, labels, estimates, low, high, colour=number, points=True))
            for forecast in comparison.forecast:
                if forecast.variant == variant and forecast.points:
                    x = [point["labels"] for point in forecast.points]
                    y = [scale * _value(point["estimate"]) for point in forecast.points]
                    gaps = [math.nan] * (len(x) - 1)  # the last point has its interval: the labels that come next
                    low, high = ([*gaps, scale * _value(forecast.points[-1][end])] for end in ("low", "high"))
                    lines.append(Line(f"{variant}, fitted", x, y, low, high, colour=number, dashed=True))
        ticks = sorted({row.labels for row in comparison.rows})
        figure = line_chart(lines, "labeled images", _axis(comparison), logarithmic=True, ticks=ticks)
        parts.append(Chart(f"{metric_title(comparison.metric)} by number of labels", figure, note))
    if comparison.forecast:
        rows_of = [[*each] for each in forecasts(comparison)]
        parts.append(Table(["variant", "what more labels would bring"], rows_of, texts=(0, 1)))
    return Section("Labels", parts)


def _value(number: float | None) -> float:
    return math.nan if number is None else number


def _pictured(comparison: Comparison) -> dict[str, Path]:
    """The run folders with pictures by title: each variant with the fewest labels, and its first seed."""
    rows = [row for row in comparison.rows if row.variant != ALL_LABELS] or comparison.rows
    fewest = min((row.labels for row in rows), default=None)
    chosen_rows = [row for row in rows if row.labels == fewest]
    names = [row.variant for row in chosen_rows]
    first = [name for name in (BASELINE, RECOMMENDED) if name in names]
    shared = set.intersection(*(set(row.seeds) for row in chosen_rows)) if chosen_rows else set()
    found: dict[str, Path] = {}
    for name in dict.fromkeys([*first, *names]):
        seeds = next(row.seeds for row in chosen_rows if row.variant == name)
        seed = min(shared or seeds)
        for run in comparison.runs:
            if run.compared and (run.variant, run.labels, run.seed) == (name, fewest, seed):
                found.setdefault(name, Path(run.folder))
    return dict(list(found.items())[:MOST_PICTURED])


def _chooser(pictured: Iterable[str]) -> str:
    """The variant that chooses the images: the recommended one, otherwise the best that learns from unlabeled images.

    Args:
        pictured: variants in the order of their rows, where better ones come first, after those of labels alone.
    """
    names = list(pictured)
    if RECOMMENDED in names:
        return RECOMMENDED
    return next((name for name in names if name not in LABELED_ALONE), names[0])


def _rows(
    comparison: Comparison, pictured: Mapping[str, Path], runs: Sequence[MeasuredRun], root: Path | None, trust: bool
) -> list[ImageRow]:
    """Pictures of the worst, median and best images."""
    if not pictured:
        return []
    chooser = next(run for run in runs if run.title == _chooser(pictured))
    if chooser.images is None:
        return []
    each = 2 if len(pictured) <= FEW else 1
    images = chosen(chooser.images.alone, comparison.higher_is_better, metric_title(comparison.metric), each)
    return gallery(pictured, images, comparison.split, root=root, trust=trust)


def _pictures(comparison: Comparison, pictured: Mapping[str, Path], rows: Sequence[ImageRow]) -> Section:
    if not rows:
        return Section("Images", [])
    chooser = _chooser(pictured)
    used = {name: run for name, folder in pictured.items() for run in comparison.runs if run.folder == str(folder)}
    seeds = dict.fromkeys(run.seed for run in used.values())
    trained = f"All networks learned from {used[chooser].labels} labels with seed {used[chooser].seed}"
    if len(seeds) > 1:
        listed = ", ".join(f"{name} seed {run.seed}" for name, run in used.items())
        trained = f"The networks learned from {used[chooser].labels} labels, but not from the same ones: {listed}"
    note = (
        f"The worst, median and best {comparison.split} images by the {metric_title(comparison.metric)} of each under "
        f"{chooser}. {trained}; one training each."
    )
    return pictures_section(rows, note, (BASELINE if BASELINE in pictured else "label", chooser))


def _classes(comparison: Comparison, runs: Sequence[MeasuredRun]) -> Section:
    """The IoU of each class by number of labels, and the confusion matrices of the runs with pictures."""
    parts: list[Table | Chart | Pictures] = []
    names = list(dict.fromkeys(each.name for each in comparison.per_class))
    colours = {variant: number for number, variant in enumerate(_variants(comparison))}
    numbers = sorted({each.labels for each in comparison.per_class})
    table = []
    for labels in numbers:
        groups: dict[str, dict[str, tuple[float, float, float]]] = {}
        for each in comparison.per_class:
            if each.labels == labels:
                estimate, low, high = (comparison.scale * value for value in each.iou)
                groups.setdefault(each.variant, {})[each.name] = estimate, low, high
        missing = math.nan, math.nan, math.nan
        bars = {variant: [found.get(name, missing) for name in names] for variant, found in groups.items()}
        unit = f" in {comparison.unit}" if comparison.unit else ""
        on = _measured_on(comparison, labels)
        note = f"{on} Bars are intervals of {level(comparison)} over {_over(comparison)}."
        parts.append(Chart(f"IoU of each class, {labels} labels", bar_chart(bars, names, f"IoU{unit}", colours), note))
        for variant, values in bars.items():
            table.append([variant, str(labels), *(_iou(value) for value in values)])
    if table:
        parts.append(Table(["variant", "labels", *names], table, "IoU (interval) of each class."))
    for run in _shown_maps(runs):
        if run.confusion is not None:
            figure = confusion_chart(run.confusion["classes"], run.confusion["pixels"])
            text = "Of each label (row), the shares of its pixels that are predicted as each class (column)."
            text += f" {_of_one_training(comparison)}"
            parts.append(Chart(f"Confusion matrix of {run.title}", figure, text))
    return Section("Classes", parts)


def _iou(value: tuple[float, float, float]) -> str:
    estimate, low, high = value
    if math.isnan(estimate):
        return "absent"
    return f"{estimate:.1f}" if math.isnan(low) else f"{estimate:.1f} ({low:.1f} to {high:.1f})"


def _shown_maps(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """The runs with curves and matrices: that which chooses the images, and the baseline."""
    if not runs:
        return []
    chooser = _chooser([run.title for run in runs])
    return sorted((run for run in runs if run.title in (chooser, BASELINE)), key=lambda run: run.title != chooser)


def _learning(comparison: Comparison) -> Section:
    """The validation metric of each run over its steps, a chart for each number of labels; single points are none."""
    variants = _variants(comparison)
    parts: list[Table | Chart | Pictures] = []
    for labels in sorted({curve.labels for curve in comparison.curves if len(curve.steps) > 1}):
        curves = [curve for curve in comparison.curves if curve.labels == labels and curve.steps]
        named: set[str] = set()
        lines = []
        for curve in sorted(curves, key=lambda curve: (curve.variant, curve.seed)):
            colour = variants.index(curve.variant) if curve.variant in variants else len(variants)
            values = [comparison.scale * value for value in curve.values]
            first = curve.variant not in named
            lines.append(Line(curve.variant, curve.steps, values, colour=colour, legend=first, points=True))
            named.add(curve.variant)
        title = f"{metric_title(comparison.metric)} on the validation images, {labels} labels"
        figure = line_chart(lines, "step", _axis(comparison))
        parts.append(Chart(title, figure, f"Measured while training; a line for each of {len(curves)} runs."))
    return Section("Learning curves", parts)


def _runs(comparison: Comparison) -> Section:
    """All run folders that were found."""
    rows = [
        [
            run.folder,
            run.variant,
            *("-" if number is None else str(number) for number in (run.labels, run.seed)),
            run.state,
            run.reason,
        ]
        for run in comparison.runs
    ]
    compared = sum(run.compared for run in comparison.runs)
    note = f"{compared} of {len(rows)} runs are compared."
    titles = ["run", "variant", "labels", "seed", "state", "left out because"]
    return Section("Runs", [Table(titles, rows, note, texts=(0, 1, 4, 5))])
