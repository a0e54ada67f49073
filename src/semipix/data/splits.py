"""Choose which training images are labeled, and which are set aside for validation."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from semipix.atomic import write_text
from semipix.data.files.listing import UNLABELED
from semipix.data.files.names import Names, composed
from semipix.data.source import Source
from semipix.errors import SemipixError

Amount = str | int | float
"""A count (8, "8"), a share (0.125, "1/8") or "all". The integer 1 is one image; 1.0 and "1/1" are all images."""


@dataclass(frozen=True)
class Split:
    """Names of the images in each part of a data set, sorted. They are kept as `Names`, since there may be millions."""

    labeled: Sequence[str]
    unlabeled: Sequence[str]
    val: Sequence[str]
    test: Sequence[str]

    def __post_init__(self) -> None:
        for part, names in self.parts().items():
            object.__setattr__(self, part, Names.of(names))

    def parts(self) -> dict[str, Sequence[str]]:
        """The names by part."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_json(self, path: Path) -> None:
        """Write the lists to a file such as a run folder's `split.json`."""
        # One name a line. json's `indent` gives the same, but is pure Python and ten times as slow.
        between = (",\n  ", ": ")
        lists = [f' "{part}": {json.dumps([*names], separators=between)}' for part, names in self.parts().items()]
        write_text(path, "{\n" + ",\n".join(lists) + "\n}\n")

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Read what `to_json` wrote.

        Raises:
            SemipixError: the file is missing, or is no JSON with the four lists.
        """
        keys = [item.name for item in fields(cls)]
        try:
            lists = json.loads(path.read_text("utf-8"))
            return cls(**{key: [str(name) for name in lists[key]] for key in keys})
        except FileNotFoundError:
            raise SemipixError(f"{path}: no such file, expected the split lists of a run") from None
        except (ValueError, KeyError, TypeError):
            raise SemipixError(f"{path}: not a split file, expected JSON with the lists {', '.join(keys)}") from None


class Scenes(Protocol):
    """An object that knows the scenes of images, such as a `Source`."""

    def scene(self, name: str) -> str:
        """The scene that an image shows."""


def make_split(source: Source, labels: Amount, val: Amount, seed: int) -> Split:
    """Choose the labeled and the validation images of a run.

    If the source names scenes, all images of a scene stay together: "image" below then means a scene, unless the source
    counts labels by image (`Source.labels_by_scene`).

    The labeled training images are sorted by a hash of the seed and their name. The first are set aside for validation,
    if the source has no validation images. The next ones keep their labels. Hence the 8 labels of `labels=8` are among
    the 16 of `labels=16`, and the choice is the same for every method, machine and Python version.

    Args:
        source: the data.
        labels: how many labels are used: an amount of the images that are not set aside, or the path of a text file
            that lists names or stems, one a line.
        val: amount of the labeled training images set aside for validation if the source has no validation images; 0
            means none.
        seed: chooses the order.

    Returns:
        The four lists. Training images whose label is not used are unlabeled.

    Raises:
        SemipixError: there are fewer labels than asked for, validation would take all of them, or a listed name is no
            labeled training image.
    """
    scenes = _labeled_by_scene(source, seed)
    if not scenes:
        raise SemipixError("data: found no labeled training image, expected at least one")
    candidates = [name for names in scenes for name in names]
    several = "images" if len(candidates) == len(scenes) else "scenes"
    listed = listed_names(str(labels), candidates, source.unlabeled()) if _is_file(labels) else []
    held_out = source.val()
    if not held_out:
        count = _parse_val(val, len(scenes))
        bound = {source.scene(name) for name in [*listed, *source.unlabeled()]}
        free = [names for names in scenes if source.scene(names[0]) not in bound]
        if count >= len(scenes) or count > len(free):
            kept = f" beside those in {labels}" if listed else ""
            raise SemipixError(
                f"data.val={val} sets {count} {several} aside, but only {min(len(free), len(scenes) - 1)} of the "
                f"{len(scenes)} labeled {several} can be spared{kept}; lower data.val"
            )
        held_out = [name for names in free[:count] for name in names]
        scenes = [names for names in scenes if names not in free[:count]]
        candidates = [name for names in scenes for name in names]
    if not source.labels_by_scene:
        several = "images"
        scenes = [[name] for name in sorted(candidates, key=lambda name: _rank(seed, name))]
    labeled = listed or [name for names in scenes[: parse_labels(labels, len(scenes), several)] for name in names]
    unlabeled = set(candidates).difference(labeled).union(source.unlabeled())
    return Split(sorted(labeled), sorted(unlabeled), sorted(held_out), source.test())


def hold_out(split: Split, source: Source, share: float, least: int, seed: int) -> Split | None:
    """Set labeled images of a run aside for validation, so that trainings can be compared on them.

    The validation images that the run has are counted too. Scenes are taken whole and in the order of `make_split`;
    their unlabeled images are left out, since no scene may be in both training and evaluation.

    Args:
        split: the lists of the run.
        source: the data.
        share: smallest share of the labeled and validation images to set aside; it is not needed if the source has
            validation images of its own.
        least: smallest number of scenes to set aside.
        seed: of the run.

    Returns:
        The lists with more validation images, or None if less than half of the labeled images would be left.
    """
    held = {source.scene(name) for name in split.val}
    images = len(split.val)
    wanted = 0 if source.val() else math.ceil(share * (len(split.labeled) + images))
    scenes: dict[str, int] = {}
    for name in split.labeled:
        scenes[source.scene(name)] = scenes.get(source.scene(name), 0) + 1
    for scene in sorted(scenes, key=lambda scene: _rank(seed, scene)):
        if images >= wanted and len(held) >= least:
            break
        held.add(scene)
        images += scenes[scene]
    labeled = [name for name in split.labeled if source.scene(name) not in held]
    if 2 * len(labeled) < len(split.labeled) or len(held) < least:
        return None
    moved = [name for name in split.labeled if source.scene(name) in held]
    unlabeled = [name for name in split.unlabeled if source.scene(name) not in held] if moved else split.unlabeled
    return Split(labeled, unlabeled, sorted([*split.val, *moved]), split.test)


def check_overlap(split: Split, source: Scenes) -> None:
    """Check that evaluation images are not in the training data.

    Raises:
        SemipixError: an image is in two parts, or a scene both in training and in evaluation.
    """
    parts = split.parts()
    seen: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if (other := seen.setdefault(name, part)) != part:
                raise SemipixError(f"split: {name} is both in {other} and in {part}; expected it in one, fix the split")
    held_out: dict[str, tuple[str, str]] = {}
    for part in ("val", "test"):
        for name in parts[part]:
            held_out.setdefault(source.scene(name), (part, name))
    for other in (*split.labeled, *split.unlabeled) if held_out else ():
        if (scene := source.scene(other)) in held_out:
            part, name = held_out[scene]
            raise SemipixError(
                f"split: {name} of {part} shows the scene {scene}, and so does the training image {other}; expected "
                "no scene on both sides, fix the split"
            )


def parse_labels(labels: Amount, available: int, several: str = "images") -> int:
    """The number of labels for an amount.

    Args:
        labels: a count, a share of what is available, or "all".
        available: labeled images to choose from.
        several: what an error calls them: images or scenes.

    Returns:
        A number from 1 to `available`; a share is rounded to the nearest number.

    Raises:
        SemipixError: the amount is no number, not positive, or above what is available.
    """
    count = _parse_amount("data.labels", labels, available)
    if count <= 0:
        raise SemipixError(f"data.labels={labels}: expected at least one label, e.g. 8, 1/8, 0.125 or all")
    if count > available:
        raise SemipixError(f"data.labels={labels}: only {available} labeled {several} are there; lower data.labels")
    return count


def _labeled_by_scene(source: Source, seed: int) -> list[list[str]]:
    """Names of the labeled training images, grouped by scene, in an order by the seed and the name of the scene."""
    scenes: dict[str, list[str]] = {}
    for name in sorted(source.labeled()):
        scenes.setdefault(source.scene(name), []).append(name)
    return [scenes[scene] for scene in sorted(scenes, key=lambda scene: _rank(seed, scene))]


def _parse_val(val: Amount, available: int) -> int:
    """The count for `data.val`; a share gives at least 2, which a calibration needs, if it is a quarter at most."""
    count = _parse_amount("data.val", val, available)
    if count < 0:
        raise SemipixError(f"data.val={val}: expected 0 (no validation), a count or a share such as 0.1")
    return max(count, 2) if count and available >= 8 and not _is_integer(str(val).strip()) else count


def _parse_amount(key: str, amount: Amount, available: int) -> int:
    """The count for an amount; a positive share gives at least 1. The count may exceed `available`."""
    text = str(amount).strip()
    if text == "all":
        return available
    if not isinstance(amount, bool) and _is_integer(text):
        return int(text)
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise SemipixError(
            f"{key}={amount}: found neither a number nor a file, expected a count (8), a share (1/8 or 0.125), all"
            + (", or a text file of names" if key == "data.labels" else "")
        ) from None
    if share > 1:
        raise SemipixError(f"{key}={amount}: found a share above 1, expected a whole number or a share from 0 to 1")
    if share <= 0:
        return math.floor(share)
    return max(1, round(share * available))


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _is_file(labels: Amount) -> bool:
    return isinstance(labels, str) and labels != "all" and not _is_integer(labels) and Path(labels).is_file()


def listed_names(path: str | Path, names: Sequence[str], others: Iterable[str] = ()) -> list[str]:
    """The names that a list file contains. A line may be a full name, a stem, or the end of a path.

    A line `unlabeled/NAME` may also mean an image that was moved from there, when it got a label.

    Args:
        path: a text file, one name a line.
        names: the names that may be listed.
        others: names of training images without a label, for the error if they are listed.

    Raises:
        SemipixError: the file has no name, or a line is none of the names or could be several of them.
    """
    exact, aliases = {composed(name): name for name in names}, _by_alias(names)
    text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")  # file names need not be UTF-8
    lines = [composed(line.strip()) for line in text.split("\n") if line.strip()]
    found, unknown = [], []
    for line in lines:
        matches = [exact[line]] if line in exact else aliases.get(line, [])
        if len(matches) > 1:
            raise SemipixError(
                f"{path}: {line!r} matches {len(matches)} images; expected names such as {names[0]}, one a line"
            )
        found += matches
        unknown += [] if matches else [line]
    bare = _by_alias(others) if unknown else {}
    moved = {line: _moved(line, aliases) for line in unknown if line not in bare}
    found += [name for matches in moved.values() for name in matches]
    unknown = [line for line in unknown if not moved.get(line)]
    if unknown:
        unlabeled = [line for line in unknown if line in bare]
        if unlabeled:
            raise SemipixError(
                f"{path}: no label for {len(unlabeled)} of its {len(lines)} names, e.g. {unlabeled[0]!r}; label these "
                "images, or remove their lines"
            )
        if not _is_utf8(text):
            raise SemipixError(f"{path}: not UTF-8 text, expected one image name or stem a line")
        raise SemipixError(
            f"{path}: no training image for {len(unknown)} of its {len(lines)} names, e.g. {unknown[0]!r}; expected "
            f"names such as {next(iter(names), 'images/train/a.jpg')}, one a line"
        )
    if not found:
        raise SemipixError(f"{path}: found no name, expected one image name or stem a line")
    return sorted(set(found))


def _moved(line: str, aliases: Mapping[str, list[str]]) -> list[str]:
    """The training image that was in the folder `unlabeled` under this name, with whatever extension; or none."""
    if not line.startswith(f"{UNLABELED}/"):
        return []
    return aliases.get(str(PurePosixPath("train", line.removeprefix(f"{UNLABELED}/")).with_suffix("")), [])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _by_alias(names: Iterable[str]) -> dict[str, list[str]]:
    """The names by all that a list file may call them."""
    found: dict[str, list[str]] = {}
    for name in names:
        for alias in _aliases(name):
            found.setdefault(alias, []).append(name)
    return found


def _aliases(name: str) -> set[str]:
    """All names of an image that a list file may use: every end of its path, with and without the extension."""
    parts = PurePosixPath(composed(name)).parts
    tails = {"/".join(parts[start:]) for start in range(len(parts))}
    return tails | {str(PurePosixPath(tail).with_suffix("")) for tail in tails}


def _rank(seed: int, name: str) -> bytes:
    """The sort key that shuffles names. It is the same on all machines, and new images keep the order of old ones."""
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
