"""The base of all sources whose targets are files of the same size as their input images."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor
from torchvision import tv_tensors

from semipix.data.files.decode import bits, check_same_size
from semipix.data.files.listing import SPLITS, split_extension
from semipix.data.files.mattes import MatteFiles, MatteReader
from semipix.data.files.names import Names, composed
from semipix.data.files.reader import Reader
from semipix.data.source import Source
from semipix.data.targets import KINDS
from semipix.errors import SemipixError


class TargetFiles(Protocol):
    """Reads the files of a `PairedSource`; there is one class for each kind of target."""

    def image(self, name: str, reader: Reader, seed: int | None) -> tv_tensors.Image:
        """See `Source.image`."""

    def target(self, name: str, reader: Reader) -> tv_tensors.Image:
        """The target that `Source.pair` returns if the seed is None."""

    def pair(self, name: str, reader: Reader, seed: int | None) -> tuple[tv_tensors.Image, tv_tensors.Image]:
        """See `Source.pair`."""

    def file(self, name: str) -> Path:
        """The file of the image."""


class ImageTargets:
    """Targets are images. Input and target are read and resized in the same way (`Reader.reduced`).

    Args:
        root: the folder that names are relative to.
        targets: the target's name by the input's name.
    """

    def __init__(self, root: Path, targets: Mapping[str, str]) -> None:
        self.root = root
        self.targets = targets

    def image(self, name: str, reader: Reader, seed: int | None) -> tv_tensors.Image:
        return reader.tensor(self.file(name))

    def target(self, name: str, reader: Reader) -> tv_tensors.Image:
        path = self.root / self.targets[name]
        values = self.values(path, reader)
        image = self.file(name)
        check_same_size(image, path, reader.header(image).size, tuple(values.shape[-2:]), "target")
        return tv_tensors.Image(values)

    def pair(self, name: str, reader: Reader, seed: int | None) -> tuple[tv_tensors.Image, tv_tensors.Image]:
        return self.image(name, reader, seed), self.target(name, reader)

    def file(self, name: str) -> Path:
        return self.root / name

    def values(self, path: Path, reader: Reader) -> Tensor:
        """The values in the file of a target, (C, H, W)."""
        return reader.image(path)


class MatteTargets:
    """Targets are alpha mattes; a fourth channel of the images is the trimap.

    Args:
        files: the files of each sample, by the name of the image.
        matting: the reader of the files.
    """

    def __init__(self, files: Mapping[str, MatteFiles], matting: MatteReader) -> None:
        self.files = files
        self.matting = matting

    def image(self, name: str, reader: Reader, seed: int | None) -> tv_tensors.Image:
        return self.matting.image(self.files[name], seed, reader.max_pixels)

    def target(self, name: str, reader: Reader) -> tv_tensors.Image:
        return self.matting.target(self.files[name], reader.max_pixels)

    def pair(self, name: str, reader: Reader, seed: int | None) -> tuple[tv_tensors.Image, tv_tensors.Image]:
        if seed is None:
            return self.image(name, reader, seed), self.target(name, reader)
        return self.matting.pair(self.files[name], seed, reader.max_pixels)

    def file(self, name: str) -> Path:
        return self.files[name].image


class PairedSource(Source):
    """Image files with target files. A subclass lists them; each file is read when it is used.

    Args:
        root: the folder that names are relative to.
        kind: the kind of the targets.
        pairs: for train, val and test, the name of the target by the name of its input.
        unlabeled: names of the inputs without a target.
        scenes: the scene by image name; an image that is not listed is a scene of its own.
        reading: reads the files; by default targets are images.
        left_out: one line, with a count, for each kind of file that is not read.
    """

    kinds: ClassVar[tuple[str, ...]] = KINDS[1:]

    def __init__(
        self,
        root: Path,
        kind: str,
        pairs: Mapping[str, Mapping[str, str]],
        unlabeled: Sequence[str] = (),
        scenes: Mapping[str, str] | None = None,
        reading: TargetFiles | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.kind = kind
        self._pairs = {split: dict(sorted(pairs.get(split, {}).items())) for split in SPLITS}
        self._targets = {name: target for part in self._pairs.values() for name, target in part.items()}
        self._unlabeled = Names(sorted(unlabeled))
        self._scenes = dict(scenes or {})
        self.reading = reading or ImageTargets(root, self._targets)
        self.channels = 3 if reading is None else None
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

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return self.reading.image(name, self.reader, seed)

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, tv_tensors.Image]:
        self._check_storage(self.root / self._targets[name])
        return self.reading.pair(name, self.reader, seed)

    def target(self, name: str) -> tv_tensors.Image:
        """The target that `pair` returns without a seed; the image is not decoded.

        Raises:
            SemipixError: the target cannot be read, differs in size from its image, or in type from the first target.
        """
        self._check_storage(self.root / self._targets[name])
        return self.reading.target(name, self.reader)

    def scene(self, name: str) -> str:
        return self._scenes.get(name, name)

    def files(self, extensions: Collection[str]) -> list[Path]:
        files = dict.fromkeys(self.reading.file(name) for name in itertools.chain(self._targets, self._unlabeled))
        return [file for file in files if split_extension(file.name)[1] in extensions]

    def _check_storage(self, target: Path) -> None:
        """Check that a target has the data type of the first target, since another type has another scale."""
        first = self.root / next(iter(self._targets.values()))
        if self._storage is None:
            self._storage = bits(first, max_pixels=self.reader.max_pixels)
        if (found := bits(target, max_pixels=self.reader.max_pixels)) != self._storage:
            raise SemipixError(
                f"{target}: found {found} values, but {first} has {self._storage} ones; expected one type for all "
                "targets, convert one of them"
            )


def check_root(root: str | Path, *folders: str, key: str = "data.root") -> Path:
    """Check that the data folder exists and contains some folders.

    Args:
        root: the data folder.
        folders: the folders that it must contain.
        key: the setting for the data folder, for messages.

    Returns:
        The data folder.

    Raises:
        SemipixError: the data folder or one of the folders is missing.
    """
    path = Path(root).expanduser()
    for folder in ("", *folders):
        if not (path / folder).is_dir():
            expected = f"expected {', '.join(folders)} there, " if folders else ""
            raise SemipixError(f"{path / folder}: no such folder; {expected}fix {key}")
    return path


def matched(root: Path, inputs: Mapping[str, str], targets: Mapping[str, str], what: str = "target") -> dict[str, str]:
    """Match inputs and targets by their stems.

    Args:
        root: the data folder.
        inputs: names of the inputs by stem.
        targets: names of the targets by stem.
        what: the word for a target in messages.

    Returns:
        The name of the target by the name of its input.

    Raises:
        SemipixError: there is an input without a target, or a target without an input.
    """
    for stem, name in {**targets, **inputs}.items():
        if stem not in inputs or stem not in targets:
            missing = what if stem in inputs else "input"
            raise SemipixError(f"{root / name}: found no {missing} of the same stem; add it or remove this file")
    return {inputs[stem]: targets[stem] for stem in inputs}


def read_split(path: Path, known: Collection[str], *keys: str) -> dict[str, list[str]]:
    """Read lists of stems from a file such as `split.json`; an empty dict if there is no such file.

    Args:
        path: a JSON file.
        known: stems of the existing images.
        keys: names of the lists.

    Raises:
        SemipixError: the file is no JSON mapping, a list is no list of names, or a name is not in `known`.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    lists = {}
    for key in keys:
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SemipixError(f"{path}: {key} is no list of names, expected the stems of images; fix the file")
        names = [composed(name) for name in names]
        if missing := sorted(set(names) - set(known)):
            raise SemipixError(
                f"{path}: {key} names {missing[0]} and {len(missing) - 1} more images that do not exist; remove them"
            )
        lists[key] = names
    return lists


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON file that contains a mapping.

    Raises:
        SemipixError: the file is no JSON, or contains no mapping.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise SemipixError(f"{path}: not a split file, expected a JSON mapping of lists of names")
    return content
