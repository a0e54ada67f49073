"""Batches and samples: the data that loaders yield and that methods get."""

from typing import NamedTuple

from torch import Tensor

VOID = 255
"""Label of ignored pixels in a segmentation mask."""


class Batch(NamedTuple):
    """Images of one training step, the labeled ones first; the only data that a method gets.

    Attributes:
        image: (N, C_in, H, W) float in [0, 1]; the first `len(target)` images are labeled.
        target: labels of the first L images, L <= N: (L, H, W) int64 for classification,
            (L, C, H, W) float for regression.
        strong: (V (N - L), C_in, H, W): V strong photometric views of each unlabeled image with the same geometry. The
            first views of all images come before the second ones. None if the method needs none.
    """

    image: Tensor
    target: Tensor
    strong: Tensor | None = None

    @property
    def labeled(self) -> Tensor:
        """The labeled images, (L, C_in, H, W)."""
        return self.image[: len(self.target)]

    @property
    def unlabeled(self) -> Tensor:
        """The unlabeled images, (N - L, C_in, H, W)."""
        return self.image[len(self.target) :]


class LabeledImages(NamedTuple):
    """The labeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        target: (B, H, W) int64 for classification, (B, C, H, W) float32 for regression.
        names: the images' names.
    """

    image: Tensor
    target: Tensor
    names: list[str]


class UnlabeledImages(NamedTuple):
    """The unlabeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        names: the images' names.
        seeds: for each image the seed of its strong views.
    """

    image: Tensor
    names: list[str]
    seeds: list[int]


class EvalSample(NamedTuple):
    """One image to evaluate.

    Attributes:
        image: (C_in, h, w) float32 in [0, 1], resized for the network.
        target: the label at its own size, (H, W) int64 or (C, H, W) float32.
        name: the image's name.
    """

    image: Tensor
    target: Tensor
    name: str
