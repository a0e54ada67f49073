"""From the figures of runs to a comparison: means, paired differences, labels that are needed, and the forecast."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from semipix.config import target_of
from semipix.functional.bootstrap import (
    LEVEL,
    Floats,
    ImageFigures,
    Interval,
    Range,
    draw_means,
    interval,
    mean_ratio,
)
from semipix.functional.learning_curve import FEWEST, Extrapolation, extrapolate, labels_needed
from semipix.report.comparison import (
    ALL_LABELS,
    BASELINE,
    ClassFigure,
    Comparison,
    Forecast,
    LabelsNeeded,
    Row,
    Run,
)
from semipix.report.comparison_figures import Measured, curve_of
from semipix.report.comparison_runs import beside_method
from semipix.training.image_figures import SHARES

SHORT = "supervised_short"
"""The paper's shorter baseline."""

LABELED_ALONE = (BASELINE, SHORT, ALL_LABELS)
"""Variants that learn from labeled images alone."""

SUPERVISED = (BASELINE, ALL_LABELS)
"""Variants with which those with as many labels are compared."""

UNITS = {"psnr": "dB"}
"""Units of other metrics."""

CLASS_SAMPLES = 500
"""Draws of the interval of each class."""

FEW_IMAGES = 10
"""Images below which the interval of a class is too narrow."""

MOST_NAMED = 3
"""Settings that a note lists."""

AHEAD_OF = (1.0, 1.25, 1.5, 2.0)
"""Multiples of the largest number of labels at which the forecast's curve is kept; the last one is the forecast."""


class Cell(NamedTuple):
    """What a row is about: a variant with one number of labels."""

    variant: str
    labels: int


Cells = Mapping[Cell, Mapping[int, Measured]]
"""Runs of each row by seed."""


def cells_of(kept: Sequence[Measured]) -> dict[Cell, dict[int, Measured]]:
    """Runs by row and seed: by labels, then `supervised` first and those with more unlabeled learning after it."""
    found: dict[Cell, dict[int, Measured]] = {}
    for each in sorted(kept, key=lambda each: (each.run.labels or 0, *_order(each.run.variant), each.run.seed)):
        found.setdefault(Cell(each.run.variant, each.run.labels or 0), {})[each.run.seed] = each
    return found


def _order(variant: str) -> tuple[int, str]:
    return (LABELED_ALONE.index(variant) if variant in LABELED_ALONE else len(LABELED_ALONE), variant)


def comparison_of(
    kept: Sequence[Measured], runs: Sequence[Run], split: str, *, progress: Callable[[Any], Iterable[Any]] = iter
) -> Comparison:
    """The comparison of runs that were measured on the same images.

    Args:
        kept: at least one run with its figures.
        runs: all runs that were found, those in `kept` among them.
        split: `test` or `val`.
        progress: shows the progress over the rows.
    """
    cells = cells_of(kept)
    metric = kept[0].images.metric
    higher = bool(getattr(target_of("task", kept[0].run.settings["task"]), "higher_is_better", True))
    scale, unit = (100.0, "%") if metric in SHARES else (1.0, UNITS.get(metric, ""))
    rows = [_row(cell, cells, higher, scale, unit) for cell in progress(list(cells))]
    rows.sort(key=lambda row: (row.labels, *_rank(row, higher)))
    empty = Comparison(
        task=str(kept[0].run.settings["task"]["_target_"]).rpartition(".")[2],
        metric=metric,
        higher_is_better=higher,
        scale=scale,
        unit=unit,
        split=split,
        images=min(len(each.images.pixels) for each in kept),
        scenes=min(len(each.images.independent.names) for each in kept),
        seeds=sorted({each.run.seed for each in kept}),
        level=LEVEL,
        sentence="",
        notes=[],
        rows=rows,
        runs=list(runs),
        curves=[curve_of(each) for each in kept],
        per_class=_per_class(cells),
    )
    forecast = _forecasts(cells, empty)
    found = Comparison(**{**vars(empty), "forecast": forecast, "notes": _notes(empty, cells)})
    return Comparison(**{**vars(found), "sentence": _sentence(found)})


def _rank(row: Row, higher: bool) -> tuple[int, float]:
    """The place of a row among those with as many labels: baselines first, then the better ones."""
    place = LABELED_ALONE.index(row.variant) if row.variant in LABELED_ALONE else len(LABELED_ALONE)
    value = -math.inf if math.isnan(row.mean.estimate) else row.mean.estimate * (1 if higher else -1)
    return place, -value


def _baseline(cell: Cell, cells: Cells) -> Mapping[int, Measured]:
    """The supervised runs by seed with as many labels as a row, those with all labels among them."""
    return next((cells[each] for name in SUPERVISED if (each := Cell(name, cell.labels)) in cells), {})


def _figures(runs: Mapping[int, Measured], seeds: Sequence[int]) -> list[ImageFigures]:
    return [runs[seed].images.independent for seed in seeds]


def _same_images(*groups: Mapping[int, Measured]) -> list[int]:
    """Seeds that all groups have."""
    return sorted(set.intersection(*({*group} for group in groups)))


def _row(cell: Cell, cells: Cells, higher: bool, scale: float, unit: str) -> Row:
    runs, baseline = cells[cell], _baseline(cell, cells)
    seeds = sorted(runs)
    metric = runs[seeds[0]].images.function
    values = [runs[seed].value for seed in seeds]
    estimates, drawn = draw_means([_figures(runs, seeds)], metric)
    mean = interval(float(estimates[0]), drawn[:, 0], within=runs[seeds[0]].images.within)
    difference, ahead = None, None
    common = _same_images(runs, baseline) if cell.variant not in SUPERVISED else []
    if common:
        estimates, drawn = draw_means([_figures(runs, common), _figures(baseline, common)], metric)
        difference = interval(float(estimates[0] - estimates[1]), drawn[:, 0] - drawn[:, 1])
        if difference.excludes() and len(common) > 1:
            ahead = (difference.estimate > 0) == higher
    return Row(
        variant=cell.variant,
        labels=cell.labels,
        seeds=seeds,
        values=values,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        mean=mean,
        difference=difference,
        paired=common,
        ahead=ahead,
        efficiency=_efficiency(cell, cells, higher),
        minutes=_range([_number(runs[seed], "seconds", 60) for seed in seeds]),
        peak_memory_mib=max(
            (value for seed in seeds if (value := _number(runs[seed], "peak_memory_mib")) is not None), default=None
        ),
        step_cost=_step_cost(runs, baseline, common or (seeds if cell.variant in SUPERVISED else [])),
    )


def _number(each: Measured, key: str, divisor: float = 1) -> float | None:
    """A figure of a run's summary; None where it is not there."""
    value = each.run.summary.get(key)
    return value / divisor if isinstance(value, int | float) and not isinstance(value, bool) else None


def _range(values: Sequence[float | None]) -> Interval | None:
    """Mean, smallest and largest value; None where one is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Interval(statistics.mean(known), min(known), max(known))


def _step_cost(runs: Mapping[int, Measured], baseline: Mapping[int, Measured], seeds: Sequence[int]) -> Interval | None:
    """Time of a step relative to that of the baseline with the same seed."""
    ratios = []
    for seed in seeds:
        if _device(runs[seed]) != _device(baseline[seed]):
            return None
        first, second = (_number(each[seed], "step_seconds") for each in (runs, baseline))
        ratios.append(first / second if first is not None and second else None)
    return _range(ratios)


def supervised_curve(cells: Cells) -> dict[int, Mapping[int, Measured]]:
    """Runs of labeled images alone, as long as the others, by number of labels; all labels among them."""
    found: dict[int, Mapping[int, Measured]] = {}
    for variant in (ALL_LABELS, BASELINE):
        found |= {cell.labels: runs for cell, runs in cells.items() if cell.variant == variant}
    return dict(sorted(found.items()))


def _efficiency(cell: Cell, cells: Cells, higher: bool) -> LabelsNeeded | None:
    """The labels that supervised training needs for a row's value."""
    if cell.variant in SUPERVISED:
        return None
    curve, seeds = _with_most_seeds(supervised_curve(cells), cells[cell])
    if not seeds:
        return None
    counts = list(curve)
    groups = [_figures(cells[cell], seeds), *(_figures(curve[count], seeds) for count in counts)]
    estimates, drawn = draw_means(groups, cells[cell][seeds[0]].images.function)
    sign = 1 if higher else -1
    needed = float(labels_needed(counts, sign * estimates[1:], np.asarray(sign * estimates[0])))
    known = drawn[~np.isnan(drawn).any(1)]
    if math.isnan(float(estimates.sum())) or not len(known):
        return None
    each = labels_needed(counts, sign * known[:, 1:], sign * known[:, 0])
    low, high = np.quantile(each, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest").tolist()
    return _labels_needed(needed, low, high, counts, seeds)


def _with_most_seeds(
    curve: Mapping[int, Mapping[int, Measured]], *others: Mapping[int, Measured], fewest: int = 1
) -> tuple[dict[int, Mapping[int, Measured]], list[int]]:
    """The points of a curve that have seeds in common, and these: such that both are many.

    A point that lacks seeds, such as all labels, which take longest, would cost the others theirs.

    Args:
        curve: runs by number of labels, then by seed.
        others: runs that have to have the seeds too.
        fewest: points that are kept at least.
    """
    best: tuple[dict[int, Mapping[int, Measured]], list[int]] = ({}, [])
    for size in range(len(curve), fewest - 1, -1):
        for counts in combinations(sorted(curve), size):
            seeds = _same_images(*others, *(curve[count] for count in counts))
            if len(seeds) * size > len(best[1]) * len(best[0]):
                best = {count: curve[count] for count in counts}, seeds
    return best


def _labels_needed(needed: float, low: float, high: float, counts: Sequence[int], seeds: Sequence[int]) -> LabelsNeeded:
    """Numbers of labels, 0 and infinity beyond the ends of the curve, as fields and in words."""
    fewest, most = counts[0], counts[-1]

    def word(value: float) -> str:
        return f"more than {most}" if value == math.inf else f"at most {fewest}" if value == 0 else f"{value:.0f}"

    def inside(value: float) -> float | None:
        return value if 0 < value < math.inf else None

    beyond = "above" if needed == math.inf else "below" if needed == 0 else ""
    text = word(needed) if word(low) == word(high) == word(needed) else f"{word(needed)} ({word(low)} to {word(high)})"
    text += " (one seed)" if len(seeds) == 1 else ""
    return LabelsNeeded(inside(needed), inside(low), inside(high), fewest, most, beyond, list(seeds), text)


def _per_class(cells: Cells) -> list[ClassFigure]:
    """The IoU of each class in each row; nothing where the metric has one part."""
    found = []
    for cell, runs in cells.items():
        parts = next(iter(runs.values())).images.parts
        if len(parts) < 2:
            return []
        baseline = _baseline(cell, cells) if cell.variant not in SUPERVISED else {}
        for number, name in enumerate(parts):
            iou = _of_part(number, runs)
            difference = _of_part(number, runs, baseline) if _same_images(runs, baseline) else None
            found.append(ClassFigure(*cell, name, iou, difference))
    return found


def _of_part(number: int, runs: Mapping[int, Measured], baseline: Mapping[int, Measured] | None = None) -> Interval:
    """The mean over seeds of one part of the metric, or its difference to a baseline."""
    groups = [runs] if baseline is None else [runs, baseline]
    seeds = _same_images(*groups)
    figures = [[group[seed].images.of_part(number) for seed in seeds] for group in groups]
    estimates, drawn = draw_means(figures, mean_ratio, samples=CLASS_SAMPLES)
    if baseline is None:
        within = runs[seeds[0]].images.within
        return interval(float(estimates[0]), drawn[:, 0], within=within)
    return interval(float(estimates[0] - estimates[1]), drawn[:, 0] - drawn[:, 1])


def _forecasts(cells: Cells, comparison: Comparison) -> list[Forecast]:
    """What more labels are worth to each variant that has several numbers of labels."""
    found = []
    for variant in dict.fromkeys(cell.variant for cell in cells):
        curve = {cell.labels: runs for cell, runs in cells.items() if cell.variant == variant}
        if variant == BASELINE:
            curve = supervised_curve(cells)
        if variant not in (SHORT, ALL_LABELS):
            found.append(_forecast(variant, curve, comparison))
    return found


def _forecast(variant: str, curve: Mapping[int, Mapping[int, Measured]], comparison: Comparison) -> Forecast:
    whole = curve
    curve, seeds = _with_most_seeds(whole, fewest=FEWEST)
    counts = sorted(curve or whole)
    most = more = counts[-1]
    unknown = f"what {more} more labels are worth cannot be told"
    why = ""
    if len(whole) < FEWEST:
        why = f"{len(whole)} number{'' if len(whole) == 1 else 's'} of labels run, {FEWEST} needed"
    elif len(seeds) < 2:
        why = f"2 seeds needed at each of {FEWEST} numbers"
    if why:
        return Forecast(variant, most, more, None, seeds, [], f"what more labels are worth cannot be told: {why}")
    within = curve[most][seeds[0]].images.within
    estimates, drawn = draw_means(
        [_figures(curve[count], seeds) for count in counts], curve[most][seeds[0]].images.function
    )
    drawn = drawn[~np.isnan(drawn).any(1)]
    points = [*counts[:-1], *(most * factor for factor in AHEAD_OF)]
    fitted = extrapolate(counts, estimates, drawn, points, within=within)
    if not len(drawn):
        return Forecast(variant, most, more, None, seeds, [], f"{unknown}: one image is no interval")
    if not fitted.fits:
        why = f"no learning curve goes through the values at {_listed(counts)} labels"
        return Forecast(variant, most, more, None, seeds, [], f"{unknown}: {why}")
    places = np.eye(len(points))
    gain = fitted.interval_of(places[-1] - places[-len(AHEAD_OF)])
    kept = [
        {"labels": float(point), **fitted.interval_of(place, within)._asdict()}
        for point, place in zip(points, places, strict=True)
    ]
    shown = _signed(comparison, gain)
    checked, right = _held_out(counts, estimates, drawn, within, comparison)
    if not right:
        return Forecast(variant, most, more, gain, seeds, kept, f"{unknown}: {checked}")
    text = f"{more} more labels: {shown}" if gain.excludes() else f"{unknown}: {shown}, which includes 0"
    return Forecast(variant, most, more, gain, seeds, kept, f"{text}{checked and f'; {checked}'}")


def _held_out(
    counts: Sequence[int], estimates: Floats, drawn: Floats, within: Range, comparison: Comparison
) -> tuple[str, bool]:
    """What the smaller numbers of labels would have forecast for the largest, and whether that is right.

    Returns:
        The forecast and the measured value in words, empty where there are too few numbers; and whether the interval of
        their difference contains 0.
    """
    if len(counts) <= FEWEST:
        return "", True
    before = extrapolate(counts[:-1], estimates[:-1], drawn[:, :-1], [counts[-1]], within=within)
    if not before.fits:
        return "", True
    low, high = (comparison.shown(value) for value in before.interval_of([1.0], within)[1:])
    missed = Extrapolation(before.estimates - estimates[-1], before.drawn - drawn[:, -1:])
    right = not missed.interval_of([1.0]).excludes()
    value = comparison.shown(float(estimates[-1]))
    return f"{counts[-1]} labels were forecast at {low} to {high} from fewer, and have {value}", right


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def points_of(comparison: Comparison) -> str:
    """What a difference of the metric is counted in."""
    name = {"miou": "mIoU", "psnr": "PSNR"}.get(comparison.metric, comparison.metric)
    return f"points of {name}" if comparison.unit == "%" else f"{comparison.unit} {name}".strip()


def _signed(comparison: Comparison, difference: Interval) -> str:
    """A difference with its interval, in words."""
    values = [value * comparison.scale for value in difference]
    if any(map(math.isnan, values)):
        return "no interval"
    estimate, low, high = (f"{value:+.{comparison.digits}f}" for value in values)
    return f"{estimate} ({low} to {high}) {points_of(comparison)}"


def _sentence(comparison: Comparison) -> str:
    """The answer: whether a method is better than supervised training where there are fewest labels."""
    with_difference = [
        row for row in comparison.rows if row.difference is not None and row.variant not in LABELED_ALONE
    ]
    variants = len({row.variant for row in comparison.rows})
    if not with_difference:
        missing = "no run of supervised with as many labels and the same seed"
        if {row.variant for row in comparison.rows} <= {*LABELED_ALONE}:
            missing = "no run of a method that learns from unlabeled images"
        return f"Whether unlabeled images help is open: {missing} is among the {variants} variants."
    fewest = min(row.labels for row in with_difference)
    sign = 1 if comparison.higher_is_better else -1
    of_fewest = [row for row in with_difference if row.labels == fewest]

    def gain(row: Row) -> float:
        assert row.difference is not None
        return -math.inf if math.isnan(row.difference.estimate) else sign * row.difference.estimate

    ahead = [row for row in of_fewest if row.ahead]
    best = max(ahead or of_fewest, key=gain)
    assert best.difference is not None
    where = f"With {_several(fewest, 'label')}"
    on = f"on {comparison.measured_on}"
    shown = _signed(comparison, best.difference) + ("" if comparison.higher_is_better else " (lower is better)")
    if math.isnan(best.difference.low):
        value = f"{best.difference.estimate * comparison.scale:+.{comparison.digits}f} {points_of(comparison)}"
        return f"{where}, {best.variant} differs from supervised by {value} {on}, but one image is no interval."
    if len(best.paired) < 2:
        seed = "one seed" if best.seeds == best.paired else "one seed that both have"
        return (
            f"{where}, {best.variant} differs from supervised by {shown} {on}, but {seed} says nothing about other "
            "trainings."
        )
    seeds = f"and {len(best.paired)} seeds" + ("" if best.seeds == best.paired else " that both have")
    if not ahead:
        return (
            f"{where}, no method is ahead of supervised: the best one, {best.variant}, differs by {shown} {on} {seeds}."
        )
    worth = f"; for as much, supervised needs {best.efficiency.text} labels" if best.efficiency else ""
    return f"{where}, {best.variant} is ahead of supervised by {shown} {on} {seeds}{worth}."


def _notes(comparison: Comparison, cells: Cells) -> list[str]:
    """What is left out or missing, and what limits the answer."""
    notes = []
    left_out = [run for run in comparison.runs if not run.compared]
    if left_out:
        states = Counter("finished" if run.state == "finished" else run.state for run in left_out)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        first = left_out[0]
        notes.append(f"{_several(len(left_out), 'run')} left out ({counts}), such as {first.folder}: {first.reason}")
    for cell, runs in cells.items():
        if missing := [seed for seed in comparison.seeds if seed not in runs]:
            listed = ", ".join(map(str, missing))
            notes.append(
                f"{cell.variant} with {_several(cell.labels, 'label')} lacks "
                f"{'seeds' if len(missing) > 1 else 'seed'} {listed}"
            )
    if len(comparison.seeds) == 1:
        notes.append("one seed: the intervals are over images alone, and nothing is called ahead; run further seeds")
    if comparison.split == "val":
        notes.append("measured on validation images, which also chose the checkpoints: the values are too good")
    if comparison.scenes < comparison.images:
        notes.append(f"{comparison.measured_on}: images of one scene are alike, so the intervals are over scenes")
    return (
        notes
        + _rare(comparison, cells)
        + _other_lengths(cells)
        + _other_settings(cells)
        + _other_devices(cells)
        + _moved(cells)
    )


def _rare(comparison: Comparison, cells: Cells) -> list[str]:
    """Classes that are in few images, so that their intervals say little."""
    images = next(iter(next(iter(cells.values())).values())).images
    if len(images.parts) < 2:
        return []
    shown = [
        f"{name} ({count})"
        for number, name in enumerate(images.parts)
        if (count := images.of_part(number).informative) < FEW_IMAGES
    ]
    if not shown:
        return []
    names = ", ".join(shown)
    return [
        f"in fewer than {FEW_IMAGES} {comparison.drawn}: {names}; their intervals, and that of the mean, are too narrow"
    ]


def _other_settings(cells: Cells) -> list[str]:
    """Variants that differ from the baseline in more than their method."""
    notes: dict[str, str] = {}
    for cell, runs in cells.items():
        baseline = _baseline(cell, cells)
        for seed in _same_images(runs, baseline)[:1]:
            own, other = beside_method(runs[seed].run), beside_method(baseline[seed].run)
            keys = [key for key in sorted({*own, *other}) if own.get(key) != other.get(key)]
            shown = ", ".join(f"{key}={own.get(key)} (supervised: {other.get(key)})" for key in keys[:MOST_NAMED])
            more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
            if keys:
                notes.setdefault(cell.variant, f"{cell.variant} differs in more than its method: {shown}{more}")
    return list(notes.values())


def _other_devices(cells: Cells) -> list[str]:
    """Whether trainings ran on several kinds of devices, whose costs cannot be compared."""
    devices = {device for runs in cells.values() for each in runs.values() if (device := _device(each))}
    if len(devices) < 2:
        return []
    return [f"trained on {' and '.join(sorted(devices))}: compare minutes and memory of one device alone"]


def _device(each: Measured) -> str:
    """The device that a run says it was trained on; empty if it says none."""
    return str(each.run.summary.get("device") or "")


def _other_lengths(cells: Cells) -> list[str]:
    """Rows that were trained on another number of images than the baseline, apart from the paper's short one."""
    notes = []
    for cell, runs in cells.items():
        baseline = _baseline(cell, cells)
        if cell.variant in (*SUPERVISED, SHORT):
            continue
        for seed in _same_images(runs, baseline):
            own, other = runs[seed].run.samples, baseline[seed].run.samples
            if own != other:
                early = (
                    ", stopped early"
                    if "stopped_early" in {*runs[seed].run.summary, *baseline[seed].run.summary}
                    else ""
                )
                notes.append(
                    f"{cell.variant} with {_several(cell.labels, 'label')} was trained on {own} images in all and "
                    f"supervised on {other} (seed {seed}{early}): not equally long"
                )
                break
    return notes


def _moved(cells: Cells) -> list[str]:
    """Whether the runs read their data from different folders."""
    roots = {str(each.run.settings["data"].get("root")): each for runs in cells.values() for each in runs.values()}
    if len(roots) < 2:
        return []
    first, second = list(roots)[:2]
    return [f"data.root differs: {first} and {second}; names and numbers of pixels of the images are the same"]


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
