"""Metrics for images of different sizes with ignored pixels, which are summed over batches and processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers import MetricInputTransformer

ImageMeasure = Callable[[Tensor, Tensor], Tensor]
"""Prediction (1, K, H, W) and label (1, ...) of one image to a scalar; NaN if all of the label is ignored."""

ValidValues = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Predictions (B, K, H, W) and labels (B, ...) to the values (n,) of both at valid pixels."""


class ImageMean(Metric):
    """Mean over images of a measure of each image.

    An image without a valid pixel is left out. An image whose prediction is not finite makes the mean NaN.

    Args:
        measure: computes the value of one image.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, measure: ImageMeasure) -> None:
        super().__init__()
        self.measure = measure
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add images: predictions (B, K, H, W) and labels (B, ...)."""
        for index in range(len(target)):
            value = self.measure(prediction[index : index + 1], target[index : index + 1])
            if not value.isnan() or not prediction[index].isfinite().all():
                self.total += value
                self.images += 1

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN if no image has a value, or if a prediction is not finite."""
        return self.total / self.images


def image_means(name: str, measure: ImageMeasure, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What each of B images adds to an `ImageMean`: its value to `sum/NAME`, and 1 to `count/NAME` if it has one, (B,).

    Args:
        name: of the metric.
        measure: computes the value of one image.
        prediction: (B, K, H, W).
        target: labels (B, ...).
    """
    values = [measure(prediction[index : index + 1], target[index : index + 1]) for index in range(len(target))]
    value = torch.stack([each.float().reshape(()) for each in values])
    counts = ~value.isnan() | ~prediction.flatten(1).isfinite().all(1)
    return {f"sum/{name}": torch.where(counts, value, 0.0), f"count/{name}": counts}


class ValidPixelMetric(MetricInputTransformer):
    """A metric that is updated only with valid pixels.

    Args:
        metric: takes two vectors of values.
        values: selects the values at valid pixels.
    """

    def __init__(self, metric: Metric, values: ValidValues) -> None:
        super().__init__(metric)
        self.values = values

    def update(self, *args: Tensor, **kwargs: Any) -> None:
        """Add images: predictions (B, K, H, W) and labels (B, ...)."""
        predicted, labels = self.values(*args, **kwargs)
        if len(predicted):
            self.wrapped_metric.update(predicted, labels)
