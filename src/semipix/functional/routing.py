"""Which network a term may train: gradients are routed by detach, not by alternating phases."""

from typing import Any

from torch import Tensor, nn
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
