"""Exponential moving average of a whole module: parameters and buffers."""

import torch
from torch import nn


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
    for name, mine in average.state_dict().items():
        if mine.is_floating_point():
            mine.lerp_(theirs[name].to(mine.dtype), 1.0 - decay)
        else:
            mine.copy_(theirs[name])
