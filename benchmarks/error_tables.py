"""The tables of docs/error-maps.md: how well maps find errors, and what steering by them changes."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from benchmarks.accuracy.compare import figure
from benchmarks.common import Record, over_seeds, recorded, table_head, table_row, without_views

Measures = Mapping[str, tuple[str, int]]
"""Measures that are shown: their titles, and digits after the point."""

OF_CLASSES: Measures = {
    "auroc": ("AUROC", 3),
    "aupr": ("AUPR", 3),
    "risk80": ("errors in the surest 80 %", 4),
    "ece": ("ECE", 3),
    "image_spearman": ("correlation over images", 2),
}
OF_VALUES: Measures = {
    "ause": ("AUSE", 3),
    "correlation": ("correlation over pixels", 3),
    "image_spearman": ("correlation over images", 2),
}

BASELINE = "gate_confidence"
"""The gate with which the others are compared: pseudo labels as in FixMatch and UniMatch."""

GATES = {
    "gate_nothing": "nothing",
    BASELINE: "confidence",
    "gate_disagreement": "disagreement of the pair",
    "gate_probability": "probability by `cues`, no confidence",
    "gate_label_accuracy": "confidence and `cues`; raised where labels are wrong (`label_accuracy`)",
    "gct_strong": "confidence and the detector `paper`",
    "gct_strong_cues": "confidence and the detector `cues`",
    "gct_strong_features": "confidence and the detector `features`",
}
"""What lets a pixel teach, by the name of the run."""


GATE_RECORDS = ("gates", "error_maps", "portrait", "camvid_1000")
"""Benchmarks with runs of these names; where several have the same run, the first one counts."""


def error_maps() -> str:
    """How well the error maps of each training find wrong pixels of the test images: mean and interval over seeds."""
    return _maps("auroc", OF_CLASSES)


def maps_of_values() -> str:
    """The same in regression: how well they find large errors."""
    return _maps("ause", OF_VALUES)


def few_validation() -> str:
    """What fitted maps find above the best map that costs nothing, by the number of validation images they have."""

    def gains(record: Record) -> list[float]:
        best = max(record["free"].values())
        return [value - best for value in record["map"]]

    return _by_validation(gains, lambda values, text: f"{text}, lowest {min(values):+.3f}", signed=True)


def few_validation_levels() -> str:
    """How far the values of fitted maps are from what is wrong, by the number of validation images they have."""
    return _by_validation(
        lambda record: record["ece"],
        lambda values, text: f"{text}, highest {max(values):.3f}",
        beside=("softmax", "softmax_ece"),
    )


def _by_validation(
    values_of: Callable[[Record], list[float]],
    cell: Callable[[list[float], str], str],
    signed: bool = False,
    beside: tuple[str, str] | None = None,
) -> str:
    """A table of the records of few validation images.

    Args:
        values_of: a figure of each map of a record.
        cell: what is shown of all these values, beside the text of their mean over seeds.
        signed: whether that mean has its sign.
        beside: title of one column more, and the key of a record whose mean it shows.
    """
    found: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in recorded("few_validation"):
        labels, variant, _ = record["run"].split("-")
        found[f"`{record['setting']}`, {labels}", f"`{variant}`"][str(record["images"])].append(record)
    counts = list(dict.fromkeys(count for by_count in found.values() for count in by_count))
    titles = [f"{count} images" if count != "all" else "all of them" for count in counts]
    parts = table_head(["data, labels", "training", *titles, *([beside[0]] if beside else [])])
    for (data, training), by_count in found.items():
        cells = []
        for count in counts:
            values = [values_of(record) for record in by_count[count]]
            text = over_seeds([statistics.mean(each) for each in values], 3, signed=signed)
            cells.append(text if count == "all" else cell([value for each in values for value in each], text))
        if beside:
            cells.append(over_seeds([record[beside[1]] for record in by_count["all"]], 3))
        parts.append(table_row([data, training, *cells]))
    return "\n".join(parts)


def _maps(first: str, measures: Measures) -> str:
    cells: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    of_training = defaultdict(list)
    for record in _records("error_maps"):
        for name, value in record["test"].items():
            kind, _, rest = name.partition("/")
            if kind == "errors" and value is not None:
                shown, measure = rest.split("/")
                cells[record["setting"], str(record["labels"]), record["variant"], shown][measure].append(value)
        of_training[record["setting"], str(record["labels"]), record["variant"]].append(record)
    cells = {key: measured for key, measured in cells.items() if first in measured}
    if not cells:
        return "not measured"
    titles = [title for title, _ in measures.values()]
    parts = table_head(["data, labels", "training", "seeds", "map", *titles])
    for (setting, labels, variant, shown), measured in cells.items():
        values = [over_seeds(measured[key], digits) for key, (_, digits) in measures.items()]
        training = f"`{variant}`{without_views(of_training[setting, labels, variant])}"
        parts.append(table_row([f"`{setting}`, {labels}", training, len(measured[first]), f"`{shown}`", *values]))
    return "\n".join(parts)


def gates() -> str:
    """What `gct_strong` reaches with each gate, and the difference to the gate of confidence with the same seeds."""
    found: dict[tuple[str, str], dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in (each for name in GATE_RECORDS for each in _records(name)):
        if record["variant"] in GATES:
            of_gate = found[record["setting"], str(record["labels"])][record["variant"]]
            of_gate.setdefault(int(record["seed"]), record)
    parts = table_head(
        ["data, labels", "who teaches is decided by", "seeds", "mIoU", "difference", "labels right", "pixels taught"]
    )
    for (setting, labels), by_gate in sorted(found.items()):
        if BASELINE not in by_gate:
            continue
        for gate, title in GATES.items():
            if records := by_gate.get(gate):
                mean = over_seeds([figure(record) for record in records.values()], 1)
                common = records.keys() & by_gate[BASELINE].keys()
                gained = [figure(records[seed]) - figure(by_gate[BASELINE][seed]) for seed in sorted(common)]
                difference = "" if gate == BASELINE or not gained else over_seeds(gained, 1, signed=True)
                shares = [_share(list(records.values()), name) for name in ("accuracy", "share")]
                title += without_views(records.values())
                parts.append(table_row([f"`{setting}`, {labels}", title, len(records), mean, difference, *shares]))
    return "\n".join(parts) if len(parts) > 2 else "not measured"


def _share(records: Sequence[Record], measure: str) -> str:
    """A figure of the pseudo labels on validation images at the end of training, the mean of both models."""
    values = []
    for record in records:
        both = [record["trained"].get(f"val/pseudo_labels/{measure}/{model}") for model in ("first", "second")]
        values += [sum(both) / 2] if None not in both else []
    return over_seeds(values, 3) if values else "-"


def _records(name: str) -> list[Record]:
    """Records of a file of results, in the order of their seeds."""
    return sorted(recorded(name), key=lambda record: int(record["seed"]))
