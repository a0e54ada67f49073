"""Lists of classes with the colour of each class in masks."""

import re
from pathlib import Path
from typing import NamedTuple

from semipix.batch import VOID
from semipix.data.files.decode_colours import Colour, ColourTable
from semipix.data.sources.class_names import CLASSES_FILE, VOID_NAMES, check_class_count
from semipix.errors import SemipixError

LABEL_MAP = "labelmap.txt"
"""CVAT's list of classes and colours."""

_NUMBERS = r"(?P<red>\d+)\s*[,\s]\s*(?P<green>\d+)\s*[,\s]\s*(?P<blue>\d+)"

_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"(?P<name>[^:]+):\s*{_NUMBERS}\s*:[^:]*:[^:]*",  # CVAT: name:red,green,blue:parts:actions
        rf"(?P<name>\S.*?)\s*[,\s]\s*{_NUMBERS}",
        rf"{_NUMBERS}\s*[,\s]\s*(?P<name>\S.*)",
    )
)

VOC_CLASSES = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
"""Classes of Pascal VOC."""

_VOC_VOID = (224, 224, 192)


class ColourClasses(NamedTuple):
    """Class names by index, and the class of each colour."""

    names: list[str]
    table: ColourTable


def read_colour_table(root: Path) -> ColourClasses:
    """The classes and colours of a folder: `labelmap.txt`, or else `classes.txt`.

    Raises:
        SemipixError: there is no such file; otherwise see `read_colour_file`.
    """
    for name in (LABEL_MAP, CLASSES_FILE):
        if (root / name).is_file():
            return read_colour_file(root / name)
    raise SemipixError(
        f"{root}: found no {CLASSES_FILE} and no {LABEL_MAP}, expected one with a line NAME RED GREEN BLUE for each "
        "class; write it there"
    )


def read_colour_file(path: Path) -> ColourClasses:
    """Read a list of classes with their colours.

    Each line is `name red green blue`, `red green blue name` (spaces, tabs or commas), or CVAT's
    `name:red,green,blue:parts:actions`. Empty lines and lines that begin with # are ignored. The order of the lines is
    the order of the class indices. A colour called void, ignore, ignored, unlabeled or `__ignore__` is void and has no
    index.

    Raises:
        SemipixError: a line has another form, a number above 255, or a name or colour that an earlier line has; there
            are fewer than two or too many classes; or the file is no UTF-8 text.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SemipixError(f"{path}: not UTF-8 text; expected a line NAME RED GREEN BLUE for each class") from None
    names: list[str] = []
    indices: dict[Colour, int] = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        name, colour = _parsed(path, line)
        if colour in indices:
            raise SemipixError(f"{path}: the colour {' '.join(map(str, colour))} is there twice; expected it once")
        if name.lower() in VOID_NAMES:
            indices[colour] = VOID
            continue
        if name in names:
            raise SemipixError(f"{path}: class {name!r} is there twice; give each its own name")
        indices[colour] = len(names)
        names.append(name)
    if len(names) < 2:
        raise SemipixError(f"{path}: found {len(names)} classes with a colour, expected at least 2, one a line")
    check_class_count(path, len(names))
    return ColourClasses(names, ColourTable(path, indices))


def voc_colours(origin: Path) -> ColourClasses:
    """The classes of Pascal VOC; the outlines of objects are void.

    Args:
        origin: the folder of the masks, for messages.
    """
    indices = {voc_colour(index): index for index in range(len(VOC_CLASSES))}
    return ColourClasses(list(VOC_CLASSES), ColourTable(origin, {**indices, _VOC_VOID: VOID}))


def voc_colour(index: int) -> Colour:
    """The colour of a number from 0 to 255 in VOC's palette: the bits of the number, spread over the channels.

    Bits 0, 3 and 6 make red from its highest bit down, 1, 4 and 7 green, 2 and 5 blue.
    """
    red, green, blue = (
        sum((index >> 3 * step + channel & 1) << 7 - step for step in range(8 // 3 + 1)) for channel in range(3)
    )
    return red, green, blue


def _parsed(path: Path, line: str) -> tuple[str, Colour]:
    for form in _FORMS:
        if found := form.fullmatch(line):
            colour = (int(found["red"]), int(found["green"]), int(found["blue"]))
            if max(colour) > 255:
                raise SemipixError(f"{path}: found the colour value {max(colour)} in {line!r}, expected 0 to 255")
            return found["name"].strip().rstrip(","), colour
    raise SemipixError(
        f"{path}: found {line!r}, expected NAME RED GREEN BLUE (0 to 255), or CVAT's NAME:RED,GREEN,BLUE::; fix it"
    )
