"""Places of values in an ascending table."""

import torch
from torch import Tensor


def count_at_most(table: Tensor, values: Tensor) -> Tensor:
    """How many numbers of an ascending table (K,) are at most each value: `torch.searchsorted` from the right.

    ONNX has no such operator, so an export gets a binary search of other operators.

    Args:
        table: ascending numbers (K,).
        values: of any shape.

    Returns:
        Whole numbers from 0 to K of the shape of `values`.
    """
    if not torch.compiler.is_exporting():
        return torch.searchsorted(table, values.contiguous(), right=True)
    return binary_search(table, values)


def binary_search(table: Tensor, values: Tensor) -> Tensor:
    """What `count_at_most` returns, with one comparison for each bit of the result."""
    size = table.shape[0]
    count = torch.zeros_like(values, dtype=torch.int64)
    for bit in reversed(range(size.bit_length())):
        wanted = count + (1 << bit)
        fits = (wanted <= size) & (table[wanted.clamp(max=size) - 1] <= values)
        count = torch.where(fits, wanted, count)
    return count
