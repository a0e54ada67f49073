"""Regression: values of any unit for each pixel, such as depth or heat maps."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from semipix.errors import SemipixError
from semipix.functional.precision import at_least_float32
from semipix.functional.routing import masked_mean
from semipix.tasks.base import Task, smooth_l1
from semipix.tasks.measures import ValidPixelMetric

Penalty = Literal["l1", "l2", "charbonnier", "smooth_l1"]
"""Names of `PENALTIES`."""

CHARBONNIER_EPSILON = 1e-3
"""Error below which Charbonnier's loss is roughly quadratic, as a share of the range (Lai et al., CVPR 2017)."""

COLOURS = ((0.10, 0.07, 0.30), (0.16, 0.35, 0.65), (0.13, 0.62, 0.60), (0.62, 0.80, 0.30), (1.00, 0.93, 0.45))
"""Red, green and blue from the smallest value to the largest, evenly spaced, with increasing brightness."""


def charbonnier(error: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """A smooth approximation of the absolute value: sqrt(error^2 + epsilon^2)."""
    return (error.square() + epsilon**2).sqrt()


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": torch.abs,
    "l2": torch.square,
    "charbonnier": charbonnier,
    "smooth_l1": smooth_l1,
}
"""Errors to losses, element by element."""


def colour_map(values: Tensor) -> Tensor:
    """Values (H, W) in [0, 1] to colours (3, H, W) in [0, 1]."""
    colours = torch.tensor(COLOURS, dtype=torch.float32, device=values.device)
    place = values.float().clamp(0, 1) * (len(COLOURS) - 1)
    below = place.long().clamp(max=len(COLOURS) - 2)
    share = (place - below).unsqueeze(-1)
    return torch.lerp(colours[below], colours[below + 1], share).movedim(-1, 0)


class Regression(Task):
    """Images to maps of real numbers; a pixel is ignored if its label is not finite in a channel.

    Networks work in a normalised space, in which 0 means `low` and 1 means `high`. A prediction is the network's
    output, clamped to [0, 1]. Losses use the output before clamping, so that outputs out of range have a gradient.
    Labels out of range are clamped in losses and flaw targets, but not in metrics, which are in the data's units. In
    files that `semipix predict` writes, 0 means `low` and 65535 means `high`.

    The error of a pixel, summed over channels, is at most the number of channels. So the flaw target's mu is
    1 / channels by default.

    Args:
        channels: values of each pixel.
        low: value of the data for which a prediction is 0.
        high: value of the data for which a prediction is 1.
        loss: `l1`, `l2`, `charbonnier` or `smooth_l1`.
        mu: scale of the summed error in the flaw target; none means 1 / channels.
        nu: dilations of the flaw target.

    Raises:
        SemipixError: the loss is unknown, there are no channels, the range is empty or infinite, or mu or nu is out of
            range.
    """

    primary: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self,
        channels: int = 1,
        low: float = 0.0,
        high: float = 1.0,
        loss: Penalty = "l1",
        mu: float | None = None,
        nu: int = 5,
    ) -> None:
        if channels < 1:
            raise SemipixError(f"task.channels: {channels} found, at least 1 expected")
        if not -math.inf < low < high < math.inf:
            raise SemipixError(f"task.low: {low} found with task.high={high}, a smaller finite number expected")
        if loss not in PENALTIES:
            raise SemipixError(f"task.loss: {loss!r} found, {' or '.join(get_args(Penalty))} expected")
        if mu is not None and not 0 < mu < math.inf:
            raise SemipixError(f"task.mu: {mu} found, a positive number expected")
        if nu < 0:
            raise SemipixError(f"task.nu: {nu} found, 0 or more expected")
        self.channels = channels
        self.low = low
        self.high = high
        self.penalty = PENALTIES[loss]
        self.between_predictions = torch.square if loss == "l2" else smooth_l1  # see `Task.pixel_loss`
        self.mu = 1 / channels if mu is None else mu
        self.nu = nu

    def activate(self, output: Tensor) -> Tensor:
        return at_least_float32(output).clamp(0, 1)

    def deactivate(self, prediction: Tensor) -> Tensor:
        return at_least_float32(prediction)

    def encode(self, target: Tensor) -> Tensor:
        return self._shares(target).clamp(0, 1)

    def difference(self, prediction: Tensor, target: Tensor) -> Tensor:
        """As of every task; labels out of range are not clamped, as in metrics."""
        return prediction - self._shares(target)

    def _shares(self, target: Tensor) -> Tensor:
        """Labels (L, K, H, W) as shares of the range; 0 at ignored pixels."""
        shares = (at_least_float32(target) - self.low) / (self.high - self.low)
        return shares.masked_fill(~self.valid(target), 0.0)

    def valid(self, target: Tensor) -> Tensor:
        return target.isfinite().all(1, keepdim=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        errors = self.penalty(at_least_float32(output) - self.encode(target))
        return masked_mean(errors, self.valid(target))

    def pixel_loss(self, output: Tensor, goal: Tensor) -> Tensor:
        return self.between_predictions(at_least_float32(output) - goal).mean(1, keepdim=True)

    @property
    def span(self) -> float:
        return self.high - self.low

    def in_units(self, prediction: Tensor) -> Tensor:
        """Convert a prediction in [0, 1] to the units of the data."""
        return at_least_float32(prediction) * (self.high - self.low) + self.low

    def metrics(self) -> MetricCollection:
        metrics = {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)}
        # Without groups: torchmetrics would merge metrics that have equal states after the first image.
        return MetricCollection(
            {name: ValidPixelMetric(metric, self._valid_values) for name, metric in metrics.items()},
            compute_groups=False,
        )

    def image_figures(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Summed errors and their number, from which MAE or RMSE is computed over all images."""
        kind = {"mae": "sum", "rmse": "square_sum"}.get(self.primary)
        if kind is None:
            return super().image_figures(prediction, target)
        known = self.valid(target).expand_as(target)
        error = torch.where(known, self.in_units(prediction) - at_least_float32(target), 0.0).flatten(1)
        total = error.abs().sum(1) if kind == "sum" else error.square().sum(1)
        return {f"{kind}/{self.primary}": total, f"count/{self.primary}": known.flatten(1).sum(1)}

    def _valid_values(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The valid values of predictions (B, K, H, W) and labels (B, K, H, W) in the data's units, (n,) each."""
        known = self.valid(target).expand_as(target)
        return self.in_units(prediction)[known], at_least_float32(target)[known]

    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        """Three channels are shown as red, green and blue; otherwise the largest channel's value as a colour."""
        shown = prediction.clamp(0, 1) if self.channels == 3 else colour_map(prediction.amax(0))
        return (shown * 255).round().to(torch.uint8)
