"""Continue a checkpoint with more steps than its training was to have."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix.training.configuration import LENGTHS


def reopen(checkpoint: dict[str, Any]) -> bool:
    """Let a finished training go on in its epoch: at its end Lightning counts the epoch as over, wherever it was.

    The counters become those of a checkpoint that is written after a step and its validation.

    Args:
        checkpoint: what it holds; changed in place.

    Returns:
        Whether it is of a finished training; others are left as they are.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if not epochs["current"]["completed"] == epochs["current"]["ready"] > 0:
        return False
    for count in (epochs["total"], epochs["current"]):
        count["processed"] -= 1
        count["completed"] -= 1
    for count in (batches["total"], batches["current"]):
        count["completed"] -= 1
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    return True


def has_length(checkpoint: dict[str, Any], schedule: LRScheduler) -> bool:
    """Whether a checkpoint's schedule is as long as a new one.

    Args:
        checkpoint: what it holds.
        schedule: a new schedule.
    """
    (kept,) = checkpoint["lr_schedulers"]
    new = schedule.state_dict()
    return all(kept.get(key) == new[key] for key in LENGTHS if key in new)


def reschedule(checkpoint: dict[str, Any], optimizers: Sequence[Optimizer], schedule: LRScheduler) -> None:
    """Replace a checkpoint's learning rates by those that a schedule has after as many steps.

    Args:
        checkpoint: what it holds; changed in place.
        optimizers: new ones of the same groups; their learning rates change.
        schedule: a new schedule over them.
    """
    (kept,) = checkpoint["lr_schedulers"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the optimizer makes no step
        for _ in range(kept["last_epoch"]):
            schedule.step()
    checkpoint["lr_schedulers"] = [schedule.state_dict()]
    (combined,) = checkpoint["optimizer_states"]
    for state, optimizer in zip(combined["optimizers"], optimizers, strict=True):
        for group, new in zip(state["param_groups"], optimizer.param_groups, strict=True):
            group.update({key: value for key, value in new.items() if key != "params"})
