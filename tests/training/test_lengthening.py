"""A finished training that goes on with more steps is as one that had them from the beginning."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, PolynomialLR

from tests.helpers.learners import Count, fit, make_learner
from tests.helpers.tiny import make_method

STEPS = 7
"""Two rounds of three batches and one batch more: 6 unlabeled images, 2 a batch."""


class Rates(Callback):
    """Keeps the learning rates of each step."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


@pytest.mark.parametrize(
    "schedule",
    [
        lambda steps: functools.partial(PolynomialLR, total_iters=steps, power=0.9),
        lambda steps: functools.partial(CosineAnnealingLR, T_max=steps),
        lambda steps: functools.partial(OneCycleLR, total_steps=steps, max_lr=0.1, cycle_momentum=False),
    ],
    ids=["polynomial", "cosine", "one_cycle"],
)
@pytest.mark.parametrize("killed", [False, True])
def test_learning_rates_are_those_of_the_new_length(
    schedule: Callable[[int], Callable[..., LRScheduler]], killed: bool, tmp_path: Path
) -> None:
    """Also of a training that was killed, whose configuration was then changed."""
    path = tmp_path / "last.ckpt"

    def train(steps: int, *callbacks: Callback, resumed: Path | None = None) -> pl.Trainer:
        learner = make_learner(make_method("gct"), scheduler=schedule(steps))
        writes = any(isinstance(each, ModelCheckpoint) for each in callbacks)
        return fit(learner, resumed=resumed, max_steps=steps, callbacks=[*callbacks], enable_checkpointing=writes)

    whole, longer = Rates(), Rates()
    train(STEPS, whole)
    if killed:
        train(5, ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4))
    else:
        train(4).save_checkpoint(path)
    train(STEPS, longer, resumed=path)
    assert longer.seen == whole.seen[4:]
    assert whole.seen[4] != whole.seen[5]


@pytest.mark.parametrize(("first", "accumulate"), [(4, 1), (3, 1), (2, 2)], ids=["in_an_epoch", "at_its_end", "added"])
def test_epochs_and_random_numbers_go_on(first: int, accumulate: int, tmp_path: Path) -> None:
    def train(steps: int, resumed: Path | None = None) -> tuple[Count, pl.Trainer]:
        method = make_method("mean_teacher")
        count = Count(method)
        settings = {"max_steps": steps, "accumulate_grad_batches": accumulate}
        return count, fit(make_learner(method, lr=0.1), resumed=resumed, **settings)

    whole, trained = train(STEPS)
    train(first)[1].save_checkpoint(tmp_path / "last.ckpt")
    longer, continued = train(STEPS, tmp_path / "last.ckpt")
    assert longer.epochs == whole.epochs[first * accumulate :]
    expected = trained.lightning_module.state_dict()
    for name, value in continued.lightning_module.state_dict().items():
        assert torch.equal(value, expected[name]), name
