"""Commands in processes of their own: the one way in which sweeps, comparisons, the demo and benchmarks start them.

A process ends with the one that started it: it is asked by SIGTERM, so that a training writes its checkpoint, and it
is killed where it has not ended after `PATIENCE` seconds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from semipix.errors import PREFIX, SemipixError
from semipix.interruption import ENDING_SIGNALS, deferred, raise_if_interrupted
from semipix.launch.overrides import quoted
from semipix.processes import dying_with_parent, stop
from semipix.training.run_folder import is_finished, last_line, resume_or_start

PATIENCE = 30.0
"""Seconds in which processes that are asked to end have to."""

POLL = 1.0
"""Seconds between two looks at jobs that run side by side."""

INTERRUPTED = tuple(128 + number for number in ENDING_SIGNALS)
"""Exit statuses of a training that a signal has ended in good order."""

USERS_ERROR = 2
"""Exit status of a command after an error that the user can fix; it would end so again."""

NOTHING = "its log is empty"
"""Shown as the last line of a log that has none."""

T = TypeVar("T")

_running: list[subprocess.Popen[Any]] = []
"""Processes of this one that have not ended, whichever thread waits for them."""


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
        code: its exit status; below 0, the signal that killed it.
        line: the last line of its log, without the command's name.
        tries: how often it was started.
    """

    code: int
    line: str
    tries: int = 1


def semipix(*arguments: str | Path) -> list[str]:
    """The command line of `semipix ARGUMENTS` in this Python."""
    return [sys.executable, "-m", "semipix.cli", *map(str, arguments)]


def surroundings(without: Sequence[str] = (), **given: str) -> dict[str, str]:
    """The environment variables of this process, with some left out and others set."""
    return {**{key: value for key, value in os.environ.items() if key not in without}, **given}


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with this one, and with the block where an exception leaves it.

    Args:
        command: program and arguments.
        options: of `subprocess.Popen`.

    Raises:
        KeyboardInterrupt: a signal came, before it was started or since; the process has ended.
    """
    with deferred(None):  # until it is known whom to stop
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, preexec_fn=dying_with_parent(signal.SIGTERM), **options
        )
        _running.append(process)
    try:
        raise_if_interrupted()
        yield process
    except BaseException:
        stop([process], PATIENCE)
        raise
    finally:
        _running.remove(process)


def run(command: Sequence[str], log: Path, watch: Callable[[], bool] | None = None, **options: Any) -> Ended:
    """Run a command to its end; what it prints is added to a log.

    Args:
        command: program and arguments.
        log: the file; its folder is there.
        watch: called every second, also after the end; if it returns True, the command is stopped by SIGTERM.
        options: of `subprocess.Popen`.

    Raises:
        KeyboardInterrupt: a signal came; the process has ended.
    """
    with log.open("a") as output, started(command, stdout=output, stderr=output, **options) as process:
        while watch is not None and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
            if watch() and process.poll() is None:
                stop([process], PATIENCE)
        code = process.wait()
    return Ended(code, last_line(log, NOTHING).removeprefix(PREFIX).removeprefix("semipix: "))


def run_training(
    folder: Path,
    overrides: Sequence[str],
    log: Path,
    *,
    tries: int = 1,
    before: Callable[[int], bool] = lambda attempt: False,
    watch: Callable[[], bool] | None = None,
    **options: Any,
) -> Ended:
    """Train a run folder to its end: start it, or resume where it was cut off.

    Args:
        folder: the run folder.
        overrides: of `semipix train`, without `run`.
        log: gets what the training prints.
        tries: how often it is started where it ends by a crash or by a signal that leaves no time for a checkpoint.
        before: called before each try with its number, from 1; says whether a training that is resumed gets
            `--trust`.
        watch: called every second; if it returns True, the training is stopped, and can be resumed.
        options: of `subprocess.Popen`.

    Raises:
        SemipixError: another training is at work in the folder.
        KeyboardInterrupt: a signal came; the training has ended.
    """
    for attempt in range(1, tries + 1):
        trust = before(attempt)
        arguments = resume_or_start(folder, [*overrides, f"run={quoted(folder)}"])
        if trust and arguments[0].startswith("resume="):
            arguments.append("--trust")
        ended = run(semipix("train", *arguments), log, watch=watch, **options)
        if ended.code in (USERS_ERROR, *INTERRUPTED) or has_trained(ended, folder):
            break
    return Ended(ended.code, ended.line, attempt)


def has_trained(ended: Ended, folder: Path) -> bool:
    """Whether a training has done all it had to; a signal may have come after that."""
    return ended.code in (0, *INTERRUPTED) and is_finished(folder)


def side_by_side(
    jobs: Mapping[str, Callable[[], T]],
    parallel: int,
    *,
    ended: Callable[[str, BaseException | None], None],
    state: Callable[[str], str],
) -> dict[str, T]:
    """Call functions that run commands, in threads, with one progress bar.

    Args:
        jobs: functions by name.
        parallel: how many at a time.
        ended: called with a job's name and its exception, if it raised one.
        state: what the bar shows of a job that runs.

    Returns:
        What they return, by name, in the order of `jobs`.

    Raises:
        KeyboardInterrupt: the user interrupted; all processes have ended.
    """
    with ThreadPoolExecutor(parallel) as pool, tqdm(total=len(jobs), desc="runs", unit="run") as bar:
        futures: dict[str, Future[T]] = {name: pool.submit(job) for name, job in jobs.items()}
        waiting = dict(futures)
        try:
            while waiting:
                time.sleep(POLL)
                raise_if_interrupted()
                for name in [name for name, future in waiting.items() if future.done()]:
                    ended(name, waiting.pop(name).exception())
                    bar.update()
                bar.set_postfix_str(" | ".join(state(name) for name, future in waiting.items() if future.running()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop(list(_running), PATIENCE)
            raise
    return {name: future.result() for name, future in futures.items()}


def required(ended: Ended, name: str, log: Path) -> None:
    """Refuse to go on after a command that failed.

    Raises:
        SemipixError: it has; names its log and the log's last line.
    """
    if ended.code:
        raise SemipixError(f"{log}: {name} failed; its last line: {ended.line}")
