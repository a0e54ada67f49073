"""bfloat16's products on a CPU without bfloat16 instructions: exact products, summed in float32, rounded once.

Units for bfloat16 multiply rounded factors, sum in float32 and round the sum. Where a CPU has no such units, torch
emulates them, ten times slower than float32 and more. Widening the factors, multiplying in float32 and rounding the
result is the same arithmetic but for the order of the sums, and costs about what float32 costs. All else of a
bfloat16 training (what autocast casts, activations in bfloat16, losses in float32) is torch's own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PRODUCTS = {
    operation
    for packet in (
        *(aten.convolution, aten.convolution_backward, aten._convolution, aten.conv2d, aten.conv_transpose2d),
        *(aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.matmul, aten.linear, aten.einsum),
    )
    for operation in (getattr(packet, name) for name in packet.overloads() if not name.endswith("out"))
}
"""Operations that sum products, with and without gradients."""


class BFloat16Products(TorchDispatchMode):
    """Inside, convolutions and matrix products of bfloat16 tensors are computed by float32 units."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not any(is_bfloat16(value) for value in args):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, widened, (args, kwargs))
        return tree_map_only(Tensor, Tensor.bfloat16, func(*args, **kwargs))


def is_bfloat16(value: object) -> bool:
    """Whether it is a tensor of bfloat16."""
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def widened(value: Tensor) -> Tensor:
    """A tensor of bfloat16 as float32, another as it is."""
    return value.float() if value.dtype == torch.bfloat16 else value
