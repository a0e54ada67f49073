"""Small rasters with a georeference, and a data folder of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SIDE = 40

CRS = "EPSG:32633"


def write_raster(
    path: Path, values: NDArray[Any], placed: bool = True, nodata: float | None = None, **options: Any
) -> Path:
    """Write (C, H, W) as a TIFF, by default with a georeference; GDAL's options are such as NBITS."""
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": CRS, "transform": rasterio.Affine(10, 0, 500000, 0, -20, 5000000)} if placed else {}
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with rasterio.open(path, "w", **profile, **place, **options, nodata=nodata) as dataset:
        dataset.write(values)
    return path


def reflectances(number: int, bands: int = 5) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Float bands from 0 to 3000 of which the last shows the two classes, and the mask; the other bands are noise."""
    draw = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    top, left = draw.integers(0, SIDE // 2, 2)
    mask[top : top + SIDE // 2, left : left + SIDE // 2] = 1
    values = draw.uniform(0, 3000, (bands, SIDE, SIDE)).astype(np.float32)
    values[-1] = np.where(mask, 2500, 500)
    return values, mask


def write_folder(root: Path, nodata: float | None = None) -> Path:
    """Rasters of 5 bands: 4 labeled, 2 unlabeled, 1 validation and 1 test image. With nodata, a corner has none."""
    for number, split in enumerate(("train",) * 6 + ("val", "test")):
        values, mask = reflectances(number)
        if nodata is not None:
            values[:, :8, :8] = nodata
        write_raster(root / f"images/{split}/{number}.tif", values, nodata=nodata)
        if number not in (4, 5):
            path = root / f"masks/{split}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return root
