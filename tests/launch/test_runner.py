"""Commands in processes of their own, with the log, the signals and the tries that sweeps and comparisons share."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.interruption import Interrupted, handled
from semipix.launch import runner
from semipix.launch.runner import Ended

WAITING = "import time; print('begun', flush=True); time.sleep(60)"


def python(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


def test_what_a_command_prints_is_added_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert runner.run(python("print('one')"), log) == Ended(0, "one")
    fails = "import os, sys; print('semipix: error: ' + os.environ['WORD'], file=sys.stderr); sys.exit(2)"
    assert runner.run(python(fails), log, env=runner.surroundings(WORD="two")) == Ended(2, "two")
    assert log.read_text() == "one\nsemipix: error: two\n"
    assert runner.run(python("pass"), tmp_path / "empty") == Ended(0, runner.NOTHING)
    with pytest.raises(SemipixError) as error:
        runner.required(Ended(2, "two"), "semipix train", log)
    assert str(error.value) == f"{log}: semipix train failed; its last line: two"


def test_variables_are_left_out_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK_OF_A_CLUSTER", "1")
    found = runner.surroundings(["RANK_OF_A_CLUSTER", "NOT_THERE"], OMP_NUM_THREADS="1")
    assert found == {
        **{key: value for key, value in os.environ.items() if key != "RANK_OF_A_CLUSTER"},
        "OMP_NUM_THREADS": "1",
    }


def test_a_signal_ends_the_command(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not log.exists() or not log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)  # a shell hands down an ignored SIGINT to what it runs in the background

    log = tmp_path / "log"
    thread = threading.Thread(target=interrupt)
    with handled(), pytest.raises(Interrupted):
        thread.start()
        with log.open("w") as output, runner.started(python(WAITING), stdout=output) as process:
            process.wait()
    thread.join()
    assert process.poll() == -signal.SIGTERM
    assert runner._running == []


def test_a_command_is_watched_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL", 0.05)
    asked = []

    def watch() -> bool:
        asked.append(1)
        return len(asked) > 2 and bool((tmp_path / "log").read_text())

    assert runner.run(python(WAITING), tmp_path / "log", watch).code == -signal.SIGTERM
    assert len(asked) > 2
    assert runner.run(python("pass"), tmp_path / "log", lambda: True).code in (0, -signal.SIGTERM)


def test_nothing_is_started_after_a_signal() -> None:
    with handled():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        with pytest.raises(Interrupted), runner.started(["no such program"]):
            raise AssertionError("unreachable")


def scripted(monkeypatch: pytest.MonkeyPatch, folder: Path, *codes: int) -> list[list[str]]:
    """Let trainings end by these statuses, each after a checkpoint and only status 0 with a summary."""
    commands: list[list[str]] = []

    def run(command: list[str], log: Path, **options: Any) -> Ended:
        commands.append(command[3:])
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints/last.ckpt").touch()
        code = codes[len(commands) - 1]
        if code == 0:
            (folder / "summary.json").touch()
        return Ended(code, f"line {len(commands)}")

    monkeypatch.setattr(runner, "run", run)
    return commands


def test_a_training_that_crashes_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it's one"
    commands, begun = scripted(monkeypatch, folder, -9, 0, 0), list[int]()

    def before(attempt: int) -> bool:
        begun.append(attempt)
        return attempt == 2

    ended = runner.run_training(folder, ["steps=2"], tmp_path / "log", tries=3, before=before)
    assert ended == Ended(0, "line 2", 2)
    assert runner.has_trained(ended, folder)
    assert begun == [1, 2]
    quoted = str(folder).replace("'", "\\'")
    assert commands == [["train", "steps=2", f"run='{quoted}'"], ["train", f"resume={folder}", "--trust"]]


@pytest.mark.parametrize(("code", "tries"), [(2, 1), (130, 1), (143, 1), (1, 2), (-9, 2)])
def test_only_crashes_are_tried_again(code: int, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    scripted(monkeypatch, folder, code, code)
    ended = runner.run_training(folder, [], tmp_path / "log", tries=2)
    assert ended == Ended(code, f"line {tries}", tries)
    assert not runner.has_trained(ended, folder)


def test_jobs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as allowed run at a time; one that fails stops no other, and is raised at the end."""
    monkeypatch.setattr(runner, "POLL", 0.02)
    both, left = threading.Barrier(2, timeout=30), threading.Semaphore(2)

    def job(name: str, fails: bool = False) -> str:
        assert left.acquire(blocking=False), "three at a time"
        if name in "ab":
            both.wait()
        time.sleep(0.05)
        left.release()
        if fails:
            raise SemipixError(f"{name} failed")
        return name.upper()

    outcomes: dict[str, str] = {}

    def ended(name: str, error: BaseException | None) -> None:
        outcomes[name] = str(error)

    good = {name: lambda name=name: job(name) for name in "abc"}
    assert list(runner.side_by_side(good, 2, ended=ended, state=str).items()) == [("a", "A"), ("b", "B"), ("c", "C")]
    assert outcomes == dict.fromkeys("abc", "None")
    with pytest.raises(SemipixError, match="a failed"):
        runner.side_by_side({**good, "a": lambda: job("a", fails=True)}, 2, ended=ended, state=str)
    assert outcomes == {"a": "a failed", "b": "None", "c": "None"}
