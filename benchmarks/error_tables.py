"""The tables of docs/error-maps.md: how well maps find errors, and what steering by them changes."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.accuracy.compare import figure
from benchmarks.common import Record, over_seeds, recorded, without_views

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
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in recorded("few_validation"):
        labels, variant, _ = record["run"].split("-")
        best = max(record["free"].values())
        gains = [value - best for value in record["map"]]
        found[f"`{record['setting']}`, {labels}", f"`{variant}`"][str(record["images"])].append(
            (statistics.mean(gains), min(gains))
        )
    counts = list(dict.fromkeys(count for by_count in found.values() for count in by_count))
    titles = [f"{count} images" if count != "all" else "all of them" for count in counts]
    parts = _header(["data, labels", "training", *titles])
    for (data, training), by_count in found.items():
        cells = []
        for count in counts:
            text = over_seeds([mean for mean, _ in by_count[count]], 3, signed=True)
            lowest = min(least for _, least in by_count[count])
            cells.append(text if count == "all" else f"{text}, lowest {lowest:+.3f}")
        parts.append(_row([data, training, *cells]))
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
    parts = _header(["data, labels", "training", "seeds", "map", *titles])
    for (setting, labels, variant, shown), measured in cells.items():
        values = [over_seeds(measured[key], digits) for key, (_, digits) in measures.items()]
        training = f"`{variant}`{without_views(of_training[setting, labels, variant])}"
        parts.append(_row([f"`{setting}`, {labels}", training, len(measured[first]), f"`{shown}`", *values]))
    return "\n".join(parts)


def gates() -> str:
    """What `gct_strong` reaches with each gate, and the difference to the gate of confidence with the same seeds."""
    found: dict[tuple[str, str], dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in (each for name in GATE_RECORDS for each in _records(name)):
        if record["variant"] in GATES:
            of_gate = found[record["setting"], str(record["labels"])][record["variant"]]
            of_gate.setdefault(int(record["seed"]), record)
    parts = _header(
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
                parts.append(_row([f"`{setting}`, {labels}", title, len(records), mean, difference, *shares]))
    return "\n".join(parts) if len(parts) > 2 else "not measured"


def _share(records: Sequence[Record], measure: str) -> str:
    """A figure of the pseudo labels on validation images at the end of training, the mean of both models."""
    values = []
    for record in records:
        both = [record["trained"].get(f"val/pseudo_labels/{measure}/{model}") for model in ("first", "second")]
        values += [sum(both) / 2] if None not in both else []
    return over_seeds(values, 3) if values else "-"


def _header(titles: Sequence[str]) -> list[str]:
    return [_row(titles), "|" + " --- |" * len(titles)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _records(name: str) -> list[Record]:
    """Records of a file of results, in the order of their seeds."""
    return sorted(recorded(name), key=lambda record: int(record["seed"]))
