"""Which pseudo labels count."""

import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.thresholds import class_confidence, class_thresholds
from semipix.tasks.base import Task


class SurePixels(nn.Module):
    """Finds the pixels whose pseudo label is sure enough to be learned.

    Args:
        task: what a pixel means.
        threshold: smallest confidence of a pseudo label, in [0, 1].
        per_class: whether the threshold is lower for classes that are predicted with less confidence, see
            `class_thresholds`. Their mean confidences are updated with each call in training mode.

    Raises:
        SemipixError: `per_class` is set for regression.
    """

    average: Tensor

    def __init__(self, task: Task, threshold: float, per_class: bool = False) -> None:
        super().__init__()
        if per_class and not task.classification:
            raise SemipixError(f"method.per_class: true found, but {type(task).__name__} has no classes; leave it out")
        self.task = task
        self.threshold = threshold
        self.per_class = per_class
        if per_class:
            self.register_buffer("average", torch.zeros(task.channels))

    def forward(self, prediction: Tensor, threshold: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """(N, 1, H, W) bool: True where a prediction (N, K, H, W) is sure.

        Args:
            prediction: activated predictions.
            threshold: a scalar that is used instead of the threshold of the constructor.
            shown: (N, 1, H, W) bool, see `Batch.shown`: the pixels that count for the mean confidences; None for all.
        """
        if self.per_class and self.training:
            self.average.copy_(class_confidence(self.average, prediction, counted=shown))
        return self.compared(prediction) >= (self.threshold if threshold is None else threshold)

    def compared(self, prediction: Tensor) -> Tensor:
        """(N, 1, H, W): what is compared with the threshold, at most 1.

        It is the confidence of a prediction (N, K, H, W), divided by the factor of the class's threshold.
        """
        confidence = self.task.confidence(prediction)
        if not self.per_class:
            return confidence
        factors = class_thresholds(self.average, 1.0)
        return (confidence / factors[prediction.max(1, keepdim=True).indices]).clamp(max=1)
