"""A resumed run reaches the same weights as an uninterrupted one.

Also tests training/checkpoints.py.
"""

import csv
import errno
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from semipix.errors import SemipixError
from semipix.models import flaw_detector
from semipix.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from semipix.training.learner import Learner
from tests.conftest import QUICK, Result
from tests.helpers.runs import Killed, assert_same, cut_off

STEPS = 10
"""Two and a half epochs: 8 unlabeled images, 2 a step."""

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def whole_runs(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Uninterrupted runs by method and overrides, each trained once."""
    from semipix.cli import main

    made: dict[tuple[str, ...], Path] = {}

    def get(*overrides: str) -> Path:
        if overrides not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            usual = [item for item in QUICK if not item.startswith("steps=")]
            assert main(["train", *usual, f"data.root={shared_photos}", *overrides, f"run={folder}"]) == 0
            made[overrides] = folder
        return made[overrides]

    return get


@pytest.mark.parametrize(
    ("every", "killed", "workers"),
    [
        pytest.param(3, 3, 0, id="mid_epoch"),
        pytest.param(3, 3, 1, id="mid_epoch_with_a_reading_process"),
        pytest.param(3, 5, 0, id="steps_after_the_checkpoint_are_lost"),
        pytest.param(4, 4, 0, id="end_of_epoch"),
        pytest.param(5, 5, 0, id="after_validation"),
        pytest.param(8, 8, 0, id="end_of_second_epoch"),
    ],
)
def test_resumed_mean_teacher_is_the_uninterrupted_one(
    every: int,
    killed: int,
    workers: int,
    train: Command,
    command: Command,
    whole_runs: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An epoch has 4 steps, and validation follows steps 5 and 10."""
    overrides = ("method=mean_teacher", f"steps={STEPS}", "validations=2", "trainer.log_every_n_steps=1")
    undo = cut_off(monkeypatch, killed)
    with pytest.raises(Killed):
        train(*overrides, f"checkpoint_every={every}", f"data.workers={workers}")
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] == every
    undo()
    first = Path("run/metrics/version_0/metrics.csv")
    before = first.read_text()
    assert len(before.splitlines()) > killed

    result = command("train", "resume=run")
    assert result.code == 0
    assert f"{STEPS}/{STEPS}" in result.err
    assert "weights_only" not in result.err
    assert_same(Path("run"), whole_runs(*overrides))
    assert first.read_text() == before
    assert Path("run/metrics/version_1/metrics.csv").exists()


def validations(run: Path, version: int) -> dict[int, str]:
    """The metric of each validation in a table of a run, by step."""
    with (run / f"metrics/version_{version}/metrics.csv").open() as file:
        return {int(row["step"]) + 1: row["val/miou"] for row in csv.DictReader(file) if row.get("val/miou")}


def test_a_validation_at_the_step_of_the_checkpoint_is_repeated(
    train: Command, command: Command, whole_runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results decide about best.ckpt and the pseudo labels: the checkpoint is written before they are known."""
    overrides = (
        *("method=gct_strong", "method.label_accuracy=0.6", "method.confidence=0.0", "method.warmup_epochs=0"),
        *("method.rampup_epochs=0", "steps=8", "validations=4", "seed=5", "optimizer.lr=0.05"),
    )
    whole = whole_runs(*overrides)
    measured = validations(whole, 0)
    assert max(measured, key=lambda step: float(measured[step])) == 2
    undo = cut_off(monkeypatch, 3)
    with pytest.raises(Killed):
        train(*overrides, "checkpoint_every=2")
    undo()
    assert command("train", "resume=run").code == 0
    assert_same(Path("run"), whole)
    assert validations(Path("run"), 1) == measured
    assert read_checkpoint(Path("run/checkpoints/best.ckpt"))["global_step"] == 2
    counted = read_checkpoint(Path("run/checkpoints/last.ckpt"))["loops"]["fit_loop"]
    total = counted["epoch_loop.val_loop.batch_progress"]["total"]
    assert total["started"] == total["completed"]  # a validation counts as unfinished where they differ


def test_accumulated_steps_resume(
    train: Command, command: Command, whole_runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the resumed training is killed among the batches of a step, before it has made one."""
    overrides = ("method=supervised", "steps=5", "validations=1", "trainer.accumulate_grad_batches=3")
    undo = cut_off(monkeypatch, 2)
    with pytest.raises(Killed):
        train(*overrides, "checkpoint_every=2")
    undo()
    path, batches = Path("run/checkpoints/last.ckpt"), []
    kept = path.stat().st_mtime_ns
    with monkeypatch.context() as killed:

        def hook(self: Learner, outputs: Any, batch: Any, batch_idx: int) -> None:
            batches.append(batch_idx)
            if len(batches) == 2:
                raise Killed

        killed.setattr(Learner, "on_train_batch_end", hook)
        with pytest.raises(Killed):
            command("train", "resume=run")
    assert path.stat().st_mtime_ns == kept
    assert command("train", "resume=run").code == 0
    assert_same(Path("run"), whole_runs(*overrides))


@pytest.mark.parametrize("place", [("--data", "elsewhere"), ("data.root=elsewhere",)])
def test_data_that_have_moved(
    place: tuple[str, ...],
    photos: Path,
    train: Command,
    command: Command,
    whole_runs: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides = ("method=mean_teacher", "steps=5", "validations=2")
    undo = cut_off(monkeypatch, 3)
    with pytest.raises(Killed):
        train(*overrides, "checkpoint_every=3", f"data.root={photos}")
    undo()
    written = Path("run/config.yaml").read_text()
    photos.rename("elsewhere")
    assert command("train", "resume=run", *place).code == 0
    whole = whole_runs(*overrides)
    assert_same(Path("run"), whole)
    assert command("evaluate", "run", "--data", "elsewhere").out == command("evaluate", whole).out != ""
    assert Path("run/config.yaml").read_text() == written


def test_interrupted_before_the_first_checkpoint(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """By code that raises this itself, so that no checkpoint is written."""

    def interrupt(self: Learner, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "on_train_batch_start", interrupt)
    result = train()
    assert result.code == 130
    assert result.err.splitlines()[-1] == (
        "semipix: interrupted before the first checkpoint (checkpoint_every) of run; remove it and start again"
    )


def test_a_finished_run_has_nothing_to_resume(command: Command, finished: Path) -> None:
    kept = (finished / "summary.json").read_text()
    before = (finished / "checkpoints/last.ckpt").stat().st_mtime_ns
    result = command("train", f"resume={finished}")
    assert result.code == 0
    assert "finished already, nothing to resume" in result.out
    assert (finished / "summary.json").read_text() == kept
    assert (finished / "checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_figures_of_a_finished_run_that_goes_on_keep_their_steps(
    command: Command, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "longer"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    steps = json.loads((run / "summary.json").read_text())["steps"]
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "steps": steps + 2}))
    for name in ("evaluation-test.csv", "evaluation-test.json"):
        (run / name).write_text("of the shorter training")
    result = command("train", f"resume={run}", "--trust")
    assert result.code == 0, result.err
    assert json.loads((run / "summary.json").read_text())["steps"] == steps + 2
    assert json.loads((run / f"summary-{steps}-steps.json").read_text())["steps"] == steps
    assert not (run / "evaluation-test.csv").exists()
    assert (run / f"evaluation-test-{steps}-steps.csv").read_text() == "of the shorter training"
    assert f"kept as evaluation-*-{steps}-steps.*" in result.out


def fail_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.save write `count` files, then find a full disk in the middle of the next."""
    whole, written = torch.save, []

    def save(state: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        written.append(1)
        if len(written) <= count:
            whole(state, file, *args, **kwargs)
            return
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)


def test_a_failing_write_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    """The system refuses files above 100 kB, as a full disk would in the middle of a write."""
    path = tmp_path / "folder/last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "global_step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="the previous one is kept") as caught:
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.zeros(10**6)}, "global_step": 2}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert read_checkpoint(path)["global_step"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_first_checkpoint_that_cannot_be_written(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        fail_after(0, full)
        message = train("checkpoint_every=1", "validations=0").error
    assert message.endswith("No space left on device; there is none yet: make room, then start the run again")
    assert train("checkpoint_every=1", "validations=0").code == 0


def test_a_full_disk_is_one_line_and_the_run_can_go_on(
    train: Command, command: Command, monkeypatch: pytest.MonkeyPatch, whole_runs: Callable[..., Path]
) -> None:
    overrides = ("method=supervised", "steps=6", "validations=0")
    with monkeypatch.context() as full:
        fail_after(1, full)
        message = train(*overrides, "checkpoint_every=2").error
    path = Path("run/checkpoints/last.ckpt").resolve()
    assert message == (
        f"semipix: error: {path}: checkpoint not written: No space left on device; the previous one is kept: "
        "make room, then resume the run"
    )
    assert read_checkpoint(path)["global_step"] == 2
    assert command("train", "resume=run").code == 0
    assert_same(Path("run"), whole_runs(*overrides))


def test_reading_refuses_what_could_run_code(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "function": flaw_detector.FlawDetector}, path)
    with pytest.raises(SemipixError, match=f"{path}: damaged, or not a checkpoint"):
        read_checkpoint(path)
