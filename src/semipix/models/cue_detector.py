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

    def forward(self, *parts: Tensor) -> list[Tensor]:
        """Maps (N, C_i, H_i, W_i) to the same shapes; their channels together are those that the norm has."""
        if self.training:
            with torch.no_grad():
                self.count += 1
                weight = (1 / self.count).clamp(min=MOMENTUM).to(self.mean)
                seen = [part.detach().to(self.mean) for part in parts]
                found = [torch.stack([part.mean((0, 2, 3)), part.square().mean((0, 2, 3))]) for part in seen]
                moments = _mean_of_processes(torch.cat(found, dim=1))
                self.mean.lerp_(moments[0], weight)
                self.square.lerp_(moments[1], weight)
        # New tensors, since the running statistics may change again before the backward pass.
        scale = (self.square - self.mean.square()).clamp(min=1e-4).rsqrt()
        shift = -self.mean * scale
        sizes = [part.shape[1] for part in parts]
        factors = zip(parts, torch.split(scale, sizes), torch.split(shift, sizes), strict=True)
        return [
            torch.addcmul(_by_channel(low), part, _by_channel(factor)).to(part.dtype) for part, factor, low in factors
        ]


def _by_channel(values: Tensor) -> Tensor:
    """Values (C) as (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)


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
        # Convolutions of few channels are much faster in channels last, whatever the format of the predictions.
        near, far = (
            maps.to(self.near.weight.dtype, memory_format=torch.channels_last)
            for maps in self.norm(cues, _local_means(cues))
        )
        # Interpolation and a convolution of single pixels can be exchanged, and there are 16 times fewer coarse pixels.
        hidden = self.near(near).add_(_interpolated(self.far(far), near))
        if features is not None:
            hidden = hidden + self._of_features(features, hidden)
        raw: Tensor = self.last(self.hidden(hidden.relu_()).relu_())
        return raw

    def _cues(self, image: Tensor, own: Tensor, other: Tensor) -> Tensor:
        if self.classification:
            return pair_cues(own, other)
        return torch.cat(list(value_cues([own, other], None, image).values()), dim=1)

    def _of_features(self, features: Sequence[Tensor], hidden: Tensor) -> Tensor:
        raise ValueError(f"{type(self).__name__} reads no feature maps, {len(features)} found")


def _local_means(cues: Tensor) -> Tensor:
    """Means of cues (N, C, H, W) over each window around a pixel: coarse maps (N, C * windows, h, w)."""
    coarse = F.avg_pool2d(cues, COARSE, ceil_mode=True, count_include_pad=False)
    return torch.cat([_window_mean(coarse, window) for window in WINDOWS], dim=1)


def _window_mean(maps: Tensor, window: int) -> Tensor:
    """Means (N, C, h, w) over the part of a square window that is inside of the maps, along one side at a time."""
    for height, width in ((window, 1), (1, window)):
        padding = (height // 2, width // 2)
        maps = F.avg_pool2d(maps, (height, width), stride=1, padding=padding, count_include_pad=False)
    return maps


def _interpolated(coarse: Tensor, like: Tensor) -> Tensor:
    """Coarse maps at every pixel of finer ones."""
    height, width = like.shape[-2:]
    return cropped(F.interpolate(coarse, scale_factor=COARSE, mode="bilinear"), (height, width))


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
        reduced = [reduction(norm(at_least_float32(maps))[0].to(hidden)).relu() for norm, reduction, maps in parts]
        resized = [F.interpolate(maps, hidden.shape[-2:], mode="bilinear") for maps in reduced]
        joined: Tensor = self.joined(torch.cat(resized, dim=1))
        return joined
