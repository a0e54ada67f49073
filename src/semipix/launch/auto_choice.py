"""The decision of `method=auto`: which method the figures of its pilots speak for, and the record of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semipix.functional.bootstrap import Interval
from semipix.training.run_folder import CHOICE, write_json

BASELINE = "supervised"
"""The method that is chosen where no other is better."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot reached on the held-out images.

    Attributes:
        metric: the task's primary metric with its interval over images.
        difference: metric of this pilot minus that of supervised training, with its interval over images; None for
            supervised training itself.
        steps: optimizer steps that it was trained.
        seconds: of its training; of the last part where it was interrupted.
    """

    metric: Interval
    difference: Interval | None
    steps: int
    seconds: float

    def as_mapping(self) -> dict[str, Any]:
        """The figures as `choice.json` holds them."""
        found: dict[str, Any] = {"metric": self.metric.estimate, "interval": [self.metric.low, self.metric.high]}
        if self.difference is not None:
            found["difference"] = self.difference.estimate
            found["difference_interval"] = [self.difference.low, self.difference.high]
        return {**found, "steps": self.steps, "seconds": self.seconds}


@dataclass(frozen=True)
class Choice:
    """Which method is trained, and why.

    Attributes:
        chosen: name of the method.
        reason: why, in one sentence.
        pilots: what each pilot reached; empty where none was needed.
        held_out: names of the images on which the pilots were measured.
        left_out: candidates that could not be compared, with the reason.
        about: metric, direction and level.
    """

    chosen: str
    reason: str
    pilots: Mapping[str, Pilot] = field(default_factory=dict)
    held_out: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `choice.json` to a run folder."""
        record = {
            "chosen": self.chosen,
            "reason": self.reason,
            **self.about,
            "pilots": {name: pilot.as_mapping() for name, pilot in self.pilots.items()},
            "left_out": dict(self.left_out),
            "held_out": {"count": len(self.held_out), "images": list(self.held_out)},
        }
        write_json(folder / CHOICE, record)


def best_method(differences: Mapping[str, Interval], higher_is_better: bool) -> str:
    """The method that is better than supervised training by most, among those whose interval is on the better side.

    Args:
        differences: metric of each candidate minus that of supervised training on the same images.
        higher_is_better: whether a larger metric is better.

    Returns:
        Its name, or `supervised` where each interval holds 0, is on the worse side or is NaN.
    """
    sign = 1 if higher_is_better else -1
    better = {
        name: sign * found.estimate
        for name, found in differences.items()
        if (found.low > 0 if higher_is_better else found.high < 0)
    }
    return max(better, key=better.__getitem__, default=BASELINE)


def decide(
    pilots: Mapping[str, Pilot],
    held_out: Sequence[str],
    *,
    metric: str,
    higher_is_better: bool,
    level: float,
    left_out: Mapping[str, str] | None = None,
) -> Choice:
    """Choose by the figures of pilots.

    Args:
        pilots: what each pilot reached, `supervised` among them.
        held_out: names of the images on which they were measured.
        metric: name of the task's primary metric.
        higher_is_better: whether a larger value of it is better.
        level: of the intervals.
        left_out: candidates that could not be compared, with the reason.
    """
    differences = {name: pilot.difference for name, pilot in pilots.items() if pilot.difference is not None}
    chosen = best_method(differences, higher_is_better)
    images = f"{len(held_out)} held-out image{'' if len(held_out) == 1 else 's'}"
    base = pilots[BASELINE].metric.estimate
    if chosen == BASELINE:
        shown = "; ".join(f"{name} {_shown(found)}" for name, found in differences.items())
        reason = (
            f"no candidate is better in {metric} than supervised ({base:.4f}) beyond the {100 * level:g} % interval on "
            f"{images}: {shown or 'none could be compared'}"
        )
    else:
        reason = (
            f"{metric} {pilots[chosen].metric.estimate:.4f} against {base:.4f} of supervised on {images}: "
            f"{_shown(differences[chosen])}, {100 * level:g} % interval"
        )
    about = {"metric": metric, "higher_is_better": higher_is_better, "level": level}
    return Choice(chosen, reason, pilots, held_out, left_out or {}, about)


def _shown(difference: Interval) -> str:
    return f"{difference.estimate:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
