"""Images and masks in folders."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.decode import check_size, read_image
from semipix.data.decode_masks import read_mask
from semipix.data.layout import MASKS, Layout, list_folder
from semipix.data.source import VOID, Source
from semipix.errors import SemipixError, UnreadableFileError


class FolderSource(Source):
    """Images in `images/{train,val,test}` and masks of the same stems in `masks/{train,val,test}`.

    An image in `images/train` without a mask is unlabeled, and so is every image in the optional folder `unlabeled`.
    The optional file `classes.txt` names the classes, one a line; without it they are counted in the training masks.
    A mask value of 255 is void. Files are read when they are asked for.

    Args:
        root: the data folder.
        mask_values: class index (or 255) for mask values that are stored otherwise, e.g. `{0: 0, 255: 1}`; values that
            are not listed stay as they are.
        on_error: with skip, masks that cannot be read do not count where the classes are counted.

    Raises:
        SemipixError: the folder is missing or not laid out like this, or no training image has a mask.
    """

    layout: Layout = MASKS

    def __init__(
        self,
        root: str | Path,
        mask_values: Mapping[int, int] | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.root = Path(root).expanduser()
        self._on_error = on_error
        self._table = lookup_table(mask_values) if mask_values else None
        self.listing = list_folder(self.root, self.layout)
        if self.listing.problems:
            raise SemipixError(self.listing.problems[0])
        self._masks = {image: mask for masks in self.listing.labels.values() for image, mask in masks.items()}
        self.classes: list[str] = self.read_names()

    def labeled(self) -> list[str]:
        return list(self.listing.labels["train"])

    def unlabeled(self) -> list[str]:
        return sorted([*self.listing.bare["train"], *self.listing.unlabeled])

    def val(self) -> list[str]:
        return list(self.listing.labels["val"])

    def test(self) -> list[str]:
        return list(self.listing.labels["test"])

    def image(self, name: str) -> tv_tensors.Image:
        return tv_tensors.Image(read_image(self.root / name))

    def target(self, name: str) -> tv_tensors.Mask:
        return tv_tensors.Mask(self._checked(name, self.read_indices(name)))

    def stored_image(self, name: str) -> tv_tensors.Image:
        return tv_tensors.Image(self.reader.image(self.root / name))

    def stored_target(self, name: str) -> tv_tensors.Mask:
        values = self.reader.mask(self.root / self._masks[name])
        return tv_tensors.Mask(self._checked(name, self._mapped(values)))

    def read_names(self) -> list[str]:
        """Names of the classes, by index."""
        return read_classes(self.root) or self._infer_classes()

    def read_indices(self, name: str) -> Tensor:
        """Mask of the named image after `mask_values`, (H, W) int64, not checked against the classes."""
        return self._mapped(read_mask(self.root / self._masks[name]))

    def _mapped(self, values: Tensor) -> Tensor:
        """Values (H, W) after `mask_values`."""
        if self._table is None:
            return values
        if values.dtype == torch.uint8:
            return torch.from_numpy(self._table[:256].byte().numpy()[values.numpy()])
        return self._table[values.long()]

    def _checked(self, name: str, indices: Tensor) -> Tensor:
        mask = self.root / self._masks[name]
        check_size(self.root / name, mask, indices)
        check_indices(mask, indices, len(self.classes))
        return indices

    def _infer_classes(self) -> list[str]:
        present: set[int] = set()
        for name in self.labeled():
            try:
                indices = self.read_indices(name)
            except UnreadableFileError:
                if self._on_error == "stop":
                    raise
                continue
            present.update(np.bincount(indices.numpy().ravel()).nonzero()[0].tolist())
        return infer_classes(self.root, present)


def read_classes(root: Path) -> list[str] | None:
    """Class names from `classes.txt`; None where there is no such file.

    Raises:
        SemipixError: the file is empty, names a class twice, or is no text.
    """
    path = root / "classes.txt"
    if not path.is_file():
        return None
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise SemipixError(f"{path}: not UTF-8 text; expected one class name a line") from None
    if len(names) < 2:
        raise SemipixError(f"{path}: found {len(names)} class names, expected at least 2, one a line")
    for name in names:
        if names.count(name) > 1:
            raise SemipixError(f"{path}: class {name!r} stands there {names.count(name)} times; give each its own name")
    _check_class_count(path, len(names))
    return names


def check_indices(mask: Path, indices: Tensor, classes: int) -> None:
    """Check that a mask (H, W) holds class indices below `classes` and void only.

    Raises:
        SemipixError: it holds something else.
    """
    outside = indices[(indices >= classes) & (indices != VOID)]
    if len(outside):
        raise SemipixError(outside_problem(mask, Counter(outside.tolist()), classes))


def outside_problem(mask: Path, outside: Mapping[int, int], classes: int) -> str:
    """What to tell about mask values that are no class; `outside` is their number of pixels by value."""
    values = ", ".join(str(value) for value in sorted(outside)[:5])
    return (
        f"{mask}: found mask value {values} ({sum(outside.values())} pixels), expected 0 to {classes - 1} or 255 for "
        "void; mend classes.txt or map the values with data.mask_values={VALUE:CLASS}"
    )


def infer_classes(root: Path, present: set[int]) -> list[str]:
    """Class names "0", "1", ... up to the largest value present in the training masks that is not void; at least 2.

    Raises:
        SemipixError: there are too many, or only 0 and 255.
    """
    if problem := binary_problem(root, present):
        raise SemipixError(problem)
    count = max((value for value in present if value != VOID), default=0) + 1
    _check_class_count(root / "masks/train", count)
    return [str(index) for index in range(max(2, count))]


def binary_problem(root: Path, present: set[int]) -> str | None:
    """What to tell a user whose masks hold 0 and 255 only, where 255 was surely meant as a class."""
    if VOID in present and present <= {0, VOID}:
        return (
            f"{root / 'masks/train'}: the masks hold only 0 and 255, and 255 means void; "
            "map it to class 1 with data.mask_values={0:0,255:1}"
        )
    return None


def lookup_table(mask_values: Mapping[int, int]) -> Tensor:
    """Table (65536,) int64 from stored mask value to class index."""
    table = torch.arange(65536)
    for value, index in mask_values.items():
        if not (0 <= int(value) < len(table) and 0 <= int(index) <= VOID):
            raise SemipixError(
                f"data.mask_values: found {value}:{index}, expected a value from 0 to 65535 and a class from 0 to 255"
            )
        table[int(value)] = int(index)
    return table


def _check_class_count(origin: Path, count: int) -> None:
    if count > VOID:
        raise SemipixError(f"{origin}: found {count} classes, expected at most {VOID}, for index {VOID} means void")
