"""Thresholds by class."""

import torch

from semipix.functional.thresholds import class_confidence, class_thresholds


def prediction(*pixels: tuple[float, ...]) -> torch.Tensor:
    """One row of pixels (1, K, 1, W)."""
    return torch.tensor(pixels).T[None, :, None]


class TestClassConfidence:
    def test_the_first_value_is_the_mean_over_the_pixels_of_the_class(self) -> None:
        seen = prediction((0.9, 0.1, 0.0), (0.7, 0.2, 0.1), (0.4, 0.6, 0.0))
        torch.testing.assert_close(class_confidence(torch.zeros(3), seen), torch.tensor([0.8, 0.6, 0.0]))

    def test_a_later_value_moves_it_and_leaves_other_classes(self) -> None:
        average = torch.tensor([0.5, 0.6, 0.0])
        moved = class_confidence(average, prediction((0.9, 0.1, 0.0)), decay=0.9)
        torch.testing.assert_close(moved, torch.tensor([0.54, 0.6, 0.0]))
        assert average.tolist() == torch.tensor([0.5, 0.6, 0.0]).tolist()

    def test_the_number_of_pixels_has_no_effect(self) -> None:
        once = class_confidence(torch.zeros(2), prediction((0.9, 0.1), (0.2, 0.8)))
        often = class_confidence(torch.zeros(2), prediction(*[(0.9, 0.1)] * 50, (0.2, 0.8)))
        torch.testing.assert_close(once, often)

    def test_many_pixels_are_counted_exactly(self) -> None:
        pixels = torch.full((1, 2, 4200, 4200), 0.4)  # more than 2^24, at which sums of float32 end to grow
        pixels[:, 0] = 0.6
        torch.testing.assert_close(class_confidence(torch.zeros(2), pixels), torch.tensor([0.6, 0.0]))


def test_thresholds_are_lower_where_the_network_is_less_sure() -> None:
    thresholds = class_thresholds(torch.tensor([0.9, 0.45, 0.0]), 0.8)
    torch.testing.assert_close(thresholds, torch.tensor([0.8, 0.4, 0.8]))


def test_without_any_prediction_the_threshold_is_the_same_for_all() -> None:
    assert class_thresholds(torch.zeros(3), 0.5).tolist() == [0.5, 0.5, 0.5]
