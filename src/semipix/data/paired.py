"""Inputs and targets of equal size in image files: what the sources of all image-to-image tasks share."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torchvision import tv_tensors

from semipix.data.decode import bits, check_size
from semipix.data.layout import SPLITS, split_extension
from semipix.data.matte import MatteFiles, Matting
from semipix.data.names import Names, composed
from semipix.data.source import KINDS, Source
from semipix.errors import SemipixError

_LIKE_IMAGES = ("denoising", "enhancement")
"""Kinds whose targets are images. Both sides are resized alike, after decoding (`Reader.reduced`)."""


class PairedSource(Source):
    """Image files with target files. A child lists them; all are read when they are asked for.

    Args:
        root: the folder that names are relative to.
        kind: what the targets are.
        pairs: for train, val and test the inputs' names with their targets' names.
        unlabeled: names of the inputs without a target.
        scenes: scenes by image name; an image that is not listed is a scene of its own.
        mattes: for matting, the files of each image.
        matting: for matting, how they are read.
        left_out: lines about files that are not read.
    """

    kinds: ClassVar[tuple[str, ...]] = KINDS[1:]

    def __init__(
        self,
        root: Path,
        kind: str,
        pairs: Mapping[str, Mapping[str, str]],
        unlabeled: Sequence[str] = (),
        scenes: Mapping[str, str] | None = None,
        mattes: Mapping[str, MatteFiles] | None = None,
        matting: Matting | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.kind = kind
        self.channels = 3 if kind in _LIKE_IMAGES else None
        self._pairs = {split: dict(sorted(pairs.get(split, {}).items())) for split in SPLITS}
        self._targets = {name: target for part in self._pairs.values() for name, target in part.items()}
        self._unlabeled = Names(sorted(unlabeled))
        self._scenes = dict(scenes or {})
        self._mattes = dict(mattes or {})
        self._matting = matting or Matting()
        self.left_out = list(left_out)
        self._storage: str | None = None

    def labeled(self) -> list[str]:
        return list(self._pairs["train"])

    def unlabeled(self) -> list[str]:
        return list(self._unlabeled)

    def val(self) -> list[str]:
        return list(self._pairs["val"])

    def test(self) -> list[str]:
        return list(self._pairs["test"])

    def image(self, name: str) -> tv_tensors.Image:
        if self.kind == "matting":
            return self._matting.image(self._mattes[name], max_pixels=self.reader.max_pixels)
        return tv_tensors.Image(self.read_input(name))

    def target(self, name: str) -> tv_tensors.Image:
        path = self.root / self._targets[name]
        self._check_storage(path)
        if self.kind == "matting":
            return self._matting.target(self._mattes[name], self.reader.max_pixels)
        values = self.read_target(name)
        check_size(self.root / self.file(name), path, values, "target", max_pixels=self.reader.max_pixels)
        return tv_tensors.Image(values)

    def stored_image(self, name: str) -> tv_tensors.Image:
        if self.kind == "matting":
            return self.image(name)
        return tv_tensors.Image(self.reader.image(self.root / self.file(name)))

    def stored_target(self, name: str) -> tv_tensors.Image:
        if self.kind not in _LIKE_IMAGES:
            return self.target(name)
        path = self.root / self._targets[name]
        self._check_storage(path)
        values = self.reader.image(path)
        check_size(self.root / self.file(name), path, values, "target", max_pixels=self.reader.max_pixels)
        return tv_tensors.Image(values)

    def scene(self, name: str) -> str:
        return self._scenes.get(name, name)

    def training_pair(self, name: str, seed: int) -> tuple[tv_tensors.Image, tv_tensors.Image]:
        if self.kind != "matting":
            return self.stored_image(name), self.stored_target(name)
        self._check_storage(self.root / self._targets[name])
        return self._matting.pair(self._mattes[name], seed, self.reader.max_pixels)

    def training_image(self, name: str, seed: int) -> tv_tensors.Image:
        if self.kind != "matting":
            return self.stored_image(name)
        return self._matting.image(self._mattes[name], seed, self.reader.max_pixels)

    def files(self, extensions: Collection[str]) -> list[Path]:
        if self._mattes:
            return [files.image for files in self._mattes.values() if files.image.suffix.lower() in extensions]
        names = dict.fromkeys(self.file(name) for name in itertools.chain(self._targets, self._unlabeled))
        return [self.root / name for name in names if split_extension(name)[1] in extensions]

    def file(self, name: str) -> str:
        """The input's file, relative to the root."""
        return name

    def read_input(self, name: str) -> Tensor:
        """The named input, (3, H, W) in [0, 1]."""
        return self.reader.whole(self.root / self.file(name))

    def read_target(self, name: str) -> Tensor:
        """The named input's target, (C, H, W)."""
        return self.reader.whole(self.root / self._targets[name])

    def _check_storage(self, target: Path) -> None:
        """Refuse a target that stores its numbers otherwise than the first: it would be of another scale."""
        first = self.root / next(iter(self._targets.values()))
        if self._storage is None:
            self._storage = bits(first, max_pixels=self.reader.max_pixels)
        if (found := bits(target, max_pixels=self.reader.max_pixels)) != self._storage:
            raise SemipixError(
                f"{target}: found {found} values, but {first} has {self._storage} ones; expected targets of one kind, "
                "convert one of them"
            )


def check_root(root: str | Path, *folders: str, key: str = "data.root") -> Path:
    """The data folder, if it is there and holds these folders.

    Args:
        root: the data folder.
        folders: what it must hold.
        key: the setting that names it.

    Raises:
        SemipixError: it does not.
    """
    path = Path(root).expanduser()
    for folder in ("", *folders):
        if not (path / folder).is_dir():
            expected = f"expected {', '.join(folders)} there, " if folders else ""
            raise SemipixError(f"{path / folder}: no such folder; {expected}mend {key}")
    return path


def matched(root: Path, inputs: Mapping[str, str], targets: Mapping[str, str], what: str = "target") -> dict[str, str]:
    """Inputs with the targets of the same stems.

    Args:
        root: the data folder.
        inputs: names of the inputs by stem.
        targets: names of the targets by stem.
        what: what a target is called.

    Raises:
        SemipixError: one has no partner.
    """
    for stem, name in {**targets, **inputs}.items():
        if stem not in inputs or stem not in targets:
            missing = what if stem in inputs else "input"
            raise SemipixError(f"{root / name}: found no {missing} of the same stem; add it or remove this file")
    return {inputs[stem]: targets[stem] for stem in inputs}


def read_split(path: Path, known: Collection[str], *keys: str) -> dict[str, list[str]]:
    """Lists of stems from a file such as `split.json`; none where there is no such file.

    Args:
        path: a JSON file.
        known: stems that there are.
        keys: names of the lists.

    Raises:
        SemipixError: the file holds something else, or names a stem that is not there.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    lists = {}
    for key in keys:
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SemipixError(f"{path}: {key} is no list of names; expected the stems of images")
        names = [composed(name) for name in names]
        if missing := sorted(set(names) - set(known)):
            raise SemipixError(f"{path}: {key} names {missing[0]} and {len(missing) - 1} more that are not there")
        lists[key] = names
    return lists


def read_json(path: Path) -> dict[str, object]:
    """A JSON file that holds a mapping.

    Raises:
        SemipixError: it holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise SemipixError(f"{path}: not a split file, expected a JSON mapping of lists of names")
    return content
