"""DHDN."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semipix.errors import SemipixError
from semipix.models.dhdn import DHDN, DenseBlock
from tests.models.base import CheckpointingTests, ModelTests, images


class TestDHDN(ModelTests, CheckpointingTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return DHDN(in_channels, self.channels, width=8)

    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        return DHDN(width=4), DHDN(width=4, checkpointing=True)


def test_the_colour_model_has_the_number_of_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = DHDN()
    assert sum(value.numel() for value in model.parameters()) == 168_195_125
    assert sum(isinstance(module, nn.PReLU) for module in model.modules()) == 14 * 3 + 3 + 3 + 2


def test_a_dense_block_is_what_the_paper_draws() -> None:
    torch.manual_seed(0)
    block = DenseBlock(8)
    seen = torch.rand(1, 8, 6, 7)
    (first, slope1), (second, slope2), (third, slope3) = block.first, block.second, block.third
    one = F.prelu(F.conv2d(seen, first.weight, first.bias, padding=1), slope1.weight)
    two = F.prelu(F.conv2d(torch.cat([seen, one], 1), second.weight, second.bias, padding=1), slope2.weight)
    three = F.conv2d(torch.cat([seen, one, two], 1), third.weight, third.bias, padding=1)
    torch.testing.assert_close(block(seen), F.prelu(three, slope3.weight) + seen)
    assert [one.shape[1], two.shape[1], three.shape[1]] == [4, 4, 8]


def test_the_image_is_added_where_it_has_as_many_channels() -> None:
    for channels, expected in ((3, images(33, 41)), (2, torch.zeros(2, 2, 33, 41))):
        model = DHDN(3, channels, width=4)
        for value in model.last.parameters():
            nn.init.zeros_(value)
        torch.testing.assert_close(model(images(33, 41)), expected)


def test_an_image_at_an_odd_size_is_reflected_at_the_edge() -> None:
    torch.manual_seed(0)
    model = DHDN(width=4).eval()
    image = images(33, 41)
    with torch.no_grad():
        expected = model(F.pad(image, (0, 7, 0, 7), mode="reflect"))[..., :33, :41]
        torch.testing.assert_close(model(image), expected)


@pytest.mark.parametrize("size", [(7, 64), (64, 1)])
def test_a_small_image_is_refused_in_one_line(size: tuple[int, int]) -> None:
    message = (
        rf"data.crop: {size[0]}x{size[1]} \(height x width\) found, but DHDN expects at least 8x8; set data.crop=8"
    )
    with pytest.raises(SemipixError, match=message) as caught:
        DHDN(width=4)(images(*size))
    assert "\n" not in str(caught.value)
    assert DHDN(width=4)(images(8, 9)).shape == (2, 3, 8, 9)


@pytest.mark.parametrize("width", [0, 5, -2])
def test_a_width_that_cannot_be_halved_is_refused(width: int) -> None:
    with pytest.raises(SemipixError, match=rf"model.width={width}: expected a positive even number"):
        DHDN(width=width)
