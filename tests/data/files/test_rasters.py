"""Bands of files: their order, their scale, and what is missing; and what is refused.

Also tests data/files/bands.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from semipix.data.files import rasters
from semipix.data.files.bands import BandImage, Bands, missing_pixels
from semipix.data.files.cache import MemoryCache
from semipix.data.files.opening import Encoded
from semipix.data.files.rasters import bands_header, georeference, read_bands
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image
from semipix.errors import SemipixError, UnreadableFileError
from tests.helpers.rasters import CRS, write_raster

MOST = 10**6


def settings(bands: Any = "all", limits: Any = None, **statistics: Any) -> Bands:
    found = Bands.of(bands, limits, **statistics)
    assert found is not None
    return found


def noise(*shape: int, high: int = 3000, dtype: str = "float32") -> Any:
    return np.random.default_rng(0).uniform(0, high, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint32", "int32"])
@pytest.mark.parametrize("extension", ["tif", "npy"])
def test_bands_are_read_in_the_order_asked_for(tmp_path: Path, dtype: str, extension: str) -> None:
    values, path = noise(8, 6, 7, dtype=dtype), tmp_path / f"a.{extension}"
    if extension == "npy":
        np.save(path, values.transpose(1, 2, 0))
    else:
        write_raster(path, values)
    image = read_bands(path, settings([3, 0, 7], [100, 2100]), MOST)
    assert image.dtype == torch.float32
    expected = np.clip((values[[3, 0, 7]].astype(np.float64) - 100) / 2000, 0, 1)
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)
    assert bands_header(path, MOST) == ((6, 7), 1, 1, 0)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("extension", ["tif", "npy", "png"])
def test_numbers_of_8_and_16_bits_have_the_range_of_their_type(
    tmp_path: Path, dtype: str, top: int, extension: str
) -> None:
    """As images of colours have; a PNG of 8 bits may have 4 bands, and alpha is one of them."""
    bands = {"png": 4 if dtype == "uint8" else 1}.get(extension, 6)
    values, path = noise(bands, 6, 7, high=top, dtype=dtype), tmp_path / f"a.{extension}"
    if extension == "tif":
        write_raster(path, values)
    elif extension == "npy":
        np.save(path, values.transpose(1, 2, 0))
    else:
        Image.fromarray(values.transpose(1, 2, 0).squeeze()).save(path)
    image = read_bands(path, settings(), MOST)
    np.testing.assert_allclose(image.numpy(), values / top, atol=1e-6)


@pytest.mark.parametrize(("dtype", "depth"), [("uint16", 12), ("uint8", 4), ("uint8", 1)])
def test_fewer_bits_than_the_type_has_are_the_range(tmp_path: Path, dtype: str, depth: int) -> None:
    values = noise(2, 6, 7, high=2**depth, dtype=dtype)
    write_raster(tmp_path / "a.tif", values, NBITS=depth)
    image = read_bands(tmp_path / "a.tif", settings(), MOST)
    np.testing.assert_allclose(image.numpy(), values / (2**depth - 1), atol=1e-6)


def test_each_band_may_have_a_range_of_its_own(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.stack([np.full((4, 4), 5.0), np.full((4, 4), 300.0)]))
    image = read_bands(path, settings([1, 0], [[100, 500], [0, 10]]), MOST)
    assert image.flatten(1).unique(dim=1).flatten().tolist() == [0.5, 0.5]


def test_nodata_nan_and_infinity_are_missing_in_their_band_alone(tmp_path: Path) -> None:
    values = noise(3, 6, 7)
    values[0, 1, 1], values[1, 2, 2], values[2, 3, 3] = -9999, np.nan, np.inf
    path = write_raster(tmp_path / "a.tif", values, nodata=-9999)
    image = read_bands(path, settings("all", [0, 3000], mean=[0.1, 0.2, 0.3], std=[1, 1, 1]), MOST)
    assert image.isnan().nonzero().tolist() == [[0, 1, 1], [1, 2, 2], [2, 3, 3]]
    missing = missing_pixels(image)
    assert missing is not None
    assert missing.nonzero().tolist() == [[1, 1], [2, 2], [3, 3]]
    assert missing_pixels(image[:, :1]) is None
    filled = settings("all", mean=[0.1, 0.2, 0.3], std=[1, 1, 1]).filled(image)
    assert [filled[0, 1, 1], filled[1, 2, 2], filled[2, 3, 3]] == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(filled[~image.isnan()], image[~image.isnan()])


def test_near_infrared_that_is_tagged_as_alpha_masks_nothing(tmp_path: Path) -> None:
    """Many programs tag a fourth band like this."""
    pytest.importorskip("rasterio")
    values = noise(4, 6, 7, high=255, dtype="uint8")
    values[3, :3] = 0
    Image.fromarray(values.transpose(1, 2, 0), "RGBA").save(tmp_path / "a.tif")
    image = read_bands(tmp_path / "a.tif", settings(), MOST)
    np.testing.assert_allclose(image.numpy(), values / 255, atol=1e-6)


def test_no_band_is_resized_like_a_trimap(tmp_path: Path) -> None:
    """Channels after the third are, of images of colours; and a pixel of mostly missing ones is missing."""
    values = noise(5, 32, 32)
    values[:, :8, :8] = np.nan
    path = write_raster(tmp_path / "a.tif", values)
    reader = Reader(16, bands=settings("all", [0, 3000]))
    image = reader.tensor(path)
    assert isinstance(image, BandImage)
    small = resize_image(image, 16).as_subclass(torch.Tensor)
    alone = [resize_image(tv_tensors.Image(image[number : number + 1]), 16) for number in range(5)]
    torch.testing.assert_close(small, torch.cat(alone).as_subclass(torch.Tensor), equal_nan=True)
    assert bool(small[:, :3, :3].isnan().all())
    assert not bool(small[:, 5:].isnan().any())


def test_a_cache_distinguishes_bands_and_ranges(tmp_path: Path) -> None:
    path, cache = write_raster(tmp_path / "a.tif", noise(3, 6, 7)), MemoryCache(2**20)
    for bands in (settings([0], [0, 3000]), settings([1], [0, 3000]), settings([1], [0, 1500])):
        for _ in range(2):
            assert torch.equal(Reader(cache=cache, bands=bands).image(path), read_bands(path, bands, MOST))


def test_names_that_rasterio_would_take_for_addresses(tmp_path: Path) -> None:
    values = noise(3, 6, 7)
    plain = write_raster(tmp_path / "a.tif", values)
    content = plain.read_bytes()
    expected = read_bands(plain, settings("all", [0, 3000]), MOST)
    for name in ("s3:a.tif", "zip+a!b.tif", "caf\udce9.tif"):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_bands(tmp_path / name, settings("all", [0, 3000]), MOST), expected)
    assert torch.equal(read_bands(Encoded("b.tif", content), settings("all", [0, 3000]), MOST), expected)


def test_other_formats_of_gdal_are_not_opened(tmp_path: Path) -> None:
    """A VRT names further files, or hosts."""
    write_raster(tmp_path / "a.tif", noise(3, 6, 7))
    (tmp_path / "b.tif").write_text(
        '<VRTDataset rasterXSize="7" rasterYSize="6"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path / 'a.tif'}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(UnreadableFileError, match=r"b\.tif: corrupt or truncated image"):
        read_bands(tmp_path / "b.tif", settings("all", [0, 3000]), MOST)


def test_georeference(tmp_path: Path) -> None:
    found = georeference(write_raster(tmp_path / "a.tif", noise(3, 6, 7)))
    assert found is not None
    assert found.crs == CRS
    assert tuple(found.transform)[:6] == (10, 0, 500000, 0, -20, 5000000)
    assert georeference(write_raster(tmp_path / "b.tif", noise(3, 6, 7), placed=False)) is None
    points = [rasters.load_rasterio(tmp_path).control.GroundControlPoint(row, 2 * row, row, row) for row in range(4)]
    with rasters.load_rasterio(tmp_path).open(tmp_path / "b.tif", "r+") as dataset:
        dataset.gcps = points, CRS
    assert georeference(tmp_path / "b.tif") is None, "points are no transform"
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    assert georeference(tmp_path / "c.png") is None


def _palette(path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8)).convert("P").save(path)


def _turned(path: Path) -> None:
    Image.new("L", (8, 4)).save(path, tiffinfo={274: 6})


def _cut_off(path: Path) -> None:
    write_raster(path, noise(3, 40, 40))
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("write", "bands", "message"),
    [
        (
            lambda path: write_raster(path, noise(3, 6, 7) + 5),
            settings(),
            r"float32 numbers from \S+ to \S+; expected data",
        ),
        (
            lambda path: write_raster(path, noise(3, 6, 7)),
            settings([0, 3]),
            r"3 bands, numbered from 0; expected band 3",
        ),
        (
            lambda path: write_raster(path, noise(3, 6, 7)),
            settings("all", mean=[0.5] * 4, std=[0.1] * 4),
            "holds 3 bands; expected 4, as the first training images have",
        ),
        (
            lambda path: write_raster(path, noise(3, 6, 7)),
            settings("all", [[0, 1], [0, 2]]),
            "holds 3 bands; expected 2, as data.range has pairs",
        ),
        (lambda path: write_raster(path, noise(1, 1200, 1200)), settings("all", [0, 1]), "1200x1200 pixels, more than"),
        (
            lambda path: write_raster(path, noise(5, 950, 950)),
            settings("all", [0, 1]),
            "5 bands of 950x950 pixels, more",
        ),
        (_palette, settings(), "indices of a palette"),
        (_turned, settings(), r"stored turned \(orientation 6\)"),
        (_cut_off, settings("all", [0, 1]), "corrupt or truncated image"),
        (lambda path: path.write_text("no image"), settings(), "corrupt or truncated image"),
        (lambda path: None, settings(), "no such file; restore it"),
    ],
)
def test_what_is_refused(tmp_path: Path, write: Callable[[Path], Any], bands: Bands, message: str) -> None:
    pytest.importorskip("rasterio")
    write(tmp_path / "a.tif")
    with pytest.raises(SemipixError, match=rf"a\.tif: .*{message}") as caught:
        read_bands(tmp_path / "a.tif", bands, MOST)
    assert "\n" not in str(caught.value)


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 6, 7))

    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(rasters, "_imported", missing)
    with pytest.raises(SemipixError, match=r"a\.tif: rasterio is not installed.*pip install 'semipix\[geo\]'"):
        read_bands(path, settings(), MOST)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([],), "data.bands=[]: expected at least one band"),
        (([1, 1],), "data.bands=[1, 1]: expected at least one band, and each only once"),
        (([0, -1],), "data.bands=[0, -1]: expected all, or a list"),
        (("red",), "data.bands=red: expected all, or a list"),
        (("all", [5, 5]), "data.range=[5, 5]: expected [low,high]"),
        (("all", [[0, 1], [0]]), "data.range=[[0, 1], [0]]: expected [low,high]"),
        (("all", [0, 1, 2]), "data.range=[0, 1, 2]: expected [low,high]"),
        (([0, 1], [[0, 1], [0, 1], [0, 1]]), "different numbers of bands, 2 in data.bands, 3 in data.range"),
        (([0, 1], None, [0.5], [0.1]), "different numbers of bands, 2 in data.bands, 1 in data.mean"),
        (("all", None, [0.5]), "data.mean=[0.5], data.std=null: expected both"),
        (("all", None, [1353.0], [200.0]), "data.mean=[1353]: expected numbers of values from 0 to 1"),
        ((None, None, [0.5], [0.1]), "data.mean=[0.5]: found it without data.bands or data.range"),
    ],
)
def test_settings_that_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SemipixError) as caught:
        Bands.of(*given)
    assert message in str(caught.value)


def test_a_range_alone_reads_all_bands() -> None:
    assert Bands.of(None) is None
    assert Bands.of(None, [0, 1]) == Bands.of("all", [0, 1])
    assert [settings([4, 2]).count, settings().count, settings(mean=[0.5], std=[0.1]).count] == [2, None, 1]
