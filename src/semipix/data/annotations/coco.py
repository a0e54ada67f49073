"""COCO: one JSON file with images, categories and outlines as polygons or run-length codes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from semipix.data.annotations.drawing import Shape, ShapeReader, ShapesOf
from semipix.data.annotations.entries import (
    Entry,
    Notes,
    Orientation,
    Unannotated,
    UnusableError,
    check_known,
    is_void,
    with_background,
)
from semipix.data.annotations.images import ImageIndex, Named, Wanted, as_entries, part_of_list
from semipix.data.annotations.json_files import points_of, read_json
from semipix.data.files.listing import walk
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError

Empty = Literal["labeled", "unlabeled"]
"""What an image without any object is: labeled as empty, or not annotated yet."""

_NO_OBJECTS = ("captions_", "image_info_", "panoptic_", "person_keypoints_")
"""Files of COCO that hold no outlines, or outlines that `instances_` has too."""

_MISSING = "images that the annotations name are not there and are left out"

_OTHERS = "JSON files have no lists images, annotations and categories and are left out"

_STRAY = "objects of images that the file does not list are left out"


@dataclass
class _Image:
    """An image of COCO files.

    Attributes:
        where: file of annotations and name, for messages.
        part: train, val or test.
        size: height and width as the file says, or None.
        objects: annotations, each with the names of its file's categories.
    """

    where: str
    part: str
    size: Size | None
    objects: list[tuple[Mapping[str, Any], Mapping[Any, str]]] = field(default_factory=list)


class _Lists(NamedTuple):
    """The lists of a COCO file."""

    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]


class CocoReader(ShapeReader):
    """Reads the COCO files of a folder, or one file.

    The part of a file (train, val, test) is in its name or its folder's. Images that several files list, such as
    `instances_` and `stuff_`, get the objects of all. The order of the classes is that of the ids.

    Args:
        source: a JSON file, or a folder that is searched for them.
        images: folder of the images; by default the source's.
        unannotated: what pixels without an object are.
        empty: what an image without an object is; None if the user did not say.
        classes: names in the order of their index; by default those of the files.
        orientation: what the user said.

    Raises:
        SemipixError: a file is damaged, two images share an id, two categories an id or a name, an object has no
            category, no image is found, or it has to be said what images without an object are.
    """

    def __init__(
        self,
        source: Path,
        images: Path | None,
        unannotated: Unannotated,
        empty: Empty | None,
        classes: Sequence[str] | None,
        orientation: Orientation,
    ) -> None:
        self.orientation = orientation
        self.left_out = []
        self._notes = Notes()
        self._categories: dict[Any, tuple[str, Path]] = {}
        files = self._files(source)
        folder = source if source.is_dir() else source.parent
        self._index = ImageIndex(images or folder)
        self._images: dict[str, _Image] = {}
        contents = {path: lists for path in files if (lists := self._lists(path, len(files) > 1)) is not None}
        found = iter(self._index.find_all(self._wanted(contents, folder)))
        for path, lists in contents.items():
            part = part_of_list(path.relative_to(folder).as_posix()) or "train"
            self._read(path, part, lists, [next(found) for _ in lists.images])
        if not self._images:
            raise SemipixError(
                f"{self._index.folder}: none of the images that {files[0]} names is there; expected them there, give "
                "their folder by --images DIR"
            )
        names = [self._categories[key][0] for key in sorted(self._categories, key=lambda key: (str(type(key)), key))]
        self.given = len(names)
        if classes is not None:
            used = Counter(
                named[item["category_id"]] for image in self._images.values() for item, named in image.objects
            )
            used = Counter({name: count for name, count in used.items() if not is_void(name)})
            check_known("--classes", classes, used)
        self.classes, self.unannotated = with_background(names if classes is None else classes, unannotated)
        self.entries = self._entries(empty, images is not None)
        self.left_out += self._notes.lines()

    def shapes(self, entry: Entry, notes: Notes) -> tuple[Size | None, ShapesOf]:
        image: _Image = entry.label
        shapes = [_shape(item, names, f"{entry.name}, object {item.get('id', '')}") for item, names in image.objects]
        size = image.size or next((_size(shape.rle.get("size")) for shape in shapes if shape.rle is not None), None)
        return size, ShapesOf(shapes)

    def _files(self, source: Path) -> list[Path]:
        if source.is_file():
            return [source]
        paths = [source / path for path in walk(source).files if path.lower().endswith(".json")]
        others = [path for path in paths if path.name.startswith(_NO_OBJECTS)]
        found = [path for path in paths if path not in others]
        if not found:
            raise SemipixError(f"{source}: found no JSON file with objects, expected COCO's; name the folder or file")
        if others:
            self.left_out.append(f"{len(others)} JSON files have no outlines of their own ({others[0].name}, ...)")
        return found

    def _lists(self, path: Path, several: bool) -> _Lists | None:
        """The lists of one file; None for a file of another format among several, which is left out."""
        content = read_json(path)
        lists = [
            content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")
        ]
        if not all(isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in lists):
            if several:
                self._notes.add(_OTHERS, path.name)
                return None
            raise SemipixError(
                f"{path}: expected the lists images, annotations and categories of COCO; name another file"
            )
        return _Lists(*(items or [] for items in lists))

    def _wanted(self, contents: Mapping[Path, _Lists], folder: Path) -> list[Wanted]:
        """The names of the images of all files, in their order; an empty one for an image without a name.

        Images are expected beside the files if any of the files lies in a folder of images.
        """
        inside = {path: path.relative_to(folder).as_posix() for path in contents}
        folders = {path: name.rpartition("/")[0] for path, name in inside.items()}
        is_beside = folder == self._index.folder and any(self._index.holds(near) for near in folders.values() if near)
        return [
            Wanted(
                name if isinstance(name := image.get("file_name"), str) else "",
                folders[path] if is_beside else "",
                part_of_list(inside[path]) or "train",
            )
            for path, lists in contents.items()
            for image in lists.images
        ]

    def _read(self, path: Path, part: str, lists: _Lists, found: Sequence[str | None]) -> None:
        """Take over the objects of one file, whose images were found or not."""
        images, objects, categories = lists
        names = self._named(path, categories)
        _check_ids(path, images)
        by_id: dict[Any, _Image | None] = {}
        for image, place in zip(images, found, strict=True):
            by_id[_key(image.get("id"))] = None if place is None else self._listed(path, image, place, part)
            if place is None:
                self._notes.add(_MISSING, str(image.get("file_name")))
        unknown: Counter[Any] = Counter()
        for item in objects:
            image_id, category = _key(item.get("image_id")), _key(item.get("category_id"))
            if category not in names:
                unknown[category] += 1
            elif image_id not in by_id:
                self._notes.add(_STRAY, f"{path.name}, object {item.get('id', '')}")
            elif (target := by_id[image_id]) is not None:
                target.objects.append((item, names))
        if unknown:
            raise SemipixError(
                f"{path}: {sum(unknown.values())} objects have the category {next(iter(unknown))}, which is not in the "
                f"file's list of {len(names)} categories; add it to the list"
            )

    def _listed(self, path: Path, image: Mapping[str, Any], found: str, part: str) -> _Image:
        """The image, which an earlier file or line may have listed already."""
        size = _size((image.get("height"), image.get("width")))
        where = f"{path.name}, {found}"
        known = self._images.setdefault(found, _Image(where, part, size))
        if known.part != part:
            raise SemipixError(
                f"{found}: an image of {known.part} in {known.where.partition(',')[0]} and of {part} in {path.name}; "
                "expected it in one part, remove it from the other"
            )
        if size is not None and known.size not in (None, size):
            raise SemipixError(f"{found}: {path.name} says another size than {known.where}; expected one size, fix it")
        return known

    def _named(self, path: Path, categories: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
        """Names by id of one file, compared with those of the files before."""
        names = {}
        for item in categories:
            key, name = _key(item.get("id")), item.get("name")
            if not isinstance(name, str) or not name.strip() or key is None:
                raise SemipixError(f"{path}: a category without id or name ({str(item)[:60]}); give it both")
            name = name.strip()
            earlier, where = self._categories.setdefault(key, (name, path))
            if earlier != name:
                raise SemipixError(
                    f"{path}: category {key} is {name!r}, but {earlier!r} in {where.name}; expected one name an id, "
                    "renumber the categories of one file"
                )
            names[key] = name
        by_name: dict[str, Any] = {}
        for key, (name, _) in self._categories.items():
            other = by_name.setdefault(name, key)
            if other != key:
                raise SemipixError(
                    f"{path}: categories {other} and {key} are both called {name!r}; expected one id a name, rename "
                    "one or give its objects the id of the other"
                )
        return names

    def _entries(self, empty: Empty | None, everywhere: bool) -> list[Entry]:
        bare = [path for path, image in self._images.items() if not image.objects]
        if bare and empty is None and self.unannotated is not None:
            raise SemipixError(
                f"{len(bare)} images have no object ({bare[0]}): are they annotated and show only background, or not "
                "annotated yet? Say --empty labeled or --empty unlabeled"
            )
        keep = empty == "labeled" and self.unannotated is not None
        named = [
            Named(path, image.part, image if image.objects or keep else None) for path, image in self._images.items()
        ]
        return as_entries(self._index, named, self._index.rest(self._images, everywhere))


def _check_ids(path: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """Check that no two images of a file have the same id, by which objects name their image.

    Raises:
        SemipixError: two have, or several have none.
    """
    seen: dict[Any, Any] = {}
    for image in images:
        name = image.get("file_name")
        other = seen.setdefault(_key(image.get("id")), name)
        if other != name:
            raise SemipixError(
                f"{path}: the images {other} and {name} both have the id {image.get('id')}, by which objects name "
                "their image; expected one id an image, export the annotations again"
            )


def _shape(item: Mapping[str, Any], names: Mapping[Any, str], where: str) -> Shape:
    name, outline = names[_key(item["category_id"])], item.get("segmentation")
    label = None if is_void(name) else name
    if isinstance(outline, dict):
        return Shape(label, where, rle=outline)
    parts = [outline] if isinstance(outline, list) and outline and not isinstance(outline[0], list) else outline
    if isinstance(parts, list) and any(parts):
        return Shape(label, where, [points_of(part, where) for part in parts])
    box = item.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        return Shape(label, where, box=points_of(box, where).ravel())
    raise UnusableError(f"{where}: has neither an outline nor a box; remove it or draw it")


def _size(values: Any) -> Size | None:
    """Height and width; None if they are no numbers."""
    try:
        height, width = (int(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _key(value: Any) -> Any:
    """An id, which tools write as number, such as 7 or 7.0, or as text."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None
