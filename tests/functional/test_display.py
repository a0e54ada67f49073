"""Which channels are shown as colours."""

import math

import pytest
import torch

from semipix.functional.display import shown_colours
from tests.helpers.tiny import rand


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_three_channels_are_shown(channels: int, shown: list[int]) -> None:
    image = rand(channels, 4, 5)
    assert torch.equal(shown_colours(image), image[shown])


def test_what_is_missing_is_black() -> None:
    image = rand(5, 4, 5)
    image[1, 2, 3] = math.nan
    assert shown_colours(image)[1, 2, 3] == 0
    assert torch.equal(shown_colours((image * 255).nan_to_num(0).byte())[0], (image[0] * 255).byte())
