"""Processes that are found, stopped and end with others. Those of real trainings are in test_interruption.py."""

import signal
import subprocess
import sys

import pytest

from semipix.processes import descendants, is_first, stop

PROGRAM = "import signal, time; {} print(1, flush=True); time.sleep(60)"
DEAF = PROGRAM.format("signal.signal(signal.SIGTERM, signal.SIG_IGN);")


def begun(program: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        output.readline()
    return process


def test_who_does_not_end_when_asked_is_killed() -> None:
    processes = [begun(PROGRAM.format("")), begun(DEAF)]
    assert {process.pid for process in processes} <= set(descendants())
    stop(processes, 0.3)
    assert [process.returncode for process in processes] == [-signal.SIGTERM, -signal.SIGKILL]
    assert not {process.pid for process in processes} & set(descendants())


@pytest.mark.parametrize(
    ("variables", "first"),
    [({}, True), ({"RANK": "0"}, True), ({"RANK": "1"}, False), ({"LOCAL_RANK": "1"}, False), ({"RANK": "?"}, True)],
)
def test_who_speaks_for_a_training(variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
