"""Trimaps and mattes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semipix.data.files.mattes import MatteFiles, MatteReader, make_trimap, read_trimap
from semipix.data.targets import Matte
from semipix.errors import SemipixError
from tests.helpers.tiny_files import noise, save


def disc(side: int = 40, soft: float = 4) -> np.ndarray:
    """The alpha of a disc with a soft edge, as bytes."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.clip((side / 4 - np.hypot(y, x)) / soft + 0.5, 0, 1) * 255).round().astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> MatteFiles:
    """An image composed of known layers."""
    alpha = disc()
    foreground, background = noise(40, 40, 3, seed=1), noise(40, 40, 3, seed=2)
    share = alpha[..., None] / 255
    image = (share * foreground + (1 - share) * background).round().astype(np.uint8)
    parts = {"image": image, "alpha": alpha, "foreground": foreground, "background": background}
    return MatteFiles(**{part: save(tmp_path / f"{part}.png", values) for part, values in parts.items()})


class TestMakeTrimap:
    def test_fractions_are_unknown_and_the_rest_is_true(self) -> None:
        alpha = torch.from_numpy(disc()).float() / 255
        trimap = make_trimap(alpha, 3, 5)
        assert set(trimap.unique().tolist()) == {0, 0.5, 1}
        known = trimap != 0.5
        assert torch.equal(trimap[known], alpha[known])
        assert not known[(alpha > 0) & (alpha < 1)].any()

    def test_without_reach_only_fractions_are_unknown(self) -> None:
        alpha = torch.from_numpy(disc()).float() / 255
        assert torch.equal(make_trimap(alpha, 0, 0) == 0.5, (alpha > 0) & (alpha < 1))

    @pytest.mark.parametrize(("inner", "outer"), [(4, 0), (0, 7), (100, 0)])
    def test_the_reach_is_a_dilation(self, inner: int, outer: int) -> None:
        alpha = torch.zeros(20, 30)
        alpha[5:15, 8:22] = 1
        trimap = make_trimap(alpha, inner, outer)
        for reach, side, value in ((inner, alpha < 1, 1.0), (outer, alpha > 0, 0.0)):
            grown = F.max_pool2d(side.float()[None, None], 2 * reach + 1, 1, reach)[0, 0] > 0
            assert torch.equal(trimap == value, ~grown)


class TestReadTrimap:
    def test_values(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.array([[0, 2, 126, 128, 130, 253, 255]], np.uint8))
        assert read_trimap(path).tolist() == [[0, 0, 0.5, 0.5, 0.5, 1, 1]]

    def test_a_mask_of_class_indices(self, tmp_path: Path) -> None:
        assert read_trimap(save(tmp_path / "a.png", np.array([[0, 1]], np.uint8))).tolist() == [[0, 1]]

    @pytest.mark.parametrize("value", [3, 64, 125, 131, 252])
    def test_other_values_are_refused(self, tmp_path: Path, value: int) -> None:
        path = save(tmp_path / "a.png", np.array([[0, value, value, 255]], np.uint8))
        with pytest.raises(SemipixError) as caught:
            read_trimap(path)
        assert str(caught.value) == (
            f"{path}: found trimap value {value} (2 pixels), expected 0, 128 and 255 up to 2 off for background, "
            "unknown and foreground; save it as PNG: JPEG and resizing change values"
        )

    def test_jpeg_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        trimap = np.zeros((40, 40), np.uint8)
        trimap[10:30, 10:30], trimap[18:22, 18:22] = 128, 255
        with pytest.raises(SemipixError, match=r"a\.jpg: found trimap value .* save it as PNG: JPEG"):
            read_trimap(save(tmp_path / "a.jpg", trimap, quality=60))


class TestSamples:
    def test_image_and_target_agree(self, files: MatteFiles) -> None:
        image, target = MatteReader().image(files), MatteReader().target(files)
        assert image.shape == (4, 40, 40)
        assert isinstance(target, Matte)
        assert target.shape == (8, 40, 40)
        assert torch.equal(target[1] == 1, image[3] == 0.5)
        assert torch.equal(target[0], torch.from_numpy(disc()).float() / 255)
        composed = target[:1] * target[2:5] + (1 - target[:1]) * target[5:8]
        assert (composed - image[:3]).abs().max() < 0.51 / 255

    def test_unknown_colours_are_nan(self, files: MatteFiles) -> None:
        target = MatteReader().target(files._replace(foreground=None, background=None))
        assert target[2:].isnan().all()
        assert not target[:2].isnan().any()

    def test_made_trimaps_vary_only_by_the_seed(self, files: MatteFiles) -> None:
        matting = MatteReader(widths=(1, 9))
        first, again, *others = (matting.pair(files, seed) for seed in (0, 0, 1, 2, 3))
        assert all(map(torch.equal, first[0], again[0]))
        assert len({float((image[3] == 0.5).sum()) for image, _ in [first, *others]}) > 2
        for image, target in [first, *others]:
            assert torch.equal(target[1] == 1, image[3] == 0.5)
        assert torch.equal(matting.image(files)[3], make_trimap(matting.target(files)[0], 5, 5))

    def test_a_given_trimap_is_kept(self, files: MatteFiles, tmp_path: Path) -> None:
        trimap = np.zeros((40, 40), np.uint8)
        trimap[5:35, 5:35] = 128
        given = files._replace(trimap=save(tmp_path / "trimap.png", trimap))
        for image in (MatteReader().image(given), MatteReader().image(given, 1), MatteReader().pair(given, 2)[0]):
            assert torch.equal(image[3] * 2, torch.from_numpy(trimap).float() / 128)

    @pytest.mark.parametrize("top", [1, 255])
    def test_a_mask_is_widened(self, files: MatteFiles, tmp_path: Path, top: int) -> None:
        mask = save(tmp_path / "mask.png", (disc(soft=0.1) > 127).astype(np.uint8) * top)
        image = MatteReader(widths=(3, 3)).image(MatteFiles(files.image, trimap=mask))
        assert 0.1 < (image[3] == 0.5).float().mean() < 0.5
        assert image[3, 20, 20] == 1
        assert image[3, 0, 0] == 0

    def test_nothing_to_make_a_trimap_from(self, files: MatteFiles) -> None:
        with pytest.raises(SemipixError, match=r"image\.png: no trimap found and no alpha to make one from"):
            MatteReader().image(MatteFiles(files.image))

    @pytest.mark.parametrize("part", ["alpha", "trimap", "foreground", "background"])
    def test_sizes_differ(self, files: MatteFiles, tmp_path: Path, part: str) -> None:
        small = files._replace(**{part: save(tmp_path / "small.png", np.zeros((9, 7), np.uint8))})
        with pytest.raises(SemipixError, match=rf"small\.png: {part} is 7x9 pixels, its image image\.png is 40x40"):
            MatteReader().pair(small, 0)


class TestBackgrounds:
    def test_another_background_keeps_the_true_alpha(self, files: MatteFiles, tmp_path: Path) -> None:
        pool = (save(tmp_path / "wide.png", noise(50, 90, 3, seed=5)), save(tmp_path / "small.png", noise(20, 30, 3)))
        original = MatteReader().pair(files, 0)[1]
        seen = []
        for seed in range(8):
            image, target = MatteReader(backgrounds=pool, replace=1).pair(files, seed)
            composed = target[:1] * target[2:5] + (1 - target[:1]) * target[5:8]
            assert torch.allclose(image[:3], composed.as_subclass(torch.Tensor), atol=1e-6)
            assert torch.equal(target[0], original[0])
            assert torch.equal(target[2:5], original[2:5])
            assert not torch.equal(target[5:8], original[5:8])
            seen.append(float(target[5:8].sum()))
        assert len(set(seen)) == 8

    def test_shares(self, files: MatteFiles, tmp_path: Path) -> None:
        pool = (save(tmp_path / "a.png", noise(50, 90, 3)),)
        plain = MatteReader().pair(files, 0)[0][:3]
        for share, low, high in ((0.0, 0, 0), (0.5, 5, 15)):
            matting = MatteReader(backgrounds=pool, replace=share)
            changed = sum(not torch.equal(matting.pair(files, seed)[0][:3], plain) for seed in range(20))
            assert low <= changed <= high

    def test_not_without_a_foreground_and_never_in_evaluation(self, files: MatteFiles, tmp_path: Path) -> None:
        matting = MatteReader(backgrounds=(save(tmp_path / "a.png", noise(50, 90, 3)),), replace=1)
        plain = MatteReader().image(files)[:3]
        assert torch.equal(matting.pair(files._replace(foreground=None), 0)[0][:3], plain)
        assert torch.equal(matting.image(files)[:3], plain)
        assert torch.equal(matting.image(files, 3)[:3], plain)
