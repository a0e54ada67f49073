"""Which precision sums and comparisons are made in."""

import torch
from torch import Tensor


def at_least_float32(value: Tensor) -> Tensor:
    """Half precision as float32, anything wider as it is: bfloat16 would round what losses add up or compare."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
