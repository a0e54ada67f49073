"""Trimaps beside the images that are predicted."""

import glob
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.decode import EXTENSIONS
from semipix.data.matte import read_trimap
from semipix.errors import SemipixError


def with_trimap(image: Tensor, folder: Path, name: Path) -> tv_tensors.Image:
    """An image (3, H, W) with its trimap as fourth channel: 0 background, 0.5 unknown, 1 foreground.

    Args:
        image: in [0, 1].
        folder: holds a file of the image's name but for the extension.
        name: the image's name, with the subfolder that it stands in.

    Raises:
        SemipixError: there is no such file, or it is no trimap of this image.
    """
    beside = sorted((folder / name.parent).glob(f"{glob.escape(name.stem)}.*"))
    found = [file for file in beside if file.stem == name.stem and file.suffix.lower() in EXTENSIONS]
    if not found:
        raise SemipixError(
            f"{folder / name.with_suffix('.png')}: no such trimap; give each image one of the same stem in --trimaps"
        )
    trimap = read_trimap(found[0])
    if trimap.shape != image.shape[-2:]:
        sizes = [f"{maps.shape[-1]}x{maps.shape[-2]}" for maps in (trimap, image)]
        raise SemipixError(f"{found[0]}: {sizes[0]} pixels found, the image's {sizes[1]} expected")
    return tv_tensors.Image(torch.cat([image, trimap[None]]))
