"""Several optimizers that step as one, and the rates a model asks for its parts."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from semipix.methods.base import MakeOptimizer

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""A torch optimizer class with everything but its parameters bound."""


class CombinedOptimizer(Optimizer):
    """Several optimizers behind the interface of one.

    One backward serves all networks, so one step does too. This keeps the trainer's automatic optimization: gradient
    accumulation, clipping, loss scaling over all gradients and a step count that counts each step once.

    Args:
        optimizers: at least one, of any kinds.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Make this optimizer's groups the very dicts of its members, so that a schedule reaches them."""
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Run the closure, if any, once; then step every optimizer."""
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
    """The factory of an optimizer's fused form, where torch has one and nothing else is asked for.

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
    """Turn a bound optimizer class into a maker that honours a model's own learning-rate ratios.

    A model may offer `parameter_groups() -> list[dict]`, each group with an `lr_scale` that multiplies the configured
    learning rate (DeepLab: 1 for the backbone, 10 for the head). An optimizer that can update all weights in one fused
    kernel does so, unless `fused`, `foreach` or `differentiable` is bound.
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
