"""Trimaps beside the images that are predicted."""

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
    """A folder with a file for each image, of its name but for the extension, in subfolders as the images are.

    A file without unknown pixels is a mask, which is widened as in training.

    Args:
        folder: the folder.
        low, high: the run's `data.trimap_widths`.

    Raises:
        SemipixError: two files have one stem.
    """

    def __init__(self, folder: Path, low: int, high: int) -> None:
        remarks = Remarks()
        self.folder = folder
        self.reach = middle((low, high))
        self._names = stems(folder, "", remarks)
        if remarks.problems:
            raise SemipixError(remarks.problems[0])

    def files(self) -> list[Path]:
        """All trimaps."""
        return [self.folder / name for name in self._names.values()]

    def beside(self, image: Tensor, name: Path, max_pixels: int = MAX_PIXELS) -> Tensor:
        """An image (3, H, W) with its trimap as fourth channel: 0 background, 0.5 unknown, 1 foreground.

        Args:
            image: in [0, 1].
            name: the image's name, with the subfolder that it is in.
            max_pixels: most pixels of a trimap that is read.

        Raises:
            SemipixError: there is no such file, or it is no trimap of this image.
        """
        found = self._names.get(composed(name.with_suffix("").as_posix()))
        if found is None:
            raise SemipixError(
                f"{self.folder / name.with_suffix('.png')}: no such trimap; give each image one of the same stem in "
                "--trimaps"
            )
        trimap = trimap_of(self.folder / found, self.reach, max_pixels)
        check_same_size(name, self.folder / found, tuple(image.shape[-2:]), tuple(trimap.shape), "trimap")
        return torch.cat([image, trimap[None]])
