"""The paper's tables beside those of their small siblings, for docs/paper-tables.md.

The paper's figures are Tables 1 to 4 of Ke et al., "Guided Collaborative Training for Pixel-wise Semi-Supervised
Learning" (ECCV 2020); ours come from benchmarks/results/paper_tables.json (`benchmarks.accuracy.paper_tables`).
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.paper_tables import grid_of
from benchmarks.common import Record, over_seeds, recorded

RECORDS = "paper_tables"
"""Name of the file of the records."""

TITLES = {
    "supervised_short": "SupOnly (`supervised_short`)",
    "supervised": "`supervised`, as many steps",
    "mean_teacher": "MT (`mean_teacher`)",
    "s4l": "S4L (`s4l`)",
    "advssl": "AdvSSL (`advssl`)",
    "gct": "GCT (`gct`)",
    "gct_strong": "`gct_strong`",
    "consistency": "GCT, dynamic consistency alone",
    "correction": "GCT, flaw correction alone",
    "all_labels": "all labels",
}
"""What the rows are called."""

SHORT = {"supervised_short": "SupOnly", "mean_teacher": "MT", "s4l": "S4L", "advssl": "AdvSSL", "gct": "GCT"}
"""The paper's names of its methods, best first in the lines about the order."""

BASELINE = "supervised"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Table:
    """A table of the paper with its small sibling.

    Attributes:
        small: the grid of the sibling.
        columns: of the paper's table; empty for a figure without numbers.
        rows: the paper's values of each method, one for each column.
    """

    small: str
    columns: tuple[str, ...] = ()
    rows: Mapping[str, tuple[float, ...]] | None = None


SHARES = ("1/16", "1/8", "1/4", "1/2", "full")

TABLES = {
    "table1": Table(
        "table1_small",
        SHARES,
        {
            "supervised_short": (64.55, 68.38, 70.69, 73.56, 75.32),
            "mean_teacher": (66.08, 69.81, 71.28, 73.23, 75.28),
            "s4l": (64.71, 68.65, 70.97, 73.43, 75.38),
            "advssl": (65.67, 69.89, 71.53, 74.48, 75.86),
            "gct": (67.19, 72.14, 73.62, 74.82, 75.73),
        },
    ),
    "table2": Table(
        "table2_small",
        SHARES,
        {
            "supervised_short": (37.52, 38.16, 38.74, 39.14, 39.38),
            "mean_teacher": (37.73, 38.22, 38.64, 39.08, 39.43),
            "s4l": (37.81, 38.32, 38.88, 39.21, 39.16),
            "advssl": (37.85, 38.28, 38.83, 39.18, 39.47),
            "gct": (38.13, 38.56, 38.96, 39.30, 39.51),
        },
    ),
    "table3_matting": Table(
        "table3_matting_small",
        ("100L + 3,850U", "100L + 7,700U"),
        {
            "supervised_short": (25.39, 25.39),
            "mean_teacher": (26.60, 27.63),
            "s4l": (26.87, 28.24),
            "advssl": (26.52, 27.57),
            "gct": (27.35, 29.38),
        },
    ),
    "table3_enhancement": Table(
        "table3_enhancement_small",
        ("200L + 1,500U",),
        {
            "supervised_short": (18.72,),
            "mean_teacher": (19.93,),
            "s4l": (19.63,),
            "advssl": (19.59,),
            "gct": (20.14,),
        },
    ),
    "fig5_segmentation": Table("fig5_segmentation_small"),
    "fig5_denoising": Table("fig5_denoising_small"),
}
"""The tables whose rows are methods, by the grid at full scale."""

TABLE_4 = {
    "flaw threshold": {
        "threshold_0.0": ("0.0", 70.04),
        "threshold_0.2": ("0.2", 70.92),
        "threshold_0.4": ("0.4", 72.14),
        "threshold_0.6": ("0.6", 72.43),
        "threshold_0.8": ("0.8", 71.96),
        "threshold_1.0": ("1.0", 71.49),
    },
    "ramp-up epochs": {
        "rampup_0": ("0", 71.34),
        "rampup_1": ("1", 72.03),
        "threshold_0.4": ("3", 72.14),
        "rampup_5": ("5", 72.06),
        "rampup_10": ("10", 71.95),
    },
}
"""Both parts of the paper's Table 4: by the run of the grid what is varied, and the mIoU. They have a run in common."""

SHARED = "threshold_0.4"
"""The run of Table 4 with which the others are compared."""

SCALES = {"miou": 100.0, "psnr": 1.0}
"""Metrics of the paper's tables, in all of which higher is better, and what they are multiplied by."""

Values = Mapping[tuple[str, str], Mapping[int, float]]
"""Values by name of the run and labels, then by seed."""


def values_of(records: Sequence[Record], grid: str) -> Values:
    """The figures of a grid, as they are shown: mIoU in percent, PSNR in dB.

    Raises:
        ValueError: a record has another metric, of which a higher value may be worse.
    """
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for record in records:
        if record["grid"] == grid:
            if record["metric"] not in SCALES:
                raise ValueError(f"{grid}: {record['metric']} found, {' or '.join(SCALES)} expected")
            scale = SCALES[record["metric"]]
            found[record["name"], str(record["labels"])][int(record["seed"])] = scale * record["value"]
    return dict(found)


def mean_of(values: Mapping[int, float], digits: int) -> str:
    """What the seeds reach, and how many they are."""
    return f"{over_seeds([values[seed] for seed in sorted(values)], digits)} ({len(values)})"


def difference_of(values: Mapping[int, float], baseline: Mapping[int, float], digits: int) -> str:
    """The paired difference over the seeds that both have; `-` without any."""
    seeds = sorted(values.keys() & baseline.keys())
    return over_seeds([values[seed] - baseline[seed] for seed in seeds], digits, signed=True) if seeds else "-"


def methods_table(name: str, records: Sequence[Record]) -> str:
    """A table of the paper whose rows are methods, with the columns of its small sibling."""
    table = TABLES[name]
    grid, values = grid_of(table.small), values_of(records, table.small)
    digits = 1 if "segmentation" in str(grid.experiment) else 2
    labels = grid.labels or ()
    named = [*grid.methods, *grid.changes]
    head = ["method", *(f"paper, {each}" for each in table.columns)]
    head += [title for each in labels for title in (f"here, {_labels(each)}", f"to `{BASELINE}`")]
    parts = [_line(head), _line(["---"] * len(head))]
    for row in (each for each in TITLES if each in named):
        cells = [TITLES[row]]
        cells += [f"{value:.2f}" for value in (table.rows or {}).get(row, ())] or ["-"] * len(table.columns)
        for each in labels:
            measured = values.get((row, "all" if row == "all_labels" else each))
            baseline = values.get((BASELINE, each), {})
            cells.append(mean_of(measured, digits) if measured else NOT_MEASURED)
            cells.append(difference_of(measured, baseline, digits) if measured and row != BASELINE else "-")
        parts.append(_line(cells))
    return "\n".join([*parts, *_orders(table, labels, values)])


def _orders(table: Table, labels: Sequence[str], values: Values) -> list[str]:
    """The paper's methods, best first: in the paper's first column, and here for each number of labels."""
    lines = []
    if table.rows:
        first = {name: row[0] for name, row in table.rows.items()}
        lines.append(f"Best first in the paper, {table.columns[0]}: {_order(first)}.")
    for each in labels:
        means = {name: statistics.mean(values[name, each].values()) for name in SHORT if (name, each) in values}
        if table.rows and len(means) == len(SHORT):
            lines.append(f"Best first here, {_labels(each)}: {_order(means)}.")
    return ["", *lines] if lines else []


def _order(means: Mapping[str, float]) -> str:
    return ", ".join(SHORT[name] for name in sorted(means, key=lambda name: -means[name]))


def hyper_parameters(records: Sequence[Record]) -> str:
    """Both parts of Table 4, the paper's values above those of the small sibling."""
    grid, values = grid_of("table4_small"), values_of(records, "table4_small")
    (labels,) = grid.labels or ("",)
    baseline = values.get((SHARED, labels), {})
    parts = []
    for title, columns in TABLE_4.items():
        found = {name: values.get((name, labels)) for name in columns}
        rows = [
            [title, *(shown for shown, _ in columns.values())],
            ["---"] * (1 + len(columns)),
            ["paper", *(f"{value:.2f}" for _, value in columns.values())],
            [f"here, {_labels(labels)}", *(mean_of(each, 1) if each else NOT_MEASURED for each in found.values())],
            [
                "difference here",
                *(difference_of(each, baseline, 1) if each and name != SHARED else "-" for name, each in found.items()),
            ],
        ]
        parts += [*map(_line, rows), ""]
    return "\n".join(parts).strip()


def _labels(count: str) -> str:
    return f"{count} label{'s' * (count != '1')}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


NAMES = (*TABLES, "table4")
"""Markers of docs/paper-tables.md."""


def content(name: str) -> str:
    """What belongs between the markers of a table on docs/paper-tables.md."""
    records = recorded(RECORDS)
    return hyper_parameters(records) if name == "table4" else methods_table(name, records)
