"""The built-in data: drawn scenes, without any download."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.drawing.scenes import DRAW, SCENE_CLASSES, Drawn, Pixels
from semipix.data.files.listing import SPLITS
from semipix.data.files.sizes import as_size
from semipix.data.source import Source
from semipix.data.targets import KINDS, Matte, Target, check_target_kind
from semipix.errors import SemipixError

_SMALLEST = 32


class ScenesSource(Source):
    """Objects of five classes in front of a busy background.

    Each class has its own shape, and most of its objects have its own texture. The classes cannot be distinguished by
    colour, since all classes and the background draw colours from the same distribution. Texture is not sufficient
    either, since the background has shapeless patches of the same textures. Objects hide each other, cast shadows and
    are lit unevenly; the sensor adds noise. Each image depends only on the seed, its split and its number.

    The kind decides image and target:
    - segmentation: the target is the class of each pixel;
    - denoising: the image has a camera's noise, mosaic and JPEG; the target is the clean scene;
    - enhancement: the image is the scene at night; the target is the clean scene;
    - matting: the image is a soft-edged, hairy object in front of a scene, with trimap; the target is its alpha, with
      foreground and background;
    - regression: the image is hazy; the target is the depth in [0, 1] (1 is farthest) of slanted layers.

    Args:
        size: side, or height and width, in pixels.
        train: number of training images, all labeled.
        val: number of validation images.
        test: number of test images.
        seed: seed of the images.
        kind: the kind of the targets.
        merge_classes: for segmentation, whether all objects are one class, so that there are two with the background.

    Raises:
        SemipixError: a number is out of range, the kind is unknown, or classes are to be merged for a kind without
            classes.
    """

    kinds: ClassVar[tuple[str, ...]] = KINDS

    def __init__(
        self,
        size: int | Sequence[int] = 96,
        train: int = 240,
        val: int = 40,
        test: int = 100,
        seed: int = 0,
        kind: str = "segmentation",
        merge_classes: bool = False,
    ) -> None:
        self.kind = check_target_kind(kind, KINDS)
        if merge_classes and kind != "segmentation":
            raise SemipixError(
                f"data.merge_classes=true: {kind} has no classes; leave it out or set data.kind=segmentation"
            )
        self.merge_classes = merge_classes
        names = [SCENE_CLASSES[0], "object"] if merge_classes else list(SCENE_CLASSES)
        self.classes = names if kind == "segmentation" else None
        self.channels = {"denoising": 3, "enhancement": 3, "regression": 1}.get(kind)
        self.size = as_size("data.size", size)
        if min(self.size) < _SMALLEST:
            raise SemipixError(f"data.size={size}: expected at least {_SMALLEST} pixels a side")
        self.seed = seed
        self._counts = dict(zip(SPLITS, (train, val, test), strict=True))
        for split, count in self._counts.items():
            if count < (split == "train"):
                raise SemipixError(f"data.{split}={count}: expected at least {int(split == 'train')} images")
        self._drawn: dict[str, Drawn] = {}

    def labeled(self) -> list[str]:
        return self._names("train")

    def unlabeled(self) -> list[str]:
        return []

    def val(self) -> list[str]:
        return self._names("val")

    def test(self) -> list[str]:
        return self._names("test")

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        image = _channels_first(self._draw(name)[0])
        if self.kind == "matting":
            image[3] = (image[3] * 2).round() / 2  # 128 of 255 is unknown, which is 0.5
        return tv_tensors.Image(image)

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, Target]:
        return self.image(name, seed), self.target(name)

    def target(self, name: str) -> Target:
        target = self._draw(name)[1]
        if self.kind == "segmentation":
            mask = torch.from_numpy(target)
            return tv_tensors.Mask((mask > 0 if self.merge_classes else mask).long())
        values = _channels_first(target)
        return values.as_subclass(Matte) if self.kind == "matting" else tv_tensors.Image(values)

    def _names(self, split: str) -> list[str]:
        return [f"scenes/{split}/{number:06d}" for number in range(self._counts[split])]

    def _draw(self, name: str) -> Drawn:
        if name not in self._drawn:
            _, split, number = name.split("/")
            generator = np.random.default_rng([self.seed, SPLITS.index(split), int(number)])
            self._drawn[name] = DRAW[self.kind](self.size, generator)
        return self._drawn[name]


def _channels_first(pixels: Pixels) -> Tensor:
    """A new tensor (C, H, W) float32 from (H, W, C) bytes or float32; bytes are scaled to [0, 1]."""
    values = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float()
    return values / 255 if pixels.dtype == np.uint8 else values.clone()
