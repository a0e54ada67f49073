"""Draw outlines as masks of class indices, the smaller ones over the larger ones."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semipix.batch import VOID
from semipix.data.annotations.entries import (
    AnnotationReader,
    Drawn,
    Entry,
    Frame,
    Notes,
    Orientation,
    UnusableError,
    frame_of,
)
from semipix.data.files.decode import Header
from semipix.data.files.opening import upright
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError, reason_of

Points = NDArray[np.float64]
"""Corners (n, 2) of a polygon, x and y in pixels; pixel (0, 0) reaches from 0 to 1."""

_BEYOND = 1.0
"""Pixels by which an outline may leave the image without being counted; tools round."""

CLIPPED = "outlines reach beyond the image and are cut off at its edge"
OUTSIDE = "objects lie outside of the image and are left out"
SMALL = "objects cover no pixel and are left out"
HIDDEN = "objects are hidden by smaller ones that are drawn over them"
BOXES = "objects have a box but no outline; the pixels of the box are void where nothing else is drawn"
FEW_POINTS = "parts of outlines have fewer than three points and are left out"


@dataclass
class Shape:
    """An object of an image: polygons, a run-length code, or the pixels of a rectangle; or only a box.

    Attributes:
        label: class name; None for pixels of no class.
        where: the object, for messages.
        polygons: parts of the object.
        rle: COCO's run-length code: `size` (height, width) and `counts`, a list or a compressed text.
        patch: the object's pixels (h, w) bool, with `corner`, the x and y of their first pixel.
        box: left, top, width and height of an object without an outline.
    """

    label: str | None
    where: str
    polygons: Sequence[Points] = ()
    rle: Mapping[str, Any] | None = None
    patch: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)
    box: Points | None = None


class ShapeReader(AnnotationReader):
    """Base of the readers of formats that have outlines.

    Attributes:
        unannotated: class index of what nobody annotated; None for void.
        orientation: what the annotations refer to, as the user says.
    """

    unannotated: int | None
    orientation: Orientation = "auto"

    def draw(self, entry: Entry, header: Header) -> Drawn:
        notes = Notes()
        stated, make = self.shapes(entry, notes)
        frame = frame_of(entry.name, header, stated, self.orientation, notes)
        indices = {name: index for index, name in enumerate(self.classes)}
        fill = VOID if self.unannotated is None else self.unannotated
        return draw(make(frame), frame, indices, fill, notes)

    def shapes(self, entry: Entry, notes: Notes) -> "tuple[Size | None, ShapesOf]":
        """The size that the annotations state, and a function that makes the shapes for the size that applies.

        Raises:
            UnusableError: the annotations of this image cannot be used.
        """
        raise NotImplementedError


class ShapesOf:
    """The shapes of an image.

    Args:
        shapes: the shapes.
        relative: whether polygons and boxes are in shares of width and height instead of pixels.
    """

    def __init__(self, shapes: Sequence[Shape], relative: bool = False) -> None:
        self._shapes = shapes
        self._relative = relative

    def __call__(self, frame: Frame) -> Sequence[Shape]:
        """The shapes in pixels."""
        if self._relative:
            scale = np.array(frame.size[::-1], np.float64)
            for shape in self._shapes:
                shape.polygons = [points * scale for points in shape.polygons]
                shape.box = None if shape.box is None else (shape.box.reshape(2, 2) * scale).ravel()
        return self._shapes


def load_coco_masks() -> Any:
    """Import pycocotools, which draws outlines.

    Raises:
        SemipixError: it is not installed.
    """
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise SemipixError(f"pycocotools: {error}; install it by: pip install 'semipix[formats]'") from error


def draw(shapes: Sequence[Shape], frame: Frame, indices: Mapping[str, int], fill: int, notes: Notes) -> Drawn:
    """Draw the objects of an image.

    A pixel belongs to an outline if its centre is inside, by pycocotools. Boxes are drawn first, as void, then larger
    objects before smaller ones; of two objects of one size, the later one is drawn last.

    Args:
        shapes: the objects.
        frame: what their coordinates refer to.
        indices: class index by name.
        fill: class index of the other pixels.
        notes: gets what is left out.

    Raises:
        UnusableError: it is not known where an object is.
    """
    coco = load_coco_masks()
    drawn = Drawn(np.full(frame.size, fill, np.uint8), notes=notes)
    regions = []
    for shape in shapes:
        if shape.label is not None:
            drawn.objects[shape.label] += 1
        if shape.box is not None:
            _draw_box(drawn.mask, shape, notes)
            continue
        rle = _encoded(coco, shape, frame.size, notes)
        if rle is None:
            continue
        area = int(coco.area(rle))
        if not area:
            notes.add(SMALL, shape.where)
            continue
        index = VOID if shape.label is None else indices[shape.label]
        regions.append((area, rle, index, shape.where))
    regions.sort(key=lambda region: -region[0])
    owner = np.full(frame.size, -1, np.int32)
    for number, (_, rle, _, _) in enumerate(regions):
        owner[coco.decode(rle).view(np.bool_)] = number
    if regions:
        values = np.array([index for _, _, index, _ in regions], np.uint8)
        np.copyto(drawn.mask, values[owner], where=owner >= 0)
        seen = np.bincount(owner[owner >= 0], minlength=len(regions))
        for region, pixels in zip(regions, seen, strict=True):
            if not pixels:
                notes.add(HIDDEN, region[3])
    drawn.mask = np.ascontiguousarray(upright(drawn.mask, frame.orientation))
    return drawn


def clipped(points: Points, width: float, height: float) -> Points:
    """The part of a polygon inside of the image, by Sutherland and Hodgman's algorithm; empty if there is none."""
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        if not len(points):
            break
        inside = sign * (points[:, axis] - limit)
        before, distance = np.roll(points, 1, 0), np.roll(inside, 1)
        crosses = (inside < 0) != (distance < 0)
        share = np.divide(distance, distance - inside, out=np.zeros_like(inside), where=crosses)
        crossing = before + share[:, None] * (points - before)
        crossing[:, axis] = limit
        both = np.stack([crossing, points], 1).reshape(-1, 2)
        points = both[np.stack([crosses, inside >= 0], 1).ravel()]
    return points


def _encoded(coco: Any, shape: Shape, size: Size, notes: Notes) -> Any:
    """COCO's run-length code of a shape; None if nothing of it is in the image."""
    height, width = size
    if shape.rle is not None:
        return _checked_rle(coco, shape, size)
    if shape.patch is not None:
        return _placed(coco, shape, shape.patch, size, notes)
    parts, reaches_out = [], False
    for points in shape.polygons:
        if not np.isfinite(points).all():
            raise UnusableError(f"{shape.where}: a coordinate is no finite number; fix or remove the object")
        if len(points) < 3:
            notes.add(FEW_POINTS, shape.where)
            continue
        low, high = points.min(0), points.max(0)
        reaches_out = reaches_out or bool((low < -_BEYOND).any() or (high > (width + _BEYOND, height + _BEYOND)).any())
        if (low < 0).any() or (high > (width, height)).any():
            points = clipped(points, width, height)
        if len(points) >= 3:
            parts.append(points.ravel().tolist())
    if not parts:
        notes.add(OUTSIDE if reaches_out else SMALL, shape.where)
        return None
    if reaches_out:
        notes.add(CLIPPED, shape.where)
    return coco.merge(coco.frPyObjects(parts, height, width))


def _checked_rle(coco: Any, shape: Shape, size: Size) -> Any:
    """A run-length code, compressed, whose runs fill the image exactly."""
    assert shape.rle is not None
    height, width = size
    stated = shape.rle.get("size")
    if not isinstance(stated, Sequence) or list(stated) != [height, width]:
        found = "x".join(map(str, reversed(stated))) if isinstance(stated, Sequence) else f"{stated}"
        raise UnusableError(
            f"{shape.where}: a run-length code for {found} pixels, expected {width}x{height} as its image; fix its size"
        )
    counts = shape.rle.get("counts")
    try:
        runs = counts if isinstance(counts, list) else runs_of(str(counts))
        complete = all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == height * width
    except ValueError:
        complete = False
    if not complete:
        raise UnusableError(
            f"{shape.where}: a damaged run-length code, whose runs do not add up to {width}x{height} pixels; export "
            "the annotation again"
        )
    try:
        return coco.frPyObjects({"size": [height, width], "counts": list(runs)}, height, width)
    except (ValueError, TypeError, OverflowError) as error:
        raise UnusableError(
            f"{shape.where}: a damaged run-length code ({reason_of(error, 80)}); export again"
        ) from None


def runs_of(text: str) -> list[int]:
    """The runs in COCO's compressed text: 5 bits a character, lowest first; from the fourth on differences.

    pycocotools does not check texts, and reads beyond damaged ones.

    Raises:
        ValueError: the text is damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("no run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("ends within a number")
    return runs


def _placed(coco: Any, shape: Shape, patch: NDArray[np.bool_], size: Size, notes: Notes) -> Any:
    """The run-length code of pixels that are placed in the image."""
    height, width = size
    left, top = shape.corner
    rows = slice(max(0, top), max(0, min(height, top + patch.shape[0])))
    columns = slice(max(0, left), max(0, min(width, left + patch.shape[1])))
    inside = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if not inside.size:
        notes.add(OUTSIDE, shape.where)
        return None
    if inside.shape != patch.shape:
        notes.add(CLIPPED, shape.where)
    whole = np.zeros(size, np.uint8, order="F")
    whole[rows, columns] = inside
    return coco.encode(whole)


def _draw_box(mask: NDArray[np.uint8], shape: Shape, notes: Notes) -> None:
    """Make a box void: the object is somewhere in it."""
    assert shape.box is not None
    if not np.isfinite(shape.box).all():
        raise UnusableError(f"{shape.where}: a coordinate is no finite number; fix or remove the object")
    height, width = mask.shape
    left, top, wide, high = shape.box
    first = np.floor(np.clip((top, left), 0, (height, width))).astype(int)
    last = np.ceil(np.clip((top + high, left + wide), 0, (height, width))).astype(int)
    mask[first[0] : last[0], first[1] : last[1]] = VOID
    notes.add(BOXES, shape.where)
