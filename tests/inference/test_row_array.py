"""Arrays that are written row by row, and their PNG files."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semipix.inference import row_array
from semipix.inference.row_array import RowArray


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("shape", "kind"), [((37, 11), "uint8"), ((37, 11), "uint16"), ((37, 11, 3), "uint8")])
def test_a_png_has_the_rows_that_were_added(
    in_memory: bool, shape: tuple[int, ...], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_array, "IN_MEMORY", 10**6 if in_memory else 0)
    monkeypatch.setattr(row_array, "BLOCK", 7 * 11 * 2)
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape).astype(kind)
    array = RowArray(shape, kind, tmp_path / "new")
    for top in range(0, 37, 10):
        array.add(torch.from_numpy(values[top : top + 10].copy()))
    assert array.nbytes == (values.nbytes if in_memory else 0)
    assert np.array_equal(array.read(slice(5, 21)).numpy(), values[5:21])
    assert np.array_equal(array.whole().numpy(), values)
    file = io.BytesIO()
    array.save(file)
    found = Image.open(file)
    found.load()
    assert np.array_equal(np.asarray(found), values)
    array.close()
    assert not in_memory or not (tmp_path / "new").exists()


def test_a_channel_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(5 * 4 * 2, dtype=torch.uint8).view(5, 4, 2)
    for limit in (10**6, 0):
        monkeypatch.setattr(row_array, "IN_MEMORY", limit)
        array = RowArray((5, 4, 2), np.uint8, tmp_path)
        array.add(values)
        file = io.BytesIO()
        array.save(file, channel=1)
        assert np.array_equal(np.asarray(Image.open(file)), values[..., 1].numpy())
