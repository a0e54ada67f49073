"""HDRNet."""

import math

import pytest
import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.hdrnet import Guide, HDRNet, slice_grid, transform
from tests.models.base import ModelTests, images


class TestHDRNet(ModelTests):
    autocast = torch.float32

    def make(self, in_channels: int = 3) -> nn.Module:
        return HDRNet(in_channels, self.channels, width=4, resolution=64)


def test_the_paper_s_model_has_half_a_million_parameters() -> None:
    with torch.device("meta"):
        model = HDRNet()
        assert model.grid(torch.rand(1, 3, 512, 384)).shape == (1, 12, 8, 16, 16)
    assert sum(value.numel() for value in model.parameters()) == 482_080
    assert sum(value.numel() for value in model.guide.parameters()) == 112


def interpolated(grid: Tensor, guide: Tensor) -> Tensor:
    """Slicing, written as the sum over eight cells of each pixel, slowly."""
    count, channels, *cells = grid.shape
    height, width = guide.shape[-2:]
    sliced = torch.zeros(count, channels, height, width)
    for image in range(count):
        for row in range(height):
            for column in range(width):
                places = (float(guide[image, 0, row, column]), (row + 0.5) / height, (column + 0.5) / width)
                around: list[list[tuple[int, float]]] = []
                for place, number in zip(places, cells, strict=True):
                    at = min(max(place * number - 0.5, 0.0), number - 1.0)
                    low = math.floor(at)
                    around.append([(low, 1 - (at - low)), (min(low + 1, number - 1), at - low)])
                for (bin_, first), (down, second), (right, third) in (
                    (a, b, c) for a in around[0] for b in around[1] for c in around[2]
                ):
                    sliced[image, :, row, column] += first * second * third * grid[image, :, bin_, down, right]
    return sliced


@pytest.mark.parametrize("size", [(16, 16), (7, 23), (33, 20)])
def test_slicing_is_trilinear_interpolation(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 4, 5, 6, generator=generator)
    guide = torch.rand(2, 1, *size, generator=generator) * 1.4 - 0.2  # beyond the range too
    torch.testing.assert_close(slice_grid(grid, guide), interpolated(grid, guide), rtol=1e-4, atol=1e-4)


def test_a_grid_that_is_linear_in_place_and_guide_is_sliced_to_that_line() -> None:
    bins, rows, columns = ((torch.arange(size) + 0.5) / size for size in (8, 16, 16))
    grid = torch.stack(torch.meshgrid(bins, rows, columns, indexing="ij"))[None]  # (1, 3, 8, 16, 16)
    height, width = 301, 517
    guide = torch.full((1, 1, height, width), 0.3)
    found = slice_grid(grid, guide)[0, :, 20:-20, 40:-40]  # within the outermost centres
    torch.testing.assert_close(found[0], torch.full_like(found[0], 0.3))
    torch.testing.assert_close(found[1], ((torch.arange(height) + 0.5) / height)[20:-20, None].expand_as(found[1]))
    torch.testing.assert_close(found[2], ((torch.arange(width) + 0.5) / width)[None, 40:-40].expand_as(found[2]))


def test_slicing_trains_grid_and_guide() -> None:
    torch.manual_seed(0)
    grid = torch.randn(1, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    guide = (torch.rand(1, 1, 3, 4, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(slice_grid, (grid, guide))


def test_half_precision_misplaces_no_pixel() -> None:
    grid, guide = torch.rand(1, 1, 8, 16, 16), torch.rand(1, 1, 4, 2000)
    rounded = grid.bfloat16(), guide.bfloat16()
    expected = slice_grid(*(value.float() for value in rounded))
    torch.testing.assert_close(slice_grid(*rounded), expected, rtol=0, atol=0)


def test_a_transform_is_affine_in_the_colours() -> None:
    image = images(3, 4)
    matrix, offset = torch.rand(2, 3), torch.rand(2)
    coefficients = torch.cat([matrix, offset[:, None]], dim=1).flatten()[None, :, None, None].expand(2, -1, 3, 4)
    expected = torch.einsum("kc,nchw->nkhw", matrix, image) + offset[:, None, None]
    torch.testing.assert_close(transform(image, coefficients), expected)


def test_the_guide_starts_as_the_mean_of_the_colours() -> None:
    image = images(5, 6)
    torch.testing.assert_close(Guide(3)(image), image.mean(1, keepdim=True))


def test_a_curve_of_the_guide_bends_at_its_hinges() -> None:
    guide = Guide(1)
    with torch.no_grad():
        guide.slopes[8] = -1.0  # flat from 1/2 on
    ramp = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    torch.testing.assert_close(guide(ramp), ramp.clamp(max=0.5))


def test_the_first_transforms_are_close_to_the_identity() -> None:
    torch.manual_seed(0)
    image = images(40, 50)
    with torch.no_grad():
        output = HDRNet()(image)
        assert (output - image).abs().mean() < 0.1
        assert not torch.equal(HDRNet()(image), output), "a pair does not start alike"


def test_an_output_has_edges_where_the_image_has_some() -> None:
    torch.manual_seed(0)
    model = HDRNet(width=4, resolution=64)
    flat = torch.full((1, 3, 64, 64), 0.2)
    flat[..., 31:] = 0.8
    with torch.no_grad():
        nn.init.normal_(model.transforms.weight, std=0.1)
        steps = model(flat).diff(dim=-1).abs().amax((0, 1, 2))
    assert steps.argmax() == 30
    assert steps[30] > 5 * steps[torch.arange(63) != 30].max()


def test_images_do_not_depend_on_each_other() -> None:
    torch.manual_seed(0)
    model = HDRNet(width=4, resolution=64).train()
    image = images(40, 50)
    torch.testing.assert_close(model(image)[:1], model(image[:1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "model.width=0: expected 1 or more"),
        ({"bins": 0}, "model.bins=0: expected 1 or more"),
        ({"resolution": 200}, "model.resolution=200: expected a multiple of 64"),
    ],
)
def test_errors_are_one_line(options: dict[str, int], message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        HDRNet(**options)
    assert "\n" not in str(caught.value)


def test_a_small_image_is_refused_in_one_line() -> None:
    with pytest.raises(SemipixError, match=r"data.crop: 7x9 .* HDRNet expects at least 8x8"):
        HDRNet()(images(7, 9))
