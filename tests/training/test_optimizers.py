"""Several optimizers that step as one."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LRScheduler, OneCycleLR, PolynomialLR

from semipix.models.adapt import adapt
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.training.optimizers import CombinedOptimizer, fused, make_schedule, optimizer_maker
from tests.helpers.tiny import rand

MAKERS: tuple[Callable[..., Optimizer], ...] = (
    functools.partial(Adam, lr=0.1, betas=(0.9, 0.99)),
    functools.partial(SGD, lr=0.2, momentum=0.9, weight_decay=0.01),
)


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(3, 3), nn.Linear(3, 2)]


def members(pair: list[nn.Module]) -> list[Optimizer]:
    return [make(network.parameters()) for make, network in zip(MAKERS, pair, strict=True)]


def loss(pair: list[nn.Module], number: int) -> Tensor:
    return pair[1](pair[0](rand(4, 3, seed=number))).square().sum()


def steps(pair: list[nn.Module], optimizers: list[Optimizer], numbers: range) -> None:
    for number in numbers:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(pair, number).backward()
        for optimizer in optimizers:
            optimizer.step()


def weights(pair: list[nn.Module]) -> list[Tensor]:
    return [value.detach().clone() for network in pair for value in network.parameters()]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_steps_as_its_members_would() -> None:
    alone, together = networks(), networks()
    steps(alone, members(alone), range(3))
    steps(together, [CombinedOptimizer(members(together))], range(3))
    assert_equal(weights(alone), weights(together))


def test_the_closure_runs_once() -> None:
    pair = networks()
    calls = []
    before = weights(pair)

    def closure() -> float:
        calls.append(1)
        value = loss(pair, 0)
        value.backward()
        return float(value.detach())

    returned = CombinedOptimizer(members(pair)).step(closure)
    assert len(calls) == 1
    assert returned == pytest.approx(loss(networks(), 0).item())
    assert not any(torch.equal(one, other) for one, other in zip(before, weights(pair), strict=True))


def test_zero_grad_reaches_every_network() -> None:
    pair = networks()
    optimizer = CombinedOptimizer(members(pair))
    loss(pair, 0).backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(value.grad is not None and not value.grad.any() for network in pair for value in network.parameters())
    optimizer.zero_grad()
    assert all(value.grad is None for network in pair for value in network.parameters())


def test_a_schedule_reaches_every_member() -> None:
    pair = networks()
    parts = members(pair)
    optimizer = CombinedOptimizer(parts)
    schedule = PolynomialLR(optimizer, total_iters=4, power=1.0)
    for factor in (1.0, 0.75, 0.5, 0.25, 0.0):
        assert [part.param_groups[0]["lr"] for part in parts] == pytest.approx([0.1 * factor, 0.2 * factor])
        before = weights(pair)
        steps(pair, [optimizer], range(1))
        moved = [not torch.equal(one, other) for one, other in zip(before, weights(pair), strict=True)]
        assert moved == [factor > 0] * 4
        schedule.step()


def test_a_restored_one_goes_on_as_if_nothing_had_happened() -> None:
    def make(pair: list[nn.Module]) -> tuple[list[Optimizer], CombinedOptimizer, PolynomialLR]:
        parts = members(pair)
        optimizer = CombinedOptimizer(parts)
        return parts, optimizer, PolynomialLR(optimizer, total_iters=8)

    def run(pair: list[nn.Module], optimizer: Optimizer, schedule: PolynomialLR, numbers: range) -> None:
        for number in numbers:
            steps(pair, [optimizer], range(number, number + 1))
            schedule.step()

    straight = networks()
    _, optimizer, schedule = make(straight)
    run(straight, optimizer, schedule, range(3))
    saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    second = copy.deepcopy(straight)
    run(straight, optimizer, schedule, range(3, 6))

    parts, restored, again = make(second)
    restored.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    run(second, restored, again, range(3, 6))
    assert_equal(weights(straight), weights(second))
    assert [part.param_groups[0]["lr"] for part in parts] == [group["lr"] for group in optimizer.param_groups]


def test_a_state_of_other_optimizers_is_refused() -> None:
    pair = networks()
    optimizer = CombinedOptimizer(members(pair))
    state = optimizer.state_dict()
    with pytest.raises(ValueError):
        optimizer.load_state_dict({"optimizers": state["optimizers"][:1]})


def test_a_gradient_scaler_sees_every_gradient() -> None:
    expected, pair = networks(), networks()
    steps(expected, members(expected), range(1))
    optimizer = CombinedOptimizer(members(pair))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss(pair, 0)).backward()
    scaler.step(optimizer)
    scaler.update()
    for one, other in zip(weights(expected), weights(pair), strict=True):
        torch.testing.assert_close(one, other)

    before = weights(pair)
    optimizer.zero_grad()
    scaler.scale(loss(pair, 1)).backward()
    pair[1].weight.grad[0, 0] = float("inf")  # in one network: no network steps
    scaler.step(optimizer)
    scaler.update()
    assert_equal(before, weights(pair))
    assert scaler.get_scale() == 512


class TestRates:
    def test_of_a_model_that_has_wishes(self) -> None:
        model = adapt(DeepLabV2(3, 2, backbone="resnet18"), 2)
        optimizer = optimizer_maker(functools.partial(SGD, lr=0.01, momentum=0.9))(model)
        head, backbone = model.model.heads[0].weight, next(model.model.backbone.parameters())
        rates = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
        assert len(rates) == len(list(model.parameters()))
        assert rates[id(backbone)] == pytest.approx(0.01)
        assert rates[id(head)] == pytest.approx(0.1)
        combined = CombinedOptimizer([optimizer])
        schedule = PolynomialLR(combined, total_iters=2, power=1.0)
        combined.step()
        schedule.step()
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.05])

    def test_of_a_model_without_wishes(self) -> None:
        model = nn.Linear(2, 2)
        model.bias.requires_grad_(False)
        optimizer = optimizer_maker(functools.partial(AdamW, lr=0.01))(model)
        assert [group["lr"] for group in optimizer.param_groups] == [0.01]
        assert optimizer.param_groups[0]["params"] == [model.weight]


class TestFused:
    def test_is_the_default_and_steps_alike(self) -> None:
        pairs = networks(), networks()
        made = [optimizer_maker(MAKERS[0])(network) for network in pairs[0]]
        assert all(optimizer.defaults["fused"] for optimizer in made)
        steps(pairs[0], made, range(3))
        steps(pairs[1], [MAKERS[0](network.parameters()) for network in pairs[1]], range(3))
        for first, second in zip(pairs[0], pairs[1], strict=True):
            torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()))

    @pytest.mark.parametrize("key", ["fused", "foreach", "differentiable"])
    def test_the_user_has_the_last_word(self, key: str) -> None:
        factory = functools.partial(AdamW, **{key: False})
        assert fused(factory) is factory

    def test_an_optimizer_without_it_is_left_alone(self) -> None:
        assert fused(torch.optim.Rprop) is torch.optim.Rprop


def scheduled(scheduler: Callable[[Optimizer], LRScheduler]) -> tuple[CombinedOptimizer, LRScheduler]:
    """Of a configured rate of 0.1, with groups of the 1-, 10- and 3-fold rate."""
    factory = functools.partial(SGD, lr=0.1)
    first, second = networks()
    groups = [{"params": [first.weight]}, {"params": [first.bias], "lr": 1.0}]
    optimizer = CombinedOptimizer([factory(groups), SGD(second.parameters(), lr=0.3)])
    return optimizer, make_schedule(scheduler, optimizer, factory)


def rates(optimizer: Optimizer, schedule: LRScheduler, count: int) -> list[list[float]]:
    """Of the groups before and after each step."""
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(count):
        optimizer.step()
        schedule.step()
        found.append([group["lr"] for group in optimizer.param_groups])
        assert schedule.get_last_lr() == found[-1]
    return found


@pytest.mark.parametrize(
    ("scheduler", "first"),
    [
        pytest.param(functools.partial(CosineAnnealingLR, T_max=8), 0.1, id="relative"),
        pytest.param(functools.partial(OneCycleLR, total_steps=8, max_lr=0.5, cycle_momentum=False), 0.02, id="one"),
        pytest.param(
            functools.partial(CyclicLR, base_lr=0.01, max_lr=0.5, step_size_up=3, cycle_momentum=False),
            0.01,
            id="cyclic",
        ),
    ],
)
def test_a_schedule_keeps_the_ratios_of_rates(scheduler: Callable[[Optimizer], LRScheduler], first: float) -> None:
    """Also after its state was loaded; the first group has the rates that the schedule gives an optimizer of one."""
    found = rates(*scheduled(scheduler), 6)
    assert found[0] == pytest.approx([first, 10 * first, 3 * first])
    for row in found:
        assert row == pytest.approx([row[0], 10 * row[0], 3 * row[0]])
    alone = SGD(networks()[0].parameters(), lr=0.1)
    assert [row[0] for row in found] == pytest.approx([row[0] for row in rates(alone, scheduler(alone), 6)])

    optimizer, schedule = scheduled(scheduler)
    rates(optimizer, schedule, 3)
    resumed, again = scheduled(scheduler)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(schedule.state_dict()))
    assert rates(resumed, again, 3) == found[3:]


def test_rates_that_a_schedule_has_for_each_group_are_its_own() -> None:
    scheduler = functools.partial(OneCycleLR, total_steps=8, max_lr=[0.5, 0.6, 0.7], cycle_momentum=False)
    assert rates(*scheduled(scheduler), 0) == [pytest.approx([0.02, 0.024, 0.028])]
