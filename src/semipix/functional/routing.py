"""Which network a term may train: gradients are routed by detach, not by alternating phases."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


def frozen(module: nn.Module, *inputs: Any) -> Tensor:
    """Run a module so that gradients reach its inputs but neither its parameters nor its buffers.

    Parameters enter detached and buffers as copies, so running statistics stay as they are; a training-mode batch norm
    still normalises by the statistics of this batch.

    Args:
        module: any module that returns a tensor.
        *inputs: its positional arguments.

    Returns:
        The module's output.
    """
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
    output: Tensor = functional_call(module, {**parameters, **buffers}, inputs)
    return output


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Mean of `value` (B, C, H, W) over the pixels where `mask` (B, 1, H, W) is True; 0 where none is.

    A pixel that the mask leaves out has no gradient, even where its value is not finite.
    """
    kept = value.masked_fill(~mask, 0.0)
    return kept.sum() / (mask.sum() * value.shape[1]).clamp(min=1)


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
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place and handed over: a copy could be the peak
        if gradients is None:
            raise RuntimeError("this loss can be differentiated once: its gradients have been handed out")
        return None, *(None if saved is None else saved.mul_(gradient) for saved in gradients)


def differentiated_at_once(module: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """A loss that trains only one module, with gradients that are computed at once.

    The graph of such a term does not have to stay in memory until the backward pass of all terms. In float16 it stays,
    since small gradients vanish there unless the whole loss is scaled first.

    Args:
        module: the module that the loss trains; other parameters get no gradient.
        compute: the loss, a scalar.

    Returns:
        The loss, with gradients to the module's parameters.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters or not torch.is_grad_enabled():
        return compute()
    device = parameters[0].device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        return compute()
    loss: Tensor = _DifferentiatedAtOnce.apply(compute, *parameters)
    return loss
