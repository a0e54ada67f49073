"""Masks whose colours are the classes: CVAT's Segmentation mask 1.1, Pascal VOC, and folders of pictures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from semipix.batch import VOID
from semipix.data.annotations.entries import (
    BACKGROUND_NAMES,
    AnnotationReader,
    Drawn,
    Entry,
    Notes,
    Orientation,
    Unannotated,
    UnusableError,
    frame_of,
)
from semipix.data.annotations.images import ImageIndex, Named, as_entries, part_of, part_of_list
from semipix.data.files.decode import Header
from semipix.data.files.decode_colours import ColourTable, read_colour_mask, read_colours
from semipix.data.files.listing import is_image, split_extension, walk
from semipix.data.files.names import composed
from semipix.data.files.opening import MAX_PIXELS, upright
from semipix.data.sources.colour_classes import (
    LABEL_MAP,
    ColourClasses,
    read_colour_file,
    read_colour_table,
    voc_colours,
)
from semipix.errors import SemipixError

_CLASS_MASKS = "SegmentationClass"

_OBJECT_MASKS = "SegmentationObject"

_LISTS = "ImageSets/Segmentation"

_PHOTOS = "JPEGImages"

_DELAY = 2.0
"""Seconds after which a progress bar is shown."""

_LONE = "masks have no image and are left out"

_MISSING = "images of the lists are not there and are left out"


class ColourMaskReader(AnnotationReader):
    """Reads masks of colours.

    Attributes:
        word: pixels are counted; masks have no objects.

    Args:
        classes: names, and the class of each colour.
        index: the images.
        named: images with their masks.
        everywhere: whether all other images of the index are unlabeled ones, or only those beside the labeled ones.
        orientation: what the user said.
        objects: folder of CVAT's masks of objects, in which what nobody annotated is black; None to keep each colour.
    """

    word = "masks"

    def __init__(
        self,
        classes: ColourClasses,
        index: ImageIndex,
        named: Sequence[Named],
        everywhere: bool,
        orientation: Orientation,
        objects: Path | None = None,
    ) -> None:
        self.classes, self.given = classes.names, len(classes.names)
        self.entries = as_entries(index, named, index.rest([item.path for item in named], everywhere))
        self.left_out = []
        self.orientation = orientation
        self._table: ColourTable = classes.table
        self._objects = objects

    def draw(self, entry: Entry, header: Header) -> Drawn:
        path: Path = entry.label
        mask = read_colour_mask(path, self._table, max_pixels=self.max_pixels)
        values: NDArray[np.uint8] = mask.values.numpy()
        if self._objects is not None:
            beside = self._objects / path.relative_to(self._objects.parent / _CLASS_MASKS)
            values = np.where(_annotated(beside, values.shape, self.max_pixels), values, np.uint8(VOID))
        notes = Notes()
        height, width = values.shape
        if mask.orientation == 1:
            values = upright(values, frame_of(entry.name, header, (height, width), self.orientation, notes).orientation)
        elif (height, width) != header.size:
            raise UnusableError(f"{path}: another size than its image {entry.name}; expected the same size")
        present = np.bincount(values.ravel(), minlength=VOID + 1)[:VOID]
        counts = Counter({self.classes[index]: 1 for index in present.nonzero()[0]})
        return Drawn(np.ascontiguousarray(values), counts, notes)


def read_cvat(
    source: Path, images: Path | None, unannotated: Unannotated, classes: Path | None, orientation: Orientation
) -> ColourMaskReader:
    """Read CVAT's Segmentation mask 1.1: `labelmap.txt`, `SegmentationClass/`, and lists in `ImageSets/Segmentation/`.

    CVAT gives the class background to what nobody annotated. With `unannotated="ignore"` it becomes void: where
    `SegmentationObject/` is black, or, without that folder, the whole class background. If then nothing is left of it,
    it is no class.

    Raises:
        SemipixError: the folder has another layout, or no image of a mask is found.
    """
    file = classes or source / LABEL_MAP
    if not file.is_file():
        raise SemipixError(
            f"{file}: no such file; expected CVAT's list of classes and colours, give it by --classes FILE"
        )
    table = read_colour_file(file)
    objects = None
    if unannotated == "ignore":
        if (source / _OBJECT_MASKS).is_dir():
            objects = source / _OBJECT_MASKS
        if objects is None or not _is_background_annotated(source, table):
            table = _without_background(table)
    return _read_voc_layout(source, images, table, orientation, objects)


def read_voc(source: Path, images: Path | None, classes: Path | None, orientation: Orientation) -> ColourMaskReader:
    """Read Pascal VOC: `JPEGImages/`, `SegmentationClass/`, and lists in `ImageSets/Segmentation/`.

    Classes and colours are VOC's, or those of `labelmap.txt` if there is one. The pale outlines of objects are void.

    Raises:
        SemipixError: the folder has another layout, or no image of a mask is found.
    """
    file = classes or source / LABEL_MAP
    table = read_colour_file(file) if classes or file.is_file() else voc_colours(source / _CLASS_MASKS)
    return _read_voc_layout(source, images, table, orientation, None)


def read_pictures(
    source: Path, images: Path | None, classes: Path | None, orientation: Orientation
) -> ColourMaskReader:
    """Read a folder of masks of colours, whose images are in `images` and have the same stems.

    All names of masks may have the same ending that those of images have not, such as `_L` or `_mask`.

    Args:
        source: the masks, or a folder with `masks/` and `images/`.
        images: folder of the images; by default `images/` in the source.
        classes: file of names and colours; by default `labelmap.txt` or `classes.txt` in the source.
        orientation: what the user said.

    Raises:
        SemipixError: there are no masks, no image of a mask is found, or there is no list of colours.
    """
    masks = source / "masks" if (source / "masks").is_dir() else source
    if images is None and not (source / "images").is_dir():
        raise SemipixError(f"{source / 'images'}: no such folder; expected the images of the masks, give --images DIR")
    table = read_colour_file(classes) if classes else read_colour_table(source)
    index = ImageIndex(images or source / "images")
    names = [name for name in walk(masks).files if is_image(name)]
    if not names:
        raise SemipixError(f"{masks}: found no mask, expected pictures of the classes' colours; name their folder")
    stems = {name: composed(split_extension(name)[0]) for name in names}
    found = index.find_stems([[stem] for stem in stems.values()])
    if not any(found) and (ending := _shared_ending(index, list(stems.values()))):
        found = index.find_stems([[stem.removesuffix(ending)] for stem in stems.values()])
    named, notes = [], Notes()
    for name, path in zip(stems, found, strict=True):
        if path is None:
            notes.add(_LONE, name)
        else:
            named.append(Named(path, part_of(name) or "train", masks / name))
    return _with_notes(
        ColourMaskReader(table, index, _found(named, index, masks), images is not None, orientation), notes
    )


def _read_voc_layout(
    source: Path, images: Path | None, classes: ColourClasses, orientation: Orientation, objects: Path | None
) -> ColourMaskReader:
    folder = source / _CLASS_MASKS
    if not folder.is_dir():
        raise SemipixError(
            f"{folder}: no such folder; expected {_CLASS_MASKS}/ with masks, name the folder that holds it"
        )
    photos = images or (source / _PHOTOS if (source / _PHOTOS).is_dir() else None)
    if photos is None:
        raise SemipixError(
            f"{source / _PHOTOS}: no such folder; expected the images, give their folder by --images DIR"
        )
    index, notes, named = ImageIndex(photos), Notes(), []
    parts = _listed_parts(source)
    masks = _by_stem(folder)
    stems = list({**masks, **parts})
    for stem, path in zip(stems, index.find_stems([[stem] for stem in stems]), strict=True):
        if path is None:
            notes.add(_LONE if stem in masks else _MISSING, stem)
        elif stem in masks or stem in parts:
            named.append(Named(path, parts.get(stem) or part_of(stem) or "train", masks.get(stem)))
    reader = ColourMaskReader(classes, index, _found(named, index, folder), True, orientation, objects)
    return _with_notes(reader, notes)


def _by_stem(folder: Path) -> dict[str, Path]:
    """The masks of a folder by their path without extension.

    Raises:
        SemipixError: two masks have the same.
    """
    masks: dict[str, Path] = {}
    for name in filter(is_image, walk(folder).files):
        other = masks.setdefault(composed(split_extension(name)[0]), folder / name)
        if other != folder / name:
            raise SemipixError(
                f"{folder / name}: the same name as {other.name} up to the extension; expected one mask for each "
                "image, remove or move the other"
            )
    return masks


def _listed_parts(source: Path) -> dict[str, str]:
    """The part of each image in the lists; lists of other names, such as `trainval.txt`, count last."""
    parts: dict[str, str] = {}
    lists = sorted((source / _LISTS).glob("*.txt"), key=lambda path: (part_of_list(path.stem) is None, path.name))
    for path in lists:
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise SemipixError(f"{path}: not UTF-8 text; expected the name of an image a line") from None
        for line in filter(None, map(str.strip, lines)):
            parts.setdefault(composed(line), part_of_list(path.stem) or "train")
    return parts


def _found(named: list[Named], index: ImageIndex, masks: Path) -> list[Named]:
    if not any(item.label for item in named):
        raise SemipixError(f"{index.folder}: found no image of the masks in {masks}; give their folder by --images DIR")
    return named


def _with_notes(reader: ColourMaskReader, notes: Notes) -> ColourMaskReader:
    reader.left_out = notes.lines()
    return reader


def _without_background(classes: ColourClasses) -> ColourClasses:
    """The classes with the colour of background as void, and without that name."""
    names = [name for name in classes.names if name.lower() not in BACKGROUND_NAMES]
    new: dict[int, int] = {VOID: VOID}
    new |= {index: names.index(name) if name in names else VOID for index, name in enumerate(classes.names)}
    indices = {colour: new[index] for colour, index in classes.table.indices.items()}
    return ColourClasses(names, ColourTable(classes.table.origin, indices))


def _is_background_annotated(source: Path, classes: ColourClasses) -> bool:
    """Whether somebody annotated a pixel as background, so that it is a class."""
    colours = [
        red << 16 | green << 8 | blue
        for (red, green, blue), index in classes.table.indices.items()
        if index != VOID and classes.names[index].lower() in BACKGROUND_NAMES
    ]
    folder = source / _CLASS_MASKS
    names = [name for name in walk(folder).files if is_image(name)]
    for name in tqdm(names, "looking for background", unit="mask", disable=None, leave=False, delay=_DELAY):
        values = read_colours(folder / name).values
        background = np.isin(values, colours)
        if background.any() and (background & _annotated(source / _OBJECT_MASKS / name, values.shape)).any():
            return True
    return False


def _annotated(path: Path, size: tuple[int, ...], max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Where a mask of objects is not black, (H, W)."""
    colours = read_colours(path, max_pixels=max_pixels).values
    if colours.shape != size:
        raise UnusableError(f"{path}: another size than the mask in {_CLASS_MASKS}; export both again")
    annotated: NDArray[np.bool_] = colours != 0
    return annotated


def _shared_ending(index: ImageIndex, stems: Sequence[str]) -> str:
    """The ending that the stems of all masks have beyond those of their images; empty if there is none."""
    first = stems[0].rpartition("/")[2]
    known = [stem for stem in index.stems() if first.startswith(stem) and first[len(stem) : len(stem) + 1] in "_-."]
    ending = first[len(max(known, key=len)) :] if known else ""
    return ending if all(stem.endswith(ending) for stem in stems) else ""
