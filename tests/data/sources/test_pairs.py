"""Image-to-image data in folders.

Also tests data/sources/paired.py and data/targets.py.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from semipix.data.check import check_folder
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.pairs import PairsSource
from semipix.data.targets import Matte
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three training pairs, an unlabeled input of either kind, one pair each for validation and test, 6x8 pixels."""
    root = tmp_path / "pairs"
    for number, name in enumerate(("train/a", "train/b", "train/c", "val/v", "test/t")):
        save(root / f"inputs/{name}.png", noise(6, 8, 3, seed=number))
        save(root / f"targets/{name}.png", noise(6, 8, 3, seed=10 + number))
    save(root / "inputs/train/x.png", noise(6, 8, 3, seed=20))
    save(root / "unlabeled/y.png", noise(6, 8, 3, seed=21))
    return root


@pytest.fixture
def mattes(pairs: Path) -> Path:
    """The same folder with alphas as targets, and trimaps of the unlabeled images."""
    for path in pairs.glob("targets/*/*"):
        alpha = np.zeros((6, 8), np.uint8)
        alpha[2:4, 2:6], alpha[1] = 255, 90
        save(path, alpha)
    for name in ("train/x", "unlabeled/y"):
        save(pairs / f"trimaps/{name}.png", np.array([[0, 128, 255, 128] * 2] * 6, np.uint8))
    return pairs


def expect_error(pattern: str, root: Path, kind: str = "denoising", **options: Any) -> None:
    """The folder is refused with an error of one line, and `data check` reports the same line without ending."""
    with pytest.raises(SemipixError, match=pattern) as caught:
        source = PairsSource(root, kind, **options)
        for name in source.labeled() + source.val() + source.test():
            source.pair(name)
        for name in source.unlabeled():
            source.image(name)
    assert "\n" not in str(caught.value)
    if not options:
        assert str(caught.value) in check_folder(root, kind=kind).problems


class TestImages:
    @pytest.mark.parametrize("kind", ["denoising", "enhancement"])
    def test_lists_and_reads(self, pairs: Path, kind: str) -> None:
        source = PairsSource(pairs, kind)
        assert source.labeled() == [f"inputs/train/{name}.png" for name in "abc"]
        assert source.unlabeled() == ["inputs/train/x.png", "unlabeled/y.png"]
        assert source.val() == ["inputs/val/v.png"]
        assert source.test() == ["inputs/test/t.png"]
        assert (source.kind, source.channels, source.classes) == (kind, 3, None)
        image, target = source.pair("inputs/train/b.png")
        assert torch.equal(source.image("inputs/train/b.png"), image)
        assert isinstance(target, tv_tensors.Image)
        assert torch.equal(image, torch.from_numpy(noise(6, 8, 3, seed=1)).permute(2, 0, 1))
        assert torch.equal(target, torch.from_numpy(noise(6, 8, 3, seed=11)).permute(2, 0, 1))

    def test_16_bit_targets(self, pairs: Path) -> None:
        deep = noise(6, 8, 3, top=65536)
        for path in pairs.glob("targets/*/*"):
            save(path, deep)
        target = PairsSource(pairs, "denoising").pair("inputs/val/v.png")[1]
        assert torch.equal((target * 65535).round(), torch.from_numpy(deep.astype(np.float32)).permute(2, 0, 1))

    def test_formats_of_inputs_may_differ(self, pairs: Path) -> None:
        save(pairs / "inputs/train/a.png", noise(6, 8, 3, top=65536))
        source = PairsSource(pairs, "denoising")
        images = [source.image(name) for name in source.labeled()]
        assert [image.dtype for image in images] == [torch.float32, torch.uint8, torch.uint8]
        assert 0.9 < images[0].max() <= 1


class TestMaps:
    @pytest.fixture
    def maps(self, pairs: Path) -> Path:
        for number, path in enumerate(sorted(pairs.glob("targets/*/*"))):
            path.unlink()
            values = np.full((6, 8), 10.5 + number, np.float32)
            values[0, 0], values[0, 1] = np.nan, -1
            save(path.with_suffix(".npy"), values)
        return pairs

    def test_units_and_what_is_missing(self, maps: Path) -> None:
        target = PairsSource(maps, "regression").pair("inputs/train/a.png")[1]
        assert target.shape == (1, 6, 8)
        assert target[0, 0, 0].isnan()
        assert target[0, 0, 1] == -1
        assert target[0, 1:].unique().tolist() == [11.5]
        scaled = PairsSource(maps, "regression", unit=0.5, missing=-1).pair("inputs/train/a.png")[1]
        assert scaled[0, 0, :2].isnan().all()
        assert scaled[0, 1:].unique().tolist() == [5.75]

    @pytest.mark.parametrize(("dtype", "nodata"), [(np.float32, "-9999"), (np.uint8, "0"), (np.uint16, "65535")])
    def test_nodata_of_a_geotiff_is_missing(self, maps: Path, dtype: Any, nodata: str) -> None:
        """Unless another number is said to be; rasterio is not needed."""
        values = np.full((6, 8), 5, dtype)
        values[0, 0] = dtype(nodata)
        for path in (maps / "targets").rglob("*.*"):
            path.unlink()
            Image.fromarray(values).save(path.with_suffix(".tif"), tiffinfo={42113: nodata})
        target = PairsSource(maps, "regression").target(PairsSource(maps, "regression").labeled()[0])
        assert target.isnan().sum() == 1
        assert target[..., 0, 0].isnan()
        kept = PairsSource(maps, "regression", missing=77).target(PairsSource(maps, "regression").labeled()[0])
        assert kept[0, 0, 0] == float(nodata)

    def test_channels_come_from_the_first_target(self, maps: Path) -> None:
        assert PairsSource(maps, "regression").channels == 1
        save(maps / "targets/train/b.npy", np.zeros((2, 6, 8), np.float32))
        expect_error(r"b\.npy: found 2 channels, but the first target has 1", maps, "regression")

    def test_16_bit_next_to_8_bit_pixels(self, pairs: Path) -> None:
        for number, path in enumerate(sorted(pairs.glob("targets/*/*"))):
            save(path, noise(6, 8, top=65536 if number else 256))
        expect_error(r"found 8-bit values, but .*a\.png has 16-bit ones", pairs, "regression")

    def test_sizes_differ(self, maps: Path) -> None:
        save(maps / "targets/val/v.npy", np.zeros((8, 6), np.float32))
        expect_error(r"v\.npy: target is 6x8 pixels, its image v\.png is 8x6", maps, "regression")


class TestMattes:
    def test_alpha_and_trimap(self, mattes: Path) -> None:
        save(mattes / "trimaps/train/a.png", np.full((6, 8), 128, np.uint8))
        save(mattes / "foregrounds/train/a.png", noise(6, 8, 3, seed=3))
        save(mattes / "backgrounds/train/a.png", noise(6, 8, 3, seed=4))
        source = PairsSource(mattes, "matting", trimap_widths=[1, 1])
        image, target = source.image("inputs/train/a.png"), source.pair("inputs/train/a.png")[1]
        assert isinstance(target, Matte)
        assert (image[3] == 0.5).all()
        assert (target[1] == 1).all()
        assert torch.equal(
            (target[5:8] * 255).round(), torch.from_numpy(noise(6, 8, 3, seed=4)).permute(2, 0, 1).float()
        )
        assert source.pair("inputs/train/b.png")[1][2:].isnan().all()
        assert (source.image("inputs/train/b.png")[3, 1] == 0.5).all()
        assert source.image("unlabeled/y.png")[3, 0].tolist() == [0, 0.5, 1, 0.5] * 2
        assert source.image("inputs/train/x.png", 3).shape == (4, 6, 8)

    def test_photographs_replace_the_background_of_known_foregrounds(self, mattes: Path) -> None:
        save(mattes / "backgrounds/photo.jpg", noise(30, 30, 3))
        expect_error(r"backgrounds: found 1 photographs .* but no foreground; add foregrounds/train", mattes, "matting")
        save(mattes / "foregrounds/train/a.png", noise(6, 8, 3, seed=3))
        source = PairsSource(mattes, "matting", replace_background=1)
        image, target = source.pair("inputs/train/a.png", 0)
        assert not torch.equal(image[:3], source.image("inputs/train/a.png")[:3])
        assert not target[2:].isnan().any()

    @pytest.mark.parametrize("name", ["train/x", "unlabeled/y"])
    def test_an_unlabeled_image_needs_a_trimap(self, mattes: Path, name: str) -> None:
        (mattes / f"trimaps/{name}.png").unlink()
        expect_error(rf"neither trimap nor alpha; add trimaps/{name}, a trimap", mattes, "matting")

    @pytest.mark.parametrize("part", ["trimaps/train", "foregrounds/val", "backgrounds/test", "trimaps/unlabeled"])
    def test_a_file_without_its_input(self, mattes: Path, part: str) -> None:
        save(mattes / part / "lonely.png", np.zeros((6, 8), np.uint8))
        expect_error(rf"{part}/lonely\.png: {part.split('/')[0][:-1]} without an input; expected ", mattes, "matting")

    def test_bad_trimap(self, mattes: Path) -> None:
        save(mattes / "trimaps/val/v.png", np.full((6, 8), 70, np.uint8))
        expect_error(
            r"trimaps/val/v\.png: found trimap value 70 \(48 pixels\), expected 0, 128 and 255", mattes, "matting"
        )

    def test_alpha_outside_0_to_1(self, mattes: Path) -> None:
        for path in mattes.glob("targets/*/*"):
            path.unlink()
            save(path.with_suffix(".tif"), np.full((6, 8), 0.5 if path.stem != "b" else 1.5, np.float32))
        expect_error(r"b\.tif: found values from 1\.5 to 1\.5 \(mode F\), expected 0 to 1", mattes, "matting")

    @pytest.mark.parametrize(
        ("options", "pattern"),
        [
            ({"trimap_widths": [5, 2]}, r"data\.trimap_widths=\[5, 2\]: expected \[fewest,most\]"),
            ({"trimap_widths": [5]}, r"data\.trimap_widths=\[5\]"),
            ({"replace_background": 2}, r"data\.replace_background=2: expected a share from 0 to 1"),
        ],
    )
    def test_settings(self, mattes: Path, options: dict[str, Any], pattern: str) -> None:
        expect_error(pattern, mattes, "matting", **options)


class TestErrors:
    def test_sizes_differ(self, pairs: Path) -> None:
        save(pairs / "targets/train/b.png", noise(5, 8, 3))
        expect_error(r"targets/train/b\.png: target is 8x5 pixels, its image b\.png is 8x6", pairs)

    def test_16_bit_next_to_8_bit(self, pairs: Path) -> None:
        save(pairs / "targets/train/c.png", noise(6, 8, 3, top=65536))
        expect_error(
            r"c\.png: found 16-bit values, but .*a\.png has 8-bit ones; expected one type for all targets", pairs
        )

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_target_without_input(self, pairs: Path, split: str) -> None:
        save(pairs / f"targets/{split}/lonely.png", noise(6, 8, 3))
        expect_error(rf"targets/{split}/lonely\.png: target without an input; expected inputs/{split}/lonely", pairs)

    def test_validation_input_without_target(self, pairs: Path) -> None:
        save(pairs / "inputs/val/w.png", noise(6, 8, 3))
        expect_error(r"inputs/val/w\.png: val input without a target in targets/val", pairs)

    def test_no_target_at_all(self, pairs: Path) -> None:
        shutil.rmtree(pairs / "targets/train")
        expect_error(r"targets/train: no labeled input: found no target for any of the 4 inputs in inputs/train", pairs)

    def test_no_inputs(self, tmp_path: Path) -> None:
        with pytest.raises(SemipixError, match=r"inputs/train: found no such folder, expected training images"):
            PairsSource(tmp_path, "denoising")

    def test_two_targets_of_one_stem(self, pairs: Path) -> None:
        save(pairs / "targets/train/a.npy", np.zeros((6, 8)))
        expect_error(r"targets/train/a\.png: same stem as a\.npy", pairs)

    def test_corrupt_target(self, pairs: Path) -> None:
        (pairs / "targets/train/b.png").write_bytes(b"broken")
        expect_error(r"targets/train/b\.png: not a readable image", pairs)

    def test_kinds(self, pairs: Path) -> None:
        with pytest.raises(SemipixError) as caught:
            PairsSource(pairs, "segmentation")
        assert str(caught.value) == (
            "data.kind=segmentation: expected denoising, enhancement, matting, regression; data for segmentation: "
            "camvid, folder, scenes, voc"
        )
        with pytest.raises(SemipixError, match=r"data\.kind=depth: .*; name the kind of your task's targets"):
            PairsSource(pairs, "depth")

    def test_a_single_image(self, pairs: Path) -> None:
        for name in "bcx":
            (pairs / f"inputs/train/{name}.png").unlink()
            (pairs / f"targets/train/{name}.png").unlink(missing_ok=True)
        for part in ("inputs/val", "targets/val", "unlabeled"):
            shutil.rmtree(pairs / part)
        source = PairsSource(pairs, "denoising")
        with pytest.raises(SemipixError, match=r"data\.val=0\.1 sets 1 images aside, but only 0 of the 1"):
            SemiSupervisedDataModule(source, labels="all")
        data = SemiSupervisedDataModule(source, labels="all", val=0, crop=4, workers=0, batch_size=2)
        (batch,) = [batch for batch, _, _ in data.train_dataloader()]
        assert batch["labeled"].target.shape == (2, 3, 4, 4)

    def test_smaller_than_the_crop(self, pairs: Path) -> None:
        data = SemiSupervisedDataModule(PairsSource(pairs, "denoising"), labels="all", crop=7, workers=0)
        with pytest.raises(SemipixError, match=r"png: image is 8x6 pixels, smaller than the training crop of 7x7"):
            next(iter(data.train_dataloader()))


class TestCheck:
    def test_a_good_folder(self, pairs: Path) -> None:
        report = check_folder(pairs)
        assert report.problems == report.warnings == []
        assert report.masked == {"train": 3, "val": 1, "test": 1}
        assert report.unmasked == {"train": 1, "val": 0, "test": 0, "unlabeled": 1}
        assert report.sizes == {(6, 8): 7}
        text = "\n".join(report.lines())
        assert "train           3 with target       1 without" in text
        assert "kind      denoising" in text

    def test_kinds_are_guessed(self, mattes: Path) -> None:
        assert check_folder(mattes).kind == "matting"
        shutil.rmtree(mattes / "trimaps")
        assert check_folder(mattes).kind == "regression"
        assert check_folder(mattes, kind="matting").kind == "matting"

    def test_every_problem_is_reported_once(self, mattes: Path) -> None:
        save(mattes / "targets/train/a.png", noise(6, 8, 3))
        save(mattes / "targets/train/b.png", noise(5, 8))
        save(mattes / "trimaps/val/v.png", np.full((6, 8), 70, np.uint8))
        (mattes / "inputs/test/t.png").write_bytes(b"broken")
        (mattes / "unlabeled/y.png").write_bytes(b"broken")
        problems = check_folder(mattes).problems
        for file, words in (
            ("targets/train/a.png", "found colours"),
            ("targets/train/b.png", "alpha is 8x5"),
            ("trimaps/val/v.png", "trimap value 70"),
            ("inputs/test/t.png", "not a readable"),
            ("unlabeled/y.png", "not a readable"),
        ):
            assert len([problem for problem in problems if file in problem and words in problem]) == 1, problems
        assert len(problems) == 5

    def test_same_content_in_two_parts_is_a_warning(self, pairs: Path) -> None:
        shutil.copy(pairs / "inputs/train/b.png", pairs / "inputs/val/v.png")
        shutil.copy(pairs / "unlabeled/y.png", pairs / "inputs/test/t.png")
        shutil.copy(pairs / "inputs/train/b.png", pairs / "inputs/train/a.png")
        report = check_folder(pairs)
        assert report.problems == []
        assert [warning.partition(": ")[2] for warning in report.warnings] == [
            f"same content as {name} of another part; expected different images for evaluation, remove one of the two"
            for name in ("inputs/train/a.png", "unlabeled/y.png")
        ]
        assert "warnings        2" in "\n".join(report.lines())
