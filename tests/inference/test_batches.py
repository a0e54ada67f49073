"""How many images are computed at once."""

import pytest
import torch

from semipix.inference.batches import parts_of_equal_size, pixels_of_a_batch


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([(8, 8)] * 3, [[0, 1, 2]]),
        ([(8, 8), (8, 9), (8, 8)], [[0, 2], [1]]),
        ([(256, 256)] * 8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ([(200, 200)] * 4, [[0, 1], [2, 3]]),  # three fit, but one would be left over
        ([(1000, 1000)] * 2, [[0], [1]]),
        ([], []),
    ],
)
def test_parts_are_of_one_size_and_bounded(sizes: list[tuple[int, int]], parts: list[list[int]]) -> None:
    assert parts_of_equal_size([torch.empty(3, *size) for size in sizes], "cpu") == parts


def test_images_without_channels_have_a_size_too() -> None:
    assert parts_of_equal_size([torch.empty(256, 256), torch.empty(256, 256), torch.empty(1, 256, 256)], "cpu") == [
        [0, 1],
        [2],
    ]


def test_devices_with_much_memory_take_more() -> None:
    assert pixels_of_a_batch("cuda") > pixels_of_a_batch("cpu")
    assert pixels_of_a_batch("mps") == pixels_of_a_batch("cuda")
