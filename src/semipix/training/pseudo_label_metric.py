"""How good pseudo labels are, measured on validation images as if they had no labels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from semipix.functional import error_measures as measures
from semipix.tasks.base import Task


class PseudoLabelMetric(Metric):
    """Share of the pseudo labels that are right, and share of the pixels that have one.

    Right and wrong ones are counted by confidence, so that it can be asked which confidence a pixel would need.

    Args:
        task: decides what is wrong, and what confidence is.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor
    pixels: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        # Right and wrong pseudo labels by their doubt, 1 - confidence. The last bin has all other pixels.
        self.add_state("counts", torch.zeros(2, measures.SCORE_BINS + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, taught: Tensor, target: Tensor) -> None:
        """Add labeled images.

        Args:
            prediction: activated (B, K, h, w).
            taught: (B, 1, h, w) bool, the pixels whose prediction would be learned.
            target: labels (B, ...), of another size where images were resized.
        """
        valid = self.task.counted(target)
        size = valid.shape[-2:]
        prediction = F.interpolate(prediction, size, mode="bilinear")
        taught = F.interpolate(taught.float(), size).bool() & valid
        bins = measures.score_bins((1 - self.task.confidence(prediction)).clamp(0, 1))
        bins = bins.masked_fill(~taught, measures.SCORE_BINS).flatten()
        wrong = self.task.wrong(prediction, target).flatten()
        for row, kept in enumerate((~wrong, wrong)):
            self.counts[row] += torch.bincount(bins[kept], minlength=measures.SCORE_BINS + 1)
        self.pixels += valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """What was counted, over all processes.

        Returns:
            `accuracy`, the share of the pseudo labels that are right, NaN if there are none; `share` of the pixels that
            have one, NaN if there are no pixels; and `counts` for `needed_confidence`.
        """
        right, wrong = self.counts[:, : measures.SCORE_BINS].sum(1)
        return {"accuracy": right / (right + wrong), "share": (right + wrong) / self.pixels, "counts": self.counts + 0}


def needed_confidence(counts: Tensor, accuracy: float) -> float:
    """The smallest confidence at which enough of the pseudo labels with at least this confidence are right.

    Args:
        counts: right and wrong pseudo labels by their doubt, from `PseudoLabelMetric`.
        accuracy: the share of them that has to be right, in [0, 1].

    Returns:
        A confidence in [0, 1]: 0 if all pseudo labels together are right often enough, or there are none. Infinity if
        those of no confidence are.
    """
    right, wrong = counts[:, : measures.SCORE_BINS].cpu().cumsum(1).double()  # the least doubt first
    if not right[-1] + wrong[-1]:
        return 0.0
    enough = (right + wrong > 0) & (right >= accuracy * (right + wrong))
    if not enough.any():
        return math.inf
    last = int(enough.nonzero()[-1])
    if right[last] + wrong[last] == right[-1] + wrong[-1]:
        return 0.0
    return float(1 - measures.bin_scores()[last])
