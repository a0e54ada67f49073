"""DIDN."""

import pytest
import torch
from torch import nn

from semipix.errors import SemipixError
from semipix.models.didn import DIDN, DownUpBlock, Reconstruction
from tests.models.base import CheckpointingTests, ModelTests, images


class TestDIDN(ModelTests, CheckpointingTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return DIDN(in_channels, self.channels, width=8, blocks=2)

    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        return DIDN(width=8, blocks=2), DIDN(width=8, blocks=2, checkpointing=True)


def test_the_full_model_has_165_million_parameters() -> None:
    # The paper's text gives 256 features, strided 3x3 convolutions down, a 1x1 convolution before each pixel shuffle,
    # nine 3x3 convolutions in one reconstruction block and a 1x1 convolution of all its outputs. That there are six
    # blocks, and the places of the PReLUs, are read off its figures; no published sum was found.
    with torch.device("meta"):
        model = DIDN()
    assert sum(value.numel() for value in model.parameters()) == 164_625_163
    assert sum(value.numel() for value in model.blocks[0].parameters()) == 26_288_650
    reconstruction = [module for module in model.reconstruction.modules() if isinstance(module, nn.Conv2d)]
    assert len(reconstruction) == 9
    assert {layer.kernel_size for layer in reconstruction} == {(3, 3)}


def test_a_block_goes_down_twice_and_comes_back() -> None:
    sizes: list[tuple[int, ...]] = []
    block = DownUpBlock(4)
    for part in (block.level1, block.level2, block.level3, block.return2, block.return1):
        part.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    assert block(torch.rand(1, 4, 16, 8)).shape == (1, 4, 16, 8)
    assert sizes == [(4, 16, 8), (8, 8, 4), (16, 4, 2), (8, 8, 4), (4, 16, 8)]


@pytest.mark.parametrize("block", [DownUpBlock(4), Reconstruction(4)])
def test_blocks_are_residual(block: nn.Module) -> None:
    last = [module for module in block.last.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    features = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(block(features), features)


def test_one_reconstruction_sees_every_block() -> None:
    model = DIDN(width=8, blocks=3)
    seen: list[torch.Tensor] = []
    model.reconstruction[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model(images(16, 16))
    assert [value.shape for value in seen] == [(2, 8, 8, 8)] * 3
    assert not any(torch.equal(seen[0], value) for value in seen[1:])


def test_the_image_is_added_where_it_has_as_many_channels() -> None:
    for channels, expected in ((3, images(33, 41)), (2, torch.zeros(2, 2, 33, 41))):
        model = DIDN(3, channels, width=8, blocks=1)
        for value in model.last.parameters():
            nn.init.zeros_(value)
        torch.testing.assert_close(model(images(33, 41)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 6}, "model.width=6: expected a positive multiple of 4"),
        ({"blocks": 0}, "model.blocks=0: expected 1 or more"),
    ],
)
def test_errors_are_one_line(options: dict[str, int], message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        DIDN(**options)
    assert "\n" not in str(caught.value)


def test_a_small_image_is_refused_in_one_line() -> None:
    with pytest.raises(SemipixError, match=r"data.crop: 7x9 .* DIDN expects at least 8x8"):
        DIDN(width=8, blocks=1)(images(7, 9))
