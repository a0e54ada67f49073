"""Trainings that are cut off, and run folders that are compared."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semipix.training.learner import Learner


class Killed(BaseException):
    """Ends a training at once, as a kill does."""


def cut_off(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], None]:
    """Make the training end before the step after `step`; returns what undoes it."""
    whole = Learner.on_train_batch_start

    def hook(self: Learner, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step >= step:
            raise Killed
        whole(self, batch, batch_idx)

    monkeypatch.setattr(Learner, "on_train_batch_start", hook)
    return lambda: monkeypatch.setattr(Learner, "on_train_batch_start", whole)


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from tensors(item, f"{name}/{key}")


def assert_same(first: Path, second: Path) -> None:
    """Weights, running statistics, the deployed flag and the optimizers' states are equal to the last bit."""
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (first, second)]
    assert states[0]["global_step"] == states[1]["global_step"]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        found = [dict(tensors(state[part])) for state in states]
        assert found[0].keys() == found[1].keys()
        for name, value in found[0].items():
            assert torch.equal(value, found[1][name]), f"{part}{name} differs"
