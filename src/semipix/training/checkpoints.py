"""Writing checkpoints so that a kill or a full disk never costs the previous one."""

import errno
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from semipix.atomic import written
from semipix.errors import SemipixError, reason_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the old file and rename: at every moment the path holds a whole checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        final = Path(path)
        try:
            with written(final, sync=True) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer hides the operating system's reason
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk took no more data"
            number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOSPC
            if final.exists():
                rest = "the previous one is kept: make room, then resume the run"
            else:
                rest = "there is none yet: make room, then start the run again"
            raise OSError(number, f"checkpoint not written: {reason}; {rest}", str(final)) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; nothing but tensors and plain values is ever unpickled.

    Raises:
        SemipixError: the file is damaged, or is no checkpoint of a training.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at older formats before it gives up
            state = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "global_step"} <= state.keys():
            return dict(state)
        why = "it holds no state_dict and global_step"
    except Exception as error:  # the unpickler fails in as many ways as a file can be damaged
        why = reason_of(error, 160)
    raise SemipixError(f"{path}: damaged, or no checkpoint of semipix train ({why}); use another --checkpoint or run")
