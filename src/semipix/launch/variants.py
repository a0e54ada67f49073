"""Train variants side by side, each in a process of one thread, and measure them on the same held-out images."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from semipix.errors import SemipixError
from semipix.interruption import check
from semipix.processes import dying_with_parent, stop
from semipix.training.run_folder import SUMMARY, is_finished, last_line, resume_or_start, write_json

PATIENCE = 30.0
"""Seconds in which the commands have to end after an interruption."""

NOTHING = "nothing yet"
"""Shown of an empty log."""

PACKAGES = ("torch", "lightning", "timm", "segmentation-models-pytorch", "semipix")


def run_variant(folder: Path, overrides: Sequence[str], split: str = "test") -> dict[str, Any]:
    """Train and measure one run; a run that is there already is resumed or only read.

    Args:
        folder: the run folder; what the commands print goes to `folder.log` beside it.
        overrides: of `semipix train`.
        split: images to measure it on, `test` or `val`.

    Returns:
        `test`: metrics on those images; `trained`: the run's summary; `overrides`.

    Raises:
        SemipixError: a command failed; names its log. Or the folder holds a run of other overrides.
    """
    log = folder.with_name(folder.name + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    _claim(folder, list(overrides))
    if not is_finished(folder):
        _command(["train", *resume_or_start(folder, [*overrides, f"run={folder}"])], log)
    results = folder / f"evaluation-{split}.json"
    if not results.exists():
        _command(["evaluate", str(folder), "--split", split], log)
    measured = json.loads(results.read_text())
    return {"test": measured, "trained": json.loads((folder / SUMMARY).read_text()), "overrides": list(overrides)}


def _claim(folder: Path, overrides: list[str]) -> None:
    """Note what a run is made of, and refuse a folder that was claimed for something else."""
    note = folder.with_name(folder.name + ".json")
    if note.exists() and (claimed := json.loads(note.read_text())) != overrides:
        changed = ", ".join(sorted(set(claimed) ^ set(overrides)))
        raise SemipixError(f"{folder}: holds a run of other settings ({changed}); remove it or choose another folder")
    write_json(note, overrides)


_running: list[subprocess.Popen[bytes]] = []
"""Commands that threads of this process wait for."""


def _command(arguments: list[str], log: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as output:
        command = [sys.executable, "-m", "semipix.cli", *arguments]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )
        _running.append(process)
        status = process.wait()
        _running.remove(process)
        if status:
            raise SemipixError(f"{log}: semipix {arguments[0]} failed; its last line: {last_line(log, NOTHING)}")


def run_variants(
    jobs: Mapping[str, tuple[Path, Sequence[str]]],
    parallel: int = 2,
    show: Callable[[str], None] = tqdm.write,
    split: str = "test",
) -> dict[str, dict[str, Any]]:
    """Run all jobs, `parallel` at a time, with one bar and a line whenever one is finished.

    Args:
        jobs: run folder and overrides by name.
        parallel: processes at a time.
        show: prints the line.
        split: images to measure them on.

    Returns:
        What `run_variant` returns, by name, in the order of `jobs`.

    Raises:
        KeyboardInterrupt: the user interrupted; all processes have ended.
    """
    with ThreadPoolExecutor(parallel) as pool, tqdm(total=len(jobs), desc="runs", unit="run") as bar:
        futures: dict[str, Future[dict[str, Any]]] = {
            name: pool.submit(run_variant, folder, overrides, split) for name, (folder, overrides) in jobs.items()
        }
        waiting = dict(futures)
        try:
            while waiting:
                time.sleep(1)
                check()
                for name in [name for name, future in waiting.items() if future.done()]:
                    error = waiting.pop(name).exception()
                    show(f"{name}: {error if error else f'see {jobs[name][0]}'}")
                    bar.update()
                states = [_state(name, jobs[name][0]) for name, future in waiting.items() if future.running()]
                bar.set_postfix_str(" | ".join(states))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop(list(_running), PATIENCE)
            raise
    return {name: future.result() for name, future in futures.items()}


def _state(name: str, folder: Path) -> str:
    """A running training's share done, from its log."""
    last = last_line(folder.with_name(folder.name + ".log"), NOTHING)
    return f"{name} {last.split('|')[0].removeprefix('train:').strip()[:16]}"


def environment(kind: str = "CPU", threads: int = 1) -> dict[str, Any]:
    """The machine and the versions that a result belongs to.

    Args:
        kind: name of the device that computed.
        threads: of each process.
    """
    return {
        "device": {"machine": platform.machine(), "kind": kind, "cores": os.cpu_count(), "threads_per_run": threads},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
