"""Data for regression that is made from photographs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks.accuracy import make_data
from PIL import Image

from semipix.data.sources.alphamatting import MattingSource
from semipix.data.sources.pairs import PairsSource
from semipix.errors import SemipixError

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training images and one test image of 48x64 pixels, each with a mask of its left part."""
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 1)):
        for number in range(count):
            colours = np.kron(generator.integers(40, 220, (6, 8, 3)), np.ones((8, 8, 1)))
            mask = np.zeros((48, 64), np.uint8)
            mask[:, : 24 + 8 * number] = 1
            for folder, values in (("images", colours.astype(np.uint8)), ("masks", mask)):
                path = root / folder / part / f"{part}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return root


@pytest.fixture
def make(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run the script on the photographs; returns the folder that it wrote."""

    def call(kind: str, *more: str, out: str = "made", source: Path = photographs) -> Path:
        counts = ["--size", "32", "--train", "2", "--val", "1", "--test", "1", *more]
        monkeypatch.setattr("sys.argv", ["make_data", kind, str(source), str(tmp_path / out), *counts])
        make_data.main()
        return tmp_path / out

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["noisy", "dark"])
def test_pairs_are_read_by_their_source_and_differ_from_image_to_image(kind: str, make: Make) -> None:
    source = PairsSource(make(kind), "denoising")
    names = [*source.labeled(), *source.val(), *source.test()]
    assert (len(source.labeled()), len(source.val()), len(source.test())) == (2, 1, 1)
    pairs = [source.pair(name) for name in names]
    assert {tuple(part.shape) for pair in pairs for part in pair} == {(3, 24, 32)}
    if kind == "dark":
        # Much darker, each by factors of its own for each colour.
        shares = np.array(
            [(image.float().mean((1, 2)) / target.float().mean((1, 2))).numpy() for image, target in pairs]
        )
        assert shares.max() < 0.95
        assert shares.std(0).min() > 0.02
        assert (shares / shares[:, 1:2]).std(0)[[0, 2]].min() > 0.02
    else:
        levels = [float((image.float() - target.float()).square().mean().sqrt()) for image, target in pairs]
        assert max(levels) > 1.5 * min(levels) > 0


def test_mattes_are_read_by_their_source(make: Make) -> None:
    folder = make("mattes")
    source = MattingSource(folder)
    assert (len(source.labeled()), len(source.val()), len(source.test())) == (2, 1, 1)
    image, target = source.pair(source.test()[0])
    alpha, trimap = target[0], image[3]
    assert alpha.shape == trimap.shape == (24, 32)
    # The mask covers 24 of 64 columns: 12 of 32, with a soft edge there and nowhere else.
    assert alpha[:, :8].min() == 1
    assert alpha[:, 16:].max() == 0
    assert 0.3 < alpha[:, 11:13].mean() < 0.7
    unknown = (trimap == 0.5).sum(1)
    assert ((trimap == 0.5) | (trimap == alpha)).all()
    assert (unknown == unknown[0]).all()
    widths = {int(np.sum(np.asarray(Image.open(path))[0] == 128)) for path in (folder / "trimap1").iterdir()}
    assert len(widths) > 1


@pytest.mark.parametrize("kind", ["mattes", "noisy"])
def test_the_same_photographs_give_the_same_data(kind: str, make: Make) -> None:
    first, again = (contents(make(kind, out=out)) for out in ("first", "again"))
    assert len(first) >= 8
    assert first == again


def test_parts_are_spread_over_the_training_images_without_overlap(make: Make) -> None:
    lists = json.loads((make("mattes") / "split.json").read_text())
    assert sorted(lists["train"] + lists["val"]) == ["train0", "train1", "train2"]
    assert lists["test"] == ["test0"]


def test_what_cannot_be_made_is_refused(make: Make, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"--train 3 --val 1 --test 1: found 3 photographs in images/train and 1 in"):
        make("noisy", "--train", "3")
    (tmp_path / "there").mkdir()
    with pytest.raises(SemipixError, match=r"there: exists already; remove it or choose another folder"):
        make("noisy", out="there")
    with pytest.raises(SemipixError, match=r"nowhere: found nothing, expected a data folder with images/train"):
        make("noisy", source=tmp_path / "nowhere")


def test_faulty_masks_are_refused_and_nothing_is_left(make: Make, photographs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(photographs, tmp_path / "copy")
    mask = copy / "masks/test/test0.png"
    Image.fromarray(np.asarray(Image.open(mask)) * 2).save(mask)
    with pytest.raises(SemipixError, match=r"test0\.png: found class 2, expected 0 for the background and 1 for"):
        make("mattes", source=copy)
    mask.unlink()
    with pytest.raises(SemipixError, match=r"images/test/test0\.png: found no mask; add it, or make noisy or dark"):
        make("mattes", source=copy)
    (copy / "images/test/test0.png").rename(copy / "images/test/train1.png")
    with pytest.raises(SemipixError, match=r"images/test/train1\.png: same stem as images/train/train1\.png; expected"):
        make("noisy", source=copy)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
