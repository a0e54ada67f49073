"""The sources of real data sets; tests are skipped if the data are not on this machine.

Also tests data/sources/camvid.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from semipix.batch import VOID
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.decode import unit_range
from semipix.data.source import Source
from semipix.data.sources.alphamatting import MattingSource
from semipix.data.sources.camvid import CAMVID_CLASSES, CamVidSource
from semipix.data.sources.lol import LOLSource
from semipix.data.sources.polyu import PolyUSource
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save

REAL = Path(__file__).parents[3] / "shared" / "data"

SOURCES = {"camvid": CamVidSource, "lol": LOLSource, "matting": MattingSource, "polyu": PolyUSource}

COUNTS = {"camvid": (367, 0, 101, 233), "lol": (397, 0, 64, 15), "matting": (20, 0, 7, 0), "polyu": (75, 230, 25, 0)}
"""Labeled, unlabeled, validation and test images."""

LABELS = {"camvid": 12, "lol": 10, "matting": 4, "polyu": 4}


def real(name: str) -> Source:
    if not (REAL / name).is_dir():
        pytest.skip(f"needs {name} in ../shared/data")
    return SOURCES[name](REAL / name)


@pytest.mark.parametrize("name", SOURCES)
def test_real_data(name: str) -> None:
    source = real(name)
    assert tuple(map(len, (source.labeled(), source.unlabeled(), source.val(), source.test()))) == COUNTS[name]
    split = SemiSupervisedDataModule(source, labels=LABELS[name]).split
    assert len({source.scene(image) for image in split.labeled}) == LABELS[name]
    for image in (split.labeled[0], split.val[-1]):
        picture, target = map(unit_range, source.pair(image)) if source.classes is None else source.pair(image)
        assert picture.shape[-2:] == target.shape[-2:]
        assert 0 <= unit_range(picture).min() <= unit_range(picture).max() <= 1
    if name == "camvid":
        assert (REAL / name / "classes.txt").read_text().split() == CAMVID_CLASSES
        assert set(target.unique().tolist()) <= {*range(11), VOID}
    if name == "matting":
        assert 0.005 < target[1].mean() < 0.6
        known = target[1] == 0
        assert (target[0][known] - picture[3][known]).abs().mean() < 0.02
    if name in ("polyu", "lol"):
        error = ((picture - target) ** 2).mean().log10() * -10
        assert (30 < error < 43) if name == "polyu" else (error < 15)


@pytest.mark.parametrize("name", ["polyu", "lol"])
def test_real_scenes(name: str) -> None:
    source = real(name)
    scenes = {source.scene(image) for image in source.labeled()}
    assert len(scenes) < len(source.labeled())
    assert not scenes & {source.scene(image) for image in source.val()}


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        SemipixError, match=r"(no such folder|expected a data folder|found no such).*fix data\.root"
    ) as caught:
        SOURCES[name](tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_camvid_in_segnets_layout(tmp_path: Path) -> None:

    for split in ("train", "val", "test"):
        save(tmp_path / f"{split}/a.png", noise(6, 8, 3))
        save(tmp_path / f"{split}annot/a.png", np.full((6, 8), 11 if split == "val" else 10, np.uint8))
    source = CamVidSource(tmp_path)
    assert (source.labeled(), source.val(), source.test()) == (["train/a.png"], ["val/a.png"], ["test/a.png"])
    assert source.classes == CAMVID_CLASSES
    assert (source.pair("val/a.png")[1] == VOID).all()
    assert torch.equal(source.pair("train/a.png")[1], torch.full((6, 8), 10))
