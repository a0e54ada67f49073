"""The interface of detectors: networks that predict where a prediction is wrong."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class Detector(nn.Module, ABC):
    """Predicts where one of a pair of predictions is wrong.

    Attributes:
        probabilistic: whether `flaw` is the probability of an error, which can be compared between images. Otherwise it
            is a map of unbounded range, of which only the order of the pixels of one image has a meaning.
        reads_features: whether `forward` needs the feature maps of a task model.
    """

    probabilistic: ClassVar[bool] = True
    reads_features: ClassVar[bool] = False

    @abstractmethod
    def forward(self, image: Tensor, own: Tensor, other: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        """Raw map (N, 1, H, W) of a prediction.

        Args:
            image: (N, C_in, H, W) in [0, 1].
            own: activated prediction (N, K, H, W), whose errors are asked for.
            other: the other model's prediction of the same images (N, K, H, W).
            features: feature maps (N, C_i, h_i, w_i) of a task model for these images, for detectors that read them.
        """

    def flaw(self, raw: Tensor) -> Tensor:
        """A raw map (N, 1, H, W) as a flaw map: its sigmoid, or for maps without a fixed range the map itself."""
        return raw.sigmoid() if self.probabilistic else raw
