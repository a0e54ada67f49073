"""Activation checkpointing: compute a block's activations again in the backward pass instead of keeping them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from semipix.errors import SemipixError


def checkpointed(block: nn.Module, *inputs: Tensor) -> Any:
    """Run a block without keeping its activations.

    The second pass, during the backward pass, uses the same parameters as the first one, also where
    `torch.func.functional_call` had replaced them. It uses copies of the buffers, so that running statistics are
    updated only once a step, as without checkpointing.

    Args:
        block: any module; the second pass draws the same random numbers as the first one.
        *inputs: its positional arguments.

    Returns:
        The block's output.
    """
    if not torch.is_grad_enabled():  # without gradients no activations are kept
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
    """Wraps one method of a module as a module, for `checkpointed`.

    Args:
        whole: the module.
        name: name of the method that `forward` calls.
    """

    def __init__(self, whole: nn.Module, name: str) -> None:
        super().__init__()
        self.whole = whole
        self.name = name

    def forward(self, *inputs: Any) -> Any:
        """Call the method and return its result."""
        return getattr(self.whole, self.name)(*inputs)


class CheckpointedSequential(nn.Sequential):
    """An `nn.Sequential` whose blocks are checkpointed; the state dict has the same names."""

    def forward(self, input: Tensor) -> Any:
        """Apply the blocks, one after the other, to features (N, C, H, W)."""
        for block in self:
            input = checkpointed(block, input)
        return input


def chain(checkpointing: bool) -> type[nn.Sequential]:
    """The class with which a model chains its heavy blocks: checkpointed or not."""
    return CheckpointedSequential if checkpointing else nn.Sequential


def directly(block: nn.Module, *inputs: Tensor) -> Any:
    """Run a block without checkpointing."""
    return block(*inputs)


def runner(checkpointing: bool) -> Callable[..., Any]:
    """The function with which a model runs its heavy blocks: `checkpointed` or `directly`."""
    return checkpointed if checkpointing else directly


def checkpoint_stages(network: nn.Module, key: str) -> None:
    """Checkpoint the blocks of a library's network: those of its outermost `nn.Sequential`s.

    Args:
        network: changed in place.
        key: configuration key to name in the error.

    Raises:
        SemipixError: the network contains no `nn.Sequential`.
    """
    if not _replace_sequentials(network):
        raise SemipixError(
            f"model.{key}: {type(network).__name__} has no stages of blocks to checkpoint; set "
            "model.checkpointing=false or take a ResNet"
        )


def _replace_sequentials(network: nn.Module) -> int:
    """Replace the outermost `nn.Sequential`s by checkpointed ones, and return their number."""
    replaced = 0
    for name, child in list(network.named_children()):
        if type(child) is nn.Sequential:
            setattr(network, name, CheckpointedSequential(OrderedDict(child.named_children())))
            replaced += 1
        else:
            replaced += _replace_sequentials(child)
    return replaced
