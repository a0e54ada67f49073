"""Find the image files that annotations name."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from semipix.data.annotations.entries import UNLABELED, Entry
from semipix.data.files.listing import is_image, split_extension, walk
from semipix.data.files.names import composed
from semipix.errors import SemipixError

_PARTS = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])")

_SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"}


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


def part_of(path: str) -> str | None:
    """The part that a path names, such as val for `instances_val2017.json` and `valid/labels`; None for none.

    The last part of the path that names one decides.
    """
    for step in reversed(PurePosixPath(path.lower()).parts):
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
        for path in self.paths:
            self._by_path[composed(path)] = path
            name = composed(path.rpartition("/")[2])
            self._by_name[name].append(path)
            self._by_stem[split_extension(name)[0]].append(path)

    def find(self, name: str, near: str = "", part: str | None = None) -> str | None:
        """The image that a tool calls `name`: by its path, or by its file name alone where that is unique.

        Nothing outside of the folder is found, whatever the name says.

        Args:
            name: as the tool wrote it, with slashes of any system.
            near: path of the annotations relative to the folder; an image beside them is preferred.
            part: prefer an image in a folder of this part.
        """
        steps = [step for step in composed(name).replace("\\", "/").split("/") if step not in ("", ".", "..")]
        if not steps:
            return None
        wanted = "/".join(steps)
        beside = f"{near}/{wanted}" if near else wanted
        if found := self._by_path.get(beside) or self._by_path.get(wanted):
            return found
        return self._best(self._by_name.get(steps[-1], []), wanted, near, part)

    def find_stem(self, stem: str) -> str | None:
        """The image whose path without extension is `stem`, or whose file name is its last step and unique."""
        wanted = composed(stem)
        last = wanted.rpartition("/")[2]
        paths = self._by_stem.get(last, [])
        exact = [path for path in paths if composed(split_extension(path)[0]) == wanted]
        return exact[0] if len(exact) == 1 else self._best(paths, "", "", None)

    def stems(self) -> Iterable[str]:
        """File names without extension."""
        return self._by_stem

    def rest(self, used: Iterable[str], everywhere: bool) -> list[str]:
        """Images that no annotation names: all, or those in the folders of the images that are named."""
        taken = set(used)
        folders = {path.rpartition("/")[0] for path in taken}
        return [path for path in self.paths if path not in taken and (everywhere or path.rpartition("/")[0] in folders)]

    @staticmethod
    def _best(paths: list[str], wanted: str, near: str, part: str | None) -> str | None:
        """The only path, or the only one with the same last folders, beside the annotations, or of the same part."""
        for fits in (
            lambda path: True,
            lambda path: bool(wanted) and path.endswith(f"/{wanted}"),
            lambda path: bool(near) and path.startswith(f"{near}/"),
            lambda path: part is not None and part_of(path) == part,
        ):
            found = [path for path in paths if fits(path)]
            if len(found) == 1:
                return found[0]
        return None


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
