"""The interface of a task."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.functional.precision import at_least_float32
from semipix.tasks.measures import image_means
from semipix.tasks.strong_changes import StrongChanges

BETA = 0.1
"""Error below which smooth L1 is quadratic, as a share of the range."""


def smooth_l1(error: Tensor) -> Tensor:
    """The absolute value, less BETA / 2; quadratic near 0."""
    return torch.where(error.abs() < BETA, error.square() / (2 * BETA), error.abs() - BETA / 2)


class Task(ABC):
    """Defines what a pixel means: activation, loss, labels, metrics and pictures. It names no method and no model.

    Attributes:
        in_channels: channels the task model is fed: 3, or 4 with a trimap.
        channels: channels of a prediction: classes, or image channels.
        mu: scale of the summed error in the flaw target (Appendix A).
        nu: dilations of the flaw target (Appendix A).
        primary: name of the metric that decides which checkpoint is best.
        higher_is_better: whether a larger primary metric is better.
        uncounted: end of the message that no pixel was counted ("no pixel of the images ..."), and what to check.
        classification: whether a prediction is a distribution over classes.
        trimap: whether the fourth channel of an image is a trimap.
        metrics_add_up: whether metrics may be updated with a few rows of an image at a time, with the same result.
        strong_changes: what strong views of an image may change, because the label of the result is known.
    """

    in_channels: int = 3
    channels: int
    mu: float
    nu: int
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    uncounted: ClassVar[tuple[str, str]] = "has a known target", "check the targets"
    classification: ClassVar[bool] = False
    trimap: ClassVar[bool] = False
    metrics_add_up: ClassVar[bool] = False
    strong_changes: ClassVar[StrongChanges] = StrongChanges()

    @abstractmethod
    def activate(self, output: Tensor) -> Tensor:
        """Network output (N, K, H, W) to prediction (N, K, H, W) in [0, 1]."""

    @abstractmethod
    def deactivate(self, prediction: Tensor) -> Tensor:
        """A network output (N, K, H, W) that `activate` turns into this prediction, up to rounding."""

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """Label (L, ...) to prediction space (L, K, H, W) in [0, 1]."""

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """(L, 1, H, W) bool, False at pixels that are ignored because their label is unknown."""

    def counted(self, target: Tensor) -> Tensor:
        """(L, 1, H, W) bool: the pixels that metrics count; by default all valid ones."""
        return self.valid(target)

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Supervised loss of network outputs (L, K, H, W): R of Eq. 1, a scalar."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Metrics to be updated with activated predictions (B, K, H, W) and labels (B, ...), `primary` among them."""

    def confusion(self, metrics: MetricCollection) -> Tensor | None:
        """Counted pixels (K, K) by label (row) and prediction (column), of metrics that this task made.

        None where there are no classes, as in regression.
        """
        return None

    def image_figures(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each of B images adds to the primary metric, (B,) by column of `semipix.training.image_figures`.

        By default the primary metric of each image alone, for metrics that are means over images; a task whose metric
        is computed from all images together overrides this. Figures add up over rows of an image if
        `metrics_add_up`.

        Args:
            prediction: (B, K, H, W), activated.
            target: labels (B, ...).
        """
        return image_means(self.primary, self._alone, prediction, target)

    def _alone(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The primary metric of one image: (1, K, H, W) and its label."""
        metrics = self.metrics().to(prediction.device)
        metrics.update(prediction, target)
        value: Tensor = metrics.compute()[self.primary]
        return value

    @abstractmethod
    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        """Picture of one prediction (K, H, W) of an image (C_in, H, W): uint8 RGB (3, H, W)."""

    def constrain(self, output: Tensor, image: Tensor) -> Tensor:
        """Overwrite the parts of outputs (N, K, H, W) that images (N, C_in, H, W) determine; by default none."""
        return output

    def decided(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) bool: pixels of images (N, C_in, H, W) that the network decides, those `constrain` leaves."""
        blank = torch.zeros_like(image[:, :1]).expand(-1, self.channels, -1, -1)
        return (self.constrain(blank, image) != self.constrain(blank + 1, image)).any(1, keepdim=True)

    @property
    def span(self) -> float:
        """What a difference of 1 between predictions is in the units of the labels; 1 in classification."""
        return 1.0

    @property
    def file_endings(self) -> tuple[str, ...]:
        """What follows an image's name in the names of the files of its prediction, one for each file of `to_file`.

        Empty for the only file. By default a file for each channel: `.0`, `.1` and so on.
        """
        return ("",) if self.channels == 1 else tuple(f".{channel}" for channel in range(self.channels))

    def to_file(self, prediction: Tensor) -> Tensor:
        """One prediction (K, H, W) as `semipix predict` writes it; by default 16 bit, with 65535 for 1.

        Returns:
            uint8 or uint16: (H, W) or, of a colour image, (3, H, W) where there is one file; otherwise (K, H, W), of
            which each channel is written to its own file.
        """
        levels = (at_least_float32(prediction).clamp(0, 1) * 65535).round().to(torch.int32).to(torch.uint16)
        return levels[0] if len(levels) == 1 else levels

    def pixel_loss(self, output: Tensor, goal: Tensor) -> Tensor:
        """Loss of each pixel (N, 1, H, W) of network outputs against a goal (N, K, H, W) in prediction space.

        The goal is another prediction, such as a pseudo label. By default smooth L1, whose gradient vanishes at the
        goal: that of L1 has the same size there as anywhere, and holds a model at what its teacher already says.
        """
        return smooth_l1(self.activate(output) - goal).mean(1, keepdim=True)

    def sharpen(self, prediction: Tensor, temperature: float) -> Tensor:
        """A prediction (N, K, H, W) as a pseudo label: unchanged at temperature 1 and in regression, one-hot at 0."""
        return prediction

    def confidence(self, prediction: Tensor) -> Tensor:
        """Confidence (N, 1, H, W) in [0, 1] of each pixel of a prediction (N, K, H, W); always 1 in regression."""
        return torch.ones_like(prediction[:, :1])

    def uncertainties(self, prediction: Tensor) -> dict[str, Tensor]:
        """What a prediction (N, K, H, W) says of its errors: maps (N, 1, H, W) in [0, 1] by name; by default none."""
        return {}

    def disagreement(self, first: Tensor, second: Tensor) -> Tensor:
        """How far two predictions (N, K, H, W) differ, (N, 1, H, W) in [0, 1]; by default the mean over channels."""
        return (first - second).abs().mean(1, keepdim=True)

    def difference(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Prediction minus label (L, K, H, W), as a share of the range, as metrics count it."""
        return prediction - self.encode(target)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Absolute error (L, 1, H, W) of each valid pixel, the mean over channels, as a share of the range."""
        return self.difference(prediction, target).abs().mean(1, keepdim=True)

    def wrong(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(L, 1, H, W) bool: valid pixels with a wrong prediction, by default an error above a tenth of the range."""
        error = (prediction - self.encode(target)).abs().mean(1, keepdim=True)
        return (error > 0.1) & self.valid(target)

    def valid_of_all(self, target: Tensor, image: Tensor) -> Tensor:
        """(N, 1, H, W) bool for a whole batch: the pixels at which predictions are compared with each other.

        By default these are the valid pixels of the L labeled images and all pixels of the unlabeled ones.
        """
        unlabeled = image.new_ones((len(image) - len(target), 1, *image.shape[-2:]), dtype=torch.bool)
        return torch.cat([self.valid(target), unlabeled])
