"""The folder layout and scenes of PolyU."""

import json
from pathlib import Path

import pytest
import torch

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.polyu import PolyUSource, camera_and_object
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save

CROPS = [f"Canon5D2_5_160_3200_{what}_{number}" for what in ("chair", "plug", "desk") for number in (1, 2, 3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, crop in enumerate(CROPS):
        for part in ("noisy", "clean"):
            save(tmp_path / f"{part}/{crop}.jpg", noise(16, 16, 3, seed=number))
    save(tmp_path / "unlabeled/Canon5D2_bag_00.jpg", noise(16, 16, 3))
    return tmp_path


def test_scenes() -> None:
    assert camera_and_object("noisy/Canon5D2_5_160_3200_chair_11.jpg") == "Canon5D2/chair"
    assert camera_and_object("unlabeled/Canon5D2_bag_00.jpg") == "Canon5D2/bag"


def test_labels_count_scenes_and_validation_shows_others(root: Path) -> None:
    source = PolyUSource(root)
    split = SemiSupervisedDataModule(source, labels=1, val=1).split
    assert (len(split.labeled), len(split.unlabeled), len(split.val)) == (3, 4, 3)
    assert len({source.scene(name) for name in split.labeled}) == 1


def test_defaults_keep_the_noise_as_it_is(root: Path) -> None:
    data = SemiSupervisedDataModule(PolyUSource(root), labels=1, val=1, crop=8, workers=0)
    assert data.scale == (1, 1)
    image = next(iter(data.train_dataloader()))[0]["unlabeled"].image
    assert torch.equal(data.strong(image, range(len(image)), 1), image)


def test_a_split_that_shows_one_scene_on_both_sides(root: Path) -> None:
    (root / "split.json").write_text(json.dumps({"train": CROPS[:4], "val": CROPS[4:]}))
    with pytest.raises(SemipixError, match=r"split: noisy/.*plug_[23]\.jpg of val shows the scene Canon5D2/plug"):
        SemiSupervisedDataModule(PolyUSource(root), labels=1)
    (root / "split.json").write_text(json.dumps({"train": CROPS[:3], "val": CROPS[3:]}))
    assert len(SemiSupervisedDataModule(PolyUSource(root), labels="all").split.val) == 6


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("nonsense", r"split\.json: not a split file"),
        ("[]", r"split\.json: not a split file"),
        ('{"train": 3}', r"split\.json: train is no list of names"),
        ('{"train": ["b", "a"]}', r"split\.json: train names a and 1 more images that do not exist"),
    ],
)
def test_split_errors(root: Path, content: str, pattern: str) -> None:
    (root / "split.json").write_text(content)
    with pytest.raises(SemipixError, match=pattern):
        PolyUSource(root)


@pytest.mark.parametrize(("part", "missing"), [("noisy", "target"), ("clean", "input")])
def test_unpaired(root: Path, part: str, missing: str) -> None:
    save(root / part / "lonely.jpg", noise(16, 16, 3))
    with pytest.raises(SemipixError, match=rf"{part}/lonely\.jpg: found no {missing} of the same stem"):
        PolyUSource(root)
