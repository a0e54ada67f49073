"""Early stopping."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semipix.training.stopping import EarlyStop
from tests.conftest import Result
from tests.helpers.runs import Killed, cut_off

Command = Callable[..., Result]

NO_PROGRESS = ("optimizer.lr=0", "optimizer.weight_decay=0", "steps=20", "validations=10", "trainer.early_stopping=2")
"""Validation follows every second step; the first one is the best, so the third ends the training at step 6."""


def steps() -> int:
    return int(torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"])


def summary_after(command: Command) -> dict[str, object]:
    """What is in the summary of a training that is resumed from its end, but for what it cost."""
    Path("run/summary.json").unlink()
    assert command("train", "resume=run").code == 0
    found = json.loads(Path("run/summary.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "peak_memory_mib")}


def test_training_ends_after_validations_without_improvement_and_says_why(train: Command, command: Command) -> None:
    result = train(*NO_PROGRESS, "freeze_batch_norm=true")
    assert result.code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    best = f"{summary['best/miou']:.4g}"
    assert summary["steps"] == steps() == 6
    assert summary["stopped_early"] == f"val/miou has not been better than {best} for 2 validations"
    assert result.out.splitlines()[-1].startswith(f"run: 6 steps, stopped early ({summary['stopped_early']}), see run/")
    again = command("train", "resume=run")
    assert "run: finished already, nothing to resume" in again.out
    assert steps() == 6
    killed_before_its_summary = summary_after(command)
    assert killed_before_its_summary == {key: summary[key] for key in killed_before_its_summary}
    assert killed_before_its_summary.keys() >= {"stopped_early", "val/miou", "train/loss", "missed_classes"}
    assert steps() == 6
    assert command("evaluate", "run").code == 0


@pytest.mark.parametrize("every", [pytest.param(5, id="between"), pytest.param(4, id="at_a_validation")])
def test_a_resumed_training_goes_on_counting(
    every: int, train: Command, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = cut_off(monkeypatch, 5)
    with pytest.raises(Killed):
        train(*NO_PROGRESS, "freeze_batch_norm=true", f"checkpoint_every={every}")
    undo()
    assert command("train", "resume=run").code == 0
    assert steps() == 6


def test_without_it_training_runs_to_its_end(train: Command) -> None:
    overrides = [item for item in NO_PROGRESS if not item.startswith(("trainer.", "steps="))]
    assert train(*overrides, "steps=8", "validations=4", "freeze_batch_norm=true", "trainer.early_stopping=4").code == 0
    assert "stopped_early" not in json.loads(Path("run/summary.json").read_text())
    assert steps() == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.early_stopping=0", "trainer.early_stopping: 0 found, 1 or more expected"),
        ("trainer.early_stopping=soon", "trainer.early_stopping: 'soon' found, a whole number or null expected"),
        ("trainer.early_stoping=3", "unknown key trainer.early_stoping; did you mean early_stopping?"),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, message: str, train: Command) -> None:
    assert message in train(override).error
    assert not Path("run").exists()


def test_it_needs_validation(train: Command) -> None:
    assert "trainer.early_stopping: there is no validation" in train("trainer.early_stopping=3", "validations=0").error
    assert not Path("run").exists()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_no_improvement(mode: str) -> None:
    stop = EarlyStop("val/miou", mode, patience=2)
    ended = [stop._evaluate_stopping_criteria(torch.tensor(value))[0] for value in (0.5, float("nan"), float("nan"))]
    assert ended == [False, False, True]
    assert stop.reason == "val/miou has not been better than 0.5 for 2 validations"
    never = EarlyStop("val/miou", mode, patience=1)
    assert never._evaluate_stopping_criteria(torch.tensor(float("nan")))[0]
    assert never.reason == "val/miou was not a number in 1 validation"
