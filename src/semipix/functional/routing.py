"""Functions that restrict which networks a loss term trains, by detaching instead of alternating phases."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


def frozen(module: nn.Module, *inputs: Any) -> Tensor:
    """Run a module so that gradients reach its inputs but not its parameters.

    Parameters are detached, and buffers are copied, so that running statistics do not change. In training mode a batch
    norm still normalises by the statistics of this batch.

    Args:
        module: any module that returns a tensor.
        *inputs: its positional arguments.

    Returns:
        The module's output.
    """
    if not torch.is_grad_enabled():
        return _with_copied_buffers(module, *inputs)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
    output: Tensor = functional_call(module, {**parameters, **buffers}, inputs)
    return output


def _with_copied_buffers(module: nn.Module, *inputs: Any) -> Tensor:
    """`frozen` where nothing gets a gradient: the time that `functional_call` takes counts where images are few."""
    kept = [(part, dict(part._buffers)) for part in _parts_of(module) if part._buffers]
    try:
        for part, buffers in kept:
            part._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
        output: Tensor = module(*inputs)
        return output
    finally:
        for part, buffers in kept:
            part._buffers.update(buffers)


def _parts_of(module: nn.Module) -> list[nn.Module]:
    """A module and all that it consists of; `modules()` takes far longer for deep networks."""
    found = [module]
    for part in found:  # also visits the parts that the loop appends
        found += part.children()
    return found


def without_dropout(module: nn.Module, *inputs: Any) -> Tensor:
    """`frozen` without dropout: pseudo labels are those of the whole network, as a deployed one would give them.

    All that leaves a part out in training is a module of some package, or a function that asks its module whether it
    trains. So all modules are told that they do not, but for norms, which go on to normalise by this batch.
    """
    training = [each for each in _parts_of(module) if each.training and not _is_norm(each)]
    try:
        for each in training:
            each.training = False
        return frozen(module, *inputs)
    finally:
        for each in training:
            each.training = True


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalises; those of timm and of others inherit nothing from torch's, but are named so."""
    return isinstance(module, nn.modules.batchnorm._NormBase) or "Norm" in type(module).__name__


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Mean of `value` (B, C, H, W) over the pixels where `mask` (B, 1, H, W) is True; 0 if there are none.

    Other pixels get no gradient, also if their values are not finite.
    """
    kept = value.masked_fill(~mask, 0.0)
    return kept.sum() / (mask.sum() * value.shape[1]).clamp(min=1)


def mean_where(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `value` (B, C, H, W): `masked_mean`, or over all pixels if there is no mask."""
    return value.mean() if mask is None else masked_mean(value, mask)


class _DifferentiatedAtOnce(torch.autograd.Function):
    """A scalar whose gradients are computed in the forward pass and returned in the backward pass."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], *parameters: Tensor) -> Tensor:
        with torch.enable_grad():
            value = compute()
            ctx.gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place, since copies would need more memory
        if gradients is None:
            raise RuntimeError("this loss can be differentiated only once; its gradients were used before")
        return None, *(None if saved is None else saved.mul_(gradient) for saved in gradients)


def differentiated_at_once(module: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """A loss that trains only one module, whose gradients are computed immediately.

    So the graph of the loss does not have to stay in memory until the backward pass of all terms. In float16 it does
    stay, since small gradients vanish there unless the whole loss is scaled first.

    Args:
        module: the module that the loss trains; other parameters get no gradient.
        compute: computes the loss, a scalar.

    Returns:
        The loss, with gradients for the module's parameters.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters or not torch.is_grad_enabled():
        return compute()
    device = parameters[0].device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        return compute()
    loss: Tensor = _DifferentiatedAtOnce.apply(compute, *parameters)
    return loss
