"""Metrics over images of different sizes with ignored pixels, which add up over batches and processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers import MetricInputTransformer

Figure = Callable[[Tensor, Tensor], Tensor]
"""One figure, a scalar, of a prediction (1, K, H, W) and a label (1, ...); NaN where all of the label is ignored."""

Known = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Prediction (B, K, H, W) and label (B, ...) to the values (n,) of both at valid pixels."""


class ImageMean(Metric):
    """Mean over images of a figure of each image.

    An image without a valid pixel is left out. An image whose prediction is not finite makes the mean NaN.

    Args:
        figure: the figure of one image.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, figure: Figure) -> None:
        super().__init__()
        self.figure = figure
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add images: predictions (B, K, H, W) and labels (B, ...)."""
        for index in range(len(target)):
            found = self.figure(prediction[index : index + 1], target[index : index + 1])
            if not found.isnan() or not prediction[index].isfinite().all():
                self.total += found
                self.images += 1

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN where no image has a figure, or a prediction is not finite."""
        return self.total / self.images


class OfKnown(MetricInputTransformer):
    """A metric of valid pixels alone.

    Args:
        metric: takes two vectors of values.
        known: chooses the values.
    """

    def __init__(self, metric: Metric, known: Known) -> None:
        super().__init__(metric)
        self.known = known

    def update(self, *args: Tensor, **kwargs: Any) -> None:
        """Add images: predictions (B, K, H, W) and labels (B, ...)."""
        values = self.known(*args, **kwargs)
        if len(values[0]):
            self.wrapped_metric.update(*values)
