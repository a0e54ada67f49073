"""Why guided training helps or hurts: is the flaw map right, who teaches, and is the teacher worth it."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC

from semipix.functional.flaw import Pair
from semipix.tasks.base import Task

AUROC_BINS = 50
"""Thresholds at which the AUROC of the flaw map is read, so that its memory does not grow with the pixels."""


def metrics() -> dict[str, Metric]:
    """Fresh metrics: AUROC of each flaw map, then shares of pixels.

    `*_learns` and `both_flawed` are shares of all valid pixels; `teacher_right_pupil_wrong` and
    `teacher_wrong_pupil_right` are shares of the pixels that are taught: the first is what the exchange gains, the
    second what it costs.
    """
    shares = ("first_learns", "second_learns", "both_flawed", "teacher_right_pupil_wrong", "teacher_wrong_pupil_right")
    return {
        "flaw_auroc_first": BinaryAUROC(thresholds=AUROC_BINS),
        "flaw_auroc_second": BinaryAUROC(thresholds=AUROC_BINS),
        **{share: MeanMetric() for share in shares},
    }


def update(
    metrics: Mapping[str, Metric],
    task: Task,
    target: Tensor,
    predictions: Pair,
    flaws: Pair,
    learns: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Feed the metrics with one labeled batch.

    Args:
        metrics: what `metrics()` returned.
        task: decides which pixels are wrong.
        target: labels (B, ...) at their own size.
        predictions: two activated predictions (B, K, H, W).
        flaws: two raw flaw maps (B, 1, H, W).
        learns: what `directions` returned, (B, 1, H, W) bool each.
    """
    valid = task.valid(target)
    size = valid.shape[-2:]
    wrong = [task.wrong(F.interpolate(p, size, mode="bilinear"), target)[valid] for p in predictions]
    seen = [F.interpolate(flaw.clamp(0, 1), size, mode="bilinear")[valid] for flaw in flaws]
    first_learns, second_learns, both_flawed = (F.interpolate(mask.float(), size)[valid].bool() for mask in learns)
    for name, flaw, error in zip(("flaw_auroc_first", "flaw_auroc_second"), seen, wrong, strict=True):
        metrics[name].update(flaw, error.int())
    metrics["first_learns"].update(first_learns.float())
    metrics["second_learns"].update(second_learns.float())
    metrics["both_flawed"].update(both_flawed.float())
    for learning, pupil, teacher in ((first_learns, *wrong), (second_learns, *wrong[::-1])):
        if learning.any():
            metrics["teacher_right_pupil_wrong"].update((pupil & ~teacher)[learning].float())
            metrics["teacher_wrong_pupil_right"].update((teacher & ~pupil)[learning].float())
