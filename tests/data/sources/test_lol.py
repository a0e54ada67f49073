"""The folder layouts and scenes of LOL."""

import json
from pathlib import Path

import pytest

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.lol import LOLSource
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save

SPLIT = {
    "train": ["000", "001", "002", "003", "004"],
    "val": ["005"],
    "scene_groups": [["000", "001"], ["002", "003"]],
    "same_scene_as_a_test_image": ["004"],
}


def write(root: Path, layout: dict[str, int]) -> Path:
    for folder, count in layout.items():
        for number in range(count):
            save(root / folder / f"{number:03d}.png", noise(16, 16, 3, seed=number))
    return root


def test_with_a_split(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/low": 6, "train/normal": 6, "test/low": 1, "test/normal": 1})
    (root / "split.json").write_text(json.dumps(SPLIT))
    source = LOLSource(root)
    assert source.labeled() == [f"train/low/00{number}.png" for number in range(4)]
    assert (source.val(), source.test()) == (["train/low/005.png"], ["test/low/000.png"])
    assert source.scene("train/low/001.png") == source.scene("train/low/000.png") != source.scene("train/low/002.png")
    assert len(LOLSource(root, drop_test_scenes=False).labeled()) == 5
    split = SemiSupervisedDataModule(source, labels=1).split
    assert (len(split.labeled), len(split.unlabeled)) == (2, 2)


def test_the_official_layout(tmp_path: Path) -> None:
    source = LOLSource(
        write(tmp_path, {f"{part}/{light}": 3 for part in ("our485", "eval15") for light in ("low", "high")})
    )
    assert source.labeled() == [f"our485/low/00{number}.png" for number in range(3)]
    assert source.test() == [f"eval15/low/00{number}.png" for number in range(3)]
    assert source.image("eval15/low/001.png").equal(source.pair("eval15/low/001.png")[1])


def test_a_group_on_both_sides(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/low": 6, "train/normal": 6})
    (root / "split.json").write_text(json.dumps({**SPLIT, "scene_groups": [["000", "005"]]}))
    with pytest.raises(SemipixError, match=r"split: train/low/005\.png of val shows the scene train/low/000\.png"):
        SemiSupervisedDataModule(LOLSource(root), labels=1)


def test_unpaired(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"train/low/002\.png: found no target of the same stem"):
        LOLSource(write(tmp_path, {"train/low": 3, "train/normal": 2}))


def test_groups_that_are_no_lists(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/low": 6, "train/normal": 6})
    (root / "split.json").write_text(json.dumps({**SPLIT, "scene_groups": ["000"]}))
    with pytest.raises(SemipixError, match=r"split\.json: scene_groups is no list of lists"):
        LOLSource(root)
