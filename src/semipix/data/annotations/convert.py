"""`semipix data convert`: write the annotations of other tools as a data folder with masks.

1. A reader finds the images and their annotations (`coco`, `labelme`, `yolo`, `colour_masks`).
2. For each image, in threads: draw its mask, and copy or link the image.
3. The folder has a random name until it is complete, so that an interruption leaves nothing behind.
"""

import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from semipix.atomic import written_folder
from semipix.batch import VOID
from semipix.data.annotations.coco import CocoReader, Empty
from semipix.data.annotations.colour_masks import read_cvat, read_pictures, read_voc
from semipix.data.annotations.drawing import BOXES, load_coco_masks
from semipix.data.annotations.entries import (
    UNLABELED,
    AnnotationReader,
    Drawn,
    Entry,
    Notes,
    Orientation,
    Unannotated,
    UnusableError,
    first_and_more,
)
from semipix.data.annotations.labelme import LabelmeReader
from semipix.data.annotations.yolo import YoloReader
from semipix.data.files.decode import read_header
from semipix.data.files.decode_colours import UnknownColourError
from semipix.data.files.listing import SPLITS, split_extension
from semipix.data.files.names import composed
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.data.sources.class_names import CLASSES_FILE, read_class_list
from semipix.errors import SemipixError, UnreadableFileError
from semipix.interruption import Interrupted, number_of, raise_if_interrupted

Format = Literal["coco", "labelme", "yolo", "cvat", "voc", "colours"]

FORMATS: tuple[Format, ...] = ("coco", "labelme", "yolo", "cvat", "voc", "colours")

_ASKS = ("coco", "labelme", "yolo", "cvat")
"""Formats in which a pixel that nobody annotated may be background, or just not annotated."""

_DRAWS = ("coco", "labelme", "yolo")

_DELAY = 1.0
"""Seconds after which a progress bar is shown."""


@dataclass
class Conversion:
    """What was converted.

    Attributes:
        root: the new data folder.
        found: what the source holds, as a line.
        classes: class names by index.
        masks: number of images with a mask by part.
        bare: number of images without one by part.
        objects: number of objects, or for masks of images, by class name.
        pixels: number of pixels by class index.
        word: what `objects` counts.
        left_out: one line, with a count, for each kind of thing that was left out or changed.
    """

    root: Path
    found: str
    classes: list[str]
    word: str
    masks: Counter[str] = field(default_factory=Counter)
    bare: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Counts as text."""
        lines = [self.found, f"{self.root}"]
        for part in (*SPLITS, UNLABELED):
            if self.masks[part] or self.bare[part]:
                lines.append(f"  {part:<10}{self.masks[part]:>7} with mask {self.bare[part]:>7} without")
        total = max(1, self.pixels.total() - self.pixels[VOID])
        lines.append(f"  classes   {len(self.classes):>7}, {self.word} and shares of the pixels that are not void:")
        for index, name in enumerate(self.classes):
            lines.append(f"    {index:>3} {name:<20}{self.objects[name]:>9}{self.pixels[index] / total:>9.2%}")
        return [*lines, f"  void      {self.pixels[VOID] / max(1, self.pixels.total()):>7.1%} of all mask pixels"]


@dataclass
class _Written:
    """What became of one image."""

    part: str | None = None
    drawn: Drawn | None = None
    pixels: Counter[int] = field(default_factory=Counter)
    problem: str = ""
    colours: str = ""


def convert(
    source: Path,
    root: Path,
    form: Format,
    *,
    images: Path | None = None,
    unannotated: Unannotated | None = None,
    empty: Empty | None = None,
    classes: Path | None = None,
    link: bool = False,
    orientation: Orientation = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Conversion:
    """Write annotations as a folder that `data=folder` reads: images, masks and `classes.txt`.

    An image whose annotations cannot be used counts as unlabeled, with a line. Objects are drawn from the largest to
    the smallest. Files of images stay as they are; masks are upright.

    Args:
        source: folder, file or zip archive of the annotations.
        root: the new folder; it may be there already if it is empty.
        form: format of the annotations.
        images: folder of the images; by default they are searched in the source. All images in it are taken.
        unannotated: what pixels are that nobody annotated; to be said for the formats that leave it open.
        empty: for COCO, what an image without objects is.
        classes: file of class names in the order of their index, for masks with their colours.
        link: make symbolic links to the images instead of copies.
        orientation: what annotations of photos with an orientation tag refer to; by default the tool's habit, or what
            the size shows.
        max_pixels: most pixels of an image.

    Returns:
        Counts.

    Raises:
        SemipixError: the root is there, an option is missing or does not fit, or the annotations cannot be used.
        OSError: a file cannot be written; nothing is left behind.
        KeyboardInterrupt: the user interrupted; nothing is left behind.
    """
    _check_options(source, root, form, unannotated, empty)
    if link and images is None and not source.is_dir() and zipfile.is_zipfile(source):
        raise SemipixError(f"{source}: --link cannot link to images in an archive; unpack it, or leave --link out")
    if form in _DRAWS:
        load_coco_masks()
    with _unpacked(source, root) as folder:
        reader = _reader(folder, form, images, unannotated, empty, classes, orientation)
        reader.max_pixels = max_pixels
        _check_names(reader.entries)
        entries, lines = _with_training(reader.entries)
        annotated = sum(entry.label is not None for entry in entries)
        line = (
            f"{source}: {form}, {annotated} images with annotations, {len(entries) - annotated} without, "
            f"{reader.given} classes"
        )
        conversion = Conversion(root, line, reader.classes, reader.word, left_out=[*reader.left_out, *lines])
        try:
            with written_folder(root) as new:
                _write_classes(new / CLASSES_FILE, reader.classes)
                _write_all(reader, entries, new, conversion, link, max_pixels)
        except KeyboardInterrupt as error:
            raise Interrupted(number_of(error), "interrupted; nothing was written") from error
    return conversion


def _check_options(
    source: Path, root: Path, form: Format, unannotated: Unannotated | None, empty: Empty | None
) -> None:
    if not source.exists():
        raise SemipixError(f"{source}: no such file or folder; name the folder, file or archive of the annotations")
    if root.is_dir() and any(root.iterdir()):
        raise SemipixError(f"{root}: found a folder that is not empty, expected a new one; choose another or remove it")
    if root.exists() and not root.is_dir():
        raise SemipixError(f"{root}: found a file, expected a new folder; choose another name")
    if unannotated is None and form in _ASKS:
        raise SemipixError(
            f"--from {form}: what are pixels that nobody annotated? Say --unannotated background (a class of their "
            "own) or --unannotated ignore (void, which teaches nothing)"
        )
    if unannotated is not None and form not in _ASKS:
        raise SemipixError(f"--unannotated: with --from {form} each pixel has the class of its colour; leave it out")
    if empty is not None and form != "coco":
        raise SemipixError(f"--empty: found it with --from {form}, expected it with coco alone; leave it out")


@contextmanager
def _unpacked(source: Path, root: Path) -> Iterator[Path]:
    """The source, or a folder with the content of a zip archive, beside the new folder and removed at the end."""
    if source.is_dir() or not zipfile.is_zipfile(source):
        yield source
        return
    root.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".unpacked", dir=root.absolute().parent) as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise SemipixError(f"{source}: a damaged zip archive ({error}); export it again") from None
        yield Path(folder)


def _reader(
    source: Path,
    form: Format,
    images: Path | None,
    unannotated: Unannotated | None,
    empty: Empty | None,
    classes: Path | None,
    orientation: Orientation,
) -> AnnotationReader:
    if form == "voc":
        return read_voc(source, images, classes, orientation)
    if form == "colours":
        return read_pictures(source, images, classes, orientation)
    assert unannotated is not None
    if form == "cvat":
        return read_cvat(source, images, unannotated, classes, orientation)
    names = None if classes is None else read_class_list(classes, fewest=1)
    if form == "coco":
        return CocoReader(source, images, unannotated, empty, names, orientation)
    kind = LabelmeReader if form == "labelme" else YoloReader
    return kind(source, images, unannotated, names, orientation)


def _check_names(entries: Sequence[Entry]) -> None:
    """Check that no two images would have the same mask, and no image two.

    Raises:
        SemipixError: two images of a part have the same path up to the extension, or two files annotate one image.
    """
    seen: dict[tuple[str, str], Entry] = {}
    annotated: dict[Path, Entry] = {}
    for entry in entries:
        twin = entry if entry.image is None else annotated.setdefault(entry.image, entry)
        if twin is not entry:
            several = " and ".join(str(each.label or "an empty one") for each in (twin, entry))
            raise SemipixError(
                f"{entry.image}: has two files of annotations, {several}; expected one, remove or move the other"
            )
        other = seen.setdefault((entry.part, composed(split_extension(entry.name)[0])), entry)
        if other is not entry:
            raise SemipixError(
                f"{entry.image or entry.name}: the same path as {other.image or other.name} up to the extension; "
                "expected one image of a name, since masks are found by it, rename one"
            )


def _with_training(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries, with training images: a data folder needs them, so that a single part becomes train."""
    parts = {entry.part for entry in entries if entry.label is not None}
    if "train" in parts or len(parts) != 1:
        return list(entries), []
    part = parts.pop()
    changed = [Entry(e.name, "train", e.image, e.label) if e.part == part else e for e in entries]
    count = sum(entry.part == part for entry in entries)
    return changed, [f"{count} images are all of {part}, and become train, since a data folder needs training images"]


def _write_classes(path: Path, names: Sequence[str]) -> None:
    """Write the list, and check that it reads back as it is."""
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    if len(names) < 2:
        raise SemipixError(
            f"{', '.join(names) or 'no class'}: found {len(names)} classes, expected at least 2; --unannotated "
            "background makes a class of the other pixels"
        )
    if read_class_list(path) != list(names):
        wrong = next((name for name in names if not name or name[0] == "#" or "\n" in name), names[0])
        raise SemipixError(f"class {wrong!r}: cannot be written as a line of {CLASSES_FILE}; rename it")


def _write_all(
    reader: AnnotationReader, entries: Sequence[Entry], new: Path, conversion: Conversion, link: bool, max_pixels: int
) -> None:
    """Write all images and masks, and count them."""
    notes, problems, colours = Notes(), [], []
    unread: list[str] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        # Files are written in threads, since most of the time is spent in zlib and in copying.
        futures: list[Future[_Written]] = [
            pool.submit(_write, reader, entry, new, link, max_pixels) for entry in entries
        ]
        for future in tqdm(futures, "converting", unit="image", disable=None, leave=False, delay=_DELAY):
            found = future.result()
            raise_if_interrupted()
            if found.colours:
                colours.append(found.colours)
            if found.part is None:
                unread.append(found.problem)
                continue
            if found.problem:
                problems.append(found.problem)
            if found.drawn is None:
                conversion.bare[found.part] += 1
                continue
            conversion.masks[found.part] += 1
            conversion.objects.update(found.drawn.objects)
            conversion.pixels.update(found.pixels)
            notes.update(found.drawn.notes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # no thread may write when the folder is renamed or removed
    if colours:
        raise UnknownColourError(colours[0] + (f"; and {len(colours) - 1} more such masks" if len(colours) > 1 else ""))
    if not conversion.masks["train"]:
        raise SemipixError(first_and_more([*problems, *unread]) if problems or unread else _nothing(conversion))
    if (boxes := notes.count(BOXES)) and boxes == conversion.objects.total():
        raise SemipixError(
            f"all {boxes} objects have a box but no outline; expected outlines, since a box says no class of its pixels"
        )
    for found_problems, what in ((problems, "images count as unlabeled"), (unread, "images are left out")):
        if found_problems:
            conversion.left_out.append(f"{len(found_problems)} {what}: {first_and_more(found_problems)}")
    conversion.left_out += notes.lines()


def _nothing(conversion: Conversion) -> str:
    return (
        f"{conversion.root}: no training image got a mask; expected annotations of at least one, look whether the "
        "source is the right one"
    )


def _write(reader: AnnotationReader, entry: Entry, new: Path, link: bool, max_pixels: int) -> _Written:
    """Write one image and its mask."""
    found = _Written()
    try:
        image = reader.image(entry)
        header = read_header(image, max_pixels=max_pixels)
    except (UnreadableFileError, UnusableError) as error:
        return _Written(problem=str(error))
    if entry.label is not None:
        try:
            found.drawn = reader.draw(entry, header)
        except UnknownColourError as error:
            found.colours = str(error)
        except (UnusableError, UnreadableFileError) as error:
            found.problem = str(error)
    if found.drawn is not None and (found.drawn.mask == VOID).all():
        found.drawn, found.problem = None, f"{entry.name}: all of its pixels would be void"
    # An evaluation image needs a mask, so without one it joins the unlabeled images, under the name of its part.
    moved = found.drawn is None and entry.part not in ("train", UNLABELED)
    found.part = UNLABELED if moved else entry.part
    name = f"{entry.part}/{entry.name}" if moved else entry.name
    place = new / UNLABELED if found.part == UNLABELED else new / "images" / found.part
    _put(image, place / name, link)
    if found.drawn is not None:
        mask = found.drawn.mask
        counts = np.bincount(mask.ravel())
        found.pixels = Counter({int(index): int(counts[index]) for index in counts.nonzero()[0]})
        path = new / "masks" / found.part / PurePosixPath(entry.name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
        found.drawn.mask = np.empty((0, 0), np.uint8)  # results wait in memory for the slowest thread
    return found


def _put(image: Path | Encoded, path: Path, link: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        raise SemipixError(f"{path.name}: two images would be written as {path.parent.name}/{path.name}; rename one")
    if isinstance(image, Encoded):
        path.write_bytes(image.content)
    elif link:
        path.symlink_to(image.resolve())
    else:
        shutil.copyfile(image, path)
