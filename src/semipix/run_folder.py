"""What a run folder and its log say of a training, and how to go on from there."""

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from semipix.atomic import write_text
from semipix.errors import SemipixError

SUMMARY = "summary.json"
"""Written when a training has ended, whole or not at all."""

LOCK = ".lock"
"""File by which a training claims its run folder; the system lets go of it when the process ends, however it ends."""


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
