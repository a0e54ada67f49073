"""Activation checkpointing: a block's inner activations are computed again for the backward pass instead of kept."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from semipix.errors import SemipixError


def checkpointed(block: nn.Module, *inputs: Tensor) -> Any:
    """Run a block without keeping what happens inside.

    The second pass takes the very parameters that the first one saw, which `torch.func.functional_call` may have put in
    place, and copies of the buffers: running statistics move once a step, as without checkpointing.

    Args:
        block: any module; its random numbers are repeated in the second pass.
        *inputs: its positional arguments.

    Returns:
        The block's output.
    """
    if not torch.is_grad_enabled():  # nothing is kept anyway
        return block(*inputs)
    parameters = dict(block.named_parameters())
    buffers = dict(block.named_buffers())
    passes = 0

    def run(*given: Tensor) -> Any:
        nonlocal passes
        passes += 1
        held = buffers if passes == 1 else {name: value.detach().clone() for name, value in buffers.items()}
        return functional_call(block, {**parameters, **held}, given)

    return checkpoint(run, *inputs, use_reentrant=False)


class Part(nn.Module):
    """A method of a module as a module of its own.

    Args:
        whole: the module.
        name: the method.
    """

    def __init__(self, whole: nn.Module, name: str) -> None:
        super().__init__()
        self.whole = whole
        self.name = name

    def forward(self, *inputs: Any) -> Any:
        """What the method returns."""
        return getattr(self.whole, self.name)(*inputs)


class CheckpointedSequential(nn.Sequential):
    """Blocks one after the other, each of them checkpointed; names and weights are those of `nn.Sequential`."""

    def forward(self, input: Tensor) -> Any:
        """What the blocks make of features (N, C, H, W)."""
        for block in self:
            input = checkpointed(block, input)
        return input


def chain(checkpointing: bool) -> type[nn.Sequential]:
    """The kind of `nn.Sequential` that a model builds its heavy parts of."""
    return CheckpointedSequential if checkpointing else nn.Sequential


def directly(block: nn.Module, *inputs: Tensor) -> Any:
    """Run a block and keep what its backward pass needs."""
    return block(*inputs)


def runner(checkpointing: bool) -> Callable[..., Any]:
    """How a model runs its heavy blocks: `checkpointed` or `directly`."""
    return checkpointed if checkpointing else directly


def checkpoint_stages(network: nn.Module, key: str) -> None:
    """Checkpoint the blocks of a network that somebody else wrote: those of its outermost `nn.Sequential`s.

    Args:
        network: changed in place.
        key: configuration key to name in the error.

    Raises:
        SemipixError: it has none.
    """
    if not _replace(network):
        raise SemipixError(
            f"model.{key}: {type(network).__name__} has no stages of blocks to checkpoint; set "
            "model.checkpointing=false or take a ResNet"
        )


def _replace(network: nn.Module) -> int:
    """How many outermost sequences were replaced."""
    replaced = 0
    for name, child in list(network.named_children()):
        if type(child) is nn.Sequential:
            setattr(network, name, CheckpointedSequential(OrderedDict(child.named_children())))
            replaced += 1
        else:
            replaced += _replace(child)
    return replaced
