"""Draw the built-in scenes: an image and its target for each kind of task."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from semipix.data.drawing.camera import Colours, photograph, photograph_at_night
from semipix.data.drawing.shapes import SHAPES, TEXTURES, Plane, rotated, smooth_noise
from semipix.data.files.mattes import make_trimap
from semipix.data.files.sizes import Size

SCENE_CLASSES = ["background", *SHAPES]

Pixels: TypeAlias = NDArray[Any]
"""(H, W) or (H, W, C): class indices and bytes as uint8, other numbers as float32."""

Drawn: TypeAlias = tuple[Pixels, Pixels]
"""An image and its target."""

_OWN_TEXTURE = 0.95
"""Share of objects with the texture of their class; the others have a random one."""

_STRANDS = 48
"""Number of hairs around a matting object."""


class Layer(NamedTuple):
    """An object of a scene.

    Attributes:
        label: its class.
        inside: the pixels that it covers, (H, W), including those that later objects hide.
    """

    label: int
    inside: NDArray[np.bool_]


def draw_scene(size: Size, generator: Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        size: height and width.
        generator: draws everything else.

    Returns:
        The image (H, W, 3) and its class indices (H, W).
    """
    scene, layers = draw_clean(size, generator)
    mask = np.zeros(size, np.uint8)
    for layer in layers:
        mask[layer.inside] = layer.label
    scene += generator.uniform(0.01, 0.03) * generator.standard_normal(scene.shape, np.float32)
    return _bytes(scene), mask


def draw_denoising(size: Size, generator: Generator) -> Drawn:
    """A noisy photograph of a scene and the clean scene, (H, W, 3) each."""
    clean = np.clip(draw_clean(size, generator)[0], 0, 1)
    return _bytes(photograph(clean, generator)), _bytes(clean)


def draw_enhancement(size: Size, generator: Generator) -> Drawn:
    """A photograph of a scene at night and the scene by day, (H, W, 3) each."""
    clean = np.clip(draw_clean(size, generator)[0], 0, 1)
    return _bytes(photograph_at_night(clean, generator)), _bytes(clean)


def draw_depth(size: Size, generator: Generator) -> Drawn:
    """A hazy scene (H, W, 3) and its depth (H, W, 1) float32 in [0, 1]. Objects that are drawn later are nearer."""
    clean, layers = draw_clean(size, generator)
    depth = 0.85 + 0.12 * _slant(size, generator)
    for number, layer in enumerate(layers, 1):
        plane = 0.7 * (1 - number / len(layers)) + 0.08 + 0.06 * _slant(size, generator)
        depth[layer.inside] = plane[layer.inside]
    veil = (0.75 * depth)[..., None]
    hazy = (1 - veil) * np.clip(clean, 0, 1) + veil * generator.uniform(0.7, 0.9, 3)
    hazy += 0.01 * generator.standard_normal(hazy.shape)
    return _bytes(hazy), depth[..., None].astype(np.float32)


def draw_matting(size: Size, generator: Generator) -> Drawn:
    """A soft-edged object in front of a scene.

    Returns:
        Image and trimap (H, W, 4), and alpha, unknown region, foreground and background (H, W, 8), all as bytes.
    """
    background = np.clip(draw_clean(size, generator)[0], 0, 1)
    y, x = _grid(slice(0, size[0]), slice(0, size[1]), 0, 0)
    foreground = np.clip(_surface(int(generator.integers(5)), x, y, size, generator), 0, 1)
    alpha = (_soft_object(size, generator) * 255).round() / 255
    low, high = max(1, min(size) // 48), max(2, min(size) // 12)
    inner, outer = (int(reach) for reach in generator.integers(low, high + 1, 2))
    trimap = make_trimap(torch.from_numpy(alpha), inner, outer).numpy()[..., None]
    layers = [(colours * 255).round() / 255 for colours in (foreground, background)]
    image = alpha[..., None] * layers[0] + (1 - alpha[..., None]) * layers[1]
    target = np.concatenate([alpha[..., None], trimap == 0.5, *layers], axis=-1)
    return _bytes(np.concatenate([image, trimap], axis=-1)), _bytes(target)


DRAW: dict[str, Callable[[Size, Generator], Drawn]] = {
    "segmentation": draw_scene,
    "denoising": draw_denoising,
    "enhancement": draw_enhancement,
    "matting": draw_matting,
    "regression": draw_depth,
}
"""The function that draws an image and its target, by kind."""


def draw_clean(size: Size, generator: Generator) -> tuple[Colours, list[Layer]]:
    """A scene (H, W, 3) without noise, not clipped to [0, 1], and its objects from back to front."""
    height, width = size
    scene = _background(size, generator)
    layers = [
        _add_object(scene, int(generator.integers(1, len(SCENE_CLASSES))), generator)
        for _ in range(generator.integers(3, 6))
    ]
    scene *= (1 + 0.35 * smooth_noise(generator, 1, height, width))[..., None]
    return scene, layers


def _soft_object(size: Size, generator: Generator) -> Plane:
    """Alpha (H, W) in [0, 1] of an object with hair, whose edge is blurred in some places and sharp in others."""
    side = min(size)
    radius = generator.uniform(0.22, 0.34) * side
    centre = (generator.uniform(0.35, 0.65) * length for length in size)
    y, x = _grid(slice(0, size[0]), slice(0, size[1]), *centre)
    u, v = rotated(x / np.float32(radius), y / np.float32(radius), generator.uniform(0, 2 * np.pi))
    shape = list(SHAPES.values())[int(generator.integers(len(SHAPES)))]
    distance = shape(u, v) * np.float32(radius)
    softness = 1 + 0.06 * side * np.clip(smooth_noise(generator, 3, *size), 0, 1)
    body = np.clip(0.5 - distance / softness, 0, 1)
    # A hair is a narrow range of angles around the centre. Hairs differ in length and become thinner towards the tip.
    angle = np.arctan2(v, u)
    length = generator.uniform(0.1, 0.5) * radius * (0.6 + 0.4 * np.sin(5 * angle + generator.uniform(0, 2 * np.pi)))
    bend = generator.uniform(-0.5, 0.5) * distance / radius
    ridge = np.clip(np.sin(_STRANDS / 2 * (angle + bend)), 0, 1) ** 6
    hair = ridge * np.clip(1 - distance / np.maximum(length, 1), 0, 1) * (distance > -1)
    alpha: Plane = np.maximum(body, generator.uniform(0.4, 0.9) * hair).astype(np.float32)
    return alpha


def _slant(size: Size, generator: Generator) -> Plane:
    """A slanted plane (H, W) with mean 0 and values within [-1, 1]."""
    y, x = (np.linspace(-0.7, 0.7, length, dtype=np.float32) for length in size)
    across, _ = rotated(x[None] + 0 * y[:, None], y[:, None] + 0 * x[None], generator.uniform(0, 2 * np.pi))
    return across


def _bytes(colours: NDArray[Any]) -> Pixels:
    """Numbers, clipped to [0, 1], as 8 bits."""
    pixels: Pixels = (np.clip(colours, 0, 1) * 255).round().astype(np.uint8)
    return pixels


def _background(size: Size, generator: Generator) -> Colours:
    """A blend of two colours, faintly textured, with shapeless patches that have the textures of the objects."""
    height, width = size
    blend = 0.5 + 0.5 * smooth_noise(generator, int(generator.integers(1, 5)), height, width)
    first, second = _colour(generator), _colour(generator)
    scene: Colours = first + blend[..., None] * (second - first)
    v, u = _grid(slice(0, height), slice(0, width), 0, 0)
    scene += generator.uniform(0, 0.05) * _texture(int(generator.integers(5)), u, v, size, generator)[..., None]
    for _ in range(generator.integers(0, 3)):
        edge = smooth_noise(generator, 4, height, width) - generator.uniform(0.2, 0.45)
        # Soft edges and an opacity of at most one half, so that patches do not look like further objects.
        cover = generator.uniform(0.2, 0.5) * np.clip(edge * 5, 0, 1)[..., None]
        scene += cover * (_surface(int(generator.integers(5)), u, v, size, generator) - scene)
    return scene


def _add_object(scene: Colours, index: int, generator: Generator) -> Layer:
    """Draw an object of a class over the scene, in place."""
    size = height, width = scene.shape[0], scene.shape[1]
    radius = generator.uniform(0.17, 0.32) * min(size)
    centre_y, centre_x = generator.uniform(0, height), generator.uniform(0, width)
    # The window contains the whole object and its shadow: a star extends to 1.3 radii, its shadow to 1.65.
    rows, columns = _window(centre_y, 1.8 * radius, height), _window(centre_x, 1.8 * radius, width)
    y, x = _grid(rows, columns, centre_y, centre_x)
    angle, stretch = generator.uniform(0, 2 * np.pi), generator.uniform(0.75, 1)

    def distance(shift_y: float, shift_x: float) -> Plane:
        """Pixels to the outline of the object moved by a shift, negative inside."""
        u, v = rotated((x - shift_x) / radius, (y - shift_y) / radius, angle)
        outline: Plane = SHAPES[SCENE_CLASSES[index]](u, (v / stretch).astype(np.float32)) * np.float32(
            radius * stretch
        )
        return outline

    part = scene[rows, columns]
    shadow = np.clip(0.5 - distance(0.12 * radius, 0.15 * radius) / (0.3 * radius), 0, 1)
    part *= (1 - generator.uniform(0.2, 0.5) * shadow)[..., None]
    outline = distance(0, 0)
    own = generator.random() < _OWN_TEXTURE
    surface = _surface(index - 1 if own else int(generator.integers(5)), x, y, size, generator)
    lit, _ = rotated(x, y, generator.uniform(0, 2 * np.pi))
    surface *= (1 + generator.uniform(0, 0.3) * lit / radius)[..., None]
    part += np.clip(0.5 - outline, 0, 1)[..., None] * (surface - part)
    inside = np.zeros(size, np.bool_)
    inside[rows, columns] = outline <= 0
    return Layer(index, inside)


def _surface(texture: int, x: Plane, y: Plane, size: Size, generator: Generator) -> Colours:
    """Two random colours in the pattern of a texture, (H, W, 3)."""
    middle, other = _colour(generator), _colour(generator)
    away = other - middle
    contrast = generator.uniform(0.2, 0.35) * away / max(0.2, float(np.linalg.norm(away)))
    surface: Colours = middle + _texture(texture, x, y, size, generator)[..., None] * contrast
    return surface.astype(np.float32)


def _texture(index: int, x: Plane, y: Plane, size: Size, generator: Generator) -> Plane:
    """A randomly rotated texture in [-1, 1] at pixel coordinates; its period is proportional to the scene's size."""
    period = np.float32(generator.uniform(0.08, 0.12) * min(size))
    u, v = rotated(x / period, y / period, generator.uniform(0, 2 * np.pi))
    return TEXTURES[index](u, v, generator)


def _colour(generator: Generator) -> Colours:
    """A random colour of medium brightness, from the same distribution for objects and backgrounds."""
    return generator.uniform(0.15, 0.85, 3).astype(np.float32)


def _window(centre: float, reach: float, length: int) -> slice:
    return slice(max(0, int(centre - reach)), max(1, min(length, int(centre + reach) + 1)))


def _grid(rows: slice, columns: slice, centre_y: float, centre_x: float) -> tuple[Plane, Plane]:
    """Pixel centres (y, x) of a window, as offsets from a point."""
    y, x = np.mgrid[rows, columns].astype(np.float32) + np.float32(0.5)
    return y - np.float32(centre_y), x - np.float32(centre_x)
