"""The lists and masks of VOC and SBD."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources import voc
from semipix.data.sources.voc import VOC_CLASSES, VOCSource
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save

LISTS = {
    "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": ["a", "b"],
    "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": ["v", "w"],
    "sbd/train.txt": ["b", "c", "v"],
    "sbd/val.txt": ["d", "w"],
}
"""SBD's lists hold validation images of VOC's, which must not be trained on."""


def mask(value: int) -> np.ndarray:
    values = np.full((6, 8), value, np.uint8)
    values[0] = 255
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC with masks of 1, SBD as PNG with masks of 2."""
    for name, stems in LISTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("\n".join(stems) + "\n")
    for stem in "abcdvw":
        save(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{stem}.jpg", noise(6, 8, 3))
        save(tmp_path / f"VOCdevkit/VOC2012/SegmentationClassAug/{stem}.png", mask(2))
    for stem in "abvw":
        save(tmp_path / f"VOCdevkit/VOC2012/SegmentationClass/{stem}.png", mask(1))
    return tmp_path


def stems(names: list[str]) -> str:
    return "".join(Path(name).stem for name in names)


def test_the_augmented_training_list(root: Path) -> None:
    source = VOCSource(root)
    assert (stems(source.labeled()), stems(source.val()), source.test()) == ("abcd", "vw", [])
    assert source.classes == VOC_CLASSES
    assert len(VOC_CLASSES) == 21
    values = {name: source.pair(f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")[1][1, 1].item() for name in "abcdvw"}
    assert values == {"a": 1, "b": 1, "c": 2, "d": 2, "v": 1, "w": 1}, "VOC's masks count before SBD's"
    assert (source.pair(source.labeled()[0])[1][0] == 255).all()


def test_without_sbd(root: Path) -> None:
    for name in ("train", "val"):
        (root / f"sbd/{name}.txt").unlink()
    assert stems(VOCSource(root, augmented=False).labeled()) == "ab"
    with pytest.raises(
        SemipixError, match=r"sbd/train\.txt: no such file; set data\.augmented=false to train without SBD"
    ):
        VOCSource(root)


def test_small_images_are_padded_with_void(root: Path) -> None:
    data = SemiSupervisedDataModule(
        VOCSource(root), labels="all", crop=12, pad=True, scale=[1, 1], workers=0, batch_size=4
    )
    (batch,) = [batch["labeled"] for batch, _, _ in data.train_dataloader()]
    assert batch.target.shape == (4, 12, 12)
    assert ((batch.target == 255).sum((1, 2)) == 144 - 5 * 8).all()


def test_missing_files_are_reported_at_once(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/JPEGImages/c.jpg").unlink()
    (root / "VOCdevkit/VOC2012/SegmentationClassAug/d.png").unlink()
    with pytest.raises(
        SemipixError, match=r"JPEGImages/c\.jpg: no such file, and 1 more of the split lists are missing"
    ):
        VOCSource(root)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"JPEGImages: no such folder; .*fix data\.root"):
        VOCSource(tmp_path)


class TestMatFiles:
    @pytest.fixture
    def sbd(self, root: Path) -> Path:
        folder = root / "VOCdevkit/VOC2012/SegmentationClassAug"
        for path in folder.glob("*"):
            (root / "sbd/cls").mkdir(exist_ok=True)
            (root / f"sbd/cls/{path.stem}.mat").write_bytes(b"broken")
            path.unlink()
        folder.rmdir()
        return root

    def test_masks(self, sbd: Path) -> None:
        for path in (sbd / "sbd/cls").glob("*.mat"):
            content = np.zeros((1, 1), [("Segmentation", object)])
            content["Segmentation"][0, 0] = mask(7)
            io.savemat(path, {"GTcls": content})
        source = VOCSource(sbd)
        assert stems(source.labeled()) == "abcd"
        assert source.pair("VOCdevkit/VOC2012/JPEGImages/c.jpg")[1].unique().tolist() == [7, 255]

    def test_a_broken_file(self, sbd: Path) -> None:
        with pytest.raises(SemipixError, match=r"c\.mat: no SBD mask"):
            VOCSource(sbd).pair("VOCdevkit/VOC2012/JPEGImages/c.jpg")[1]

    def test_a_file_of_another_structure(self, sbd: Path) -> None:
        path = sbd / "sbd/cls/c.mat"
        io.savemat(path, {"GTinst": np.zeros((1, 1))})
        with pytest.raises(SemipixError, match=r"c\.mat: no SBD mask"):
            VOCSource(sbd).pair("VOCdevkit/VOC2012/JPEGImages/c.jpg")[1]


class TestDownload:
    def test_only_what_is_missing_is_fetched(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched: list[str] = []
        monkeypatch.setattr(voc, "VOCSegmentation", lambda *args, **options: fetched.append("voc"))
        monkeypatch.setattr(voc, "SBDataset", lambda *args, **options: fetched.append("sbd"))
        VOCSource(root, download=True)
        VOCSource(root, augmented=False, download=True)
        assert fetched == ["sbd"]

    def test_a_failure_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*args: Any, **options: Any) -> None:
            raise OSError("no\nroute")

        monkeypatch.setattr(voc, "VOCSegmentation", fails)
        with pytest.raises(SemipixError, match=r"data\.download: no route; download the archives by hand to"):
            VOCSource(tmp_path, download=True)
