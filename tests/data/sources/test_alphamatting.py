"""The folder layout of alphamatting.com."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.alphamatting import MattingSource
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of 40x40 pixels; the trimap is unknown in a square around a hole in the alpha."""
    alpha, trimap = np.full((40, 40), 255, np.uint8), np.full((40, 40), 255, np.uint8)
    alpha[12:20, 12:20] = 100
    trimap[10:22, 10:22] = 128
    for number, stem in enumerate(("a", "b", "v")):
        save(tmp_path / f"images/{stem}.png", noise(40, 40, 3, seed=number))
        save(tmp_path / f"alpha/{stem}.png", alpha)
        save(tmp_path / f"trimap1/{stem}.png", trimap)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["v"]}))
    return tmp_path


def test_lists_and_reads(root: Path) -> None:
    source = MattingSource(root)
    assert (source.labeled(), source.val()) == (["images/a.png", "images/b.png"], ["images/v.png"])
    image, target = source.image("images/a.png"), source.target("images/a.png")
    assert int((image[3] == 0.5).sum()) == int(target[1].sum()) == 144
    assert target[2:].isnan().all()


def test_made_trimaps_need_no_folder(root: Path) -> None:
    for path in (root / "trimap1").iterdir():
        path.unlink()
    (root / "trimap1").rmdir()
    with pytest.raises(SemipixError, match=r"trimap1: no such folder"):
        MattingSource(root)
    source = MattingSource(root, trimap="made", trimap_widths=[2, 2])
    assert int((source.image("images/a.png")[3] == 0.5).sum()) == 144


def test_batches_are_centred_at_the_unknown_region(root: Path, tmp_path: Path) -> None:
    photographs, masks = tmp_path / "portraits", tmp_path / "masks"
    save(photographs / "p.jpg", noise(40, 40, 3))
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 30:] = 1
    save(masks / "p.png", mask)
    source = MattingSource(root, trimap_widths=[1, 1], unlabeled=str(photographs), unlabeled_trimaps=str(masks))
    assert source.unlabeled() == ["unlabeled/p.jpg"]
    data = SemiSupervisedDataModule(source, labels="all", crop=8, workers=0, batch_size=4, scale=[1, 1])
    batch = next(iter(data.train_dataloader()))[0]
    assert batch["labeled"].image.shape == (2, 4, 8, 8)
    assert batch["labeled"].target.shape == (2, 8, 8, 8)
    for image in [*batch["labeled"].image, *batch["unlabeled"].image]:
        assert image[3, 4, 4] == 0.5
    assert torch.equal(batch["labeled"].image[:, 3] == 0.5, batch["labeled"].target[:, 1] == 1)


def test_backgrounds(root: Path, tmp_path: Path) -> None:
    pool = tmp_path / "photographs"
    save(pool / "p.jpg", noise(60, 60, 3))
    with pytest.raises(SemipixError, match=r"photographs.*: found 1 photographs .* but no foreground"):
        MattingSource(root, backgrounds=str(pool))
    save(root / "foregrounds/a.png", noise(40, 40, 3, seed=8))
    source = MattingSource(root, backgrounds=str(pool), replace_background=1)
    image, target = source.pair("images/a.png", 0)
    assert not target[2:].isnan().any()
    assert not torch.equal(image[:3], source.image("images/a.png")[:3])
    assert source.pair("images/b.png", 0)[1][2:].isnan().all()


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"unlabeled": "."}, r"data\.unlabeled_trimaps is missing"),
        ({"trimap": "trimap3"}, r"trimap3: no such folder"),
        ({"backgrounds": "nowhere"}, r"nowhere: no such folder; fix data\.backgrounds"),
        ({"trimap_widths": [-1, 3]}, r"data\.trimap_widths"),
    ],
)
def test_errors(root: Path, options: dict[str, Any], pattern: str) -> None:
    with pytest.raises(SemipixError, match=pattern):
        MattingSource(root, **options)


@pytest.mark.parametrize("part", ["images", "alpha", "trimap1"])
def test_unpaired(root: Path, part: str) -> None:
    save(root / part / "lonely.png", np.zeros((40, 40), np.uint8))
    with pytest.raises(SemipixError, match=rf"{part}/lonely\.png: found no (alpha|input|trimap) of the same stem"):
        MattingSource(root)


def test_an_unlabeled_image_without_trimap(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "more/p.jpg", noise(40, 40, 3))
    (tmp_path / "masks").mkdir()
    with pytest.raises(SemipixError, match=r"more/p: found no trimap of this stem in .*masks"):
        MattingSource(root, unlabeled=str(tmp_path / "more"), unlabeled_trimaps=str(tmp_path / "masks"))
