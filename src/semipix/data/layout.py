"""What stands in a data folder, by file name alone, and which of its files are the same."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from semipix.data.decode import ARRAY, EXTENSIONS, FORMATS
from semipix.data.names import Names

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """Where images and labels of each split stand below a root.

    Attributes:
        images, labels: folder names, in which `{split}` stands for train, val or test.
        image, label: what an image and a label are called in messages.
        arrays: whether labels may be `.npy` files.
    """

    images: str
    labels: str
    image: str = "image"
    label: str = "mask"
    arrays: bool = False


MASKS = Layout("images/{split}", "masks/{split}")
PAIRS = Layout("inputs/{split}", "targets/{split}", "input", "target", arrays=True)


@dataclass
class Listing:
    """What stands in a data folder; no file is opened.

    Attributes:
        labels: for each split the labeled images' names with the names of their labels.
        bare: for each split the names of the images without a label.
        unlabeled: names of the images in `unlabeled/`.
        problems: one line for each file or folder that is not as it should be.
    """

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    bare: dict[str, Names] = field(default_factory=dict)
    unlabeled: Names = field(default_factory=Names)
    problems: list[str] = field(default_factory=list)

    def parts(self) -> dict[str, list[str]]:
        """Names of all images by the part they belong to: train (with the unlabeled ones), val and test."""
        parts = {split: [*self.labels.get(split, {}), *self.bare.get(split, [])] for split in SPLITS}
        parts["train"] += [*self.unlabeled]
        return parts


def list_folder(root: Path, layout: Layout = MASKS) -> Listing:
    """List a data folder and gather everything wrong with its layout."""
    listing = Listing({split: {} for split in SPLITS}, {split: Names() for split in SPLITS})
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        expected = layout.images.format(split="train")
        listing.problems = [f"{root}: found {found}, expected a data folder with {expected}; mend data.root"]
        return listing
    for split in SPLITS:
        _list_split(root, layout, split, listing)
    listing.unlabeled = Names(sorted(stems(root, "unlabeled", listing.problems).values()))
    if listing.bare["train"] and not listing.labels["train"]:
        listing.problems.append(
            f"{root / layout.labels.format(split='train')}: no labeled {layout.image}: found no {layout.label} for any "
            f"of the {len(listing.bare['train'])} {layout.image}s in {layout.images.format(split='train')}; add "
            f"{layout.label}s with the same stems"
        )
    return listing


def _list_split(root: Path, layout: Layout, split: str, listing: Listing) -> None:
    image_folder, label_folder = layout.images.format(split=split), layout.labels.format(split=split)
    images = stems(root, image_folder, listing.problems)
    labels = stems(root, label_folder, listing.problems, layout.arrays)
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
    # An evaluation folder without any label cannot be used; one with holes is a slip worth telling.
    if split != "train" and labels:
        listing.problems += [
            f"{root / name}: {split} {layout.image} without a {layout.label} in {label_folder}; add the "
            f"{layout.label}, or move the {layout.image} to unlabeled/"
            for name in listing.bare[split]
        ]


def stems(root: Path, folder: str, problems: list[str], arrays: bool = False) -> dict[str, str]:
    """Image files below a folder: path without extension, relative to it, to name relative to the root; sorted.

    Args:
        root: the data folder.
        folder: a folder below it, or "" for the root itself; one that is missing holds nothing.
        problems: gets a line for each file whose stem is taken already.
        arrays: whether `.npy` files count too.
    """
    extensions = EXTENSIONS | {ARRAY} if arrays else EXTENSIONS
    found: dict[str, str] = {}
    for path in sorted(files(root / folder)):
        # Not by pathlib, which takes seconds for a million files.
        stem, dot, extension = path.rpartition(".")
        if f"{dot}{extension.lower()}" not in extensions:
            continue
        if stem in found:
            problems.append(
                f"{root / folder / path}: same stem as {PurePosixPath(found[stem]).name}; expected one file a stem in "
                f"{folder}, rename or remove one"
            )
        else:
            found[stem] = f"{folder}/{path}" if folder else path
    return found


def files(folder: Path) -> list[str]:
    """Paths of all visible files below a folder, relative to it, with forward slashes; none where it is missing."""
    found: list[str] = []
    for parent, _, names in os.walk(folder, followlinks=True):
        inside = Path(parent).relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        found += [before + name for name in names if not name.startswith(".")]
    return found


def no_images(folder: Path, expected: str) -> str:
    """What to tell about a folder that should hold images and holds none."""
    others = sorted(files(folder))
    if others:
        found = f"no image among {len(others)} files ({others[0]}, ...)"
    else:
        found = "an empty folder" if folder.is_dir() else "no such folder"
    return f"{folder}: found {found}, expected {expected} ({FORMATS}); put them there or mend data.root"


def duplicates(root: Path, parts: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Evaluation images whose file has the same content as an image of an earlier part.

    Only files of equal length are read.

    Args:
        root: the data folder.
        parts: names of the images by part, training first.

    Returns:
        Pairs of the later name and the earlier one.
    """
    by_length: dict[int, list[tuple[str, str]]] = {}
    for part, names in parts.items():
        for name in names:
            if (root / name).is_file():
                by_length.setdefault((root / name).stat().st_size, []).append((part, name))
    return [pair for same in by_length.values() for pair in _same_content(root, same)]


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
