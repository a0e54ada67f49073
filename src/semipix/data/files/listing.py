"""List the files of a data folder by name, and find files of equal content.

Training, `semipix data check`, evaluation and prediction all list folders by `walk`, so that they find the same files.
"""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from semipix.data.files.decode import ARRAY
from semipix.data.files.names import Names, composed
from semipix.data.files.opening import EXTENSIONS, FORMATS

SPLITS = ("train", "val", "test")

MOST_COUNTED = 10_000
"""Files and folders that are counted at most in a folder that is not read."""

UNLABELED = "unlabeled"
"""Name of the folder of further images without labels."""

SCENES_FILE = "scenes.txt"
"""File below the root that lists folders whose images show one scene."""

_LISTING_DELAY = 3.0
"""Seconds after which listing a folder shows a progress bar."""


@dataclass(frozen=True)
class Layout:
    """Names of the folders of images and labels below the root of a data folder.

    Attributes:
        images, labels: folder names, in which `{split}` is replaced by train, val or test.
        image, label: words for an image and a label in messages.
        arrays: whether labels may be `.npy` files.
        image_arrays: whether images may be `.npy` files.
        others: further folders and files below the root that are read.
    """

    images: str
    labels: str
    image: str = "image"
    label: str = "mask"
    arrays: bool = False
    image_arrays: bool = False
    others: tuple[str, ...] = ()


MASKS = Layout("images/{split}", "masks/{split}", others=("classes.txt",))


PAIRS = Layout(
    *("inputs/{split}", "targets/{split}", "input", "target"),
    arrays=True,
    others=("trimaps", "foregrounds", "backgrounds"),
)


@dataclass
class Remarks:
    """Messages about the files of a folder.

    Attributes:
        problems: one line for each file or folder that cannot be used as it is.
        left_out: one line, with a count, for each kind of file that is not read.
    """

    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass
class Listing(Remarks):
    """The images and labels of a data folder; no file is opened for it.

    Attributes:
        labels: for each split, the name of the label by the name of its image.
        bare: for each split, the names of the images without a label.
        unlabeled: names of the images in `unlabeled/`.
    """

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    bare: dict[str, Names] = field(default_factory=dict)
    unlabeled: Names = field(default_factory=Names)

    def files(self, root: Path, extensions: Collection[str]) -> list[Path]:
        """Files of all images with one of these extensions (in lower case)."""
        names = itertools.chain(*self.labels.values(), *self.bare.values(), self.unlabeled)
        return [root / name for name in names if split_extension(name)[1] in extensions]

    def parts(self) -> dict[str, list[str]]:
        """Names of all images by the part they belong to: train (with the unlabeled ones), val and test."""
        parts = {split: [*self.labels.get(split, {}), *self.bare.get(split, [])] for split in SPLITS}
        parts["train"] += [*self.unlabeled]
        return parts


class Walked(NamedTuple):
    """The files that `walk` found.

    Attributes:
        files: paths of all visible files, relative to the folder, with forward slashes, sorted.
        hidden: paths of the hidden files and folders that were left out.
        circles: paths of the links that were not followed, since they lead to a folder that contains them.
    """

    files: list[str]
    hidden: list[str]
    circles: list[str]

    def left_out(self, folder: Path, unread: Iterable[str], formats: str = FORMATS) -> list[str]:
        """One line, with a count, for each reason why files of the folder are not read.

        Args:
            folder: the folder that was listed.
            unread: its visible files that are not read because of their extension.
            formats: the formats that are read.
        """
        lines = []
        counts = Counter(PurePosixPath(path).suffix.lower() or "without extension" for path in unread)
        if counts:
            several = ", ".join(f"{count} {extension}" for extension, count in sorted(counts.items()))
            lines.append(f"{folder}: {counts.total()} files are not read ({several}); expected {formats}")
        for paths, reason in (
            (self.hidden, "hidden files or folders are left out"),
            (self.circles, "links are not followed, since they lead to a folder that contains them"),
        ):
            if paths:
                lines.append(f"{folder}: {len(paths)} {reason} ({paths[0]}{', ...' if len(paths) > 1 else ''})")
        return lines


def list_folder(root: Path, layout: Layout = MASKS, *, labels_needed: bool = True) -> Listing:
    """List a data folder and collect all problems of its layout.

    Args:
        root: the data folder.
        layout: names of its folders.
        labels_needed: whether it is a problem if no training image has a label.
    """
    listing = Listing(labels={split: {} for split in SPLITS}, bare={split: Names() for split in SPLITS})
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        expected = layout.images.format(split="train")
        listing.problems = [f"{root}: found {found}, expected a data folder with {expected}; fix data.root"]
        return listing
    parent = layout.images.rpartition("/")[0]
    if parent and not (root / parent).is_dir():  # not a data folder, maybe a whole disk: do not list it
        listing.problems = [no_images(root / layout.images.format(split="train"), "training images")]
        return listing
    for split in SPLITS:
        _list_split(root, layout, split, listing)
    listing.unlabeled = Names(sorted(stems(root, UNLABELED, listing, arrays=layout.image_arrays).values()))
    _note_other_folders(root, layout, listing)
    if labels_needed and listing.bare["train"] and not listing.labels["train"]:
        listing.problems.append(
            f"{root / layout.labels.format(split='train')}: no labeled {layout.image}: found no {layout.label} for any "
            f"of the {len(listing.bare['train'])} {layout.image}s in {layout.images.format(split='train')}; add "
            f"{layout.label}s with the same stems"
        )
    return listing


def stems(
    root: Path, folder: str, remarks: Remarks, *, arrays: bool = False, labels_of: Iterable[str] | None = None
) -> dict[str, str]:
    """The image files below a folder, sorted: name relative to the root by stem.

    A stem is the path relative to the folder, without extension and in Unicode's composed form (NFC), in which names
    from macOS and from other systems are equal. Names are those of the files.

    Args:
        root: the data folder.
        folder: a folder below it, or "" for the root itself; a missing folder counts as empty.
        remarks: gets a problem for each file whose stem another file has already, and lines about files that are not
            read.
        arrays: whether `.npy` files are listed too.
        labels_of: for a folder of labels, the stems of the images. A file with such a stem but an unknown extension is
            a problem, unless there is a readable file of the same stem.
    """
    extensions = EXTENSIONS | {ARRAY} if arrays else EXTENSIONS
    found: dict[str, str] = {}
    unread: dict[str, str] = {}
    walked = walk(root / folder)
    for path in walked.files:
        stem, extension = split_extension(path)
        stem = composed(stem)
        name = f"{folder}/{path}" if folder else path
        if extension not in extensions:
            unread[path] = stem
        elif stem in found:
            remarks.problems.append(
                f"{root / name}: same stem as {PurePosixPath(found[stem]).name}; expected one file a stem in "
                f"{folder}, rename or remove one"
            )
        else:
            found[stem] = name
    formats = f"{FORMATS}{f' or {ARRAY}' if arrays else ''}"
    if labels_of is not None:
        wanted = {path for path, stem in unread.items() if stem not in found and stem in labels_of}
        remarks.problems += [
            f"{root / folder / path}: a label of a format that is not read, expected {formats}; convert it, or move it "
            "away if the image is to count as unlabeled"
            for path in unread
            if path in wanted
        ]
        unread = {path: stem for path, stem in unread.items() if path not in wanted}
    remarks.left_out += walked.left_out(root / folder, unread, formats)
    return found


def split_extension(path: str) -> tuple[str, str]:
    """A path without its extension, and the extension in lower case.

    pathlib would take seconds for a million files.
    """
    stem, dot, extension = path.rpartition(".")
    return (path, "") if not dot or "/" in extension else (stem, f".{extension.lower()}")


def is_image(name: str, arrays: bool = False) -> bool:
    """Whether a file name has the extension of a readable image; with `arrays`, also of an array."""
    extension = split_extension(name)[1]
    return extension in EXTENSIONS or (arrays and extension == ARRAY)


def walk(folder: Path, without: Path | None = None) -> Walked:
    """List a folder with its subfolders; links are followed. A missing folder counts as empty.

    Args:
        folder: the folder.
        without: a folder that is left out if it is below.
    """
    found = Walked([], [], [])
    left = None if without is None else without.resolve()
    if left is not None and folder.resolve().is_relative_to(left):
        return found
    progress = tqdm(
        os.walk(folder, followlinks=True),
        desc=f"listing {folder}",
        unit=" folders",
        leave=False,
        disable=None,  # shown only on a terminal
        delay=_LISTING_DELAY,
    )
    for parent, folders, names in progress:
        here = Path(parent)
        inside = here.relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        found.files.extend(before + name for name in names if not name.startswith("."))
        found.hidden.extend(before + name for name in (*names, *folders) if name.startswith("."))
        circles = [name for name in folders if name[0] != "." and _leads_back(here / name, folder)]
        found.circles.extend(before + name for name in circles)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in circles and (left is None or (here / name).resolve() != left)
        )
    for paths in found:
        paths.sort()
    return found


def no_images(folder: Path, expected: str) -> str:
    """The error message for a folder in which images are expected but none are found."""
    others = walk(folder).files
    if others:
        found = f"no image among {len(others)} files ({others[0]}, ...)"
    else:
        found = "an empty folder" if folder.is_dir() else "no such folder"
    return f"{folder}: found {found}, expected {expected} ({FORMATS}); put them there or fix data.root"


def duplicates(root: Path, parts: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Find evaluation images whose file has the same content as an image of an earlier part.

    Only files of equal length are read.

    Args:
        root: the data folder.
        parts: names of the images by part, training first.

    Returns:
        Pairs of names: the later image and the earlier one.
    """
    by_length: dict[int, list[tuple[str, str]]] = {}
    for part, names in parts.items():
        for name in names:
            if (root / name).is_file():
                by_length.setdefault((root / name).stat().st_size, []).append((part, name))
    return [pair for same in by_length.values() for pair in _same_content(root, same)]


def _list_split(root: Path, layout: Layout, split: str, listing: Listing) -> None:
    image_folder, label_folder = layout.images.format(split=split), layout.labels.format(split=split)
    images = stems(root, image_folder, listing, arrays=layout.image_arrays)
    labels = stems(root, label_folder, listing, arrays=layout.arrays, labels_of=images)
    if split == "train" and not images:
        listing.problems.append(no_images(root / image_folder, "training images"))
    listing.labels[split] = {images[stem]: labels[stem] for stem in images if stem in labels}
    listing.bare[split] = Names(images[stem] for stem in images if stem not in labels)
    article = "an" if layout.image[0] in "aeiou" else "a"
    listing.problems += [
        f"{root / labels[stem]}: {layout.label} without {article} {layout.image}; expected {image_folder}/{stem} with "
        f"one of the image extensions, add the {layout.image} or remove the {layout.label}"
        for stem in labels
        if stem not in images
    ]
    # A part for evaluation may have no labels at all, and is then not used. If only some are missing, it is an error.
    if split != "train" and labels:
        listing.problems += [
            f"{root / name}: {split} {layout.image} without a {layout.label} in {label_folder}; add the "
            f"{layout.label}, or move the {layout.image} to unlabeled/"
            for name in listing.bare[split]
        ]


def _note_other_folders(root: Path, layout: Layout, listing: Listing) -> None:
    """Count the files in folders that are not read, such as `images/valid`."""
    parents = {pattern.rpartition("/")[0] for pattern in (layout.images, layout.labels)}
    if "" in parents:  # the splits lie directly in the root, which may hold other files
        return
    for parent in sorted(parents):
        read = ", ".join(f"{parent}/{split}" for split in SPLITS)
        _note_others(root, parent, SPLITS, f"{read} are; rename the folder or move the files", listing)
    known = (*parents, UNLABELED, *layout.others)
    _note_others(root, "", known, f"{', '.join(sorted(known))} are", listing, files_too=False)


def _note_others(
    root: Path, folder: str, known: Sequence[str], read: str, listing: Listing, files_too: bool = True
) -> None:
    """Count the files below the unknown subfolders of a folder, and the files directly in it."""
    loose = 0
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name) if (root / folder).is_dir() else ():
        if entry.name in known or entry.name.startswith("."):
            continue
        if entry.is_dir():
            count = _counted(root / folder / entry.name)
            listing.left_out.append(f"{root / folder / entry.name}: a folder of {count} files that is not read; {read}")
        else:
            loose += 1
    if loose and files_too:
        listing.left_out.append(f"{root / folder}: {loose} files directly in it are not read; {read}")


def _counted(folder: Path) -> str:
    """The number of visible files below a folder, as text; counting ends at `MOST_COUNTED` files and folders."""
    files = entries = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += sum(not name.startswith(".") for name in names)
        entries += len(folders) + len(names)
        if entries > MOST_COUNTED:
            return f"{files} or more"
    return str(files)


def _leads_back(path: Path, top: Path) -> bool:
    """Whether a path is a link to a folder that contains it, which would be listed without end.

    The folders from `top` down to the path count too, as they may be links themselves.
    """
    if not path.is_symlink():
        return False
    around = [path.parent, *(parent for parent in path.parent.parents if parent.is_relative_to(top))]
    return any(parent.resolve().is_relative_to(path.resolve()) for parent in around)


def _same_content(root: Path, names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    names = list(names)
    if len({part for part, _ in names}) < 2:
        return []
    first: dict[bytes, tuple[str, str]] = {}
    pairs = []
    for part, name in names:
        digest = hashlib.blake2b((root / name).read_bytes(), digest_size=16).digest()
        earlier = first.setdefault(digest, (part, name))
        if earlier[0] != part:
            pairs.append((name, earlier[1]))
    return pairs
