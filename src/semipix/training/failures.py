"""What an error that stops a training means to its user."""

from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from semipix.data.batches.loaders import died_worker
from semipix.errors import SemipixError
from semipix.training.configuration import Configuration

NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says where memory is short, if not by an error of its own."""

PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
"""What torch says to a process that waits for one that is no more."""


def memory_short(error: Exception) -> str | None:
    """Which memory an error says is exhausted, `memory` or `GPU memory`; None for other errors."""
    message = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in message for sign in NO_MEMORY):
        return None
    return "GPU memory" if "CUDA" in message or isinstance(error, torch.OutOfMemoryError) else "memory"


def explained(error: Exception, run: Path, step: int, configuration: Configuration) -> Exception:
    """What a failed training means to a user; the error itself where it is no slip and no shortage."""
    message = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException):
        return SemipixError(f"trainer: {message}")
    if isinstance(error, OSError):
        return error if error.filename else OSError(error.errno, error.strerror or message, str(run))
    if short := memory_short(error):
        options = configuration.data.options
        used = ", ".join(f"data.{key}={options[key]}" for key in ("batch_size", "crop") if key in options)
        return SemipixError(
            f"{run}: out of {short} at step {step}{f' with {used}' if used else ''}; lower data.batch_size or "
            "data.crop, and raise trainer.accumulate_grad_batches in turn, or set memory=low"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return SemipixError(
            f"compile: true found, but torch.compile failed ({message[:160]}); set compile=false, or mend the compiler"
        )
    if torch.distributed.is_initialized() and any(sign in message for sign in PEER_GONE):
        return SemipixError(
            f"{run}: another process of this training died at step {step} ({message[:120]}); see what it told last, "
            f"then continue with: semipix train resume={run}"
        )
    if message.startswith("Early stopping conditioned on metric"):
        return SemipixError(f"trainer.callbacks: {message}")
    if message.startswith("You set `devices="):  # Lightning, of what torchrun or SLURM was asked for
        return SemipixError(f"trainer.devices, trainer.num_nodes: {message}")
    if "SyncBatchNorm expected" in message or "SyncBatchNorm layers only work with GPU" in message:
        return SemipixError("trainer.sync_batchnorm: needs GPUs; on CPUs set trainer.sync_batchnorm=false")
    if "more than 1 value per channel" in message:
        return SemipixError(
            f"data.batch_size: batch norm needs more than one value a channel, and one image gives its coarsest map "
            f"one ({message}); raise data.batch_size, data.labeled_per_batch or data.crop, or set "
            "freeze_batch_norm=true"
        )
    if isinstance(error, RuntimeError) and (told := died_worker(error)):
        return SemipixError(f"{run}: {told}")
    return error
