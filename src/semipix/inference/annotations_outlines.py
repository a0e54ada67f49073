"""Polygons around the regions of a mask, for tools that edit polygons."""

import importlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semipix.data.annotations.drawing import Points, load_coco_masks
from semipix.errors import SemipixError

LEAST_IOU = 0.992
"""IoU that each class of an image keeps at least when its polygons are drawn again."""

_TOLERANCES = (1.0, 0.7, 0.5)
"""Distances in pixels by which corners may be moved, the largest first."""

_ROUNDS = 4
"""Rounds after which all corners of an image are kept."""


class Outline(NamedTuple):
    """A connected region of a class.

    Args:
        label: index of the class.
        points: its outer boundary. Holes are part of it, by a line to each and back, as in editors' files.
        area: number of its pixels.
    """

    label: int
    points: Points
    area: int


def outlines(values: NDArray[Any], classes: Sequence[int]) -> list[Outline]:
    """The polygons of a mask, one for each connected region, the largest first.

    A boundary passes through the middle between pixel centres (contourpy), so that the exact polygon contains the
    centres of the region and no others. It is simplified by Douglas and Peucker's algorithm (shapely). Where this costs
    a class more than `LEAST_IOU` allows, the regions at fault get their exact boundary again. To find that out, the
    result is drawn by pycocotools, the smaller polygons over the larger ones.

    Args:
        values: class indices (H, W).
        classes: those that get polygons.

    Raises:
        SemipixError: a package is not installed.
    """
    contourpy, shapely, coco = load("contourpy"), load("shapely"), load_coco_masks()
    exact: list[Outline] = []
    found: list[Outline] = []
    for index in classes:
        for rings in _boundaries(contourpy, values == index):
            region = _exact(coco, index, rings)
            exact.append(region)
            found.append(_simplified(shapely, coco, region, rings))
    order = sorted(range(len(exact)), key=lambda number: -exact[number].area)
    exact, found = [exact[number] for number in order], [found[number] for number in order]
    true_owner = _owners(coco, exact, values.shape)
    for last in (*[False] * _ROUNDS, True):
        owner = _owners(coco, found, values.shape)
        wrong = _wrong(values, np.array([*(region.label for region in found), -1])[owner], classes)
        if not wrong.any():
            break
        for number in range(len(found)) if last else {*owner[wrong].tolist(), *true_owner[wrong].tolist()} - {-1}:
            found[number] = exact[number]
    return found


def load(name: str) -> Any:
    """Import a package of the extra `formats`.

    Raises:
        SemipixError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SemipixError(f"{name}: {error}; install it by: pip install 'semipix[formats]'") from error


def _boundaries(contourpy: Any, region: NDArray[np.bool_]) -> list[list[Points]]:
    """For each connected region its closed rings: the outer boundary, then the holes."""
    padded = np.pad(region.astype(np.float32), 1)
    lines = contourpy.contour_generator(z=padded, fill_type="OuterOffset").filled(0.5, 2.0)
    return [
        [points[first:last] - 0.5 for first, last in pairwise(offsets)] for points, offsets in zip(*lines, strict=True)
    ]


def _exact(coco: Any, index: int, rings: Sequence[Points]) -> Outline:
    points = _joined(rings)
    corner, size = _box(points)
    return Outline(index, points, int(coco.area(_code(coco, points - corner, size))))


def _simplified(shapely: Any, coco: Any, region: Outline, rings: Sequence[Points]) -> Outline:
    """The region with fewer corners, or the same if that costs too much of it."""
    corner, size = _box(region.points)
    exact = _code(coco, region.points - corner, size)
    for tolerance in _TOLERANCES:
        simple = [np.array(shapely.LinearRing(ring).simplify(tolerance).coords)[:, :2] for ring in rings]
        if min(map(len, simple)) < 4:
            continue
        points = _joined(simple)
        if coco.iou([_code(coco, points - corner, size)], [exact], [0])[0, 0] >= LEAST_IOU:
            return region._replace(points=points)
    return region


def _box(points: Points) -> tuple[Points, tuple[int, int]]:
    """The corner of the pixels that a polygon is in, and their height and width."""
    corner = np.floor(points.min(0))
    width, height = (np.ceil(points.max(0)) - corner).astype(int).tolist()
    return corner, (height, width)


def _code(coco: Any, points: Points, size: tuple[int, ...]) -> Any:
    return coco.frPyObjects([points.ravel().tolist()], *size)[0]


def _owners(coco: Any, regions: Sequence[Outline], size: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the region that a pixel belongs to when all are drawn; -1 for none."""
    owner = np.full(size, -1)
    for number, region in enumerate(regions):
        corner, (height, width) = _box(region.points)
        left, top = corner.astype(int).tolist()
        inside = coco.decode(_code(coco, region.points - corner, (height, width))).view(np.bool_)
        owner[top : top + height, left : left + width][inside] = number
    return owner


def _wrong(values: NDArray[Any], drawn: NDArray[Any], classes: Sequence[int]) -> NDArray[np.bool_]:
    """Pixels at which a class is wrong whose IoU is too low."""
    wrong = np.zeros(values.shape, np.bool_)
    for index in classes:
        true, found = values == index, drawn == index
        both = np.count_nonzero(true & found)
        if both < LEAST_IOU * np.count_nonzero(true | found):
            wrong |= true != found
    return wrong


def _joined(rings: Sequence[Points]) -> Points:
    """One polygon of an outer boundary and holes, each of which is reached from the nearest corner and left to it.

    Rings are closed: their last point is their first. The lines to a hole and back cancel out when the polygon is
    filled.
    """
    outer = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: float(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        turned = np.concatenate([hole[start:-1], hole[: start + 1]])
        at = int(np.square(outer - turned[0]).sum(1).argmin())
        outer = np.concatenate([outer[: at + 1], turned, outer[at:]])
    return outer[:-1]
