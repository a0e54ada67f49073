"""Features of image files by the pretrained encoder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semipix.data import pick_features
from semipix.data.files.cache import DiskCache
from semipix.data.files.reader import Reader
from semipix.data.pick_features import CHANNELS, DEPTHS, SIDE, at_depth, features_of
from tests.helpers.tiny_files import noise, save, save_image

READER = Reader((SIDE, SIDE))


@pytest.mark.slow
def test_features_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, files that cannot be read, orientation and the cache in one, since the encoder takes seconds."""
    monkeypatch.setattr(pick_features, "BATCH", 2)
    pixels = noise(24, 32, 3)
    upright = save(tmp_path / "a.png", pixels)
    tag = Image.Exif()
    tag[0x0112] = 6  # stored turned by a quarter
    turned = save(tmp_path / "turned.png", np.rot90(pixels).copy(), exif=tag)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    other = save_image(tmp_path / "grey.png")
    paths = [upright, broken, turned, other, tmp_path / "missing.png"]
    cache = DiskCache(tmp_path / "cache", 2**20)
    found, problems = features_of(paths, READER, cache)
    assert found.shape == (5, sum(CHANNELS))
    assert sorted(problems) == [1, 4]
    assert "broken.png" in problems[1]
    assert np.isnan(found[[1, 4]]).all()
    assert np.allclose(found[0], found[2], atol=1e-3)
    assert not np.allclose(found[0], found[3], atol=0.1)

    monkeypatch.setattr(pick_features, "Encoder", None)  # all that can be read is in the cache
    again, _ = features_of([upright, turned, other], READER, cache)
    assert np.array_equal(again, found[[0, 2, 3]])
    save(upright, noise(24, 32, 3, seed=1))
    with pytest.raises(TypeError):  # a changed file needs the encoder
        features_of([upright], READER, cache)


def test_all_maps_have_the_same_weight() -> None:
    features = np.random.default_rng(0).normal(3, 5, (50, sum(CHANNELS))).astype(np.float32)
    features[:, 0] = 7.0  # the same in all images
    for depth, maps in DEPTHS.items():
        values = at_depth(features, depth)
        assert values.shape == (50, sum(CHANNELS[number] for number in maps))
        assert np.allclose(values.mean(0), 0, atol=1e-4)
        lengths = (values**2).sum(1).mean()
        assert lengths == pytest.approx(len(maps) - (1 / CHANNELS[0] if 0 in maps else 0), rel=1e-3)
    assert not at_depth(features, "early")[:, 0].any()
