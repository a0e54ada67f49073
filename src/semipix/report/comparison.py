"""What a comparison of runs has found: the content of `compare.json`, which the tables and the page show."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from semipix.errors import SemipixError
from semipix.functional.bootstrap import Interval
from semipix.training.run_folder import json_text, write_json

FILE = "compare.json"
"""Name of the file in the folder of a comparison."""

BASELINE = "supervised"
"""The variant with which the others are compared: labeled images alone, for as many steps."""

ALL_LABELS = "all_labels"
"""The variant that learns from all labels of the data: what more labels can win at most."""


MOST_DIGITS = 10
"""Digits after the point of very small values."""


@dataclass(frozen=True)
class Run:
    """A run folder that was found.

    Attributes:
        folder: its path, as it was given or found.
        variant: what was trained, such as `gct_strong`.
        labels: number of its labeled images; None where its split is not there.
        seed: of the split and the weights; None where its configuration is not there.
        state: `finished`, `running`, `interrupted` or `failed`.
        compared: whether its figures are in the rows.
        reason: why not, in one line; empty for compared runs.
    """

    folder: str
    variant: str
    labels: int | None
    seed: int | None
    state: str
    compared: bool
    reason: str = ""


@dataclass(frozen=True)
class LabelsNeeded:
    """How many labels supervised training needs for the value of a row.

    It is read from the curve of supervised runs over the numbers of labels that were run, straight between two of them
    on a logarithmic scale.

    Attributes:
        labels: the number; None where it is beyond the ends of the curve.
        low, high: bounds of its interval; None where they are beyond the ends.
        fewest, most: the ends of the curve: the smallest and the largest number of labels that were run.
        beyond: `above` where even `most` labels do not reach the value, `below` where `fewest` labels exceed it,
            otherwise empty.
        seeds: of the runs that it is read from; of one seed, the interval is over images alone.
        text: the number in words, such as `21 (16 to 30)`, `more than 48` or `at most 8`.
    """

    labels: float | None
    low: float | None
    high: float | None
    fewest: int
    most: int
    beyond: str
    seeds: list[int]
    text: str


@dataclass(frozen=True)
class Row:
    """A variant with one number of labels.

    Attributes:
        variant: what was trained.
        labels: number of labeled images; the mean where `data.labels` means other numbers with other seeds.
        seeds: of its runs, sorted.
        values: the metric of each seed, as in `evaluation-SPLIT.json`.
        deviation: standard deviation over the seeds; None of one seed.
        mean: mean over the seeds, with the interval of the mean over images and seeds.
        difference: to `supervised` with as many labels, on the seeds that both have, with its interval; None where
            there is no such run, and for `supervised` itself. Above 0 the row's metric is larger.
        paired: the seeds that both have.
        ahead: True where the interval says that the row is better than `supervised`, False where it says that it is
            worse, and None where it includes 0, where both have one seed alone, or without a difference.
        efficiency: the labels that `supervised` needs for the same; None where `supervised` was not run.
        minutes: of training: the mean over seeds, between the smallest and the largest; None where a run does not say.
        peak_memory_mib: largest memory of a training: of the GPU if it used one, otherwise of the process; None where
            no run says it.
        step_cost: time of a step relative to `supervised` with as many labels and the same seed: the mean, between the
            smallest and the largest; None where a run does not say its time of a step.
    """

    variant: str
    labels: int
    seeds: list[int]
    values: list[float]
    deviation: float | None
    mean: Interval
    difference: Interval | None
    paired: list[int]
    ahead: bool | None
    efficiency: LabelsNeeded | None
    minutes: Interval | None
    peak_memory_mib: float | None
    step_cost: Interval | None


@dataclass(frozen=True)
class Curve:
    """The validation metric of a run over its training.

    Attributes:
        folder, variant, labels, seed: of the run.
        steps: at which it was validated.
        values: the metric then.
    """

    folder: str
    variant: str
    labels: int
    seed: int
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class ClassFigure:
    """The IoU of one class in the runs of a row.

    Attributes:
        variant, labels: of the row.
        name: of the class.
        iou: mean over the seeds with its interval; NaN for a class that is in no label and in no prediction.
        difference: to `supervised` with as many labels, with its interval; None without one.
    """

    variant: str
    labels: int
    name: str
    iou: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Forecast:
    """What more labels are worth to a variant.

    Attributes:
        variant: what was trained.
        labels: the largest number of labels that was run.
        more: labels beside those.
        gain: by how much the metric would change, with its interval; None where nothing can be said.
        seeds: of the runs that it is made from.
        points: the fitted curve, `labels`, `estimate`, `low` and `high` of each point, also beyond the runs.
        text: the forecast in words, such as `32 more labels: +2.1 (0.8 to 3.5) mIoU`, or why there is none.
    """

    variant: str
    labels: int
    more: int
    gain: Interval | None
    seeds: list[int]
    points: list[dict[str, float]]
    text: str


@dataclass(frozen=True)
class Comparison:
    """What `compare.json` holds.

    Attributes:
        task: name of the task, such as `Segmentation`.
        metric: the primary metric, such as `miou`.
        higher_is_better: whether larger values of it are better.
        scale: what values are multiplied by to be shown: 100 for shares such as mIoU, which are shown in percent.
        unit: of the shown values, such as `%` or `dB`; empty without one.
        split: the images that were measured, `test` or `val`.
        images: their number; the smallest one where it differs between seeds.
        scenes: the number of their scenes, as many as images where the data name none. Images of one scene are no
            independent ones, so intervals are over scenes.
        seeds: all seeds of the compared runs.
        level: of the intervals, such as 0.95.
        sentence: the answer, in one sentence.
        notes: what is left out or missing, and what limits the answer; one line each.
        rows: by number of labels, then with `supervised` first and the better variants before the others.
        runs: all run folders that were found.
        curves: validation over the steps of each run.
        per_class: of segmentation, the IoU of each class in each row.
        forecast: what more labels are worth, of each variant with several numbers of labels.
    """

    task: str
    metric: str
    higher_is_better: bool
    scale: float
    unit: str
    split: str
    images: int
    scenes: int
    seeds: list[int]
    level: float
    sentence: str
    notes: list[str]
    rows: list[Row]
    runs: list[Run]
    curves: list[Curve] = field(default_factory=list)
    per_class: list[ClassFigure] = field(default_factory=list)
    forecast: list[Forecast] = field(default_factory=list)

    def to_json(self, path: Path) -> None:
        """Write the comparison, null for NaN; an interval is a mapping of `estimate`, `low` and `high`.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        write_json(path, self.as_mapping())

    def as_json(self) -> str:
        """The text of the file."""
        return json_text(self.as_mapping())

    def as_mapping(self) -> dict[str, Any]:
        """The comparison as plain values."""
        return {key: _plain(value) for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Read what `to_json` wrote.

        Raises:
            SemipixError: the file is missing, or is no comparison.
        """
        try:
            found = json.loads(path.read_text("utf-8"))
            lists = {
                "rows": [_row(each) for each in found["rows"]],
                "runs": [Run(**each) for each in found["runs"]],
                "curves": [Curve(**{**each, "values": _floats(each["values"])}) for each in found["curves"]],
                "per_class": [
                    ClassFigure(**{**each, "iou": _interval(each["iou"]), "difference": _optional(each["difference"])})
                    for each in found["per_class"]
                ],
                "forecast": [Forecast(**{**each, "gain": _optional(each["gain"])}) for each in found["forecast"]],
            }
            return cls(**{**found, **lists})
        except FileNotFoundError:
            raise SemipixError(f"{path}: no such file, expected what semipix compare wrote") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SemipixError(f"{path}: not a comparison, expected what semipix compare wrote") from None

    def shown(self, value: float) -> str:
        """A value of the metric as text, without its unit; `-` for NaN."""
        return "-" if math.isnan(value) else f"{value * self.scale:.{self.digits}f}"

    @property
    def digits(self) -> int:
        """Digits after the point of shown values: one of percent, two of dB, otherwise those that intervals need."""
        if self.scale == 100 or self.unit == "dB":
            return 1 if self.scale == 100 else 2
        shown = [each for row in self.rows for each in (row.mean, row.difference) if each is not None]
        sizes = [abs(value) for each in shown for value in (each.high - each.low, each.estimate) if value]
        known = [size for size in sizes if math.isfinite(size)]
        return min(MOST_DIGITS, max(1, 2 - math.floor(math.log10(min(known))))) if known else 4

    @property
    def drawn(self) -> str:
        """What intervals are over: `images`, or `scenes` where the data name some."""
        return "images" if self.scenes == self.images else "scenes"

    @property
    def measured_on(self) -> str:
        """The images in words, such as `30 test images of 5 scenes`."""
        found = f"{self.images:,} {self.split} image{'' if self.images == 1 else 's'}"
        if self.drawn == "images":
            return found
        return f"{found} of {self.scenes:,} scene{'' if self.scenes == 1 else 's'}"


def _plain(value: Any) -> Any:
    """Nested dataclasses and intervals as mappings; `asdict` would make lists of intervals."""
    if isinstance(value, Interval):
        return value._asdict()
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _row(found: Mapping[str, Any]) -> Row:
    optional = {key: _optional(found[key]) for key in ("difference", "minutes", "step_cost")}
    efficiency = None if found["efficiency"] is None else LabelsNeeded(**found["efficiency"])
    given = {"values": _floats(found["values"]), "mean": _interval(found["mean"]), "efficiency": efficiency}
    return Row(**{**found, **optional, **given})


def _optional(found: Mapping[str, Any] | None) -> Interval | None:
    return None if found is None else _interval(found)


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(*_floats([found[key] for key in Interval._fields]))


def _floats(found: Sequence[float | None]) -> list[float]:
    """Numbers, with NaN for null."""
    return [math.nan if value is None else float(value) for value in found]
