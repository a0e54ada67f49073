"""Writing checkpoints so that a kill or a full disk never costs the previous one."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the old file and rename: at every moment the path holds a whole checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(final.name + ".partial")
        try:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)
        except (OSError, RuntimeError) as error:  # torch's writer hides the operating system's reason
            partial.unlink(missing_ok=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk took no more data"
            number = error.errno if isinstance(error, OSError) and error.errno else 28
            message = f"checkpoint not written: {reason}; the previous one is kept: make room, then resume the run"
            raise OSError(number, message, str(final)) from error
