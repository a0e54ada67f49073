"""Find the image files that annotations name."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from semipix.data.annotations.entries import UNLABELED, Entry
from semipix.data.files.listing import is_image, split_extension, walk
from semipix.data.files.names import composed
from semipix.errors import SemipixError

_PARTS = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])")

_SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"}

_PLAIN_FOLDER = re.compile(
    "(image|img|photo|picture|annotation|label|mask)s?|jpegimages|segmentationclass|train(ing)?|val(id(ation)?)?|test(ing)?"
)
"""Names of folders, in lower case, that say nothing about which image a file belongs to."""


class Named(NamedTuple):
    """An image that annotations name.

    Args:
        path: of its file, relative to the folder of the images.
        part: train, val or test.
        label: see `Entry.label`.
    """

    path: str
    part: str
    label: Any


class Wanted(NamedTuple):
    """An image as a tool names it.

    Args:
        name: as the tool wrote it, with slashes of any system.
        near: path of the annotations relative to the folder of the images; the image is expected beside them.
        part: prefer an image in a folder of this part.
        origin: what tells annotations of different images apart if they write the same name.
        must_fit: whether an image counts only if it is in the folder that the tool says.
    """

    name: str
    near: str = ""
    part: str | None = None
    origin: str = ""
    must_fit: bool = False


def part_of(path: str) -> str | None:
    """The part that the path of an image, mask or label file names, such as val for `valid/labels/a.txt`.

    The innermost folder that names a part decides; the file's own name only if no folder does, since `test_drive.png`
    may well be a training image.

    Returns:
        train, val or test; None if the path names no part.
    """
    *folders, name = PurePosixPath(path.lower()).parts or ("",)
    return _named_part([*reversed(folders), name])


def part_of_list(path: str) -> str | None:
    """The part that the path of a file for many images names, such as val for `train/instances_val2017.json`.

    The file's name decides, and the innermost folder that names a part only if the name does not.
    """
    return _named_part(reversed(PurePosixPath(path.lower()).parts))


def _named_part(steps: Iterable[str]) -> str | None:
    for step in steps:
        if found := _PARTS.findall(step):
            return _SPLIT_OF.get(found[-1], "val")
    return None


class ImageIndex:
    """The image files below a folder, found by the names that tools write.

    Args:
        folder: the folder.
        without: a folder below it that is left out.

    Raises:
        SemipixError: there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, without: Path | None = None) -> None:
        if not folder.is_dir():
            raise SemipixError(f"{folder}: no such folder; expected the folder of the images, give it by --images DIR")
        self.folder = folder
        walked = walk(folder, without=without)
        self.paths = [path for path in walked.files if is_image(path)]
        if not self.paths:
            raise SemipixError(f"{folder}: found no image, expected those that are annotated; give --images DIR")
        self._by_path: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._folders = {str(folder) for path in self.paths for folder in PurePosixPath(path).parents}
        for path in self.paths:
            self._by_path[composed(path)] = path
            name = composed(path.rpartition("/")[2])
            self._by_name[name].append(path)
            self._by_stem[split_extension(name)[0]].append(path)

    def find_all(self, wanted: Sequence[Wanted]) -> list[str | None]:
        """The images that a tool names: each by its path, or by its file name alone where nothing contradicts.

        A file name alone does not count if another annotation means the same file, or if the folders that the tool
        wrote are those of the files elsewhere and not here: it is another image of the same name then. Nothing outside
        of the folder is found, whatever the names say.

        Returns:
            For each name the path of its image, or None.
        """
        matches = [self._match(item) for item in wanted]
        placed = any(match is not None and match.fits and match.has_folder for match in matches)
        users: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
        fitting = {match.path for match in matches if match is not None and match.fits}
        for item, match in zip(wanted, matches, strict=True):
            if match is not None:
                users[match.path].add((item.name, item.near, item.origin))

        def means(item: Wanted, match: _Match) -> bool:
            alone = len(users[match.path]) == 1 and match.path not in fitting
            return match.fits or (alone and not item.must_fit and not (placed and match.has_folder))

        pairs = zip(wanted, matches, strict=True)
        return [match.path if match is not None and means(item, match) else None for item, match in pairs]

    def find_stems(self, stems: Sequence[Sequence[str]]) -> list[str | None]:
        """The images of files of the same name up to the extension, such as masks.

        An image has one of the stems as its path, or else the file name of the last one. The latter does not count if
        another file has that name too, or if both are in folders of different names (`cam1/`, `cam2/`).

        Args:
            stems: for each file, possible paths of its image without extension.

        Returns:
            For each file the path of its image, or None.
        """
        exact = [next(filter(None, map(self._of_stem, choices)), None) for choices in stems]
        near = [
            self._beside(composed(choices[-1])) if path is None else None
            for choices, path in zip(stems, exact, strict=True)
        ]
        uses = Counter(filter(None, [*exact, *near]))
        return [
            first or (second if second is not None and uses[second] == 1 else None)
            for first, second in zip(exact, near, strict=True)
        ]

    def holds(self, folder: str) -> bool:
        """Whether there are images below a folder, given relative to the index's."""
        return folder in self._folders

    def stems(self) -> Iterable[str]:
        """File names without extension."""
        return self._by_stem

    def rest(self, used: Iterable[str], everywhere: bool) -> list[str]:
        """Images that no annotation names: all, or those in the folders of the images that are named."""
        taken = set(used)
        folders = {path.rpartition("/")[0] for path in taken}
        return [path for path in self.paths if path not in taken and (everywhere or path.rpartition("/")[0] in folders)]

    def by_ending(self, name: str) -> str | None:
        """The only image whose path shares the most last steps with `name`; None if none or several do."""
        steps = _steps(name)
        shared = {
            path: _shared_steps(steps, _steps(path)) for path in self._by_name.get(steps[-1] if steps else "", [])
        }
        best = [path for path, count in shared.items() if count == max(shared.values())]
        return best[0] if len(best) == 1 else None

    def _match(self, item: Wanted) -> "_Match | None":
        """The image of one name, and whether all that the tool said fits."""
        steps = _steps(item.name)
        if not steps:
            return None
        wanted = "/".join(steps)
        near = item.near
        has_folder = bool(near) or len(steps) > 1

        def is_beside(path: str) -> bool:
            return not near or path.startswith(f"{near}/")

        for exact in (f"{near}/{wanted}" if near else wanted, wanted):
            if found := self._by_path.get(exact):
                return _Match(found, has_folder, len(steps) > 1 or is_beside(found))
        paths = self._by_name.get(steps[-1], [])
        preferences: tuple[Callable[[str], bool], ...] = (
            lambda path: True,
            lambda path: composed(path).endswith(f"/{wanted}"),
            lambda path: bool(near) and is_beside(path),
            lambda path: item.part is not None and part_of(path) == item.part,
        )
        for prefer in preferences:
            preferred = [path for path in paths if prefer(path)]
            if len(preferred) == 1:
                path = preferred[0]
                is_part = item.part is None or part_of(path) in (None, item.part)
                return _Match(path, has_folder, is_beside(path) and is_part and composed(path).endswith(f"/{wanted}"))
        return None

    def _of_stem(self, stem: str) -> str | None:
        """The only image whose path without extension is `stem`."""
        wanted = composed(stem)
        paths = self._by_stem.get(wanted.rpartition("/")[2], [])
        exact = [path for path in paths if composed(split_extension(path)[0]) == wanted]
        return exact[0] if len(exact) == 1 else None

    def _beside(self, stem: str) -> str | None:
        """The only image with the file name of `stem`, unless both are in folders of different names."""
        paths = self._by_stem.get(stem.rpartition("/")[2], [])
        folders = {folder for path in (stem, *paths) if (folder := _last_folder(composed(path)))}
        return paths[0] if len(paths) == 1 and len(folders) < 2 else None


class _Match(NamedTuple):
    """An image that a name may mean.

    Args:
        path: of the image.
        has_folder: whether the tool said a folder.
        fits: whether all folders that the tool said are those of the image.
    """

    path: str
    has_folder: bool
    fits: bool


def _steps(name: str) -> list[str]:
    return [step for step in composed(name).replace("\\", "/").split("/") if step not in ("", ".", "..")]


def _shared_steps(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of last steps that two paths share."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _last_folder(path: str) -> str:
    """The innermost folder whose name says something about the images in it; empty if there is none."""
    folders = path.lower().split("/")[:-1]
    return next((step for step in reversed(folders) if not _PLAIN_FOLDER.fullmatch(step)), "")


def as_entries(index: ImageIndex, named: Iterable[Named], rest: Iterable[str]) -> list[Entry]:
    """The entries of images, named by their path without the folders that all images of the part share.

    Args:
        index: the images.
        named: those that annotations name.
        rest: paths of those that no annotation names.
    """
    by_part: dict[str, list[Named]] = defaultdict(list)
    for item in named:
        by_part[item.part].append(item)
    by_part[UNLABELED] += [Named(path, UNLABELED, None) for path in rest]
    entries = []
    for part, items in by_part.items():
        folders = [item.path.rpartition("/")[0] for item in items]
        shared = os.path.commonpath(folders) if folders and all(folders) else ""
        for item in items:
            name = item.path[len(shared) + 1 :] if shared else item.path
            entries.append(Entry(name, part, index.folder / item.path, item.label))
    return entries
