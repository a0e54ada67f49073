"""Start and stop processes so that none outlives the process that started it; ranks of a distributed training.

The command line imports this module before its signal handlers are installed, so it imports slow modules only where
they are needed.
"""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `semipix --help` needs none of it
    import subprocess


@functools.cache
def _libc() -> Any:
    """The C library; load it before a fork, since a forked process should do as little as possible before `exec`."""
    import ctypes

    return ctypes.CDLL(None)


MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Environment variables with which users set the C library's allocator themselves."""

LARGEST_FROM_HEAP = 32 << 20
"""Bytes above which a block of memory is mapped by itself; the highest value that the GNU C library takes."""

KEPT_AT_HEAP_END = 1 << 30
"""Freed bytes at the end of the heap that stay with the process."""


def keep_freed_memory() -> bool:
    """Let the GNU C library keep freed memory for the next step, which otherwise goes back to the kernel.

    A training step on a CPU frees what it computed, and the next one needs as much again. The kernel would clear these
    pages each time; docs/speed.md has what that costs. The peak of memory stays the same.

    Returns:
        Whether it is done: not with another C library, nor where the environment sets the allocator.
    """
    if sys.platform != "linux" or any(name in os.environ for name in MALLOC_VARIABLES):
        return False
    libc = _libc()
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    done = libc.mallopt(mmap_threshold, LARGEST_FROM_HEAP) and libc.mallopt(trim_threshold, KEPT_AT_HEAP_END)
    return bool(done)


def dying_with_parent(number: int = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` for processes that this one starts: it calls `die_with_parent`."""
    if sys.platform == "linux":
        _libc()
    return functools.partial(die_with_parent, os.getpid(), number)


def worker_init() -> Callable[[int], None]:
    """A `worker_init_fn` for data-loading workers of this process: it calls `init_worker`."""
    if sys.platform == "linux":
        _libc()
    return functools.partial(init_worker, os.getpid())


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when the thread that started it ends; only on Linux.

    Args:
        parent: id of the process that started this one; if it has ended already, this process exits.
        number: number of the signal.
    """
    if sys.platform == "linux":
        _libc().prctl(1, int(number))  # PR_SET_PDEATHSIG
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def init_worker(parent: int, worker: int) -> None:
    """Prepare a data-loading worker: it ignores the terminal's signals and ends with its parent.

    SIGTERM keeps its effect, since torch stops workers with it.

    Args:
        parent: id of the process that started the worker.
        worker: number of the worker; not used.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    die_with_parent(parent)


def descendants() -> list[int]:
    """Ids of the processes that this one started, directly or indirectly."""
    from pathlib import Path

    if sys.platform != "linux":
        import multiprocessing

        return [child.pid for child in multiprocessing.active_children() if child.pid]
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):  # the process has ended
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(os.getpid(), ()))
    for process in found:  # also visits the processes that the loop appends
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
    """Send SIGTERM to processes, wait for them, and kill those that do not end in time.

    SIGTERM is used also after Ctrl-C, which the terminal has sent to them too: a second one would end them immediately.

    Args:
        processes: the processes.
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
    """Whether Lightning in the first process of a training started this one; not torchrun or SLURM."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & set(os.environ)


def is_first() -> bool:
    """Whether this process prints messages, by environment variables; works before torch is imported."""
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return not rank.isdecimal() or int(rank) == 0


def is_first_process() -> bool:
    """Whether this process writes the run folder, by Lightning's rank."""
    from lightning.pytorch.utilities import rank_zero_only  # slow to import, and `semipix --help` does not need it

    return int(getattr(rank_zero_only, "rank", 0)) == 0
