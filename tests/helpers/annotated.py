"""Photos and annotations of other tools, small enough to see each pixel."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (8, 10)
"""Height and width."""


def save_photo(path: Path, orientation: int = 1, size: tuple[int, int] = SIZE) -> Path:
    """A photo that is shown with this height and width, stored as its orientation tag says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size[::-1] if orientation > 4 else size
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (width, height), (90, 120, 60)).save(path, exif=exif)
    return path


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """The corners of a rectangle, x and y in turn."""
    return [left, top, right, top, right, bottom, left, bottom]


def coco(
    path: Path,
    objects: Sequence[dict[str, Any]],
    images: Sequence[str] = ("a.png",),
    categories: Sequence[tuple[int, str]] = ((3, "leaf"), (7, "bug")),
    size: tuple[int, int] = SIZE,
) -> Path:
    """A COCO file; objects belong to the first image unless they say otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": size[0], "width": size[1]} for number, name in enumerate(images)
        ],
        "annotations": [{"id": number, "image_id": 0, **item} for number, item in enumerate(objects)],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path.write_text(json.dumps(content))
    return path


def labelme(path: Path, shapes: Sequence[dict[str, Any]], image: str, size: tuple[int, int] = SIZE) -> Path:
    """A file of labelme."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"shapes": list(shapes), "imagePath": image, "imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps({**content, "imageData": None}))
    return path


def mask_of(root: Path, name: str = "train/a") -> list[list[int]]:
    """The values of a mask that was written."""
    values: list[list[int]] = np.asarray(Image.open(root / f"masks/{name}.png")).tolist()
    return values


def filled(value: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A mask of one value, to draw into."""
    return np.full(size, value, np.uint8)
