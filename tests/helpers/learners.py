"""Short trainings of a Learner under Lightning's trainer."""

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import SGD

from semipix.batch import Batch
from semipix.methods.base import Method
from semipix.training.learner import Learner
from tests.helpers.tiny import TinySource, make_data


class Count(Callback):
    """Counts what a method is asked for, and keeps the gradient's norm after each step."""

    def __init__(self, method: Method) -> None:
        self.losses = self.steps = 0
        self.epochs: list[float] = []
        self.batches: list[Batch] = []
        self.norms: list[float] = []
        losses, after_step = method.losses, method.after_step

        def count_losses(batch: Batch, epoch: float) -> dict[str, Tensor]:
            self.losses += 1
            self.epochs.append(epoch)
            self.batches.append(batch)
            return losses(batch, epoch)

        def count_steps() -> None:
            self.steps += 1
            gradients = [value.grad for value in method.parameters() if value.grad is not None]
            self.norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
            after_step()

        method.losses, method.after_step = count_losses, count_steps  # type: ignore[method-assign]


def make_learner(method: Method, lr: float = 0.01, **given: Any) -> Learner:
    """A Learner of one optimizer."""
    return Learner(method, optimizer=functools.partial(SGD, lr=lr), **given)


def fit(
    learner: Learner,
    source: TinySource | None = None,
    data: dict[str, Any] | None = None,
    resumed: Path | None = None,
    **given: Any,
) -> Any:
    """A trainer after two steps without validation, unless given otherwise, or after going on from a checkpoint."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(**{**settings, **given})
    module = make_data(learner.method, source, **(data or {}))
    module.accumulate = trainer.accumulate_grad_batches
    trainer.fit(learner, datamodule=module, ckpt_path=resumed, weights_only=True)
    return trainer
