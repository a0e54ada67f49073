"""Pascal VOC 2012 with the masks of SBD (Everingham et al. 2010; Hariharan et al., ICCV 2011)."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import SBDataset, VOCSegmentation

from semipix.data.files.decode import check_label_size
from semipix.data.source import Source
from semipix.data.sources.colour_classes import VOC_CLASSES
from semipix.data.sources.folder import check_indices
from semipix.data.sources.paired import check_root
from semipix.errors import SemipixError, reason_of

_VOC = "VOCdevkit/VOC2012"

_SBD = "sbd"

_PNG = "SegmentationClassAug"


class VOCSource(Source):
    """VOC's 1,449 validation images, and its 1,464 training images or the 10,582 of the set augmented by SBD.

    The 10,582 images are VOC's `train` and SBD's `train` and `val`, without VOC's `val`. If both have a mask of an
    image, VOC's is used. All images are VOC's. The folder contains `VOCdevkit/VOC2012`, as in VOC's archive, and `sbd/`
    with SBD's `cls/*.mat`, `train.txt` and `val.txt`. If there are PNG masks in
    `VOCdevkit/VOC2012/SegmentationClassAug`, they are used instead of the `.mat` files.

    Args:
        root: the data folder.
        augmented: whether to use SBD.
        download: whether to download missing archives, whose MD5 is checked.

    Raises:
        SemipixError: the folder has another layout, a listed file is missing, or a download failed.
    """

    kinds: ClassVar[tuple[str, ...]] = ("segmentation",)

    def __init__(self, root: str | Path, augmented: bool = True, download: bool = False) -> None:
        folder = Path(root).expanduser()
        if download:
            _download(folder, augmented)
        self.root = check_root(folder, f"{_VOC}/JPEGImages", f"{_VOC}/SegmentationClass")
        self.classes = list(VOC_CLASSES)
        val = self._list(f"{_VOC}/ImageSets/Segmentation/val.txt")
        drawn = self._list(f"{_VOC}/ImageSets/Segmentation/train.txt")
        self._masks = {stem: f"{_VOC}/SegmentationClass/{stem}.png" for stem in [*drawn, *val]}
        train = set(drawn)
        if augmented:
            more = set(self._list(f"{_SBD}/train.txt")) | set(self._list(f"{_SBD}/val.txt"))
            as_png = (self.root / _VOC / _PNG).is_dir()
            pattern = f"{_VOC}/{_PNG}/{{}}.png" if as_png else f"{_SBD}/cls/{{}}.mat"
            self._masks = {stem: pattern.format(stem) for stem in more} | self._masks
            train |= more - set(val)
        self._train, self._val = sorted(train), sorted(val)
        self._check_files()

    def labeled(self) -> list[str]:
        return [_name(stem) for stem in self._train]

    def unlabeled(self) -> list[str]:
        return []

    def val(self) -> list[str]:
        return [_name(stem) for stem in self._val]

    def test(self) -> list[str]:
        return []

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return self.reader.tensor(self.root / name)

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        return self.image(name, seed), self.target(name)

    def target(self, name: str) -> tv_tensors.Mask:
        """The mask of an image as checked class indices, (H, W)."""
        path = self.root / self._masks[Path(name).stem]
        mask = read_sbd(path) if path.suffix == ".mat" else self.reader.mask(path)
        check_label_size(self.root / name, path, mask, max_pixels=self.reader.max_pixels)
        check_indices(path, mask, len(VOC_CLASSES))
        return tv_tensors.Mask(mask)

    def _list(self, name: str) -> list[str]:
        path = self.root / name
        if not path.is_file():
            without_sbd = "set data.augmented=false to train without SBD, or " if name.startswith(_SBD) else ""
            raise SemipixError(f"{path}: no such file; {without_sbd}set data.download=true or fix data.root")
        return path.read_text("utf-8").split()

    def _check_files(self) -> None:
        """Check by the listings of the folders that all files in the lists exist."""
        stems = [*self._train, *self._val]
        wanted = [_name(stem) for stem in stems] + [self._masks[stem] for stem in stems]
        there = {
            f"{folder}/{path.name}"
            for folder in {name.rpartition("/")[0] for name in wanted}
            if (self.root / folder).is_dir()
            for path in (self.root / folder).iterdir()
        }
        missing = [name for name in wanted if name not in there]
        if missing:
            raise SemipixError(
                f"{self.root / missing[0]}: no such file, and {len(missing) - 1} more of the split lists are missing; "
                "complete the archives, or set data.download=true in an empty data.root"
            )


def read_sbd(path: Path) -> Tensor:
    """Read the class indices (H, W) int64 of an SBD file.

    Raises:
        SemipixError: the file is no SBD mask.
    """
    from scipy import io  # here, since it takes time
    from scipy.io.matlab import MatReadError

    try:
        values = io.loadmat(path)["GTcls"][0]["Segmentation"][0]
    except (MatReadError, OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise SemipixError(f"{path}: no SBD mask ({reason_of(error, 80)}); replace the file") from None
    return torch.from_numpy(np.asarray(values).astype(np.int64))


def _name(stem: str) -> str:
    return f"{_VOC}/JPEGImages/{stem}.jpg"


def _download(root: Path, augmented: bool) -> None:
    """Download the missing archives by torchvision, which checks their MD5."""
    try:
        if not (root / _VOC).is_dir():
            VOCSegmentation(str(root), "2012", "train", download=True)
        if augmented and not (root / _SBD / "cls").is_dir():
            SBDataset(str(root / _SBD), "train", "segmentation", download=True)
    except (RuntimeError, OSError) as error:
        raise SemipixError(f"data.download: {reason_of(error)}; download the archives by hand to {root}") from error
