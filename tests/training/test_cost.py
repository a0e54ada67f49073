"""What a training costs is in its summary, over all parts of a resumed one."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semipix.training import cost
from semipix.training.cost import Cost
from tests.conftest import Result

CPU = torch.device("cpu")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_a_step_is_measured_without_validation_and_with_accumulated_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    trainer: Any = SimpleNamespace(global_step=0)
    module: Any = SimpleNamespace(device=CPU)
    measured = Cost()
    measured.setup(trainer, module, "fit")
    measured.load_state_dict({"seconds": 1000.0})
    measured.on_train_start(trainer, module)
    for batch in range(6):  # of 2 seconds, two in a step
        clock.now += 2
        trainer.global_step = (batch + 1) // 2
        measured.on_train_batch_end(trainer)
        if batch == 3:
            clock.now += 50
            measured.on_validation_end(trainer, module)
    found = measured.summary(CPU)
    assert (found["step_seconds"], found["seconds"]) == (4, 1000 + 12 + 50)
    assert found["peak_memory_mib"] > 50  # of Python and torch
    assert measured.state_dict() == {"seconds": 1062}


def test_a_damaged_state_is_no_time() -> None:
    measured = Cost()
    measured.load_state_dict({"seconds": "a day"})
    assert measured.seconds < 60


def test_the_summary_of_a_training_has_its_cost(train: Callable[..., Result]) -> None:
    assert train("validations=1").code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 < summary["step_seconds"] <= summary["seconds"]
    assert summary["peak_memory_mib"] > 50
    assert summary["device"] == "cpu"
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["callbacks"]["Cost"]["seconds"] > 0
