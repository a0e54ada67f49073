"""How data-loading workers are started."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from semipix.processes import init_worker, worker_init

CHOSEN = "SEMIPIX_START_METHOD"
"""Environment variable by which a test chooses how workers are started: fork, forkserver or spawn."""

_PRELOADED = ["semipix.data.batches.loaders", "semipix.data.batches.shards"]
"""Modules that a fork server imports once, so that its workers share them instead of importing torch again."""


def start_method() -> str:
    """How workers are started: as Python starts processes. On Linux that is fork, and forkserver since Python 3.14."""
    default = multiprocessing.get_all_start_methods()[0]
    return os.environ.get(CHOSEN) or multiprocessing.get_start_method(allow_none=True) or default


def first_call(method: str) -> Callable[[int], None]:
    """What each worker of this process calls first.

    Args:
        method: of `start_method`.
    """
    return _begin_by_server if method == "forkserver" else worker_init()


def _begin_by_server(worker: int) -> None:
    """Begin a worker that a fork server has started.

    The kernel and torch watch a worker's parent. Here that is the server, which ends only after its workers; so a
    thread watches the process that trains.
    """
    init_worker(os.getppid(), worker)
    threading.Thread(target=_end_with_training, name="end with training", daemon=True).start()


def _end_with_training() -> None:
    """Wait until the process that asked the fork server for this one has ended, and end this one."""
    if training := multiprocessing.parent_process():
        training.join()
        os.kill(os.getpid(), signal.SIGKILL)


def prepare(method: str) -> None:
    """Start the fork server where workers are started by one; it is started once.

    Args:
        method: of `start_method`.
    """
    if method != "forkserver" or sys.platform == "win32":
        return
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload(_PRELOADED)
    _start_quietly(resource_tracker)  # now, since it unblocks the signals that are blocked below
    # The server and its workers inherit what is blocked. A terminal's signals are for the process that trains; they
    # would end the server, and a worker that has not ignored them yet.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_quietly(tracker: Any) -> None:
    """Start Python's resource tracker without the warning that it prints after a training that was killed."""
    ignored = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(ignored)  # handed on to the process that is started
    try:
        tracker.ensure_running()
    finally:
        sys.warnoptions.remove(ignored)
