"""What a reader of annotations returns: images, where their annotations are, and remarks about what is left out."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semipix.data.files.decode import Header
from semipix.data.files.opening import MAX_PIXELS, SIDEWAYS, Encoded
from semipix.data.files.sizes import Size
from semipix.data.sources.class_names import VOID_NAMES
from semipix.errors import SemipixError

Unannotated = Literal["background", "ignore"]
"""What the pixels are that nobody annotated: the class background, or void."""

Orientation = Literal["auto", "shown", "stored"]
"""Whether annotations refer to a photo turned by its orientation tag, or to its pixels as they are stored."""

BACKGROUND_NAMES = frozenset({"background", "_background_"})
"""Names, in lower case, of the class of what is not annotated."""

UNLABELED = "unlabeled"

TURNED = (
    "photos have an orientation tag and annotations of the size of the stored pixels; these are turned like the photo"
)

ASSUMED = (
    "photos have an orientation tag that leaves their size as it is; annotations are taken as drawn on the photo as it "
    "is shown (--orientation stored: on the pixels as they are stored)"
)


class UnusableError(SemipixError):
    """The annotations of one image cannot be used, so that it counts as unlabeled."""


@dataclass(frozen=True)
class Entry:
    """An image of a data set.

    Attributes:
        name: path of the image in its part of the data folder, with forward slashes.
        part: train, val, test or unlabeled.
        image: its file; None if the reader takes it from somewhere else.
        label: what the reader needs to draw its mask; None if it is unlabeled.
    """

    name: str
    part: str
    image: Path | None
    label: Any = None


class Notes:
    """Counts of things that are left out or changed, each with its first example."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, example: str) -> None:
        """Count one thing; `what` is the end of a line that begins with a number."""
        self._counts[what] += 1
        self._first.setdefault(what, example)

    def update(self, other: "Notes") -> None:
        """Add the counts of other notes."""
        self._counts.update(other._counts)
        self._first = {**other._first, **self._first}

    def count(self, what: str) -> int:
        """How often something was added."""
        return self._counts[what]

    def lines(self) -> list[str]:
        """A line for each kind of thing."""
        return [
            f"{count} {what} ({self._first[what]}{', ...' if count > 1 else ''})"
            for what, count in self._counts.items()
        ]


@dataclass
class Drawn:
    """The mask of one image.

    Attributes:
        mask: class indices (H, W) uint8, upright; 255 is void.
        objects: number of objects by class name.
        notes: what was left out or changed.
    """

    mask: NDArray[np.uint8]
    objects: Counter[str] = field(default_factory=Counter)
    notes: Notes = field(default_factory=Notes)


class AnnotationReader(ABC):
    """Reads the annotations of a tool.

    Attributes:
        classes: class names in the order of their index.
        given: number of classes in the annotations.
        entries: all images.
        left_out: one line, with a count, for each kind of thing that is left out.
        word: what is counted in each image, such as "objects".
        max_pixels: most pixels of a mask.
    """

    classes: list[str]
    given: int
    entries: list[Entry]
    left_out: list[str]
    word: str = "objects"
    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def draw(self, entry: Entry, header: Header) -> Drawn:
        """The mask of a labeled image.

        Args:
            entry: the image.
            header: the header of its file.

        Raises:
            UnusableError: the annotations of this image cannot be used.
            SemipixError: the annotations of all images are in question.
        """

    def image(self, entry: Entry) -> Path | Encoded:
        """The image itself.

        Raises:
            UnusableError: there is none.
        """
        if entry.image is None:
            raise UnusableError(f"{entry.name}: no image")
        return entry.image


class Frame(NamedTuple):
    """What the coordinates of annotations refer to.

    Args:
        size: height and width.
        orientation: the tag by which masks of this size have to be turned; 1 if they are upright.
    """

    size: Size
    orientation: int


def frame_of(where: str, header: Header, stated: Size | None, orientation: Orientation, notes: Notes) -> Frame:
    """Find out whether annotations refer to a photo as it is shown, or to its stored pixels.

    Args:
        where: the image, for messages.
        header: the header of its file.
        stated: height and width that the annotations say; None if they say none.
        orientation: what the user said.
        notes: gets a note if this was found by the size, or had to be assumed.

    Raises:
        UnusableError: the annotations are for another size.
    """
    shown = header.size
    stored = shown[::-1] if header.orientation in SIDEWAYS else shown
    as_stored = orientation == "stored" or (orientation == "auto" and stated == stored != shown)
    frame = Frame(stored, header.orientation) if as_stored else Frame(shown, 1)
    if stated is not None and stated != frame.size:
        turned = f", stored with orientation tag {header.orientation}" if header.orientation != 1 else ""
        raise UnusableError(
            f"{where}: annotations for an image of {stated[1]}x{stated[0]} pixels, but the image is "
            f"{shown[1]}x{shown[0]}{turned}; expected the image that was annotated"
        )
    if header.orientation != 1 and orientation == "auto":
        if as_stored:
            notes.add(TURNED, where)
        elif stored == shown and stated is not None:
            notes.add(ASSUMED, where)
    return frame


def is_void(name: str) -> bool:
    """Whether a class name marks pixels of no class."""
    return name.lower() in VOID_NAMES


def with_background(names: Sequence[str], unannotated: Unannotated) -> tuple[list[str], int | None]:
    """The classes of the masks, without void, and the index of what is not annotated; None if that is void."""
    names = [name for name in names if not is_void(name)]
    if unannotated == "ignore":
        return list(names), None
    for index, name in enumerate(names):
        if name.lower() in BACKGROUND_NAMES:
            return list(names), index
    return ["background", *names], 0


def check_known(origin: str, known: Sequence[str], used: Counter[str]) -> None:
    """Check that all labels are in a list of classes that the user gave.

    Raises:
        SemipixError: some are not.
    """
    unknown = {name: count for name, count in used.items() if name not in known}
    if unknown:
        several = ", ".join(f"{name!r} ({count} objects)" for name, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SemipixError(
            f"{origin}: the annotations have {len(unknown)} classes that it does not list: {several}{more}; expected "
            "all names, one a line, add them or leave out --classes"
        )


def first_and_more(problems: Iterable[str]) -> str:
    """The first of several problems, with the number of the others."""
    lines = list(problems)
    return lines[0] + (f"; and {len(lines) - 1} more such images" if len(lines) > 1 else "")
