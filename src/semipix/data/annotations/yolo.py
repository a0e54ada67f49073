"""YOLO: a text file for each image, whose lines are polygons in shares of width and height."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from semipix.data.annotations.drawing import Shape, ShapeReader, ShapesOf
from semipix.data.annotations.entries import (
    Entry,
    Notes,
    Orientation,
    Unannotated,
    UnusableError,
    is_void,
    with_background,
)
from semipix.data.annotations.images import ImageIndex, Named, as_entries, part_of
from semipix.data.files.listing import split_extension, walk
from semipix.data.files.names import composed
from semipix.data.files.sizes import Size
from semipix.data.sources.class_names import CLASSES_FILE, read_class_list
from semipix.errors import SemipixError, reason_of

_LONE = "label files have no image and are left out"

_UNLISTED = "lines of lists mean no image or several and are left out"

_NO_LABELS = frozenset({"classes.txt", "obj.names", "readme.txt", "requirements.txt", "labels.txt", "notes.txt"})

_SPLITS = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))


class YoloReader(ShapeReader):
    """Reads Ultralytics' layout: images, label files of the same stems beside them or in `labels/`, and `data.yaml`.

    An image without a label file is unlabeled; one whose file is empty is annotated and shows nothing. Ultralytics
    reads photos turned by their tag, so outlines refer to the turned photo.

    Args:
        source: a folder, or its YAML file.
        images: folder of the images; by default the source's.
        unannotated: what pixels without an outline are.
        classes: names in the order of the numbers in the label files; by default from `data.yaml` or `classes.txt`.
        orientation: what the user said.

    Raises:
        SemipixError: there are no names, no label files or none of their images.
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
        content = _yaml(source)
        self._names = list(classes) if classes is not None else _names(source, content)
        self.given = len(self._names)
        self._index = ImageIndex(images or folder)
        parts = _Parts(folder, content, self._index, notes)
        labels = [
            name
            for name in walk(folder).files
            if _is_labels(name) and not (parts.lists and (folder / name).resolve() in parts.lists)
        ]
        if not labels:
            raise SemipixError(f"{folder}: found no label file, expected NAME.txt for each image; name their folder")
        named = []
        for name, path in zip(labels, self._index.find_stems([_stems(name) for name in labels]), strict=True):
            if path is None:
                notes.add(_LONE, name)
                continue
            empty = unannotated == "ignore" and not (folder / name).read_bytes().strip()
            named.append(Named(path, parts.of(path), None if empty else folder / name))
        if not named:
            raise SemipixError(
                f"{self._index.folder}: found none of the images of {len(labels)} label files; give --images DIR"
            )
        self.classes, self.unannotated = with_background(self._names, unannotated)
        rest = self._index.rest([item.path for item in named], images is not None)
        self.entries = as_entries(self._index, named, rest)
        self.left_out = notes.lines()

    def shapes(self, entry: Entry, notes: Notes) -> tuple[Size | None, ShapesOf]:
        path: Path = entry.label
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UnusableError(f"{path}: not UTF-8 text; expected a line for each object, export it again") from None
        shapes = [self._shape(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
        return None, ShapesOf(shapes, relative=True)

    def _shape(self, line: str, where: str) -> Shape:
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = []
        if not numbers or not numbers[0].is_integer() or len(numbers) < 5 or len(numbers) % 2 == 0:
            raise UnusableError(
                f"{where}: found {line.strip()[:40]!r}, expected a class number and the coordinates x y x y ... of its "
                "outline; fix the line"
            )
        index = int(numbers[0])
        if not 0 <= index < len(self._names):
            raise SemipixError(
                f"{where}: found class {index}, but there are {len(self._names)} names, 0 to {len(self._names) - 1}; "
                f"add the missing ones to data.yaml or {CLASSES_FILE}"
            )
        name, values = self._names[index], np.array(numbers[1:])
        label = None if is_void(name) else name
        if len(values) == 4:  # centre, width and height
            return Shape(label, where, box=np.concatenate([values[:2] - values[2:] / 2, values[2:]]))
        return Shape(label, where, [values.reshape(-1, 2)])


def _is_labels(name: str) -> bool:
    return name.lower().endswith(".txt") and name.lower().rpartition("/")[2] not in _NO_LABELS


def _stems(name: str) -> list[str]:
    """The possible paths without extension of the image of a label file."""
    stem = composed(split_extension(name)[0])
    beside = "/".join("images" if step == "labels" else step for step in stem.split("/"))
    return [beside, stem, stem.removeprefix("labels/")]


def _yaml(source: Path) -> dict[str, Any]:
    """The content of `data.yaml`, or of the only YAML file; empty if there is none."""
    paths = [source] if source.is_file() else sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    if not source.is_file():
        paths = [path for path in paths if path.stem == "data"] or paths
    if len(paths) != 1:
        return {}
    try:
        content = yaml.safe_load(paths[0].read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SemipixError(f"{paths[0]}: no YAML ({reason_of(error, 80)}); fix the file") from None
    return content if isinstance(content, dict) else {}


def _names(source: Path, content: dict[str, Any]) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise SemipixError(
                f"{source}: the numbers of the names are not 0 to {len(names) - 1}; fix names in data.yaml"
            )
        names = [names[key] for key in sorted(names, key=int)]
    if isinstance(names, list) and names:
        return [str(name).strip() for name in names]
    if source.is_dir() and (source / CLASSES_FILE).is_file():
        return read_class_list(source / CLASSES_FILE, fewest=1)
    raise SemipixError(
        f"{source}: found no class names, expected data.yaml with names or {CLASSES_FILE}; give --classes FILE"
    )


class _Parts:
    """The parts of images: by the folders or lists in `data.yaml`, or by their paths.

    Args:
        folder: the source.
        content: of `data.yaml`.
        index: the images.
        notes: gets a note for each line of a list that says no image.

    Attributes:
        lists: the files of lists, resolved.
    """

    def __init__(self, folder: Path, content: dict[str, Any], index: ImageIndex, notes: Notes) -> None:
        base = folder / str(content.get("path") or "")
        base = base if base.is_dir() else folder
        self._index = index
        self._folders: list[tuple[Path, str]] = []
        self._listed: dict[str, str] = {}
        self.lists: set[Path] = set()
        for key, part in _SPLITS:
            for value in content[key] if isinstance(content.get(key), list) else [content.get(key)]:
                if not isinstance(value, str):
                    continue
                place = next(
                    (path for path in (base / value, folder / value.removeprefix("../")) if path.exists()), None
                )
                if place is not None and place.is_dir():
                    self._folders.append((place.resolve(), part))
                elif place is not None:
                    self.lists.add(place.resolve())
                    self._listed |= dict.fromkeys(_listed(place, base, index, notes), part)

    def of(self, path: str) -> str:
        """The part of an image, given by its path in the index."""
        real = (self._index.folder / path).resolve()
        for place, part in self._folders:
            if real.is_relative_to(place):
                return part
        return self._listed.get(path) or part_of(path) or "train"


def _listed(place: Path, base: Path, index: ImageIndex, notes: Notes) -> Iterator[str]:
    """Paths in the index of the images that a list names.

    A line is a path relative to the list's folder or to that of `data.yaml`. One of another computer, which is neither,
    means the only image whose last folders are the same.
    """
    try:
        lines = place.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SemipixError(f"{place}: not UTF-8 text; expected the path of an image a line") from None
    real = {(index.folder / path).resolve(): path for path in index.paths}
    for line in filter(None, map(str.strip, lines)):
        found = (real.get((folder / line).resolve()) for folder in (place.parent, base))
        if path := next(filter(None, found), None) or index.by_ending(line):
            yield path
        else:
            notes.add(_UNLISTED, line)
