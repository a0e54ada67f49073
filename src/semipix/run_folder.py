"""What a run folder and its log say of a training, and how to go on from there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUMMARY = "summary.json"
"""Written when a training has ended, whole or not at all."""


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
    """
    if (folder / "checkpoints" / "last.ckpt").exists():
        return [f"resume={folder}"]
    if (folder / "config.yaml").exists():  # cut off before there was anything to go on from
        shutil.rmtree(folder)
    return list(anew)


def last_line(log: Path, otherwise: str) -> str:
    """What a log shows last, a progress bar's newest state included; `otherwise` where it shows nothing."""
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), otherwise)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file beside its place and rename it, so that what is there is whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2))
    partial.replace(path)
