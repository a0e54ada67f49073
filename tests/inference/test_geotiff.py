"""Maps as GeoTIFF, also if they are too large for the memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from semipix.data.files.bands import Bands
from semipix.data.files.rasters import georeference
from semipix.data.files.reader import Reader
from semipix.inference import row_array
from semipix.inference.geotiff import write_geotiff
from semipix.inference.predictor import Predictor
from semipix.inference.row_array import RowArray
from semipix.tasks.denoising import Denoising
from tests.helpers.rasters import CRS, write_raster
from tests.helpers.tiny import make_method

rasterio = pytest.importorskip("rasterio")


@pytest.mark.parametrize("in_memory", [2**28, 1000])
@pytest.mark.parametrize(("size", "tiled"), [((700, 300), True), ((40, 30), False)])
def test_what_is_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, size: tuple[int, int], tiled: bool
) -> None:
    monkeypatch.setattr(row_array, "IN_MEMORY", in_memory)
    place = georeference(write_raster(tmp_path / "image.tif", np.zeros((1, *size), np.uint8)))
    assert place is not None
    values = np.random.default_rng(0).integers(0, 2**16, (*size, 2)).astype(np.uint16)
    rows = RowArray(values.shape, np.uint16, tmp_path)
    for top in range(0, size[0], 33):
        rows.add(torch.from_numpy(values[top : top + 33]))
    write_geotiff(tmp_path / "maps/a.1.tif", rows, place, channel=1, nodata=65535, scale=0.5)
    write_geotiff(tmp_path / "maps/a.tif", rows, place)
    with rasterio.open(tmp_path / "maps/a.1.tif") as found:
        assert np.array_equal(found.read(1), values[..., 1])
        assert (found.crs, found.transform, found.nodata, found.scales) == (CRS, place.transform, 65535, (0.5,))
        assert (found.compression.value, found.profile["tiled"]) == ("DEFLATE", tiled)
    with rasterio.open(tmp_path / "maps/a.tif") as found:
        assert np.array_equal(found.read(), values.transpose(2, 0, 1))
        assert found.nodata is None
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.1.tif", "a.tif"]


def test_a_picture_of_bytes_has_255_where_the_image_has_no_value(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 4000, (3, 20, 24)).astype(np.float32)
    values[:, :6, :5] = -1
    method = make_method("supervised", lambda number: torch.nn.Conv2d(3, 3, 1), task=Denoising())
    reader = Reader(bands=Bands.of("all", [0, 4000], [0.5] * 3, [0.2] * 3))
    predictor = Predictor(method, tmp_path / "out", reader)
    photo = predictor.read(write_raster(tmp_path / "a.tif", values, nodata=-1), Path("a.tif"))
    output, scores = predictor.compute(photo.seen[None])
    predictor.write(photo, output[0], scores)
    with rasterio.open(tmp_path / "out/predictions/a.tif") as found:
        assert (found.dtypes, found.nodata) == (("uint8",) * 3, 255)
        assert np.array_equal(found.read() == 255, np.broadcast_to(values == -1, (3, 20, 24)))


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    place = georeference(write_raster(tmp_path / "image.tif", np.zeros((1, 8, 8), np.uint8)))
    assert place is not None

    class Broken(RowArray):
        def read(self, rows: slice) -> torch.Tensor:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_geotiff(tmp_path / "maps/a.tif", Broken((8, 8), np.uint8, tmp_path), place)
    assert caught.value.filename == str(tmp_path / "maps/a.tif")
    assert list((tmp_path / "maps").iterdir()) == []
