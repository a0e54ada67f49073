"""One optimizer that combines several, learning rates of a model's parts, and schedules that keep their ratios."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix.methods.base import MakeOptimizer

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""A torch optimizer class with everything but its parameters bound."""

GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""Learning rates that a schedule sets in the groups of an optimizer."""

SCHEDULE_RATES = ("base_lrs", "max_lrs", "_last_lr")
"""Attributes of a schedule with a learning rate for each group."""


class CombinedOptimizer(Optimizer):
    """Several optimizers with the interface of one.

    All networks share one backward pass, so their optimizers step together. This allows Lightning's automatic
    optimization: gradient accumulation, clipping and loss scaling over all gradients, and a correct count of steps.

    Args:
        optimizers: one or more optimizers of any classes.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Use the same group objects as the combined optimizers, so that a scheduler changes their learning rates."""
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Run the closure, if there is one, then step every optimizer."""
        loss = None if closure is None else closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._share_groups()


def fused(factory: OptimizerFactory) -> OptimizerFactory:
    """The factory with `fused=True`, if the optimizer takes it and no implementation was chosen.

    Args:
        factory: an optimizer class, or a partial of one.
    """
    target = factory.func if isinstance(factory, functools.partial) else factory
    bound = factory.keywords if isinstance(factory, functools.partial) else {}
    known = inspect.signature(target).parameters
    if "fused" not in known or bound.keys() & {"fused", "foreach", "differentiable"}:
        return factory
    partial: OptimizerFactory = functools.partial(factory, **{"fused": True})
    return partial


def optimizer_maker(factory: OptimizerFactory) -> MakeOptimizer:
    """A function that makes the optimizer of a model, with the model's own ratios of learning rates.

    A model may have a method `parameter_groups() -> list[dict]`. Each group's `lr_scale` multiplies the configured
    learning rate (DeepLab: 1 for the backbone, 10 for the heads). Optimizers are fused where torch can do so, unless
    `fused`, `foreach` or `differentiable` is set.

    Args:
        factory: an optimizer class, or a partial of one.
    """
    factory = fused(factory)

    def make_optimizer(model: nn.Module) -> Optimizer:
        groups_of = getattr(model, "parameter_groups", None)
        groups = groups_of() if groups_of is not None else None
        if groups is None:
            return factory([parameter for parameter in model.parameters() if parameter.requires_grad])
        scales = [group.pop("lr_scale", 1.0) for group in groups]
        optimizer = factory(groups)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] *= scale
        return optimizer

    return make_optimizer


def make_schedule(
    scheduler: Callable[[Optimizer], LRScheduler], optimizer: CombinedOptimizer, factory: OptimizerFactory
) -> LRScheduler:
    """A schedule that keeps the ratios of the groups' learning rates.

    Most schedules multiply the rate of each group. Others, such as `OneCycleLR` and `CyclicLR`, set the configured
    rates in place of the groups' own; these are multiplied by the ratio of the group's own rate and the optimizer's.
    Rates that are given for each group are left as they are.

    Args:
        scheduler: a scheduler class with all arguments bound but the optimizer.
        optimizer: what it schedules.
        factory: an optimizer class, or a partial of one, as configured.
    """
    (probe,) = factory([nn.Parameter(torch.zeros(1))]).param_groups
    own = [group.get("lr") for group in optimizer.param_groups]
    schedule = scheduler(optimizer)
    begins = [group.get("initial_lr") for group in optimizer.param_groups]
    if begins == own or any(begin != begins[0] for begin in begins) or not probe.get("lr"):
        return schedule
    ratios = [float(rate / probe["lr"]) for rate in own]
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        group.update({key: group[key] * ratio for key in GROUP_RATES if key in group})
    for key in SCHEDULE_RATES:
        if hasattr(schedule, key):
            rates = getattr(schedule, key)
            setattr(schedule, key, [rate * ratio for rate, ratio in zip(rates, ratios, strict=True)])
    return schedule
