"""Exponential moving average of a whole module: parameters and buffers."""

import torch
from torch import Tensor, nn


def ema_decay(step: int, maximum: float = 0.99) -> float:
    """Decay after `step` updates: min(1 - 1 / (step + 1), maximum).

    At first this is the mean of all updates, so that the initial weights have no influence (Tarvainen and Valpola,
    NeurIPS 2017).
    """
    return min(1.0 - 1.0 / (step + 1), maximum)


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Move `average` towards `source`, in place: a = decay * a + (1 - decay) * s.

    Parameters and floating buffers (running statistics) are averaged; integer buffers (counters) are copied.

    Args:
        average: the module that holds the average, of the same architecture as `source`.
        source: the trained module, unchanged.
        decay: weight of the old average in [0, 1].
    """
    theirs = source.state_dict()
    seen: set[int] = set()
    floating: tuple[list[Tensor], list[Tensor]] = [], []
    counters: tuple[list[Tensor], list[Tensor]] = [], []
    for name, mine in average.state_dict(keep_vars=True).items():
        if id(mine) in seen:  # a weight that two modules share
            continue
        seen.add(id(mine))
        averaged, trained = floating if mine.is_floating_point() else counters
        averaged.append(mine)
        trained.append(theirs[name].to(mine.dtype))
    if floating[0]:
        torch._foreach_lerp_(*floating, 1.0 - decay)  # a few kernels on a GPU instead of one for each tensor
    if counters[0]:
        torch._foreach_copy_(*counters)
