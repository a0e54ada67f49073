"""CutMix's boxes, and pasting."""

import math

import pytest
import torch
from torch import Tensor

from semipix.functional.mixing import RATIO, cutmix_mask, mix
from tests.helpers.tiny import rand

SIZES = [(64, 64), (40, 100), (90, 33), (7, 5)]


def masks(size: tuple[int, int], number: int = 300, seed: int = 0, **given: object) -> Tensor:
    torch.manual_seed(seed)
    return cutmix_mask(torch.empty(number, 3, *size), **given)  # type: ignore[arg-type]


def sides(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (N,) that a mask (N, 1, H, W) touches."""
    return mask.any(3).sum((1, 2)), mask.any(2).sum((1, 2))


class TestCutmixMask:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("area", [(0.25, 0.5), (0.02, 0.1), (0.5, 0.5), (0.9, 1.0)])
    def test_is_one_box_of_the_area_that_was_asked(self, size: tuple[int, int], area: tuple[float, float]) -> None:
        found = masks(size, area=area)
        assert found.shape == (300, 1, *size)
        assert found.dtype == torch.bool
        rows, columns = sides(found)
        assert torch.equal(rows * columns, found.sum((1, 2, 3))), "a full rectangle"
        for mask in found[:20, 0]:
            lines = mask.any(1).nonzero().flatten()
            assert int(lines[-1] - lines[0]) + 1 == len(lines), "in one piece"
        height, width = size
        rounding = 0.5 / height + 0.5 / width + 0.25 / (height * width)  # half a pixel of either side
        share = found.float().mean((1, 2, 3))
        assert (share >= area[0] - rounding).all()
        assert (share <= area[1] + rounding).all()

    @pytest.mark.parametrize("size", SIZES[:3])
    def test_areas_shapes_and_places_vary_over_their_range(self, size: tuple[int, int]) -> None:
        found = masks(size, number=1000)
        share = found.float().mean((1, 2, 3))
        assert share.min() < 0.27
        assert share.max() > 0.48
        assert float(share.mean()) == pytest.approx(0.375, abs=0.01)
        tall, wide = (side / full for side, full in zip(sides(found), size, strict=True))
        assert float((tall / wide).log().mean()) == pytest.approx(0, abs=0.06), "neither tall nor wide"
        assert (tall / wide).min() < 0.4
        assert (tall / wide).max() > 1 / 0.4
        shown = found.float().mean(0)[0]
        torch.testing.assert_close(shown, shown.flip(0, 1), atol=0.1, rtol=0)  # no corner is preferred
        assert found[..., 0, :].any() and found[..., -1, :].any()
        assert found[..., 0].any() and found[..., -1].any()

    def test_shapes_keep_to_the_ratio(self) -> None:
        for ratio in (RATIO, (1.0, 1.0), (2.0, 3.0)):
            rows, columns = sides(masks((200, 400), area=(0.1, 0.3), ratio=ratio))
            relative = (rows / 200) / (columns / 400)
            assert (relative > 0.95 * ratio[0]).all()
            assert (relative < 1.05 * ratio[1]).all()
            spread = float(relative.max() / relative.min())
            assert spread > 0.8 * ratio[1] / ratio[0] or math.isclose(*ratio)

    def test_the_whole_image_and_nothing(self) -> None:
        assert masks((9, 14), area=(1.0, 1.0)).all()
        assert not masks((9, 14), probability=0.0).any()
        assert masks((9, 14), probability=1.0).flatten(1).any(1).all()

    def test_probability_is_the_share_of_images_with_a_box(self) -> None:
        found = masks((16, 16), number=1000, probability=0.3).flatten(1).any(1)
        assert float(found.float().mean()) == pytest.approx(0.3, abs=0.05)

    def test_seed_decides(self) -> None:
        assert torch.equal(masks((20, 30)), masks((20, 30)))
        assert not torch.equal(masks((20, 30)), masks((20, 30), seed=1))

    def test_an_image_s_box_does_not_depend_on_the_others(self) -> None:
        whole = masks((20, 30), number=8, probability=0.5)
        assert torch.equal(masks((20, 30), number=3, probability=0.5), whole[:3])

    def test_of_no_image(self) -> None:
        assert masks((20, 30), number=0).shape == (0, 1, 20, 30)


class TestMix:
    def test_pastes_the_neighbour_where_the_mask_is_true(self) -> None:
        maps = rand(3, 2, 6, 9)
        mask = masks((6, 9), number=3)
        before = maps.clone()
        mixed = mix(mask, maps)
        for index, neighbour in enumerate((2, 0, 1)):  # the first gets the last's
            inside = mask[index].expand(2, -1, -1)
            assert torch.equal(mixed[index][inside], maps[neighbour][inside])
            assert torch.equal(mixed[index][~inside], maps[index][~inside])
            assert inside.any() and not inside.all()
        assert torch.equal(maps, before)

    def test_by_hand(self) -> None:
        mask = torch.tensor([[[[True, False]]], [[[False, True]]]])
        assert mix(mask, torch.tensor([[[[1, 2]]], [[[3, 4]]]])).tolist() == [[[[3, 2]]], [[[3, 2]]]]

    def test_one_image_alone_is_itself(self) -> None:
        maps = rand(1, 3, 6, 9)
        assert torch.equal(mix(masks((6, 9), number=1), maps), maps)

    def test_gradients_follow_the_pixels(self) -> None:
        maps = rand(2, 1, 6, 9).requires_grad_()
        mask = masks((6, 9), number=2)
        weight = rand(2, 1, 6, 9, seed=1)
        (gradient,) = torch.autograd.grad((weight * mix(mask, maps)).sum(), maps)
        expected = weight * ~mask + (weight * mask).roll(-1, 0)
        torch.testing.assert_close(gradient, expected)
