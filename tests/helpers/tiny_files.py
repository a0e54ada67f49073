"""Tiny image files, and a source whose images are in memory."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from semipix.data.source import Source


def save_image(path: Path, height: int = 6, width: int = 8, value: int = 100) -> Path:
    """Write an RGB image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def save_mask(path: Path, values: list[list[int]] | None = None, height: int = 6, width: int = 8) -> Path:
    """Write a grey mask; without values it is 0 with a first row of 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((height, width), np.uint8) if values is None else np.array(values, np.uint8)
    if values is None:
        array[0] = 1
    Image.fromarray(array).save(path)
    return path


def save(path: Path, values: NDArray[Any], **options: Any) -> Path:
    """Write pixels (H, W) or (H, W, 3) as they are: an array, or an image of 8 bits, 16 bits or floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif values.dtype == np.uint16 and values.ndim == 3:
        path.write_bytes(deep_png(values))
    else:
        Image.fromarray(values).save(path, **options)
    return path


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a colour (H, W, 3), which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(data)) + kind + data + _checksum(kind + data) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def noise(*shape: int, seed: int = 0, top: int = 256) -> NDArray[Any]:
    """Random bytes, or numbers of 16 bits where `top` is larger."""
    kind = np.uint8 if top <= 256 else np.uint16
    return np.random.default_rng(seed).integers(0, top, shape).astype(kind)


class MemorySource(Source):
    """Images in memory that can be identified: every pixel of image i is i / 1000, every pixel of its mask i % 3.

    Args:
        labeled, unlabeled, val, test: number of images.
        size: height and width.
    """

    def __init__(
        self, labeled: int = 8, unlabeled: int = 0, val: int = 0, size: tuple[int, int] = (12, 16), test: int = 2
    ) -> None:
        self.classes: list[str] = ["zero", "one", "two"]
        self.size = size
        numbers = iter(range(1000))
        self.parts = {
            part: [f"{part}/{next(numbers):03d}" for _ in range(count)]
            for part, count in (("labeled", labeled), ("unlabeled", unlabeled), ("val", val), ("test", test))
        }

    def labeled(self) -> list[str]:
        return self.parts["labeled"]

    def unlabeled(self) -> list[str]:
        return self.parts["unlabeled"]

    def val(self) -> list[str]:
        return self.parts["val"]

    def test(self) -> list[str]:
        return self.parts["test"]

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return tv_tensors.Image(torch.full((3, *self.size), int(name[-3:]) / 1000))

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        return self.image(name), tv_tensors.Mask(torch.full(self.size, int(name[-3:]) % 3, dtype=torch.int64))


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))
