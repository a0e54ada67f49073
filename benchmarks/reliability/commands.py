"""Run commands of semipix in processes of their own and observe how they end.

`Command` forks from a server that has imported everything once, so that a command costs a tenth of a second instead of
five. `real_command` starts a new Python, as a user does.
"""

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.reliability.outcomes import Ended

ROOT = Path(__file__).resolve().parents[2]

PRELOADED = (
    *(
        "semipix.launch.app",
        "semipix.training.run",
        "semipix.launch.sweep",
        "semipix.data.check",
        "semipix.data.batches.shards",
    ),
    *("semipix.inference.predict", "semipix.inference.evaluate", "benchmarks.reliability.commands"),
)
"""What the server imports before the first fork."""

GIB = 2**30
MEMORY = 4 * GIB
"""Most memory of a command, so that one that asks for too much does not take the machine's."""

LIMIT = 5.0
"""Seconds within which a command answers."""

_PIPE = 2**20
_SET_PIPE_SIZE = 1031
_LINGERING = 3.0
"""Seconds that processes have to end with the one that started them."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(list(PRELOADED))


def patient(seconds: float) -> float:
    """A time limit, longer on a machine that is busy with something else."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def environment() -> dict[str, str]:
    """Environment of the commands: this code, one thread, no GPU."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}


class Command:
    """A command of semipix that runs.

    Args:
        arguments: after `semipix`.
        folder: where it runs.
        prepare: called in its process before it begins.
        memory: most bytes of its data.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        prepare: Callable[[], Any] | None = None,
        memory: int = MEMORY,
    ) -> None:
        self._out, out = context.Pipe(duplex=False)
        self._err, err = context.Pipe(duplex=False)
        for stream in (out, err):
            fcntl.fcntl(stream.fileno(), _SET_PIPE_SIZE, _PIPE)  # so that nobody has to read while it runs
        self._began = time.monotonic()
        self._process = context.Process(
            target=_become, args=([str(each) for each in arguments], folder, out, err, environment(), prepare, memory)
        )
        self._process.start()
        out.close()
        err.close()
        self.pid = self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        """Send a signal to it and all that it started, as a terminal does."""
        for process in session(self.pid) or [self.pid]:
            _send(process, number)

    def kill(self) -> None:
        """Kill only its first process, as the system does when memory is short."""
        _send(self.pid, signal.SIGKILL)

    def wait(self, limit: float = 60.0) -> Ended:
        """Wait for its end for at most so many seconds, then kill it."""
        self._process.join(max(0.0, self._began + patient(limit) - time.monotonic()))
        seconds = time.monotonic() - self._began
        code = self._process.exitcode
        left = len(lingering(self.pid)) if code is not None else 0
        end(self.pid)
        self._process.join(10)
        return Ended(code, _read(self._out), _read(self._err), seconds, left)


def run(arguments: Sequence[str | Path], folder: Path, limit: float = 60.0, **options: Any) -> Ended:
    """Run a command to its end."""
    return Command(arguments, folder, **options).wait(limit)


def real_command(arguments: Sequence[str | Path], folder: Path) -> subprocess.Popen[str]:
    """Start a command as a user does, in a session of its own, so that a signal can be sent to all of it."""
    return subprocess.Popen(
        [sys.executable, "-m", "semipix.cli", *map(str, arguments)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
        preexec_fn=_usual_signals,
    )


def ended(process: subprocess.Popen[str], began: float, limit: float = 60.0) -> Ended:
    """Wait for the end of a real command for at most so many seconds, then kill it."""
    try:
        out, err = process.communicate(timeout=patient(limit))
        code: int | None = process.returncode
        left = len(lingering(process.pid))
    except subprocess.TimeoutExpired:
        code, left = None, 0
    seconds = time.monotonic() - began
    end(process.pid)
    if code is None:
        out, err = process.communicate()
    return Ended(code, out, err, seconds, left)


def session(leader: int) -> list[int]:
    """Processes of a session that are not dead, by its leader's number."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def lingering(leader: int) -> list[int]:
    """Processes of a session that live on though their leader has ended."""
    deadline = time.monotonic() + _LINGERING
    while (found := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def end(leader: int) -> None:
    """Kill a session."""
    for process in session(leader):
        _send(process, signal.SIGKILL)


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _usual_signals() -> None:
    """Undo the signal settings that a shell gives to background processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _read(stream: Connection) -> str:
    """What was written into a pipe whose writer has ended."""
    os.set_blocking(stream.fileno(), False)
    found = b""
    while True:
        try:
            part = os.read(stream.fileno(), _PIPE)
        except BlockingIOError:
            part = b""
        if not part:
            stream.close()
            return found.decode(errors="backslashreplace")
        found += part


def _become(
    arguments: list[str],
    folder: Path,
    out: Connection,
    err: Connection,
    variables: dict[str, str],
    prepare: Callable[[], Any] | None,
    memory: int,
) -> None:
    """Run a command in a fork of the server."""
    os.setsid()
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.update(variables)
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # as in a real command
    os.chdir(folder)
    _usual_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    sys.argv = [str(Path(sys.executable).with_name("semipix"))]  # which Lightning starts again for a second device
    sys.path.insert(0, str(folder))  # as `python -m semipix.cli` has it
    import torch

    from semipix.cli import main

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.exit(main(arguments))
