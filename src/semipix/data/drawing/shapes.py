"""Shapes (as signed distances), textures and smooth noise for the built-in scenes."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""A grid (H, W) float32."""


def disc(u: Plane, v: Plane) -> Plane:
    """Signed distance to a circle of radius 1, negative inside."""
    distance: Plane = np.hypot(u, v) - np.float32(1)
    return distance


def box(u: Plane, v: Plane) -> Plane:
    """Signed distance to a square of half side 0.8."""
    across, along = np.abs(u) - 0.8, np.abs(v) - 0.8
    distance: Plane = np.hypot(np.maximum(across, 0), np.maximum(along, 0)) + np.minimum(np.maximum(across, along), 0)
    return distance


def triangle(u: Plane, v: Plane) -> Plane:
    """Signed distance to the nearest side of a triangle whose corners are 1.24 from the centre."""
    slanted = np.float32(np.sqrt(3) / 2) * np.abs(u) - 0.5 * v
    distance: Plane = np.maximum(slanted, v) - np.float32(0.62)
    return distance


def star(u: Plane, v: Plane) -> Plane:
    """Approximate signed distance to a star whose five tips are 1.3 from the centre."""
    # By symmetry only half of one point is needed, where the outline is a straight line from tip to notch.
    angle = np.abs(np.remainder(np.arctan2(u, v), np.float32(2 * np.pi / 5)) - np.float32(np.pi / 5))
    radius = np.hypot(u, v)
    along, across = radius * np.cos(np.float32(np.pi / 5) - angle), radius * np.sin(np.float32(np.pi / 5) - angle)
    tip, notch = 1.3, 0.6
    notch_along, notch_across = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    normal = np.array([notch_across, tip - notch_along]) / np.hypot(notch_across, tip - notch_along)
    distance: Plane = ((along - tip) * normal[0] + across * normal[1]).astype(np.float32)
    return distance


def ring(u: Plane, v: Plane) -> Plane:
    """Signed distance to a ring between the radii 0.5 and 1."""
    return np.abs(np.hypot(u, v) - np.float32(0.75)) - np.float32(0.25)


def stripes(u: Plane, v: Plane, generator: Generator) -> Plane:
    """Stripes across u, one for each unit."""
    return _steep(np.sin(2 * np.pi * u))


def checks(u: Plane, v: Plane, generator: Generator) -> Plane:
    """A chessboard of squares of half a unit."""
    return _steep(2 * np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v))


def spots(u: Plane, v: Plane, generator: Generator) -> Plane:
    """Round spots, one for each unit square."""
    return _steep(1.2 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)) - 0.6)


def grain(u: Plane, v: Plane, generator: Generator) -> Plane:
    """Random grey blocks of half a unit."""
    table = generator.uniform(-1, 1, (64, 64)).astype(np.float32)
    blocks: Plane = table[np.floor(2 * u).astype(int) % 64, np.floor(2 * v).astype(int) % 64]
    return blocks


def waves(u: Plane, v: Plane, generator: Generator) -> Plane:
    """Wavy lines, one for each unit."""
    return _steep(np.sin(2 * np.pi * u + 2 * np.sin(np.pi * v)))


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": disc,
    "box": box,
    "triangle": triangle,
    "star": star,
    "ring": ring,
}
"""The shape of each class of objects."""

TEXTURES: list[Callable[[Plane, Plane, Generator], Plane]] = [stripes, checks, spots, grain, waves]
"""The texture, in [-1, 1], of each shape, in the order of `SHAPES`."""


def smooth_noise(generator: Generator, cells: int, height: int, width: int) -> Plane:
    """Random values in [-1, 1] at the corners of cells x cells squares, smoothly interpolated to (height, width)."""
    corners = generator.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    rows, columns = _interpolation(cells, height), _interpolation(cells, width)
    return np.asarray(rows @ corners @ columns.T, np.float32)


def rotated(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    """Coordinates rotated by an angle in radians."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * u + sine * v, cosine * v - sine * u


def _interpolation(cells: int, length: int) -> Plane:
    """Weights (length, cells + 1) of the corners at each pixel."""
    position = (np.arange(length, dtype=np.float32) + 0.5) / length * cells
    left = position.astype(int)
    linear = position - left.astype(np.float32)
    share = linear * linear * (3 - 2 * linear)
    weights = np.zeros((length, cells + 1), np.float32)
    weights[np.arange(length), left] = 1 - share
    weights[np.arange(length), left + 1] = share
    return weights


def _steep(wave: Plane) -> Plane:
    steep: Plane = np.clip(np.float32(2.5) * wave, -1, 1)
    return steep
