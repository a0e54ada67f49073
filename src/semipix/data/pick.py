"""`semipix data pick`: which images to label first, and which kinds of images have no label yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semipix.atomic import write_text
from semipix.data.files.bands import Bands
from semipix.data.files.cache import GIB, Cache, DiskCache, users_folder
from semipix.data.files.listing import MASKS, PAIRS, UNLABELED, Layout, list_folder, no_images
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.pick_choice import Numbers, cells, choose, coverage
from semipix.data.pick_features import SIDE, Features, at_depth, features_of
from semipix.data.splits import listed_names
from semipix.errors import SemipixError, reason_of

NONE = "none"
"""Value of `--labels` with which no image counts as labeled."""

LEAST_CLUSTERS, MOST_CLUSTERS = 8, 256
"""Clusters into which `coverage_lines` divides the images: as many as there are labels, within these limits."""

MOST_NAMED = 10
"""Files that are named at most in a message of one kind."""

_CACHE_LIMIT = 4 * GIB
"""Bytes of the features that are kept: those of about two million images."""


@dataclass(frozen=True)
class Listed:
    """The training images of a folder by name.

    Attributes:
        root: the data folder.
        names: of all training images, relative to the root.
        labeled: those that count as labeled.
        notes: what the user has to know: files that are left out, and what counts as labeled.
    """

    root: Path
    names: list[str]
    labeled: set[str]
    notes: list[str]


@dataclass(frozen=True)
class Pool:
    """The training images of a folder that can be read.

    Attributes:
        root: the data folder.
        names: of these images, relative to the root.
        features: of these images, (N, D).
        covered: (N,) which of them count as labeled.
        notes: those of the listing, and about images that cannot be read.
    """

    root: Path
    names: list[str]
    features: Features
    covered: NDArray[np.bool_]
    notes: list[str]


@dataclass(frozen=True)
class Picked:
    """The result of `pick`.

    Attributes:
        cells: for each picked image the names of the images that it represents, its own first.
        notes: messages for the user.
        reader: reads the images.
    """

    root: Path
    cells: list[list[str]]
    notes: list[str]
    reader: Reader

    @property
    def names(self) -> list[str]:
        """Names of the picked images, relative to the root: those that represent most images first."""
        return [cell[0] for cell in self.cells]

    def write(self, path: Path) -> None:
        """Write the names, one a line, as `data.labels` takes them."""
        write_text(path, "".join(f"{name}\n" for name in self.names), errors="surrogateescape")


def pick(
    root: str | Path,
    count: int,
    by: str = "kmeans",
    depth: str = "all",
    seed: int = 0,
    labels: str | None = None,
    max_pixels: int = MAX_PIXELS,
    bands: Bands | None = None,
) -> Picked:
    """Pick the images whose labels are worth most, before any training: they represent all training images.

    Args:
        root: a folder laid out as `FolderSource` or, if it holds `inputs`, as `PairsSource` expects it. It needs no
            label.
        count: how many images are picked.
        by: a key of `pick_choice.STRATEGIES`.
        depth: a key of `pick_features.DEPTHS`: the maps of the encoder by which images are compared.
        seed: of random numbers.
        labels: the images that count as labeled; they are not picked, nor are images like them. By default those with
            a label or, if all have one, none of them. A file of names, or "none".
        max_pixels: most pixels of an image that is read.
        bands: the bands of the images; the encoder sees those that are shown as colours, see `shown_colours`.

    Raises:
        SemipixError: the folder has no images or another layout, or fewer images without a label than asked for.
        Interrupted: a signal was received.
    """
    if count < 1:
        raise SemipixError(f"-n {count}: expected at least 1 image")
    reader = Reader((SIDE, SIDE), max_pixels=max_pixels, bands=bands)
    listed = _listed(Path(root).expanduser(), labels, simulate=True, arrays=bands is not None)
    _check_enough(count, listed.root, len(listed.names) - len(listed.labeled), "images")
    pool = _read(listed, reader)
    _check_enough(count, listed.root, int((~pool.covered).sum()), "readable images")
    values = at_depth(pool.features, depth)
    found = choose(by, values, pool.covered, count, seed)
    members = cells(values, pool.covered, found)
    named = [[pool.names[number] for number in cell] for cell in members]
    notes = [*pool.notes, *_summary(pool, members, count, by), *_to_move(pool.root, named)]
    return Picked(pool.root, named, notes, reader)


def coverage_lines(
    root: str | Path, labels: str | None = None, max_pixels: int = MAX_PIXELS, bands: Bands | None = None
) -> list[str]:
    """Lines about clusters of similar training images of which none has a label.

    Args:
        root: as for `pick`.
        labels: a file of the names that count as labeled; by default all images with a label do.
        max_pixels: most pixels of an image that is read.
        bands: as for `pick`.

    Raises:
        SemipixError: the folder has no images or another layout, or no image has a label.
    """
    if labels is not None and not Path(str(labels)).is_file():
        raise SemipixError(f"data.labels={labels}: --coverage takes a file of names, or no data.labels for all labels")
    listed = _listed(Path(root).expanduser(), labels, simulate=False, arrays=bands is not None)
    if not listed.labeled:
        raise SemipixError(f"{listed.root}: no training image has a label; semipix data pick says which to label first")
    pool = _read(listed, Reader((SIDE, SIDE), max_pixels=max_pixels, bands=bands))
    count = int(pool.covered.sum())
    clusters = min(len(pool.names), max(LEAST_CLUSTERS, min(MOST_CLUSTERS, count)))
    found = coverage(at_depth(pool.features, "all"), pool.covered, clusters)
    several = f"{len(found.missed)} of {found.clusters} clusters ({found.images} of {len(pool.names)} images)"
    lines = [
        f"{several} have no labeled image; {count} labels drawn at random would leave {found.by_chance:.1f} clusters so"
    ]
    lines += [
        f"{len(cell)} images such as {', '.join(pool.names[number] for number in cell[:3])}"
        for cell in found.missed[:MOST_NAMED]
    ]
    if len(found.missed) > MOST_NAMED:
        lines.append(f"and {len(found.missed) - MOST_NAMED} smaller ones")
    return [*pool.notes, *lines]


def _listed(root: Path, labels: str | None, simulate: bool, arrays: bool) -> Listed:
    """List the training images of a folder.

    Args:
        root: the folder.
        labels: see `pick`.
        simulate: whether no image counts as labeled where all have a label.
        arrays: whether images may be arrays.
    """
    layout = _layout(root)
    listing = list_folder(root, replace(layout, image_arrays=arrays), labels_needed=False)
    names = sorted(listing.parts()["train"])
    if not names:
        empty = no_images(root / layout.images.format(split="train"), "training images")
        raise SemipixError(listing.problems[0] if listing.problems else empty)
    notes = [*listing.problems, *listing.left_out]
    labeled = set(listing.labels["train"])
    if labels == NONE:
        labeled = set()
    elif labels is not None:
        labeled = set(listed_names(labels, names))
    elif simulate and len(labeled) == len(names):
        notes.append(
            f"all {len(names)} training images have a label; picked as if none had one, for an experiment with "
            "data.labels=FILE"
        )
        labeled = set()
    return Listed(root, names, labeled, notes)


def _layout(root: Path) -> Layout:
    return PAIRS if (root / PAIRS.images.partition("/")[0]).is_dir() else MASKS


def _check_enough(count: int, root: Path, free: int, images: str) -> None:
    if count > free:
        raise SemipixError(f"-n {count}: {root} has {free} {images} to choose from; expected at most as many; lower -n")


def _read(listed: Listed, reader: Reader) -> Pool:
    """Compute the features of all images; those that cannot be read are left out, with a note."""
    root, names, notes = listed.root, listed.names, list(listed.notes)
    features, problems = features_of([root / name for name in names], reader, features_cache(notes), delay=2.0)
    problems |= {
        number: f"{str(root / name)!r}: a line break in its name, which a list of names cannot hold; rename it"
        for number, name in enumerate(names)
        if "\n" in name or "\r" in name
    }
    good = [number for number in range(len(names)) if number not in problems]
    first = [problems[number] for number in sorted(problems)[:MOST_NAMED]]
    if not good:
        raise SemipixError(f"{root}: none of the {len(names)} training images can be used; the first: {first[0]}")
    if problems:
        only = f", the first {MOST_NAMED} of them" if len(problems) > MOST_NAMED else ""
        notes += [f"{len(problems)} of {len(names)} images are left out{only}:", *first]
    kept = [names[number] for number in good]
    return Pool(root, kept, features[good], np.array([name in listed.labeled for name in kept]), notes)


def features_cache(notes: list[str]) -> Cache | None:
    """Where features are kept between two commands; if the folder cannot be used, a note is added to `notes`."""
    folder = users_folder("features")
    try:
        return DiskCache(folder, _CACHE_LIMIT)
    except SemipixError as error:
        why = reason_of(error).removeprefix(f"data.cache_folder={folder}: ").partition(";")[0]
        notes.append(f"{folder}: features are not kept there for the next time: {why}")
        return None


def _to_move(root: Path, named: Sequence[Sequence[str]]) -> list[str]:
    """A line where picked images have to be moved before they can have a label."""
    count = sum(cell[0].startswith(f"{UNLABELED}/") for cell in named)
    if not count:
        return []
    layout = _layout(root)
    images, labels = (folder.format(split="train") for folder in (layout.images, layout.labels))
    return [
        f"{count} of the picked images are in {UNLABELED}/: when you label one, move it to {images} under the same "
        f"name, with its {layout.label} in {labels}; data.labels=FILE finds it there"
    ]


def _summary(pool: Pool, members: Sequence[Numbers], count: int, by: str) -> list[str]:
    """What was picked, in one or two lines."""
    sizes = [len(cell) for cell in members]
    labeled = int(pool.covered.sum())
    others = len(pool.names) - labeled - sum(sizes)
    beside = f"; {others} others are nearer to the {labeled} labeled images" if labeled else ""
    each = f"{max(sizes)} to {min(sizes)} images each" if len(sizes) > 1 else f"{sizes[0]} images" if sizes else ""
    lines = [f"{len(sizes)} of {len(pool.names) - labeled} images picked by {by}; they represent {each}{beside}"]
    if len(sizes) < count:
        like = "these or labeled ones" if labeled else "these"
        lines.append(f"{count - len(sizes)} fewer than -n {count}: all other images are nearly the same as {like}")
    return lines
