"""Detectors that read what a pair of models says: confidences, agreement and, if asked for, feature maps."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from semipix.functional.cues import pair_cues, value_cues
from semipix.functional.precision import at_least_float32
from semipix.models.detector import Detector
from semipix.models.padding import cropped

WIDTH = 16
"""Channels of the hidden layers."""

KERNEL = 5
"""Side of the only convolution that looks at neighbours, in pixels."""

COARSE = 4
"""Side of the squares over which cues are averaged before their means over larger windows are computed, in pixels."""

WINDOWS = (5, 13)
"""Sides of these windows, in squares: 20 and 52 pixels."""

FEATURE_WIDTH = 8
"""Channels to which each feature map is reduced."""

FIRST_PROBABILITY = 0.1
"""Probability of an error that an untrained detector reports."""

MOMENTUM = 0.1
"""Weight of a new batch in the running statistics of the cues."""


class RunningNorm(nn.Module):
    """Standardises channels by running statistics, also in training, so that images do not depend on their batch.

    Several processes share their statistics.

    Args:
        channels: number of channels.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.ones(channels))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to the same shape."""
        if self.training:
            with torch.no_grad():
                self.count += 1
                weight = (1 / self.count).clamp(min=MOMENTUM).to(self.mean)
                seen = features.detach().to(self.mean)
                moments = _mean_of_processes(torch.stack([seen.mean((0, 2, 3)), seen.square().mean((0, 2, 3))]))
                self.mean.lerp_(moments[0], weight)
                self.square.lerp_(moments[1], weight)
        deviation = (self.square - self.mean.square()).clamp(min=1e-4).sqrt()
        # The running statistics may change again before the backward pass.
        mean, deviation = self.mean.clone().view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
        return ((features - mean) / deviation).to(features.dtype)


def _mean_of_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes of a training, so that their statistics stay equal."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


class CueDetector(Detector):
    """Reads the cues of a pair of predictions in a small convolutional network; its flaw map is a probability.

    The cues are those of `semipix.functional.cues`: confidences and agreement of the pair or, in regression, their
    difference and the distance to the image. A convolution sees the cues around a pixel, and their means over larger
    windows. It has no means over the whole image, so large images can be computed in parts.

    Args:
        in_channels: channels of the image.
        channels: channels of a prediction.
        classification: whether a prediction is a distribution over classes.
    """

    def __init__(self, in_channels: int, channels: int, classification: bool) -> None:
        super().__init__()
        self.classification = classification
        blank = torch.full((1, channels, 2, 2), 1 / channels)
        cues = self._cues(torch.zeros(1, in_channels, 2, 2), blank, blank).shape[1]
        self.norm = RunningNorm(cues * (1 + len(WINDOWS)))
        self.near = nn.Conv2d(cues, WIDTH, KERNEL, padding=KERNEL // 2)
        self.far = nn.Conv2d(cues * len(WINDOWS), WIDTH, 1)
        self.hidden = nn.Conv2d(WIDTH, WIDTH, 1)
        self.last = nn.Conv2d(WIDTH, 1, 1)
        nn.init.constant_(self.last.bias, torch.tensor(FIRST_PROBABILITY).logit().item())  # type: ignore[arg-type]

    def forward(self, image: Tensor, own: Tensor, other: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        cues = self._cues(image, own, other)
        seen = self.norm(torch.cat([cues, *_local_means(cues)], dim=1))
        seen = seen.to(self.near.weight.dtype)
        hidden = self.near(seen[:, : cues.shape[1]]) + self.far(seen[:, cues.shape[1] :])
        if features is not None:
            hidden = hidden + self._of_features(features, hidden)
        raw: Tensor = self.last(self.hidden(hidden.relu()).relu())
        return raw

    def _cues(self, image: Tensor, own: Tensor, other: Tensor) -> Tensor:
        if self.classification:
            return pair_cues(own, other)
        return torch.cat(list(value_cues([own, other], None, image).values()), dim=1)

    def _of_features(self, features: Sequence[Tensor], hidden: Tensor) -> Tensor:
        raise ValueError(f"{type(self).__name__} reads no feature maps, {len(features)} found")


def _local_means(cues: Tensor) -> list[Tensor]:
    """Means (N, C, H, W) of cues over each window around a pixel; coarse, since they change slowly."""
    height, width = cues.shape[-2:]
    coarse = F.avg_pool2d(cues, COARSE, ceil_mode=True, count_include_pad=False)
    found = []
    for window in WINDOWS:
        means = F.avg_pool2d(coarse, window, stride=1, padding=window // 2, count_include_pad=False)
        found.append(cropped(F.interpolate(means, scale_factor=COARSE, mode="bilinear"), (height, width)))
    return found


class FeatureDetector(CueDetector):
    """A cue detector that also reads the feature maps of a task model; there is no second encoder.

    Args:
        in_channels, channels, classification: see `CueDetector`.
        widths: channels of each feature map.
    """

    reads_features: ClassVar[bool] = True

    def __init__(self, in_channels: int, channels: int, classification: bool, widths: Sequence[int]) -> None:
        super().__init__(in_channels, channels, classification)
        self.norms = nn.ModuleList(RunningNorm(width) for width in widths)
        self.reductions = nn.ModuleList(nn.Conv2d(width, FEATURE_WIDTH, 1) for width in widths)
        self.joined = nn.Conv2d(FEATURE_WIDTH * len(widths), WIDTH, 1)

    def forward(self, image: Tensor, own: Tensor, other: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        if features is None:
            raise ValueError("FeatureDetector: no feature maps found, those of a task model expected")
        return super().forward(image, own, other, features)

    def _of_features(self, features: Sequence[Tensor], hidden: Tensor) -> Tensor:
        parts = zip(self.norms, self.reductions, features, strict=True)
        reduced = [reduction(norm(at_least_float32(maps)).to(hidden)).relu() for norm, reduction, maps in parts]
        resized = [F.interpolate(maps, hidden.shape[-2:], mode="bilinear") for maps in reduced]
        joined: Tensor = self.joined(torch.cat(resized, dim=1))
        return joined
