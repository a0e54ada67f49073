"""Processes that are found, stopped and end with others. Those of real trainings are in test_interruption.py."""

import platform
import signal
import subprocess
import sys

import pytest

from semipix.processes import MALLOC_VARIABLES, descendants, is_first, keep_freed_memory, stop

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


RELEASED = """
import resource
from semipix.processes import keep_freed_memory

if {kept}:
    assert keep_freed_memory()
faults = []
for _ in range(6):
    blocks = [bytearray(4 << 20) for _ in range(16)]  # what a step computes
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[1])
"""
"""Prints how many pages the kernel gave to steps after the second one."""


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="needs the GNU C library")
def test_freed_memory_is_kept_for_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MALLOC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pages = {
        kept: int(subprocess.check_output([sys.executable, "-c", RELEASED.format(kept=kept)])) for kept in (True, False)
    }
    assert pages[True] < 0.1 * pages[False]


def test_who_sets_the_allocator_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
