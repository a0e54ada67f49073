"""Processes that end with those that started them."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:  # `semipix --help` needs none of it
    import subprocess


@functools.cache
def _libc() -> Any:
    """The C library. It is loaded before a fork, for a process that was just forked does as little as possible."""
    import ctypes

    return ctypes.CDLL(None)


def dying_with_parent(number: int = signal.SIGKILL) -> Callable[[], None]:
    """`die_with_parent` for the `preexec_fn` of a process that this one starts."""
    if sys.platform == "linux":
        _libc()
    return functools.partial(die_with_parent, os.getpid(), number)


def worker_init() -> Callable[[int], None]:
    """`init_worker` for the data-loading workers of this process."""
    if sys.platform == "linux":
        _libc()
    return functools.partial(init_worker, os.getpid())


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that started it ends; on Linux alone.

    Args:
        parent: the process that started this one. If that is gone already, this one ends here.
        number: the signal.
    """
    if sys.platform == "linux":
        _libc().prctl(1, int(number))  # PR_SET_PDEATHSIG
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def init_worker(parent: int, worker: int) -> None:
    """Begin a data-loading worker: the terminal's signals are its parent's, with which it ends.

    SIGTERM keeps its effect, since it is by this signal that torch ends a worker.

    Args:
        parent: the process that started it.
        worker: its number.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    die_with_parent(parent)


def descendants() -> list[int]:
    """Processes that this one started, those that they started, and so on."""
    from pathlib import Path

    if sys.platform != "linux":
        import multiprocessing

        return [child.pid for child in multiprocessing.active_children() if child.pid]
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(os.getpid(), ()))
    for process in found:  # grows while it is read
        found += children.get(process, ())
    return found


def kill_all() -> None:
    """Kill whatever this process has started, but for Python's resource tracker.

    That ends by itself, after it has removed what the killed processes leave in /dev/shm.
    """
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    for process in descendants():
        if process == getattr(tracker, "_pid", None):
            continue
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:
            continue


def stop(processes: "Sequence[subprocess.Popen[bytes]]", patience: float) -> None:
    """Ask processes to end, wait for them, and kill those that do not.

    They are asked by SIGTERM whatever ended this process: Ctrl-C has reached them by the terminal already, and a second
    one would end them at once.

    Args:
        processes: what was started.
        patience: seconds in which all of them have to end.
    """
    import subprocess

    for process in processes:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_started_by_lightning() -> bool:
    """Whether this is a further process of a training, started by the first one and not by torchrun or SLURM."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & set(os.environ)


def is_first() -> bool:
    """Whether this process speaks for its training; known before torch is imported."""
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return not rank.isdecimal() or int(rank) == 0


def is_first_process() -> bool:
    """Whether this process writes the run folder; the others of a distributed training only compute."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0
