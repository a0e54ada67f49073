"""Write checkpoints so that a killed process or a full disk never damages the previous one, and read them safely."""

import errno
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from semipix.atomic import written
from semipix.errors import SemipixError, reason_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a new file and renames it, so that the path always holds a complete checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        final = Path(path)
        try:
            with written(final, sync=True) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError, without the operating system's reason
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk took no more data"
            number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOSPC
            if final.exists():
                rest = "the previous one is kept: make room, then resume the run"
            else:
                rest = "there is none yet: make room, then start the run again"
            raise OSError(number, f"checkpoint not written: {reason}; {rest}", str(final)) from error


PUBLISHED = "model.safetensors"
"""File of a published model with the weights of all networks of its method; it holds tensors and no code."""


def read_weights(path: Path) -> dict[str, Any]:
    """Parameters and buffers of a method by name, from a checkpoint or from the file of a published model.

    Raises:
        SemipixError: the file cannot be read, is damaged, or is not of this kind.
    """
    if path.name == PUBLISHED:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise SemipixError(
                f"{path}: damaged, or not the weights of a published model ({reason_of(error, 80)}); load it again"
            ) from error
    state = read_checkpoint(path)["state_dict"]
    return {key.removeprefix("method."): value for key, value in state.items() if key.startswith("method.")}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; only tensors and plain values are unpickled.

    Raises:
        SemipixError: the file cannot be read, is damaged, or is not a checkpoint of a training.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about older formats, which it tries for damaged files
            state = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "global_step"} <= state.keys():
            return dict(state)
        reason = "it holds no state_dict and global_step"
    except Exception as error:  # a damaged file can cause any error in the unpickler
        reason = reason_of(error, 80)
    raise SemipixError(
        f"{path}: damaged, or not a checkpoint of semipix train ({reason}); use another --checkpoint or run"
    )
