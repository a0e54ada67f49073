"""Statistics of bands are those of the values that are there."""

from pathlib import Path

import numpy as np
import pytest

from semipix.data import band_statistics
from semipix.data.band_statistics import with_measured_statistics
from semipix.data.files.bands import Bands
from semipix.data.files.reader import Reader
from semipix.errors import SemipixError
from tests.helpers.tiny import TinySource


class Arrays(TinySource):
    """Arrays in a folder."""

    def __init__(self, root: Path, bands: Bands) -> None:
        super().__init__()
        self.root, self.bands = root, bands
        self.reader = Reader(bands=bands)

    def image(self, name, seed=None):  # type: ignore[no-untyped-def]
        return self.reader.tensor(self.root / name)


def measured(root: Path, names: list[str]) -> Bands:
    bands = Bands.of("all", [0, 10])
    assert bands is not None
    return with_measured_statistics(bands, Arrays(root, bands), names)


def test_mean_and_deviation_of_each_band(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 10, (4, 6, 7, 3)).astype(np.float32)
    values[1, 2:4, :, 0] = np.nan
    names = [f"{number}.npy" for number in range(4)]
    for name, each in zip(names, values, strict=True):
        np.save(tmp_path / name, each)
    found = measured(tmp_path, names)
    assert found.mean == pytest.approx(np.nanmean(values / 10, (0, 1, 2)), rel=1e-5)
    assert found.std == pytest.approx(np.nanstd(values / 10, (0, 1, 2)), rel=1e-4)


def test_a_constant_band_has_a_deviation(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 4, 1), 5.0))
    assert measured(tmp_path, ["a.npy"]).std == (band_statistics.LEAST_STD,)


def test_a_sample_of_many_images_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_statistics, "IMAGES", 2)
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((4, 4, 1), float(number)))
    assert measured(tmp_path, [f"{number}.npy" for number in range(4)]).mean == pytest.approx((0.1,))


def test_bands_that_differ_or_have_no_value(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3)))
    np.save(tmp_path / "b.npy", np.zeros((4, 4, 2)))
    np.save(tmp_path / "c.npy", np.stack([np.zeros((4, 4)), np.full((4, 4), np.nan)], 2))
    with pytest.raises(SemipixError, match=r"b\.npy: holds 2 bands, but a\.npy holds 3"):
        measured(tmp_path, ["a.npy", "b.npy"])
    with pytest.raises(SemipixError, match=r"no value of band 1 is known"):
        measured(tmp_path, ["c.npy"])
