"""Batches of images of equal size."""

import pytest
import torch

from semipix.functional.grouping import batches_of_equal_size


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
    assert batches_of_equal_size([torch.empty(3, *size) for size in sizes], "cpu") == parts


def test_images_without_channels_have_a_size_too() -> None:
    assert batches_of_equal_size([torch.empty(256, 256), torch.empty(256, 256), torch.empty(1, 256, 256)], "cpu") == [
        [0, 1],
        [2],
    ]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_devices_other_than_a_cpu_take_more(device: str) -> None:
    images = [torch.empty(1, 512, 512)] * 8
    assert batches_of_equal_size(images, device) == [list(range(8))]
    assert batches_of_equal_size(images, "cpu") == [[number] for number in range(8)]
