"""The folders, scenes and patches of SIDD."""

from pathlib import Path

import pytest
import torch

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.sidd import SIDDSource
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save

INSTANCES = [f"{number:04d}_{scene:03d}_S6_00100_L" for number, scene in enumerate((1, 1, 2, 2, 3), 1)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five instances of three scenes with two pairs each; each pair's target is its input."""
    for number, instance in enumerate(INSTANCES):
        for shot in ("010", "011"):
            for part in ("NOISY", "GT"):
                name = f"{instance[:4]}_{part}_SRGB_{shot}.PNG"
                save(tmp_path / "Data" / instance / name, noise(40, 50, 3, seed=2 * number + (shot == "011")))
    return tmp_path


def instances(names: list[str]) -> list[str]:
    return [name.split("/")[0] for name in names]


def test_whole_scenes_are_set_aside(root: Path) -> None:
    source = SIDDSource(root, val_pairs=3, blocks=1)
    assert {source.scene(name) for name in source.labeled()} == {"001"}
    assert {source.scene(name) for name in source.val()} == {"002", "003"}
    assert len(source.labeled()) == 4
    assert instances(source.val()) == INSTANCES[2:], "at most as many as asked for, an instance once before one twice"
    assert SIDDSource(root / "Data", val_pairs=3).labeled() == source.labeled()


def test_the_first_pairs_of_all_instances_come_first(root: Path) -> None:
    source = SIDDSource(root, train_pairs=4, val_pairs=2)
    assert instances(source.labeled()) == INSTANCES[:4]
    assert all("_010" in name for name in source.labeled())


def test_labels_count_pairs_not_patches(root: Path) -> None:
    split = SemiSupervisedDataModule(SIDDSource(root, val_pairs=2), labels=3).split
    assert (len(split.labeled), len(split.unlabeled)) == (3, 5)
    assert all("#" not in name for name in split.labeled + split.unlabeled)


def test_patches_are_cut_from_the_pair(root: Path) -> None:
    data = SemiSupervisedDataModule(SIDDSource(root, val_pairs=2), labels="1/2", crop=16, workers=0, batch_size=4)
    batches = [batch for batch, _, _ in data.train_dataloader()]
    for batch in batches:
        labeled = batch["labeled"]
        assert labeled.image.shape == labeled.target.shape == (2, 3, 16, 16)
        assert torch.equal(labeled.image, labeled.target)
    assert len({float(image.sum()) for batch in batches for image in batch["labeled"].image}) > 2


def test_validation_blocks(root: Path) -> None:
    source = SIDDSource(root, val_pairs=2, block=16, blocks=4)
    assert len(source.val()) == 8
    blocks = [source.pair(name)[1] for name in source.val()[:4]]
    whole = source.image(source.val()[0].partition("#")[0])
    places = []
    for name, block in zip(source.val(), blocks, strict=False):
        assert block.shape == (3, 16, 16)
        assert torch.equal(source.image(name), block)
        windows = whole.unfold(1, 16, 1).unfold(2, 16, 1)  # (3, rows, columns, 16, 16)
        places.append((windows == block[:, None, None]).all(-1).all(-1).all(0).nonzero().tolist())
    assert places == [[[2, 4]], [[2, 30]], [[22, 4]], [[22, 30]]]


def test_a_block_larger_than_the_image_is_the_image(root: Path) -> None:
    source = SIDDSource(root, val_pairs=2, block=300)
    assert source.image(source.val()[0]).shape == (3, 40, 50)


def test_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"data\.blocks=0: expected at least 1"):
        SIDDSource(root, blocks=0)
    (root / "empty").mkdir()
    with pytest.raises(SemipixError, match=r"empty: found no NOISY_SRGB image"):
        SIDDSource(root / "empty")
    lonely = save(root / "Data/0009_004_S6/0009_NOISY_SRGB_010.PNG", noise(8, 8, 3))
    with pytest.raises(SemipixError, match=r"0009_NOISY_SRGB_010\.PNG: found no GT_SRGB image beside it"):
        SIDDSource(root)
    lonely.rename(root / "Data/NOISY_SRGB_010.PNG")
    save(root / "Data/GT_SRGB_010.PNG", noise(8, 8, 3))
    with pytest.raises(SemipixError, match=r"expected it in a folder called NUMBER_SCENE_PHONE_\.\.\."):
        SIDDSource(root)


def test_one_scene_cannot_be_shared(root: Path) -> None:
    only = root / "one" / INSTANCES[0]
    for part in ("NOISY", "GT"):
        save(only / f"{part}_SRGB_010.PNG", noise(8, 8, 3))
    with pytest.raises(SemipixError, match=r"found 1 pairs of one scene, expected several"):
        SIDDSource(root / "one")


def test_sizes_differ(root: Path) -> None:
    source = SIDDSource(root, val_pairs=2)
    name = source.labeled()[0]
    save(root / "Data" / name.replace("NOISY", "GT"), noise(8, 9, 3))
    with pytest.raises(SemipixError, match=r"GT_SRGB_010\.PNG: target is 9x8 pixels, its image .* is 50x40"):
        source.pair(name)[1]
