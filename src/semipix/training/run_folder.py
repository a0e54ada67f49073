"""What a run folder and its log say of a training, and how to go on from there."""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from semipix.atomic import write_text
from semipix.config import GROUPS, TOP, Config, parameters, target_of
from semipix.data.splits import Split
from semipix.errors import SemipixError, reason_of
from semipix.training.check import KINDS
from semipix.training.trust import check_size, check_trusted, refused, without_downloads

NEW_KEYS = {"memory": "full", "compile": False}
"""What older run folders, whose configuration lacks these keys, were trained with."""

SUMMARY = "summary.json"
"""Written when a training has ended, whole or not at all."""

LOCK = ".lock"
"""File by which a training claims its run folder; the system lets go of it when the process ends, however it ends."""


def is_first_process() -> bool:
    """Whether this process writes the run folder; the others of a distributed training only compute."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run folder against all other trainings; it is made where it is missing, and removed where it stays empty.

    Raises:
        SemipixError: another training holds it.
        OSError: it cannot be made or written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SemipixError(
            f"{folder}: another training is writing this folder; wait for it, or choose another run=PATH"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # before the release, so that nobody else's is removed
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_finished(folder: Path) -> bool:
    """Whether the training of a run folder has ended."""
    return (folder / SUMMARY).exists()


def way_on(folder: Path, anew: Sequence[str]) -> list[str]:
    """Arguments of `semipix train` that finish a run which has not ended; what was cut off too early is removed.

    Args:
        folder: the run folder, if there is one yet.
        anew: arguments that start the run.

    Returns:
        `resume=FOLDER` where there is a checkpoint to go on from, otherwise `anew`.

    Raises:
        SemipixError: a training that has written no checkpoint yet is at work there.
    """
    if (folder / "checkpoints" / "last.ckpt").exists():
        return [f"resume={folder}"]
    if (folder / "config.yaml").exists():  # cut off before there was anything to go on from
        with claimed(folder):
            shutil.rmtree(folder)
    return list(anew)


def last_line(log: Path, otherwise: str) -> str:
    """What a log shows last, a progress bar's newest state included; `otherwise` where it shows nothing."""
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), otherwise)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and infinity become null.

    Raises:
        OSError: it cannot be written; names the file.
    """
    write_text(path, json.dumps(_without_nan(value), indent=2, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Remove a folder and those around it afterwards, where they were missing before and hold nothing."""
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in missing:  # the innermost first
                if each.exists():
                    each.rmdir()


@contextlib.contextmanager
def emptied_where_refused(folder: Path, trained: Callable[[], bool]) -> Iterator[None]:
    """Remove what came into a folder, where its training is refused or interrupted before the first step.

    Args:
        folder: claimed by this process.
        trained: whether a step was made.
    """
    before = {*folder.iterdir()} if folder.exists() else set()
    try:
        yield
    except (SemipixError, KeyboardInterrupt):
        if not trained():
            for each in {*folder.iterdir()} - before:
                with contextlib.suppress(OSError):
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
        raise


def checkpoint_of(run: Path, which: str | None = None) -> Path:
    """The run's checkpoint `best` or `last`; by default best where validation chose one.

    Raises:
        SemipixError: it does not exist.
    """
    names = [which] if which else ["best", "last"]
    for name in names:
        path = run / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            return path
    missing = " or ".join(f"{name}.ckpt" for name in names)
    raise SemipixError(
        f"{run / 'checkpoints'}: no checkpoint found, expected {missing}; best.ckpt needs validation images with "
        "labels, last.ckpt comes after checkpoint_every steps"
    )


def load_config(run: Path, trust: bool = False) -> dict[str, Any]:
    """The resolved configuration of a run folder.

    Args:
        run: run folder.
        trust: let it name any class and command, which then run as they would from the command line.

    Raises:
        SemipixError: the folder holds none, or a damaged one, or it could run code and is not trusted.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise SemipixError(f"{run}: no config.yaml found, so this is no run folder of semipix train")
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SemipixError(f"{path}: not readable as YAML: {reason_of(error)}") from error
    needed = {*GROUPS, *TOP} - {"second_model", "scheduler", *NEW_KEYS}
    if not isinstance(config, dict) or not needed <= config.keys():
        found = f"without {', '.join(sorted(needed - config.keys()))}" if isinstance(config, dict) else "no mapping"
        raise SemipixError(f"{path}: {found}, expected the configuration that semipix train wrote; restore the file")
    check_size(path, config)
    if not trust:
        check_trusted(path, config, KINDS)
        config = without_downloads(config)
    return {**NEW_KEYS, **config}


def needs_trust(config: Config) -> bool:
    """Whether a configuration, once it is in a run folder, is loaded only by those who trust the folder."""
    return refused(config, KINDS) is not None


def with_root(config: Config, root: Path) -> dict[str, Any]:
    """The configuration of a run whose data folder has moved.

    Raises:
        SemipixError: its data are in no folder.
    """
    source = target_of("data", config["data"])
    if "root" not in parameters(source)[0]:
        name = getattr(source, "__name__", source)
        raise SemipixError(f"--data: {root} found, but {name}, the data of this run, has no folder; leave --data out")
    return {**config, "data": {**config["data"], "root": str(root)}}


def load_split(run: Path) -> Split:
    """The split lists of a run folder."""
    return Split.from_json(run / "split.json")
