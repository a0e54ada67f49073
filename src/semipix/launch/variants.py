"""Train variants side by side, each in a process of one thread, and measure them on the same held-out images."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from semipix.errors import SemipixError
from semipix.launch.runner import required, run, run_training, semipix, side_by_side, surroundings
from semipix.training.run_folder import SUMMARY, is_finished, last_line, write_json

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
    one_thread = surroundings(OMP_NUM_THREADS="1")
    if not is_finished(folder):
        required(run_training(folder, overrides, log, env=one_thread), "semipix train", log)
    results = folder / f"evaluation-{split}.json"
    if not results.exists():
        required(run(semipix("evaluate", folder, "--split", split), log, env=one_thread), "semipix evaluate", log)
    measured = json.loads(results.read_text())
    measured = {name: value for name, value in measured.items() if not isinstance(value, dict)}  # no confusion matrix
    return {"test": measured, "trained": json.loads((folder / SUMMARY).read_text()), "overrides": list(overrides)}


def _claim(folder: Path, overrides: list[str]) -> None:
    """Note what a run is made of, and refuse a folder that was claimed for something else."""
    note = folder.with_name(folder.name + ".json")
    if note.exists() and (claimed := json.loads(note.read_text())) != overrides:
        changed = ", ".join(sorted(set(claimed) ^ set(overrides)))
        raise SemipixError(f"{folder}: holds a run of other settings ({changed}); remove it or choose another folder")
    write_json(note, overrides)


def run_variants(
    jobs: Mapping[str, tuple[Path, Sequence[str]]],
    parallel: int = 2,
    show: Callable[[str], None] = tqdm.write,
    split: str = "test",
    finished: Callable[[str], None] = lambda name: None,
) -> dict[str, dict[str, Any]]:
    """Run all jobs, `parallel` at a time, with one bar and a line whenever one is finished.

    Args:
        jobs: run folder and overrides by name.
        parallel: processes at a time.
        show: prints the line.
        split: images to measure them on.
        finished: is called with the name of each job that succeeded, while others may still run.

    Returns:
        What `run_variant` returns, by name, in the order of `jobs`.

    Raises:
        KeyboardInterrupt: the user interrupted; all processes have ended.
    """

    def ended(name: str, error: BaseException | None) -> None:
        show(f"{name}: {error or f'see {jobs[name][0]}'}")
        if error is None:
            finished(name)

    return side_by_side(
        {name: partial(run_variant, folder, overrides, split) for name, (folder, overrides) in jobs.items()},
        parallel,
        ended=ended,
        state=lambda name: state_of(name, jobs[name][0]),
    )


def state_of(name: str, folder: Path) -> str:
    """A running training's share done, from its log."""
    last = last_line(folder.with_name(folder.name + ".log"), "nothing yet")
    return f"{name} {last.split('|')[0].removeprefix('train:').strip()[:16]}"


def environment(kind: str | None = None, threads: int = 1) -> dict[str, Any]:
    """The machine and the versions that a result belongs to.

    Args:
        kind: name of the device that computed; by default the GPU that a training takes, or `CPU` where there is none.
        threads: of each process.
    """
    if kind is None:
        import torch

        kind = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "device": {"machine": platform.machine(), "kind": kind, "cores": os.cpu_count(), "threads_per_run": threads},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
