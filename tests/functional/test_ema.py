"""Moving averages of modules."""

import copy

import pytest
import torch
from torch import nn

from semipix.functional.ema import ema_decay, ema_update


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.5), (3, 0.75), (98, 98 / 99), (99, 0.99), (10**6, 0.99)]
)
def test_decay(step: int, expected: float) -> None:
    assert ema_decay(step) == pytest.approx(expected)


def test_decay_is_capped_where_asked() -> None:
    assert ema_decay(10**6, maximum=0.999) == 0.999
    assert ema_decay(1, maximum=0.3) == 0.3


def test_early_decay_is_a_true_mean() -> None:
    average, source = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step, value in enumerate([4.0, 8.0, 3.0, 1.0]):
        nn.init.constant_(source.weight, value)
        ema_update(average, source, ema_decay(step))
    assert float(average.weight.detach()) == pytest.approx(4.0)


def test_parameters_and_running_statistics_are_averaged_and_counters_copied() -> None:
    average, source = network(), network()
    source.train()
    for _ in range(3):
        source(torch.rand(2, 3, 8, 8) * 5)
    mine, theirs = copy.deepcopy(average.state_dict()), copy.deepcopy(source.state_dict())
    ema_update(average, source, decay=0.9)
    for name, value in average.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == 3
        else:
            torch.testing.assert_close(value, 0.9 * mine[name] + 0.1 * theirs[name])
    assert not torch.equal(average[1].running_var, mine["1.running_var"])
    for name, value in source.state_dict().items():
        assert torch.equal(value, theirs[name]), "the source is unchanged"


def test_extremes() -> None:
    average, source = network(), network()
    before = copy.deepcopy(average.state_dict())
    ema_update(average, source, decay=1.0)
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    ema_update(average, source, decay=0.0)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in average.state_dict().items())


def test_a_shared_weight_is_moved_once() -> None:
    def tied(value: float) -> nn.Module:
        first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(first.weight, value)
        second.weight = first.weight
        return nn.Sequential(first, second)

    average = tied(0.0)
    ema_update(average, tied(1.0), decay=0.9)
    assert float(average[0].weight) == pytest.approx(0.1)


def test_records_no_gradient() -> None:
    average, source = network(), network()
    ema_update(average, source, decay=0.5)
    assert all(value.requires_grad and value.is_leaf and value.grad is None for value in average.parameters())


def test_a_module_without_parameters() -> None:
    ema_update(nn.Flatten(), nn.Flatten(), decay=0.9)
    counting = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
    counting.register_buffer("calls", torch.tensor(0))
    source = copy.deepcopy(counting)
    source.calls += 3
    ema_update(counting, source, decay=0.9)
    assert int(counting.calls) == 3
