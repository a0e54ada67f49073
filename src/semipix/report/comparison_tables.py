"""A comparison as a table on the terminal, as `compare.csv` and as `compare.md`."""

import csv
import io
import math
from collections.abc import Sequence

from semipix.functional.bootstrap import Interval
from semipix.report.comparison import BASELINE, Comparison, Row

NEEDED = "supervised needs"
"""Title of the column that says with how many labels supervised training is as good."""

COST = ("minutes", "MiB", "step")
"""Titles of the columns that say what a training cost."""

VERDICTS = {True: "ahead", False: "behind", None: ""}
"""What a row says of its difference."""


def terminal_table(comparison: Comparison) -> str:
    """The sentence, a line for each row, the forecasts and the notes."""
    title, *rows = cells(comparison)
    widths = [max(len(row[column]) for row in [title, *rows]) for column in range(len(title))]
    left = {0}
    lines = [
        "  ".join(
            f"{text:<{width}}" if column in left else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [title, *rows]
    ]
    return "\n".join([comparison.sentence, "", about(comparison), *lines, "", *_further(comparison, "")]).rstrip()


def markdown(comparison: Comparison) -> str:
    """The content of `compare.md`."""
    title, *rows = [[text.replace("|", "\\|") for text in row] for row in cells(comparison)]
    lines = [f"| {' | '.join(row)} |" for row in [title, ["---", *["---:"] * (len(title) - 1)], *rows]]
    runs = ["| run | variant | labels | seed | state | left out because |", "| --- | --- | ---: | ---: | --- | --- |"]
    for run in comparison.runs:
        found = (run.folder, run.variant, run.labels, run.seed, run.state, run.reason)
        shown = ["" if cell is None else str(cell).replace("|", "\\|") for cell in found]
        runs.append(f"| {' | '.join(shown)} |")
    further = _further(comparison, "- ")
    parts = [
        "# Comparison",
        "",
        comparison.sentence,
        "",
        about(comparison),
        "",
        *lines,
        "",
        *further,
        *([""] if further else []),
    ]
    return "\n".join([*parts, "## Runs", "", *runs, ""])


def about(comparison: Comparison) -> str:
    """What was measured, in words."""
    several = f"{len(comparison.seeds)} seed{'' if len(comparison.seeds) == 1 else 's'}"
    return f"{comparison.task}, {comparison.measured_on}, {several}; intervals of {level(comparison)}"


def level(comparison: Comparison) -> str:
    """The level of the intervals in percent."""
    return f"{100 * comparison.level:g} %"


def forecasts(comparison: Comparison) -> list[tuple[str, str]]:
    """What more labels would bring: the variants of which the same is said, and the text."""
    variants: dict[str, list[str]] = {}
    for each in comparison.forecast:
        variants.setdefault(each.text, []).append(each.variant)
    return [(", ".join(names), text) for text, names in variants.items()]


def _further(comparison: Comparison, before: str) -> list[str]:
    lines = [f"{before}{names}: {text}" for names, text in forecasts(comparison)]
    return [*lines, *(f"{before}note: {note}" for note in comparison.notes)]


def cells(comparison: Comparison) -> list[list[str]]:
    """The titles, then the texts of each row; columns that all rows leave empty are left out."""
    unit = f" {comparison.unit}" if comparison.unit else ""
    titles = ["variant", "labels", "seeds", f"{comparison.metric}{unit}", "interval", f"to {BASELINE}", "interval", ""]
    titles += [NEEDED, *COST]
    rows = [_texts(comparison, row) for row in comparison.rows]
    kept = [number for number in range(len(titles)) if number < 5 or any(row[number] for row in rows)]
    return [[row[number] for number in kept] for row in [titles, *rows]]


def _texts(comparison: Comparison, row: Row) -> list[str]:
    deviation = "" if row.deviation is None else f" ± {comparison.shown(row.deviation)}"
    return [
        row.variant,
        str(row.labels),
        str(len(row.seeds)),
        f"{comparison.shown(row.mean.estimate)}{deviation}",
        _bounds(comparison, row.mean, "") + ("" if len(row.seeds) > 1 else " (one seed: images alone)"),
        "" if row.difference is None else _signed(comparison, row.difference.estimate),
        "" if row.difference is None else _bounds(comparison, row.difference, "+") + _of_paired(row),
        VERDICTS[row.ahead],
        "" if row.efficiency is None else row.efficiency.text,
        "" if row.minutes is None else _range(row.minutes, 1),
        "" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}",
        "" if row.step_cost is None else f"{_range(row.step_cost, 2)}x",
    ]


def _of_paired(row: Row) -> str:
    """The number of seeds of a difference where it is not that of the row."""
    if row.paired == row.seeds:
        return ""
    return f" ({len(row.paired)} seed{'' if len(row.paired) == 1 else 's'})"


def _signed(comparison: Comparison, value: float) -> str:
    return "-" if math.isnan(value) else f"{value * comparison.scale:+.{comparison.digits}f}"


def _bounds(comparison: Comparison, interval: Interval, sign: str) -> str:
    if math.isnan(interval.low):
        return "-"
    return " to ".join(
        f"{value * comparison.scale:{sign}.{comparison.digits}f}" for value in (interval.low, interval.high)
    )


def _range(values: Interval, digits: int) -> str:
    """A mean and, where they differ, the smallest and the largest value."""
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return mean if low == high else f"{mean} ({low} to {high})"


COLUMNS = (
    *("variant", "labels", "seeds", "values", "mean", "deviation", "mean_low", "mean_high"),
    *("difference", "difference_low", "difference_high", "paired", "ahead", "supervised_needs"),
    *("minutes", "peak_memory_mib", "step_cost", "split", "images", "scenes"),
)
"""Columns of `compare.csv`."""


def table_csv(comparison: Comparison) -> str:
    """The content of `compare.csv`: a line for each row, with values as in `compare.json`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in comparison.rows:
        difference = row.difference or Interval(math.nan, math.nan, math.nan)
        figures = [row.mean.estimate, row.deviation, row.mean.low, row.mean.high, *difference]
        cost = [_mean(row.minutes), row.peak_memory_mib, _mean(row.step_cost)]
        needed = "" if row.efficiency is None else row.efficiency.text
        ahead = "" if row.ahead is None else str(row.ahead).lower()
        seeds, values, paired = (" ".join(map(repr, each)) for each in (row.seeds, row.values, row.paired))
        measured = [comparison.split, comparison.images, comparison.scenes]
        found = [row.variant, row.labels, seeds, values, *_numbers(figures), paired, ahead, needed]
        table.writerow([*found, *_numbers(cost), *measured])
    return text.getvalue()


def _mean(values: Interval | None) -> float | None:
    return None if values is None else values.estimate


def _numbers(values: Sequence[float | None]) -> list[str]:
    """Numbers with all their digits, empty for none and NaN."""
    return ["" if value is None or math.isnan(value) else repr(value) for value in values]
