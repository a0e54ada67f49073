"""How good pseudo labels are, measured on validation images as if they had no labels."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from semipix.functional import error_measures as measures
from semipix.functional.rows import RowResizer
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

    def update(
        self,
        prediction: Tensor,
        taught: Tensor,
        target: Tensor,
        confidence: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Add labeled images.

        Args:
            prediction: activated (B, K, h, w).
            taught: (B, 1, h, w) bool, the pixels whose prediction would be learned.
            target: labels (B, ...), of another size where images were resized.
            confidence: of predictions, see `Method.confidence_of`; that of the task by default.
        """
        valid = self.task.counted(target)
        size = valid.shape[-2:]
        prediction = F.interpolate(prediction, size, mode="bilinear")
        taught = F.interpolate(taught.float(), size).bool() & valid
        bins = measures.score_bins((1 - (confidence or self.task.confidence)(prediction)).clamp(0, 1))
        bins = bins.masked_fill(~taught, measures.SCORE_BINS).flatten()
        wrong = self.task.wrong(prediction, target).flatten()
        for row, kept in enumerate((~wrong, wrong)):
            self.counts[row] += torch.bincount(bins[kept], minlength=measures.SCORE_BINS + 1)
        self.pixels += valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """What was counted, over all processes: `counts` for `needed_confidence`, and `pixels` with a label."""
        return {"counts": self.counts + 0, "pixels": self.pixels + 0}


class PseudoLabelRows:
    """Updates a metric of pseudo labels with an image whose rows come in parts.

    Args:
        metric: the metric.
        target: label (1, ...) of the image.
        shape: shape (1, K, h, w) of the complete prediction.
        confidence: see `PseudoLabelMetric.update`.
    """

    def __init__(
        self, metric: PseudoLabelMetric, target: Tensor, shape: Sequence[int], confidence: Callable[[Tensor], Tensor]
    ) -> None:
        self.metric = metric
        self.target = target
        self.confidence = confidence
        height, width = target.shape[-2:]
        self._resizer = RowResizer((shape[-2], shape[-1]), (height, width), shape[1] + 1)

    def add(self, prediction: Tensor, taught: Tensor) -> None:
        """Add the next rows of the prediction (1, K, h, w), from the top, and of the pixels taught (1, 1, h, w)."""
        for rows, resized in self._resizer.push(torch.cat([prediction, taught.to(prediction)], 1)):
            target = self.target[..., rows, :]
            self.metric.update(resized[:, :-1], resized[:, -1:] > 0.5, target, self.confidence)


def accuracy_and_share(counts: Tensor, pixels: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Of the pseudo labels with at least some confidence: the share that is right, and their share of the pixels.

    Args:
        counts: right and wrong pseudo labels by their doubt, from `PseudoLabelMetric`.
        pixels: how many have a label.
        confidence: the smallest one.

    Returns:
        The first is NaN if there are none, the second if there are no pixels.
    """
    doubt = torch.tensor(1 - min(confidence, 1.0))
    end = int(measures.score_bins(doubt.clamp(0, 1))) + 1 if confidence <= 1 else 0
    right, wrong = counts[:, :end].sum(1)
    return right / (right + wrong), (right + wrong) / pixels


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
