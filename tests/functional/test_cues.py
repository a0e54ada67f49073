"""Cues have the values that their names say, and their means and sums are those of direct computation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.cues import (
    OF_IMAGE,
    WINDOWS,
    feature_names,
    local_mean,
    pair_cues,
    probability_cues,
    value_cues,
    weighted_sum,
)
from tests.helpers.tiny import rand


def pixel(*shares: float) -> Tensor:
    """A prediction of one pixel."""
    return torch.tensor(shares).view(1, -1, 1, 1)


@pytest.mark.parametrize("window", [*WINDOWS, 1])
def test_a_local_mean_leaves_out_what_is_outside(window: int) -> None:
    maps = rand(2, 3, 23, 60)
    wanted = F.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)
    torch.testing.assert_close(local_mean(maps, window), wanted)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_cues_of_a_pair_are_those_of_the_own_label(memory_format: torch.memory_format) -> None:
    own, other = (rand(2, 4, 5, 7, seed=seed).softmax(1).contiguous(memory_format=memory_format) for seed in (1, 2))
    own, other = own.requires_grad_(), other.requires_grad_()
    largest, labels = own.max(1, keepdim=True)
    elsewhere = other.gather(1, labels)
    right = torch.cat([largest, elsewhere, (largest + elsewhere) / 2, (own * other).sum(1, keepdim=True)], dim=1)
    found, wanted = pair_cues(own, other), (1 - right).logit()
    torch.testing.assert_close(found, wanted)
    weights = rand(*found.shape, seed=3)
    for first, second in zip(
        torch.autograd.grad((found * weights).sum(), (own, other)),
        torch.autograd.grad((wanted * weights).sum(), (own, other)),
        strict=True,
    ):
        torch.testing.assert_close(first, second)


def test_classes_that_share_the_largest_probability_are_averaged() -> None:
    found = pair_cues(pixel(0.4, 0.4, 0.2), pixel(0.7, 0.1, 0.2))
    assert found.flatten().tolist() == pytest.approx([math.log(0.6 / 0.4)] * 3 + [math.log(0.64 / 0.36)], abs=1e-5)


def test_cues_of_one_network() -> None:
    cues = probability_cues([pixel(0.6, 0.3, 0.1)], None)
    assert {*cues} == {"softmax", "doubt", "margin", "entropy"}
    entropy = -sum(share * math.log(share) for share in (0.6, 0.3, 0.1)) / math.log(3)
    wanted = {"softmax": math.log(0.4 / 0.6), "doubt": 0.4, "margin": math.log(0.3 / 0.6), "entropy": entropy}
    assert {name: float(value) for name, value in cues.items()} == pytest.approx(wanted, abs=1e-5)


def test_cues_of_a_pair_compare_the_other_at_the_deployed_label() -> None:
    cues = probability_cues([pixel(0.6, 0.3, 0.1), pixel(0.2, 0.7, 0.1)], rand(1, 1, 1, 1))
    found = {name: float(cues[name]) for name in ("other", "mean", "disagreement", "other_label")}
    wanted = {"other": math.log(0.8 / 0.2), "mean": math.log(0.6 / 0.4), "disagreement": 0.66, "other_label": 1.0}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert float(cues["flaw"]) == pytest.approx(float(rand(1, 1, 1, 1)))


def test_cues_of_a_fused_pair_compare_its_two_networks() -> None:
    fused, first, second = pixel(0.5, 0.5, 0.0), pixel(0.6, 0.3, 0.1), pixel(0.2, 0.7, 0.1)
    cues = probability_cues([fused, first, second], None)
    assert float(cues["disagreement"]) == pytest.approx(0.66)
    assert float(cues["other"]) == pytest.approx(math.log(0.8 / 0.2), abs=1e-5), "the less convinced of both"
    assert float(cues["doubt"]) == pytest.approx(0.5)


def test_cues_of_values() -> None:
    first, second, image = (rand(2, 3, 8, 9, seed=seed) for seed in range(3))
    cues = value_cues([first, second], rand(2, 1, 4, 5), image)
    for name, other in (("difference", second), ("change", image)):
        torch.testing.assert_close(cues[name].exp() - 1e-3, (first - other).abs().mean(1, keepdim=True))
    flat = torch.zeros(1, 1, 4, 4)
    flat[..., 2:, :] = 0.5
    gradient = value_cues([flat], None, image)["gradient"].exp() - 1e-3
    assert gradient[0, 0, :, 0].tolist() == pytest.approx([0, 0.5, 0, 0], abs=1e-6)
    assert "change" not in value_cues([flat], None, rand(1, 3, 4, 4)), "the input has other channels"


def test_certain_predictions_have_finite_cues() -> None:
    certain = F.one_hot(torch.arange(3)).T.float().view(1, 3, 1, 3)
    cues = {**probability_cues([certain, certain.flip(1)], torch.zeros(1, 1, 1, 3))}
    cues |= value_cues([certain, certain], torch.ones(1, 1, 1, 3), certain)
    assert all(bool(value.isfinite().all()) for value in cues.values())


def test_a_weighted_sum_is_that_of_all_features() -> None:
    cues = probability_cues([rand(2, 3, 30, 20).softmax(1), rand(2, 3, 30, 20, seed=1).softmax(1)], rand(2, 1, 30, 20))
    names, of_image = feature_names([*cues])
    assert len(names) == len(cues) * (1 + len(WINDOWS))
    assert of_image == [f"{name}@image" for name in cues if name in OF_IMAGE]
    weights = {name: 0.1 + index % 7 for index, name in enumerate(names)}
    wanted = torch.zeros(2, 1, 30, 20)
    for name, weight in weights.items():
        cue, _, window = name.partition("@")
        wanted += weight * (local_mean(cues[cue], int(window)) if window else cues[cue])
    torch.testing.assert_close(weighted_sum(cues, weights), wanted, rtol=1e-4, atol=1e-3)
    assert not weighted_sum(cues, {"softmax@image": 1.0}).any(), "features of the image are not among them"
