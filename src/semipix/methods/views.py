"""Test-time augmentation: predict several views of an image, and average what they say."""

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.errors import SemipixError
from semipix.functional.resizing import resized_maps
from semipix.methods.base import Evidence, Method

Kind = Literal["flips", "scales"]

SCALES = (0.75, 1.25)
"""Sizes of the further views of `scales`, as shares of the image's."""


class View(NamedTuple):
    """A view of an image.

    Attributes:
        scale: its size, as a share of the image's.
        flipped: axes along which it is mirrored.
    """

    scale: float = 1.0
    flipped: tuple[int, ...] = ()

    def of(self, image: Tensor) -> Tensor:
        """The view of images (N, C, H, W)."""
        if self.scale != 1:
            size = [max(1, round(side * self.scale)) for side in image.shape[-2:]]
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        return image.flip(self.flipped) if self.flipped else image

    def back(self, maps: Tensor) -> Tensor:
        """Maps (N, C, h, w) of the view, mirrored back."""
        return maps.flip(self.flipped) if self.flipped else maps


class AveragedViews:
    """Gives the evidence of a method, averaged over views of the image.

    `flips` mirrors an image from left to right and, if the training rotated images by more than 90 degrees, also upside
    down. `scales` also predicts it at 0.75 and 1.25 of its size; in regression, where the label is an image of the same
    scale, resizing would change what has to be returned, so that it is refused.

    Args:
        method: in evaluation mode.
        kind: which views; None for the image alone.
        rotated: largest rotation in training, in degrees.

    Raises:
        SemipixError: the kind is unknown, or is `scales` in regression.
    """

    def __init__(self, method: Method, kind: str | None = None, rotated: float = 0.0) -> None:
        if kind is not None and kind not in get_args(Kind):
            raise SemipixError(f"--tta: {kind!r} found, flips or scales expected")
        if kind == "scales" and not method.task.classification:
            name = type(method.task).__name__
            raise SemipixError(f"--tta: scales found, but resizing changes what {name} has to return; take flips")
        self.method = method
        self.kind = kind
        flips: list[tuple[int, ...]] = [(-1,), *([(-2,), (-2, -1)] if rotated > 90 else [])]
        further = [View(flipped=axes) for axes in flips] if kind == "flips" else [View(scale) for scale in SCALES]
        self.views = [View(), *(further if kind else [])]

    @property
    def in_slabs(self) -> bool:
        """Whether rows of an image can be computed on their own: no view changes their position."""
        return all(view.scale == 1 and -2 not in view.flipped for view in self.views)

    def evidence(self, image: Tensor) -> Evidence:
        """What `Method.evidence` says of images (N, C, H, W), averaged over the views."""
        if len(self.views) == 1:
            return self.method.evidence(image)
        return self._mean([self.method.evidence(view.of(image)) for view in self.views])

    def evidences(self, image: Tensor, flaws_of: Collection[str] | None = None) -> dict[str, Evidence]:
        """What `Method.evidences` says of images (N, C, H, W), averaged over the views."""
        if len(self.views) == 1:
            return self.method.evidences(image, flaws_of)
        found = [self.method.evidences(view.of(image), flaws_of) for view in self.views]
        return {name: self._mean([each[name] for each in found]) for name in found[0]}

    def _mean(self, found: list[Evidence]) -> Evidence:
        """The mean of the evidence of each view, at the size of the first one."""
        count = len(found[0].predictions)
        predictions = tuple(self._mean_maps([each.predictions[index] for each in found]) for index in range(count))
        flaws = [each.flaw for each in found if each.flaw is not None]
        flaw = self._mean_maps(flaws) if flaws else None
        return Evidence(self.method.task.deactivate(predictions[0]), predictions, flaw)

    def _mean_maps(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        parts = [resized_maps(view.back(each), size) for view, each in zip(self.views, maps, strict=True)]
        return torch.stack(parts).mean(0)
