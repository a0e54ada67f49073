"""The trimaps of images to predict."""

from pathlib import Path

import torch
from torch import Tensor

from semipix.data.files.decode import check_same_size
from semipix.data.files.listing import Remarks, stems
from semipix.data.files.mattes import middle, trimap_of
from semipix.data.files.names import composed
from semipix.data.files.opening import MAX_PIXELS
from semipix.errors import SemipixError


class Trimaps:
    """A folder with a trimap for each image, with the same subfolder and name up to the extension.

    A file without unknown pixels is used as a mask, whose border is made unknown as in training.

    Args:
        folder: the folder.
        low, high: the run's `data.trimap_widths`.

    Raises:
        SemipixError: two files have the same name up to the extension.
    """

    def __init__(self, folder: Path, low: int, high: int) -> None:
        remarks = Remarks()
        self.folder = folder
        self.reach = middle((low, high))
        self._names = stems(folder, "", remarks)
        if remarks.problems:
            raise SemipixError(remarks.problems[0])

    def files(self) -> list[Path]:
        """The files of all trimaps."""
        return [self.folder / name for name in self._names.values()]

    def beside(self, image: Tensor, name: Path, max_pixels: int = MAX_PIXELS) -> Tensor:
        """An image (3, H, W) with its trimap as fourth channel: 0 background, 0.5 unknown, 1 foreground.

        Args:
            image: in [0, 1].
            name: the image's name with its subfolder.
            max_pixels: largest number of pixels of a trimap.

        Raises:
            SemipixError: the trimap is missing, cannot be read, or has another size than the image.
        """
        found = self._names.get(composed(name.with_suffix("").as_posix()))
        if found is None:
            raise SemipixError(
                f"{self.folder / name.with_suffix('.png')}: no such trimap; the folder of --trimaps needs a file with "
                "the name of each image, up to the extension"
            )
        trimap = trimap_of(self.folder / found, self.reach, max_pixels)
        check_same_size(name, self.folder / found, tuple(image.shape[-2:]), tuple(trimap.shape), "trimap")
        return torch.cat([image, trimap[None]])
