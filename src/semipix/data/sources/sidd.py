"""SIDD, medium: noisy and clean photographs of smartphones (Abdelhamed et al., CVPR 2018)."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from torch import Tensor
from torchvision import tv_tensors

from semipix.data.files.decode import check_label_size
from semipix.data.files.listing import walk
from semipix.data.files.reader import Reader
from semipix.data.sources.paired import ImageTargets, PairedSource, check_root
from semipix.errors import SemipixError


class BlockTargets(ImageTargets):
    """Targets are clean images. A name that ends in `#NUMBER` is a block of an image.

    Args:
        root: the folder that names are relative to.
        targets: the name of the clean image by the name of the noisy image.
        block: side of a block in pixels.
        blocks: number of blocks of an image, evenly spread.
    """

    def __init__(self, root: Path, targets: Mapping[str, str], block: int, blocks: int) -> None:
        super().__init__(root, targets)
        self.block = block
        self.blocks = blocks
        self._last: dict[str, tuple[Path, Tensor]] = {}

    def image(self, name: str, reader: Reader, seed: int | None) -> tv_tensors.Image:
        return tv_tensors.Image(self._block(name, self._read("input", self.file(name), reader)))

    def target(self, name: str, reader: Reader) -> tv_tensors.Image:
        path = self.root / self.targets[name]
        whole = self._read("target", path, reader)
        check_label_size(self.file(name), path, whole, "target", max_pixels=reader.max_pixels)
        return tv_tensors.Image(self._block(name, whole))

    def file(self, name: str) -> Path:
        return self.root / name.partition("#")[0]

    def _block(self, name: str, whole: Tensor) -> Tensor:
        """The whole image, or the block whose number the name ends with."""
        number = name.partition("#")[2]
        if not number:
            return whole
        columns = math.ceil(math.sqrt(self.blocks))
        rows = math.ceil(self.blocks / columns)
        row, column = divmod(int(number), columns)
        top, left = (
            max(0, round(length * (place + 0.5) / count - self.block / 2))
            for length, place, count in zip(whole.shape[-2:], (row, column), (rows, columns), strict=True)
        )
        return whole[:, top : top + self.block, left : left + self.block].clone()

    def _read(self, what: str, path: Path, reader: Reader) -> Tensor:
        """Read an image. The last input and the last target are kept, since their blocks are read one after another."""
        kept = self._last.get(what)
        if kept is None or kept[0] != path:
            self._last[what] = kept = (path, reader.image(path))
        return kept[1]


class SIDDSource(PairedSource):
    """Pairs in `Data/INSTANCE/*NOISY_SRGB*.PNG` and `*GT_SRGB*.PNG`; an instance is called NUMBER_SCENE_PHONE_...

    Training reads whole images and crops them (`data.crop`), so one label is one pair. Evaluation takes a few blocks of
    each image, since a whole image has 16 million pixels.

    Whole scenes are set aside for validation, beginning with the last, until they have `val_pairs` pairs. The other
    scenes are for training. In both parts, the first pairs of all instances come before the second ones.

    Args:
        root: the data folder, or its folder `Data`.
        train_pairs: largest number of training pairs.
        val_pairs: largest number of validation pairs.
        block: side of an evaluation block in pixels.
        blocks: number of blocks of each validation image.

    Raises:
        SemipixError: the folder has another layout, or all pairs show the same scene.
    """

    kinds: ClassVar[tuple[str, ...]] = ("denoising",)
    labels_by_scene: ClassVar[bool] = False

    def __init__(
        self, root: str | Path, train_pairs: int = 160, val_pairs: int = 40, block: int = 256, blocks: int = 4
    ) -> None:
        folder = check_root(root)
        folder = folder / "Data" if (folder / "Data").is_dir() else folder
        for key, value in {
            "train_pairs": train_pairs,
            "val_pairs": val_pairs,
            "block": block,
            "blocks": blocks,
        }.items():
            if value < 1:
                raise SemipixError(f"data.{key}={value}: expected at least 1")
        targets = _pairs(folder)
        train, val = _divided(targets, val_pairs)
        if not train:
            raise SemipixError(
                f"{folder}: found {len(targets)} pairs of one scene, expected several; whole scenes are set aside for "
                "validation"
            )
        pairs = {
            "train": {name: targets[name] for name in _first(train, train_pairs)},
            "val": {f"{name}#{number}": targets[name] for name in _first(val, val_pairs) for number in range(blocks)},
        }
        scenes = {name: scene_of(name) for part in pairs.values() for name in part}
        reading = BlockTargets(
            folder, {name: target for part in pairs.values() for name, target in part.items()}, block, blocks
        )
        super().__init__(folder, "denoising", pairs, scenes=scenes, reading=reading)
        self.channels = 3


def scene_of(name: str) -> str:
    """The scene of an instance, such as "001" of "0001_001_S6_00100_00060_3200_L"."""
    return PurePosixPath(name).parts[0].split("_")[1]


def _pairs(folder: Path) -> dict[str, str]:
    """Names of the clean images by those of the noisy images.

    Raises:
        SemipixError: there is no noisy image, one has no clean image, or the name of a folder contains no scene.
    """
    names = {
        name.upper(): name for name in walk(folder).files if name.upper().endswith(".PNG") and "_SRGB" in name.upper()
    }
    pairs = {}
    for upper, name in sorted(names.items()):
        if "GT_SRGB" in upper:
            continue
        clean = names.get(upper.replace("NOISY_SRGB", "GT_SRGB"))
        if clean is None:
            raise SemipixError(f"{folder / name}: found no GT_SRGB image beside it; add it or remove this file")
        if len(PurePosixPath(name).parts) < 2 or len(PurePosixPath(name).parts[0].split("_")) < 2:
            raise SemipixError(f"{folder / name}: expected it in a folder called NUMBER_SCENE_PHONE_...; move it")
        pairs[name] = clean
    if not pairs:
        raise SemipixError(f"{folder}: found no NOISY_SRGB image, expected INSTANCE/*NOISY_SRGB*.PNG; fix data.root")
    return pairs


def _divided(names: Iterable[str], val_pairs: int) -> tuple[list[str], list[str]]:
    """Names for training and for validation; no scene is in both."""
    by_scene: dict[str, list[str]] = {}
    for name in names:
        by_scene.setdefault(scene_of(name), []).append(name)
    val: list[str] = []
    for scene in sorted(by_scene, reverse=True):
        if len(val) >= val_pairs or len(by_scene) == 1:
            break
        val += by_scene.pop(scene)
    return [name for part in by_scene.values() for name in part] if val else [], val


def _first(names: list[str], count: int) -> list[str]:
    """At most `count` names, the first of all instances before the second ones."""
    seen: dict[str, int] = {}
    ranks = {}
    for name in sorted(names):
        instance = PurePosixPath(name).parts[0]
        ranks[name] = seen[instance] = seen.get(instance, -1) + 1
    return sorted(names, key=lambda name: (ranks[name], name))[:count]
