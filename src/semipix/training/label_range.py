"""Whether the labels of a regression are in the range of its predictions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semipix.data.source import Source
from semipix.errors import SemipixError
from semipix.tasks.base import Task
from semipix.tasks.regression import Regression

MOST_READ = 32
"""Most labels that are read; of more, as many are taken at equal distances by name."""

MOST_VALUES = 2**24
"""Values after which no further label is read, so that large ones delay a training by no more than a second or two."""

MARGIN = 1e-3
"""How far a label may be out of the range, as a share of it, and still count as inside: rounding is no fault."""

MOST_OUTSIDE = 0.02
"""Share of the values out of the range above which there is a warning; a few may be outliers that shall be clamped."""


def range_warning(task: Task, source: Source, names: Sequence[str]) -> str | None:
    """A warning if many label values are outside of `task.low` to `task.high`, which no prediction leaves.

    Files that cannot be read are left out: training reports them where it reads them.

    Args:
        task: what a pixel means; only a regression of maps has such labels.
        source: of the labels.
        names: the labeled images.
    """
    if not isinstance(task, Regression) or source.kind != "regression":
        return None
    outside = values = labels = 0
    lowest, highest = math.inf, -math.inf
    for name in names[:: math.ceil(len(names) / MOST_READ) or 1]:
        try:
            label = source.target(name).as_subclass(Tensor)
        except SemipixError:
            continue
        known = label[label.isfinite()]
        if not len(known):
            continue
        low, high = (float(each) for each in torch.aminmax(known))
        lowest, highest = min(lowest, low), max(highest, high)
        margin = MARGIN * (task.high - task.low)
        outside += int(((known < task.low - margin) | (known > task.high + margin)).sum())
        values, labels = values + len(known), labels + 1
        if values > MOST_VALUES:
            break
    if outside <= MOST_OUTSIDE * values:
        return None
    read = "" if labels == len(names) else f" in {labels} of {len(names)} labels"
    return (
        f"task.low, task.high: {outside} of {values} label values{read} are outside of {task.low:g} to {task.high:g} "
        f"and count as the nearest end in the loss; they are from {lowest:.4g} to {highest:.4g}, set task.low and "
        "task.high to their range, or data.missing to the value of pixels without a label"
    )
