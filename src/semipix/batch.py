"""Batches and samples: the data that loaders yield and that methods get."""

from typing import NamedTuple

import torch
from torch import Tensor

VOID = 255
"""Label of ignored pixels in a segmentation mask."""


class StrongLabels(NamedTuple):
    """How the labels of strong views follow from those of their images.

    Attributes:
        order: (B, K) int64: channel c of the view's label is channel `order[:, c]` of the image's label; None if no
            channel moves.
        gain: (B,) float: factor of the label; None if it is 1 for all.
        visible: (B, 1, H, W) bool: the pixels at which the view is compared with its label.
    """

    order: Tensor | None
    gain: Tensor | None
    visible: Tensor


class StrongView(NamedTuple):
    """One strong view of each unlabeled image.

    Attributes:
        image: (U, C_in, H, W).
        labels: how the labels follow from those of the images; None if they are the same.
        shown: (U, 1, H, W) bool: see `Batch.shown`; None if that is all pixels.
    """

    image: Tensor
    labels: StrongLabels | None = None
    shown: Tensor | None = None

    def label(self, label: Tensor) -> Tensor:
        """The views' labels (U, K, H, W), of the labels (U, K, H, W) of the unchanged images in prediction space."""
        if self.labels is None:
            return label
        if self.labels.order is not None:
            label = label.gather(1, self.labels.order[:, :, None, None].expand_as(label))
        return label if self.labels.gain is None else label * self.labels.gain.to(label.dtype).view(-1, 1, 1, 1)

    def compared(self, pixels: Tensor) -> Tensor:
        """Of pixels or weights (U, 1, H, W) of the unchanged images, those that the views are compared at; others 0."""
        if self.shown is not None:
            pixels = pixels * self.shown
        return pixels if self.labels is None else pixels * self.labels.visible


class Batch(NamedTuple):
    """Images of one training step, the labeled ones first; the only data that a method gets.

    Attributes:
        image: (N, C_in, H, W) float in [0, 1]; the first `len(target)` images are labeled.
        target: labels of the first L images, L <= N: (L, H, W) int64 for classification,
            (L, C, H, W) float for regression.
        strong: (V (N - L), C_in, H, W): V strong photometric views of each unlabeled image with the same geometry. The
            first views of all images come before the second ones. None if the method needs none.
        strong_labels: how the labels of the strong views follow from those of the images; None if they are the same.
            `strong_views()` gives both together.
        labeled_strong: (2 V, C_in, H, W): two strong views of each of the first V labeled images, all first views
            before the second ones. None if the method needs none.
        labeled_strong_labels: how their labels follow from those of the images; None if they are the same.
        place: (L,) float in (0, 1): the place of each labeled image in a random order of all labeled images, which is
            the same throughout a training; on the CPU. None if the loader does not know it.
        shown: (N, 1, H, W) bool: the pixels at which the images show something; not so are padding and pixels without a
            value in one of the bands. Nothing is learned from the others. None if they show something everywhere.
    """

    image: Tensor
    target: Tensor
    strong: Tensor | None = None
    strong_labels: StrongLabels | None = None
    labeled_strong: Tensor | None = None
    labeled_strong_labels: StrongLabels | None = None
    place: Tensor | None = None
    shown: Tensor | None = None

    @property
    def labeled(self) -> Tensor:
        """The labeled images, (L, C_in, H, W)."""
        return self.image[: len(self.target)]

    @property
    def unlabeled(self) -> Tensor:
        """The unlabeled images, (N - L, C_in, H, W)."""
        return self.image[len(self.target) :]

    @property
    def unlabeled_shown(self) -> Tensor | None:
        """`shown` of the unlabeled images, (N - L, 1, H, W)."""
        return None if self.shown is None else self.shown[len(self.target) :]

    def strong_views(self) -> list[StrongView]:
        """The strong views: the first view of all unlabeled images, then the second one, and so on."""
        if self.strong is None:
            return []
        return _views(self.strong, self.strong_labels, len(self.unlabeled), self.unlabeled_shown)

    def labeled_views(self) -> list[StrongView]:
        """Two strong views of each of the first labeled images; none if the batch has none."""
        if self.labeled_strong is None:
            return []
        count = len(self.labeled_strong) // 2
        shown = None if self.shown is None else self.shown[:count]
        return _views(self.labeled_strong, self.labeled_strong_labels, count, shown)


def _views(views: Tensor, labels: StrongLabels | None, images: int, shown: Tensor | None) -> list[StrongView]:
    """Strong views (V B, C, H, W) of B images as one `StrongView` for each of V."""
    parts = torch.split(views, images)
    if labels is None:
        return [StrongView(part, None, shown) for part in parts]
    nothing = [None] * len(parts)
    order, gain = (nothing if each is None else torch.split(each, images) for each in (labels.order, labels.gain))
    changes = zip(order, gain, torch.split(labels.visible, images), strict=True)
    return [StrongView(part, StrongLabels(*change), shown) for part, change in zip(parts, changes, strict=True)]


class LabeledImages(NamedTuple):
    """The labeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        target: (B, H, W) int64 for classification, (B, C, H, W) float32 for regression.
        names: the images' names.
        seeds: for each image the seed of its strong views.
        places: for each image its place in (0, 1) in a random order of all labeled images.
        shown: (B, 1, H, W) bool, see `Batch.shown`; None if that is all pixels.
    """

    image: Tensor
    target: Tensor
    names: list[str]
    seeds: list[int]
    places: list[float]
    shown: Tensor | None = None


class UnlabeledImages(NamedTuple):
    """The unlabeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        names: the images' names.
        seeds: for each image the seed of its strong views.
        shown: (B, 1, H, W) bool, see `Batch.shown`; None if that is all pixels.
    """

    image: Tensor
    names: list[str]
    seeds: list[int]
    shown: Tensor | None = None


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
