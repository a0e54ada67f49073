"""Fixtures: a tiny data folder, and the functions that write more of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.tiny_files import MemorySource, save_image, save_mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four labeled, two unlabeled, two validation and one test image of 6x8 pixels with the classes 0 and 1."""
    for name in "abcd":
        save_image(tmp_path / f"images/train/{name}.png")
        save_mask(tmp_path / f"masks/train/{name}.png")
    save_image(tmp_path / "images/train/x.png")
    save_image(tmp_path / "unlabeled/y.jpg")
    for split, names in (("val", "vw"), ("test", "t")):
        for name in names:
            save_image(tmp_path / f"images/{split}/{name}.png")
            save_mask(tmp_path / f"masks/{split}/{name}.png")
    return tmp_path


@pytest.fixture
def source() -> Callable[..., MemorySource]:
    return MemorySource


@pytest.fixture
def write_image() -> Callable[..., Path]:
    return save_image


@pytest.fixture
def write_mask() -> Callable[..., Path]:
    return save_mask
