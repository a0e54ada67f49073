"""The tables of what semipix chooses: images to label first, and methods by pilots."""

import statistics
from collections import Counter, defaultdict

from benchmarks.accuracy.compare import figure, measure_of
from benchmarks.accuracy_tables import MEASURES
from benchmarks.common import Record, over_seeds, recorded, table_head, table_row

COVERAGE = {
    "label grid": "Labels: the label images at 8x8 cells",
    "class shares": "Classes: the shares of the classes",
    "all features": "Features: those of all depths",
}
"""Measures of `benchmarks.accuracy.pick coverage` that are shown, and the headings of their tables."""

CHANCE = "random"
"""The strategy that the others are compared with."""


def picks() -> str:
    """How well each strategy's images represent all images, against random ones."""
    cells: dict[tuple[str, int, str], list[dict[str, float]]] = defaultdict(list)
    for record in _picked("coverage"):
        cells[record["setting"], record["labels"], record["strategy"]].append(record["measured"])
    columns = sorted({(setting, labels) for setting, labels, _ in cells})
    parts = []
    for measure, title in COVERAGE.items() if columns else []:
        titles = (f"{setting}, {labels} images" for setting, labels in columns)
        parts += [f"{title}.", "", *table_head(["strategy", *titles])]
        for strategy in dict.fromkeys(strategy for _, _, strategy in cells):
            found = ([each[measure] for each in cells[*column, strategy]] for column in columns)
            parts.append(table_row([f"`{strategy}`", *(over_seeds(values, 2) for values in found)]))
        parts.append("")
    return "\n".join(parts).strip() or "not measured"


def trained_picks() -> str:
    """The test metric with each strategy's images, and in brackets the difference to random ones with the same seeds.

    The seed chooses random images and those of k-means, the weights and the batches.
    """
    found: dict[tuple[str, str, int], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in _picked("trained"):
        cell = found[record["setting"], record["variant"], record["labels"]]
        cell[record["strategy"]][record["seed"]] = figure(record)
    if not found:
        return "not measured"
    columns = sorted(found)
    titles = [
        f"{setting}, {labels} images, `{variant}`: {MEASURES[measure_of(setting).metric][0]}"
        for setting, variant, labels in columns
    ]
    parts = table_head(["strategy", *titles])
    for strategy in dict.fromkeys(strategy for column in columns for strategy in found[column]):
        cells = []
        for column in columns:
            digits = MEASURES[measure_of(column[0]).metric][1]
            values, chance = found[column][strategy], found[column][CHANCE]
            shown = over_seeds(list(values.values()), digits) or "-"
            differences = [values[seed] - chance[seed] for seed in values if seed in chance]
            if strategy != CHANCE and differences:
                shown += f" ({over_seeds(differences, digits, signed=True)})"
            cells.append(f"{shown} [{len(values)}]" if values else shown)
        parts.append(table_row([f"`{strategy}`", *cells]))
    return "\n".join(parts)


def choices() -> str:
    """What `method=auto` chose in each setting, how good that was on test images, and what the pilots cost."""
    found: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in recorded("choices"):
        found[record["setting"], record["labels"], record["name"]].append(record)
    if not found:
        return "not measured"
    parts = table_head(["setting", "labels", "seeds", "chosen", "best", "figure", "gain", "lost", "pilots' time"])
    for (setting, labels, name), records in sorted(found.items()):
        figure_name, digits = MEASURES[measure_of(setting).metric]
        # None: the measurement was interrupted meanwhile, which the seconds would count.
        measured = [record for record in records if record["pilot_seconds"] is not None]
        costs = [record["pilot_seconds"] / record["training_seconds"] for record in measured]
        cells = [f"`{setting}`" if name == "default" else f"`{setting}`, {name}", labels, f"{len(records)}"]
        cells += [_counted([record[key] for record in records]) for key in ("chosen", "best")]
        cells.append(figure_name)
        cells.append(over_seeds([record["gain"] for record in records], digits, signed=True))
        cells.append(over_seeds([record["regret"] for record in records], digits))
        parts.append(table_row([*cells, f"{statistics.mean(costs):.1f}" if costs else "-"]))
    return "\n".join(parts)


def _counted(methods: list[str]) -> str:
    counts = Counter(methods)
    return ", ".join(f"`{method}`" + (f" {count}x" if len(methods) > 1 else "") for method, count in counts.items())


def _picked(kind: str) -> list[Record]:
    return [record for record in recorded("pick") if record["kind"] == kind]
