"""Ctrl-C, SIGTERM and SIGHUP: no signal is lost, files are complete, and a stopped training can be resumed."""

import contextlib
import csv
import ctypes
import json
import os
import random
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from semipix import interruption
from semipix.atomic import ENDING
from semipix.data.batches.datasets import LabeledDataset
from semipix.data.batches.loaders import SourceLoader
from semipix.data.batches.workers import CHOSEN
from semipix.functional.grouping import BATCH_PIXELS
from semipix.inference.predictor import Predictor
from semipix.interruption import Interrupted, deferred, handled, raise_if_interrupted, received
from semipix.launch import runner, sweep
from semipix.training.checkpoints import read_checkpoint
from semipix.training.learner import Learner
from tests.conftest import QUICK, Result
from tests.helpers.processes import SCRIPT, environment, wait_for
from tests.helpers.runs import assert_same
from tests.helpers.tiny import TinyModel

Command = Callable[..., Result]

STOPPING = "semipix: stopping after this step; press Ctrl-C again to stop now"
NOTHING = "semipix: interrupted before the first step; nothing was trained"


def send(number: int = signal.SIGTERM) -> None:
    """Send a signal to this process, and wait until its handler has run."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def lines(err: str) -> list[str]:
    """The lines that a command has printed, without its progress bar."""
    return [line for line in err.replace("\r", "\n").splitlines() if line and "%|" not in line]


# The handlers


@pytest.mark.parametrize("number", interruption.ENDING_SIGNALS)
def test_the_first_signal_raises_and_the_handlers_before_come_back(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with handled(), pytest.raises(Interrupted) as caught:
            send(number)
        assert caught.value.number == number
        assert signal.getsignal(number) == signal.SIG_DFL
        assert received() is None
    finally:
        signal.signal(number, before)


def test_a_signal_that_a_library_swallows_is_not_lost() -> None:
    with handled():
        with contextlib.suppress(BaseException):
            send()
        assert received() == signal.SIGTERM
        with pytest.raises(Interrupted, match="how to continue"):
            raise_if_interrupted(message="how to continue")
        with pytest.raises(Interrupted), deferred("step"):
            raise AssertionError("nothing begins after a signal")


def test_a_deferred_signal_waits_and_is_announced_once(capfd: pytest.CaptureFixture[str]) -> None:
    with handled():
        with deferred("step"):
            send()
            send()  # as `timeout` does, to a process and to its group
            send(signal.SIGHUP)
            assert received() == signal.SIGTERM
        with pytest.raises(Interrupted):
            raise_if_interrupted()
    assert capfd.readouterr().err.split("\n") == ["", STOPPING, ""]


def test_an_ignored_signal_stays_ignored() -> None:
    """As SIGHUP is under nohup, and SIGINT in a shell's background jobs."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled():
            send(signal.SIGHUP)
            assert received() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_where_nothing_can_be_raised_prints_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    class Deleted:
        def __del__(self) -> None:
            send()

    with handled():
        Deleted()
        assert received() == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_a_forked_process_has_handlers_of_its_own() -> None:
    with handled():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGHUP)
            ours = received() is None and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            os._exit(7 if ours else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        time.sleep(0.05)
        assert received() is None
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


# In trainings of this process

STEPS = (*("method=cps", "steps=10", "checkpoint_every=100", "trainer.log_every_n_steps=1", "data.eval_batch_size=1"),)
"""Two and a half epochs of 4 steps."""


def signal_in(owner: Any, name: str, when: Callable[[Any], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM, once, when a method of a class is called and a condition holds for its object."""
    whole, sent = getattr(owner, name), []

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not sent and when(self):
            sent.append(True)
            send()
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


@pytest.fixture(scope="module")
def whole(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Uninterrupted runs by number of validations, each trained once."""
    from semipix.cli import main

    made: dict[int, Path] = {}

    def get(validations: int) -> Path:
        if validations not in made:
            made[validations] = tmp_path_factory.mktemp("whole") / "run"
            usual = [item for item in QUICK if not item.startswith("steps=")]
            given = [*usual, *STEPS, f"data.root={shared_photos}", f"validations={validations}"]
            assert main(["train", *given, f"run={made[validations]}"]) == 0
        return made[validations]

    return get


def figures_of(run: Path) -> list[tuple[str, str, str]]:
    """Steps, losses and validations that a run's tables hold."""
    found = []
    for table in sorted(run.glob("metrics/*/metrics.csv")):
        with table.open() as file:
            rows = csv.DictReader(file)
            found += [(row["step"], row.get("train/loss") or "", row.get("val/miou") or "") for row in rows]
    return found


@pytest.mark.parametrize(
    ("place", "step", "validations", "stops"),
    [
        pytest.param("training_step", 3, 2, 4, id="last_step_of_an_epoch"),
        pytest.param("training_step", 4, 2, 5, id="step_before_validation"),
        pytest.param("validation_step", 5, 2, 5, id="validation"),
        pytest.param("validation_step", 4, 5, 4, id="validation_at_the_end_of_an_epoch"),
        pytest.param("data", 6, 2, 6, id="waiting_for_data"),
        pytest.param("data", 4, 5, 5, id="waiting_for_the_first_batch_of_an_epoch"),
    ],
)
def test_a_stopped_training_resumes_to_the_weights_of_an_uninterrupted_one(
    place: str,
    step: int,
    validations: int,
    stops: int,
    train: Command,
    command: Command,
    whole: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        if place == "data":
            seen: list[Learner] = []
            signal_in(Learner, "on_train_start", lambda learner: bool(seen.append(learner)), patch)
            signal_in(LabeledDataset, "read", lambda _: bool(seen) and seen[0].global_step == step, patch)
        else:
            signal_in(Learner, place, lambda learner: learner.global_step == step, patch)
        result = train(*STEPS, f"validations={validations}")
    assert result.code == 143
    assert lines(result.err) == [
        STOPPING,
        f"semipix: interrupted at step {stops}; continue with: semipix train resume=run --trust",
    ]
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] == stops
    assert command("train", "resume=run").code == 0
    assert_same(Path("run"), whole(validations))
    assert figures_of(Path("run")) == figures_of(whole(validations))


def test_accumulated_gradients_are_not_lost(
    train: Command, command: Command, monkeypatch: pytest.MonkeyPatch, shared_photos: Path
) -> None:
    """Validation follows batch 5 of 15, in the middle of the second step: the training stops after that step."""
    given = ("steps=5", "trainer.val_check_interval=5", "trainer.accumulate_grad_batches=3", "data.eval_batch_size=1")
    assert train(*given, "run=whole").code == 0
    with monkeypatch.context() as patch:
        signal_in(Learner, "validation_step", lambda learner: learner.global_step == 1, patch)
        result = train(*given)
    assert lines(result.err)[1:] == ["semipix: interrupted at step 2; continue with: semipix train resume=run --trust"]
    assert command("train", "resume=run").code == 0
    assert_same(Path("run"), Path("whole"))


def test_a_signal_in_the_last_validation_lets_it_end(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_in(Learner, "validation_step", lambda learner: learner.global_step == 2, monkeypatch)
    result = train("data.eval_batch_size=1")
    shown = [line for line in lines(result.err) if "hardly finds classes" not in line]
    assert (result.code, shown) == (143, [STOPPING, "semipix: interrupted, when everything was done"])
    assert "val/miou" in Path("run/summary.json").read_text()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(SourceLoader, "__init__"), (Learner, "validation_step"), (Learner, "on_train_start")],
)
def test_nothing_is_left_before_the_first_step(
    owner: type, name: str, train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(owner, name, lambda _: True, monkeypatch)
    result = train("run=runs/one", "data.eval_batch_size=1")
    assert (result.code, lines(result.err)) == (143, [STOPPING, NOTHING])
    assert not Path("runs").exists()


def test_slurm_requeues_and_stops(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the time limit SLURM sends SIGUSR1, after which Lightning queues the job again, and then SIGTERM."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in {"NTASKS": 1, "JOB_NAME": "job", "JOB_ID": 7, "PROCID": 0, "LOCALID": 0, "NODEID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    step = Learner.training_step

    def patched(self: Learner, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == 1:
            send(signal.SIGUSR1)
            send()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Learner, "training_step", patched)
    result = train("steps=4", "validations=0")
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert Path("run/hpc_ckpt_1.ckpt").exists()
    assert result.code == 143
    assert lines(result.err)[-1] == "semipix: interrupted at step 2; continue with: semipix train resume=run --trust"


def test_what_fails_after_a_signal_is_no_shortage_of_memory(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Learner, batch: Any, batch_idx: int) -> None:
        send()
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Learner, "training_step", fail)
    result = train()
    assert (result.code, lines(result.err)) == (143, [STOPPING, NOTHING])


# Other commands


def test_an_interrupted_prediction_says_how_far_it_has_come(
    finished: Path, shared_photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BATCH_PIXELS, "cpu", 64 * 64)
    folder = shared_photos / "images/train"
    given = ("predict", finished, folder, "--out", "out")
    with monkeypatch.context() as patch:
        signal_in(Predictor, "write", lambda _: True, patch)
        result = command(*given)
    printed = re.fullmatch(
        r"semipix: interrupted after (\d+) of 12 images; continue with the same command and --skip-existing",
        lines(result.err)[-1],
    )
    assert result.code == 143
    assert printed, result.err
    there = {path.name: path.stat().st_mtime_ns for path in Path("out/masks").iterdir()}
    assert int(printed[1]) <= len(there) < 12
    assert not [path for path in Path("out").rglob("*") if path.name.endswith(ENDING)]
    assert command(*given, "--skip-existing").code == 0
    after = {path.name: path.stat().st_mtime_ns for path in Path("out/masks").iterdir()}
    assert len(after) == 12
    assert there.items() <= after.items()


def test_an_interrupted_measurement_writes_nothing(
    finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(Learner, "test_step", lambda _: True, monkeypatch)
    result = command("evaluate", finished, "--batch-size", "1")
    assert (result.code, lines(result.err)[-1], result.out) == (143, "semipix: interrupted", "")
    assert not (finished / "evaluation-test.json").exists()


def test_an_interrupted_check_is_one_line(
    shared_photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semipix.data.check.check_masks", lambda *_: send())
    result = command("data", "check", shared_photos)
    assert (result.code, lines(result.err), result.out) == (143, ["semipix: interrupted"], "")


def test_an_interrupted_demo_stops_what_it_has_started(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python is replaced by a program that writes a file when it receives SIGTERM."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\ntrap \'touch "$0.ended.$$"; exit 143\' TERM\ntouch "$0.began.$$"\nwhile :; do sleep 0.05; done\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(runner.sys, "executable", str(program))
    began = time.monotonic()

    def interrupt() -> None:
        while len(list(tmp_path.glob("*.began.*"))) < 2 and time.monotonic() < began + 30:
            time.sleep(0.02)
        send(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = command("demo", "--out", "out")
    thread.join()
    assert result.code == 130
    assert lines(result.err)[-1] == "semipix: interrupted; continue with the same command, which trains what out lacks"
    assert len(list(tmp_path.glob("*.began.*"))) == len(list(tmp_path.glob("*.ended.*"))) == 2


# Real processes

TRAINING = (
    *("train", "data=scenes", "data.size=64", "data.train=12", "data.val=2", "data.test=0", "data.labels=1/2"),
    *("data.crop=64", "data.batch_size=4", "method=supervised", "trainer.accelerator=cpu"),
    *("steps=100000", "validations=0", "checkpoint_every=100000", "run=run"),
)
TINY = "model._target_=tests.helpers.tiny.TinyModel"


class Hanging(TinyModel):
    """A model whose third step hangs in a library's call, during which Python runs no handler."""

    def forward(self, image: Tensor) -> Tensor:
        self.steps = getattr(self, "steps", 0) + self.training
        if self.steps == 3:
            Path("hangs").touch()
            mutex = ctypes.create_string_buffer(64)
            for _ in range(2):  # the second call waits forever
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
        return super().forward(image)


@contextlib.contextmanager
def started(folder: Path, *overrides: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A training in a session of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        [SCRIPT, *TRAINING, *overrides],
        cwd=folder,
        env={**environment(), **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # SIGINT is ignored in processes of a shell that runs the tests in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def left(process: subprocess.Popen[str], patience: float = 1) -> list[int]:
    """Processes of a session after some seconds, or earlier where none is left."""
    deadline = time.monotonic() + patience
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = path.read_text(errors="replace").rpartition(")")[2].split()[:4]
                if int(session) == process.pid and state != "Z":
                    found.append(int(path.parent.name))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def test_an_early_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """During imports and building; `python -m benchmarks.reliability --only interrupts` tries many more moments."""
    draw = random.Random(0)
    with contextlib.ExitStack() as stack:
        tries = []
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            tries.append(stack.enter_context(started(tmp_path / str(number), TINY, "data.workers=1")))
        time.sleep(0.3)
        for process in tries:
            time.sleep(draw.uniform(0, 1))
            os.killpg(process.pid, signal.SIGINT)
        for number, process in enumerate(tries):
            err = process.communicate(timeout=60)[1]
            assert (process.returncode, lines(err)[-1]) == (130, NOTHING), err
            assert set(lines(err)) <= {STOPPING, NOTHING}
            assert list((tmp_path / str(number)).iterdir()) == []
            assert left(process) == []


def test_trainings_with_reading_processes_are_stopped(tmp_path: Path) -> None:
    """A cluster sends SIGTERM to the whole group, which also ends the data-loading workers.

    A training that waits for a worker at that moment cannot finish its step, and goes on from an earlier checkpoint.
    """
    ways = ((signal.SIGTERM, os.killpg), (signal.SIGHUP, os.kill))
    with contextlib.ExitStack() as stack:
        running = []
        for number, to in ways:
            folder = tmp_path / str(number)
            folder.mkdir()
            given = (TINY, "data.workers=1", "checkpoint_every=1")
            running.append((folder, number, to, stack.enter_context(started(folder, *given))))
        for folder, number, to, process in running:
            wait_for(folder / "run/checkpoints/last.ckpt", process)
            to(process.pid, number)
        for folder, number, _, process in running:
            err = process.communicate(timeout=60)[1]
            assert process.returncode == 128 + number, err
            assert left(process) == []
            step = read_checkpoint(folder / "run/checkpoints/last.ckpt")["global_step"]
            assert step > 0
            first, last = lines(err)
            assert first == STOPPING
            at = "" if to is os.killpg and " at step " not in last else f" at step {step}"
            assert last == f"semipix: interrupted{at}; continue with: semipix train resume=run --trust"


def test_a_step_that_hangs(tmp_path: Path) -> None:
    """A second Ctrl-C ends it at once, and reading processes end with a training that is killed.

    They are children of the training, or of a fork server, which has a helper of Python's beside it.
    """
    model = "model._target_=tests.test_interruption.Hanging"
    ways = {"fork": 3, "forkserver": 5}
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(started(tmp_path, model, "data.workers=1"))
        trainings = {}
        for way in ways:
            (tmp_path / way).mkdir()
            given = started(tmp_path / way, model, "data.workers=2", **{CHOSEN: way})
            trainings[way] = stack.enter_context(given)
        for way, processes in ways.items():
            killed = trainings[way]
            wait_for(tmp_path / way / "hangs", killed)
            assert len(left(killed)) == processes
            killed.kill()
            killed.wait()
            assert left(killed, patience=20) == []  # a fork server unloads torch first
            assert killed.stderr is not None
            assert "leaked" not in killed.stderr.read()

        wait_for(tmp_path / "hangs", process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        while STOPPING not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(2 * interruption.SAME)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        assert process.wait(30) == 130
        assert time.monotonic() - began < 2
        assert left(process) == []


def test_a_sweep_hands_sigterm_on_and_waits(tmp_path: Path) -> None:
    given = (TINY, "data.workers=0", "trainer.log_every_n_steps=1", "-m", "seed=0,1", "run=sweep")
    with started(tmp_path, *given) as process:
        wait_for(tmp_path / "sweep/seed_0/metrics/version_0/metrics.csv", process)
        process.terminate()
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 143, err
        assert left(process) == []
    assert lines(err) == ["semipix: interrupted; the same command with run=sweep does what is missing"]
    assert (tmp_path / "sweep/seed_0/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "sweep/seed_1").exists()
    assert json.loads((tmp_path / "sweep/jobs/seed_0.json").read_text())["state"] == "interrupted"
    assert "interrupted at step" in (tmp_path / "sweep/jobs/seed_0.log").read_text()


def test_a_job_that_is_interrupted_by_itself_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_training", lambda *_, **options: runner.Ended(143, "interrupted at step 2"))
    job = sweep.Job(tmp_path / "one", tmp_path, "this", [], lambda: {"task": {}}, tmp_path, [])
    record = sweep.run_job(job)
    assert (record.state, record.tries, record.reason) == ("interrupted", 1, "interrupted at step 2")


def test_two_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    """Only the first gets the signal. It would hang if the other did not stop too."""
    given = ("trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=false", "data.workers=0")
    with started(tmp_path, TINY, *given, "trainer.log_every_n_steps=1") as process:
        wait_for(tmp_path / "run/metrics/version_0/metrics.csv", process)
        process.terminate()
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 143, err
        assert left(process) == []
    step = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"]
    assert lines(err)[-1] == f"semipix: interrupted at step {step}; continue with: semipix train resume=run --trust"
    assert err.count("semipix:") == 2
