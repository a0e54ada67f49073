"""Write the maps of a georeferenced image as GeoTIFF, with its coordinate reference system and transform."""

from pathlib import Path

import numpy as np

from semipix.atomic import written_path
from semipix.data.files.rasters import Georeference, load_rasterio
from semipix.inference.row_array import RowArray

TILE = 256
"""Side of the tiles of a written file in pixels; a multiple of 16, as TIFF asks for."""


def write_geotiff(
    path: Path,
    rows: RowArray,
    place: Georeference,
    *,
    channel: int | None = None,
    nodata: int | None = None,
    scale: float | None = None,
) -> None:
    """Write pixels as a GeoTIFF, tiled and compressed, some rows of tiles at a time.

    The file is renamed when it is complete.

    Args:
        path: of the file.
        rows: (H, W) or, of colours, (H, W, C), uint8 or uint16.
        place: where the image is.
        channel: write only this channel of (H, W, C).
        nodata: value of pixels that are not known.
        scale: factor from stored numbers to the map's own values, which programs apply when they show it.

    Raises:
        OSError: the file cannot be written.
    """
    rasterio = load_rasterio(path)
    height, width = rows.shape[:2]
    count = 1 if channel is not None or len(rows.shape) == 2 else rows.shape[2]
    profile = {
        **{"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": rows.dtype.name},
        **{"crs": place.crs, "transform": place.transform, "nodata": nodata},
        **{"compress": "deflate", "predictor": 2, "bigtiff": "if_safer"},
        # Tiles of a smaller image would mostly be padding.
        **({"tiled": True, "blockxsize": TILE, "blockysize": TILE} if min(height, width) >= TILE else {}),
    }
    with written_path(path) as unfinished:
        try:
            with rasterio.open(unfinished.absolute(), "w", **profile) as dataset:
                if scale is not None:
                    dataset.scales = (scale,) * count
                for top in range(0, height, TILE):
                    part = rows.read(slice(top, min(top + TILE, height))).numpy()
                    part = part if channel is None else part[..., channel]
                    planes = part[None] if part.ndim == 2 else part.transpose(2, 0, 1)
                    window = rasterio.windows.Window(0, top, width, part.shape[0])
                    dataset.write(np.ascontiguousarray(planes), window=window)
        except rasterio.errors.RasterioError as error:  # some of them are no OSError
            raise OSError(None, str(error).partition("\n")[0]) from error
