"""Write, read and lock run folders."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from semipix.atomic import write_text
from semipix.config import LATER, NEEDED
from semipix.data.splits import Split
from semipix.errors import SemipixError, reason_of
from semipix.training.checkpoints import PUBLISHED
from semipix.training.configuration import KINDS, Configuration
from semipix.training.trust import check_size, check_trusted, refused, without_downloads
from semipix.training.versions import report_other_versions, versions

CONFIG = "config.yaml"
"""The configuration that a run was trained with, and the versions of what trained it."""

WIDTH = 2**20
"""Of a line of `config.yaml`, so that a command is in one."""

RECORDS = ("versions", "command")
"""Keys of `config.yaml` that are no settings: what computed the run, and what was typed to start it."""

SUMMARY = "summary.json"
"""Written when a training has ended."""

PILOTS = "pilots"
"""Folder of a run with `method=auto`: the configuration that was asked for, and a run folder for each pilot."""

CHOICE = "choice.json"
"""Which method a run with `method=auto` has chosen, and why."""

LOCK = ".lock"
"""Lock file of a training in its run folder; the system releases the lock when the process ends, in whatever way."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a run folder against all other trainings. It is made where it is missing, and removed where it stays empty.

    Raises:
        SemipixError: another training has locked it.
        OSError: the folder cannot be made, or nothing can be written there.
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


def has_checkpoint(folder: Path) -> bool:
    """Whether a training of the folder can be resumed or read."""
    return any((folder / "checkpoints").glob("*.ckpt"))


def is_choosing(folder: Path) -> bool:
    """Whether a run with `method=auto` has pilots to train, or the method that they decided for."""
    return (folder / PILOTS / CONFIG).is_file() and not has_checkpoint(folder)


def resume_or_start(folder: Path, arguments: Sequence[str]) -> list[str]:
    """Arguments of `semipix train` that bring a run to its end. A run without a checkpoint is removed.

    A run with `method=auto` keeps its pilots, with which the arguments go on.

    Args:
        folder: the run folder; it may be missing.
        arguments: arguments that start the run.

    Returns:
        `resume=FOLDER` where there is a checkpoint, otherwise `arguments`.

    Raises:
        SemipixError: another training, which has not written a checkpoint yet, is writing the folder.
    """
    if (folder / "checkpoints" / "last.ckpt").exists():
        return [f"resume={folder}"]
    if (folder / CONFIG).exists() and not is_choosing(folder):  # interrupted before its first checkpoint
        with claimed(folder):
            shutil.rmtree(folder)
    return list(arguments)


def last_line(log: Path, otherwise: str) -> str:
    """The last line of a log, which may be a progress bar's last state; `otherwise` where the log is empty."""
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), otherwise)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, completely or not at all; NaN and infinity become null.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """A value as the text of a JSON file; NaN and infinity become null."""
    return json.dumps(_without_nan(value), indent=2, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Remove a folder and its parents at the end, those that were missing before and are empty."""
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in missing:  # the innermost first
                if each.exists():
                    each.rmdir()


def check_place(path: Path) -> None:
    """Find out before a work of minutes whether its file or folder could be written.

    Raises:
        SemipixError: something above it is a file, or the folder where it will be made is read-only.
    """
    place = next(each for each in path.absolute().parents if each.exists())
    if not place.is_dir():
        raise SemipixError(f"{path}: cannot be written, since {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SemipixError(f"{path}: cannot be written, since {place} is read-only; choose another folder")


@contextlib.contextmanager
def emptied_where_refused(folder: Path, trained: Callable[[], bool]) -> Iterator[None]:
    """Remove new files from a folder if its training is refused or interrupted before the first step.

    Args:
        folder: locked by this process.
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
    """The run's checkpoint `best` or `last`; by default best where there is one, or a published model's only file.

    Raises:
        SemipixError: the checkpoint does not exist.
    """
    names = [which] if which else ["best", "last"]
    for name in names:
        path = run / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            return path
    if which is None and (run / PUBLISHED).exists():
        return run / PUBLISHED
    missing = " or ".join(f"{name}.ckpt" for name in names)
    raise SemipixError(
        f"{run / 'checkpoints'}: no checkpoint found, expected {missing}; best.ckpt needs validation images with "
        "labels, last.ckpt comes after checkpoint_every steps"
    )


def write_config(run: Path, configuration: Configuration, command: str) -> None:
    """Write `config.yaml`: every group with the values of all its parameters, the other keys, versions and command.

    Args:
        run: run folder.
        configuration: of the training.
        command: the command line that started it.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(run / CONFIG, config_text(configuration.as_mapping(), versions(), command))


def config_text(settings: Mapping[str, Any], versions: Mapping[str, str], command: str) -> str:
    """The text of `config.yaml`.

    Args:
        settings: groups and keys as plain values, see `Configuration.as_mapping`.
        versions: of the packages with which the run was trained.
        command: the command line that started it.
    """
    records = dict(zip(RECORDS, (versions, command), strict=True))
    return yaml.safe_dump({**settings, **records}, sort_keys=False, allow_unicode=True, width=WIDTH)


def read_config(run: Path, trust: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a run folder as plain values. Nothing that it names is imported.

    Args:
        run: run folder.
        trust: let it name any class and command.

    Returns:
        The settings, as `Configuration.parse` takes them, and the records, by the names of `RECORDS`.

    Raises:
        SemipixError: there is no configuration, it is damaged, or it could run code and is not trusted.
    """
    path = run / CONFIG
    if not path.is_file() and is_choosing(run):
        raise SemipixError(f"{run}: its method is not chosen yet; continue it with semipix train resume={run}")
    if not path.is_file():
        raise SemipixError(f"{run}: no config.yaml found, so this is no run folder of semipix train")
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SemipixError(f"{path}: not readable as YAML: {reason_of(error)}") from error
    needed = {*NEEDED, *RECORDS} - LATER.keys()
    found = ""
    if not isinstance(config, dict):
        found = "no mapping"
    elif missing := needed - config.keys():
        found = f"without {', '.join(sorted(missing))}"
    elif not isinstance(config["versions"], dict):
        found = "versions that are no mapping"
    if found:
        raise SemipixError(f"{path}: {found}, expected the configuration that semipix train wrote; restore the file")
    check_size(path, config)
    if not trust:
        check_trusted(path, config, KINDS)
        config = without_downloads(config)
    records = {key: config.pop(key) for key in RECORDS}
    return {**LATER, **config}, records


def load_config(run: Path, trust: bool = False) -> Configuration:
    """The configuration of a run folder. Other versions than it was trained with are reported on stderr.

    Args:
        run: run folder.
        trust: let it name any class and command, which then run as they would from the command line.

    Raises:
        SemipixError: there is no configuration, it is damaged or at fault, or it could run code and is not trusted.
    """
    settings, records = read_config(run, trust)
    configuration = Configuration.parse(settings)
    report_other_versions(run, records["versions"])
    return configuration


def needs_trust(configuration: Configuration) -> bool:
    """Whether a run folder with this configuration is loaded only by those who trust it."""
    return refused(configuration.as_mapping(), KINDS) is not None


def with_root(configuration: Configuration, root: Path) -> Configuration:
    """The configuration of a run whose data folder has moved.

    Raises:
        SemipixError: its data are in no folder.
    """
    if not configuration.data.takes("root"):
        name = getattr(configuration.data.target, "__name__", configuration.data.path)
        raise SemipixError(f"--data: {root} found, but {name}, the data of this run, has no folder; leave --data out")
    return configuration.with_options("data", {"root": str(root)})


def load_split(run: Path) -> Split:
    """The split lists of a run folder.

    Raises:
        SemipixError: there are none, as in a published model, or the file is damaged.
    """
    if not (run / "split.json").exists() and (run / PUBLISHED).exists():
        raise SemipixError(
            f"{run}: a published model, which does not say with which images it was trained; use the run folder that "
            "it was made of"
        )
    return Split.from_json(run / "split.json")
