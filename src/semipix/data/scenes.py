"""The built-in data: drawn scenes, without any download."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torchvision import tv_tensors

from semipix.data.drawing import SHAPES, TEXTURES, Plane, smooth_noise, turned
from semipix.data.source import Source
from semipix.data.transforms import Size, as_size
from semipix.errors import SemipixError

CLASSES = ["background", *SHAPES]

Colours = NDArray[np.float32]
"""(H, W, 3) or (3,) float32, in [0, 1] once a scene is finished."""

_SPLITS = ("train", "val", "test")
_SMALLEST = 32
_OWN_TEXTURE = 0.95
"""Share of objects that bear their class's texture; the others bear any."""


class ScenesSource(Source):
    """Objects of five classes before a busy background.

    A class is a shape that mostly bears a texture of its own. Colours say nothing: all classes and the background draw
    theirs from one distribution. Nor does texture alone, for shapeless patches of the background bear the same
    textures. Objects cover each other, cast shadows, and are lit unevenly; the sensor adds noise. Each image depends on
    nothing but the seed, its split and its number.

    Args:
        size: side, or height and width, in pixels.
        train: number of training images, all labeled.
        val: number of validation images.
        test: number of test images.
        seed: another seed gives other images.

    Raises:
        SemipixError: a number is out of range.
    """

    def __init__(
        self, size: int | Sequence[int] = 96, train: int = 240, val: int = 40, test: int = 100, seed: int = 0
    ) -> None:
        self.classes: list[str] = list(CLASSES)
        self.size = as_size("data.size", size)
        if min(self.size) < _SMALLEST:
            raise SemipixError(f"data.size={size}: expected at least {_SMALLEST} pixels a side")
        self.seed = seed
        self._counts = dict(zip(_SPLITS, (train, val, test), strict=True))
        for split, count in self._counts.items():
            if count < (split == "train"):
                raise SemipixError(f"data.{split}={count}: expected at least {int(split == 'train')} images")
        self._drawn: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def labeled(self) -> list[str]:
        return self._names("train")

    def unlabeled(self) -> list[str]:
        return []

    def val(self) -> list[str]:
        return self._names("val")

    def test(self) -> list[str]:
        return self._names("test")

    def image(self, name: str) -> tv_tensors.Image:
        return tv_tensors.Image(torch.from_numpy(self._draw(name)[0]).permute(2, 0, 1).contiguous().float() / 255)

    def target(self, name: str) -> tv_tensors.Mask:
        return tv_tensors.Mask(torch.from_numpy(self._draw(name)[1]).long())

    def _names(self, split: str) -> list[str]:
        return [f"scenes/{split}/{number:06d}" for number in range(self._counts[split])]

    def _draw(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if name not in self._drawn:
            _, split, number = name.split("/")
            generator = np.random.default_rng([self.seed, _SPLITS.index(split), int(number)])
            self._drawn[name] = draw_scene(self.size, generator)
        return self._drawn[name]


def draw_scene(size: Size, generator: Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        size: height and width.
        generator: decides everything else.

    Returns:
        The image (H, W, 3) and its class indices (H, W).
    """
    height, width = size
    scene = _background(size, generator)
    mask = np.zeros(size, np.uint8)
    for _ in range(generator.integers(3, 6)):
        _add_object(scene, mask, int(generator.integers(1, len(CLASSES))), generator)
    scene *= (1 + 0.35 * smooth_noise(generator, 1, height, width))[..., None]
    scene += generator.uniform(0.01, 0.03) * generator.standard_normal(scene.shape, np.float32)
    return (np.clip(scene, 0, 1) * 255).round().astype(np.uint8), mask


def _background(size: Size, generator: Generator) -> Colours:
    """A blend of two colours, faintly textured, with shapeless patches that bear the objects' textures."""
    height, width = size
    blend = 0.5 + 0.5 * smooth_noise(generator, int(generator.integers(1, 5)), height, width)
    first, second = _colour(generator), _colour(generator)
    scene: Colours = first + blend[..., None] * (second - first)
    v, u = _grid(slice(0, height), slice(0, width), 0, 0)
    scene += generator.uniform(0, 0.05) * _texture(int(generator.integers(5)), u, v, size, generator)[..., None]
    for _ in range(generator.integers(0, 3)):
        edge = smooth_noise(generator, 4, height, width) - generator.uniform(0.2, 0.45)
        # Soft edges and at most half the cover: patches lie behind the objects and should not look like more of them.
        cover = generator.uniform(0.2, 0.5) * np.clip(edge * 5, 0, 1)[..., None]
        scene += cover * (_surface(int(generator.integers(5)), u, v, size, generator) - scene)
    return scene


def _add_object(scene: Colours, mask: NDArray[np.uint8], index: int, generator: Generator) -> None:
    """Draw an object of a class over the scene and its mask, in place."""
    size = height, width = mask.shape
    radius = generator.uniform(0.17, 0.32) * min(size)
    centre_y, centre_x = generator.uniform(0, height), generator.uniform(0, width)
    # Nothing of the object or its shadow lies beyond this window (a star's point: 1.3, its shadow: 1.65).
    rows, columns = _window(centre_y, 1.8 * radius, height), _window(centre_x, 1.8 * radius, width)
    y, x = _grid(rows, columns, centre_y, centre_x)
    angle, stretch = generator.uniform(0, 2 * np.pi), generator.uniform(0.75, 1)

    def distance(shift_y: float, shift_x: float) -> Plane:
        """Pixels to the outline of the object moved by a shift, negative inside."""
        u, v = turned((x - shift_x) / radius, (y - shift_y) / radius, angle)
        outline: Plane = SHAPES[CLASSES[index]](u, (v / stretch).astype(np.float32)) * np.float32(radius * stretch)
        return outline

    part = scene[rows, columns]
    shadow = np.clip(0.5 - distance(0.12 * radius, 0.15 * radius) / (0.3 * radius), 0, 1)
    part *= (1 - generator.uniform(0.2, 0.5) * shadow)[..., None]
    outline = distance(0, 0)
    own = generator.random() < _OWN_TEXTURE
    surface = _surface(index - 1 if own else int(generator.integers(5)), x, y, size, generator)
    lit, _ = turned(x, y, generator.uniform(0, 2 * np.pi))
    surface *= (1 + generator.uniform(0, 0.3) * lit / radius)[..., None]
    part += np.clip(0.5 - outline, 0, 1)[..., None] * (surface - part)
    mask[rows, columns][outline <= 0] = index


def _surface(texture: int, x: Plane, y: Plane, size: Size, generator: Generator) -> Colours:
    """Two random colours in the pattern of a texture, (H, W, 3)."""
    middle, other = _colour(generator), _colour(generator)
    away = other - middle
    contrast = generator.uniform(0.2, 0.35) * away / max(0.2, float(np.linalg.norm(away)))
    surface: Colours = middle + _texture(texture, x, y, size, generator)[..., None] * contrast
    return surface.astype(np.float32)


def _texture(index: int, x: Plane, y: Plane, size: Size, generator: Generator) -> Plane:
    """A texture in [-1, 1] at pixel coordinates, turned, and with a period that grows with the scene's size."""
    period = np.float32(generator.uniform(0.08, 0.12) * min(size))
    u, v = turned(x / period, y / period, generator.uniform(0, 2 * np.pi))
    return TEXTURES[index](u, v, generator)


def _colour(generator: Generator) -> Colours:
    """Any colour of medium brightness: the one distribution that objects and backgrounds share."""
    return generator.uniform(0.15, 0.85, 3).astype(np.float32)


def _window(centre: float, reach: float, length: int) -> slice:
    return slice(max(0, int(centre - reach)), max(1, min(length, int(centre + reach) + 1)))


def _grid(rows: slice, columns: slice, centre_y: float, centre_x: float) -> tuple[Plane, Plane]:
    """Pixel centres (y, x) of a window, as offsets from a point."""
    y, x = np.mgrid[rows, columns].astype(np.float32) + np.float32(0.5)
    return y - np.float32(centre_y), x - np.float32(centre_x)
