"""labelme: one JSON file for each image, with polygons, rectangles, circles and masks."""

import base64
import binascii
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from semipix.data.annotations.drawing import Points, Shape, ShapeReader, ShapesOf
from semipix.data.annotations.entries import (
    Entry,
    Notes,
    Orientation,
    Unannotated,
    UnusableError,
    check_known,
    first_and_more,
    is_void,
    with_background,
)
from semipix.data.annotations.images import ImageIndex, Named, Wanted, as_entries, part_of
from semipix.data.annotations.json_files import points_of, read_json
from semipix.data.files.listing import walk
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError

_LINES = "shapes are lines or points, which have no area, and are left out"

_MISSING = "images of JSON files are not there and are left out"

_DAMAGED = "JSON files cannot be read, and their images count as unlabeled"

_LINE_SHAPES = ("line", "linestrip", "point", "points")


class LabelmeReader(ShapeReader):
    """Reads labelme's JSON files below a folder, with their images or the images that they contain.

    An image without a JSON file is unlabeled; one whose file has no shapes is annotated and shows nothing. Shapes
    called `__ignore__` or void are void. labelme shows photos turned by their tag, so shapes refer to the turned photo.

    Args:
        source: a folder that is searched with its subfolders, or one JSON file.
        images: folder of the images; by default the source's.
        unannotated: what pixels without a shape are.
        classes: names in the order of their index; by default those of the shapes, sorted.
        orientation: what the user said.

    Raises:
        SemipixError: there is no JSON file of labelme, or none of their images is found.
    """

    def __init__(
        self,
        source: Path,
        images: Path | None,
        unannotated: Unannotated,
        classes: Sequence[str] | None,
        orientation: Orientation,
    ) -> None:
        self.orientation = orientation
        notes = Notes()
        folder = source if source.is_dir() else source.parent
        names = [source.name] if source.is_file() else [name for name in walk(folder).files if name.endswith(".json")]
        if not names:
            raise SemipixError(
                f"{source}: found no JSON file, expected labelme's, one for each image; name their folder"
            )
        self._index = _index(images or folder, images is not None)
        read, wanted, problems = [], [], []
        used: Counter[str] = Counter()
        for name in names:
            try:
                content = _read(folder / name)
            except SemipixError as error:
                problems.append(str(error))
                notes.add(_DAMAGED, name)
                continue
            used.update(shape.label for shape in _shapes(content, name, Notes()) if shape.label is not None)
            read.append((name, content))
            wanted.append(self._wanted(folder, name, content))
        paths = [None] * len(read) if self._index is None else self._index.find_all(wanted)
        found, embedded = [], []
        for (name, content), path in zip(read, paths, strict=True):
            part = part_of(name) or "train"
            if path is not None:
                label = None if unannotated == "ignore" and not content["shapes"] else folder / name
                found.append(Named(path, part, label))
            elif content.get("imageData"):
                embedded.append(Entry(f"{PurePosixPath(name).with_suffix('.jpg')}", part, None, folder / name))
            else:
                notes.add(_MISSING, str(content.get("imagePath")))
        if not found and not embedded:
            raise SemipixError(
                first_and_more(problems)
                if problems
                else f"{folder}: found none of the images of {len(names)} JSON files; give their folder by --images DIR"
            )
        self.given = len(used)
        if classes is not None:
            check_known("--classes", classes, used)
        self.classes, self.unannotated = with_background(sorted(used) if classes is None else classes, unannotated)
        self.entries = embedded
        if self._index is not None:
            rest = self._index.rest([item.path for item in found], images is not None)
            self.entries = as_entries(self._index, found, rest) + embedded
        self.left_out = notes.lines()

    def shapes(self, entry: Entry, notes: Notes) -> tuple[Size | None, ShapesOf]:
        content = _read(entry.label)
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        return size, ShapesOf(_shapes(content, entry.name, notes))

    def image(self, entry: Entry) -> Path | Encoded:
        if entry.image is not None:
            return entry.image
        try:
            return Encoded(entry.name, base64.b64decode(_read(entry.label)["imageData"], validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise UnusableError(f"{entry.label}: its imageData holds no image; put the image beside it") from None

    def _wanted(self, folder: Path, name: str, content: Mapping[str, Any]) -> Wanted:
        """The image of a JSON file; an image elsewhere does not count if the file contains its own."""
        path, image = folder / name, content.get("imagePath")
        near = ""
        if self._index is not None and path.parent.is_relative_to(self._index.folder):
            near = path.parent.relative_to(self._index.folder).as_posix()
        return Wanted(
            image if isinstance(image, str) else "",
            "" if near == "." else near,
            part_of(name),
            origin=name,
            must_fit=bool(content.get("imageData")),
        )


def _index(folder: Path, given: bool) -> ImageIndex | None:
    """The images of a folder; None if it has none and JSON files may contain them."""
    try:
        return ImageIndex(folder)
    except SemipixError:
        if given:
            raise
        return None


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or "imagePath" not in content:
        raise SemipixError(
            f"{path}: expected labelme's keys shapes and imagePath; remove the file or name another folder"
        )
    return content


def _shapes(content: Mapping[str, Any], name: str, notes: Notes) -> list[Shape]:
    shapes = []
    for number, item in enumerate(content["shapes"], 1):
        where = f"{name}, shape {number}"
        label = item.get("label") if isinstance(item, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise UnusableError(f"{where}: has no label; give it one")
        kind = item.get("shape_type") or "polygon"
        if kind in _LINE_SHAPES:
            notes.add(_LINES, f"{where}, {kind}")
            continue
        name_of = None if is_void(label.strip()) else label.strip()
        points = points_of(item.get("points"), where)
        if kind == "mask":
            if not points.size or not np.isfinite(points).all():
                raise UnusableError(f"{where}: a mask without the place of its pixels; remove or draw it again")
            corner = points.min(0).astype(int)
            shapes.append(Shape(name_of, where, patch=_patch(item, where), corner=(int(corner[0]), int(corner[1]))))
        else:
            shapes.append(Shape(name_of, where, [_outline(kind, points, where)]))
    return shapes


def _outline(kind: str, points: Points, where: str) -> Points:
    """The corners of a shape."""
    if kind in ("polygon", "oriented_rectangle"):
        return points
    if len(points) != 2 or kind not in ("rectangle", "circle"):
        raise UnusableError(
            f"{where}: a {kind} of {len(points)} points; expected a polygon, or a rectangle, circle or mask of 2 points"
        )
    (left, top), (right, bottom) = points
    if kind == "rectangle":
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    radius = math.hypot(right - left, bottom - top)
    corners = 4 * max(8, math.ceil(min(radius, 1e5) ** 0.5 * 4)) if math.isfinite(radius) else 8
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([left + radius * np.cos(angles), top + radius * np.sin(angles)], 1)


def _patch(item: Mapping[str, Any], where: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels of a mask, a PNG in base64."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(item["mask"], validate=True)), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("too large")
            return np.asarray(image.convert("L")) > 0
    except (KeyError, TypeError, ValueError, OSError, SyntaxError, UnidentifiedImageError, binascii.Error):
        raise UnusableError(f"{where}: its mask is no PNG in base64; remove or draw it again") from None
