"""Translation of errors that stop a training into messages for the user."""

from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from semipix.data.batches.loaders import died_worker
from semipix.errors import SemipixError, reason_of
from semipix.training.configuration import Configuration
from semipix.training.loggers import package_of

NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Texts in torch's errors about too little memory that are not of a class for it."""

PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
"""Texts in torch's errors in a process that waits for another process which has died."""


def memory_short(error: Exception) -> str | None:
    """Which memory is exhausted according to an error: `memory` or `GPU memory`; None for other errors."""
    message = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in message for sign in NO_MEMORY):
        return None
    return "GPU memory" if "CUDA" in message or isinstance(error, torch.OutOfMemoryError) else "memory"


def explained(error: Exception, run: Path, step: int, configuration: Configuration) -> Exception:
    """Translate an error that stopped a training for the user; errors that are not known here are returned unchanged.

    Args:
        error: the error.
        run: the run folder.
        step: step at which the training stopped.
        configuration: the run's configuration.
    """
    message = reason_of(error)
    if isinstance(error, MisconfigurationException):
        return SemipixError(f"trainer: {message}")
    if logger := package_of(error):
        return SemipixError(
            f"{run}: trainer.logger={logger} failed at step {step} ({message[:200]}); check its store, then continue "
            f"with: semipix train resume={run}"
        )
    if isinstance(error, OSError):
        return error if error.filename else OSError(error.errno, error.strerror or message, str(run))
    if short := memory_short(error):
        options = configuration.data.options
        used = ", ".join(f"data.{key}={options[key]}" for key in ("batch_size", "crop") if key in options)
        return SemipixError(
            f"{run}: out of {short} at step {step}{f' with {used}' if used else ''}; lower data.batch_size or "
            "data.crop and raise trainer.accumulate_grad_batches instead, or set memory=low"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return SemipixError(
            f"compile: true found, but torch.compile failed ({message[:160]}); set compile=false, or fix the compiler"
        )
    if torch.distributed.is_initialized() and any(sign in message for sign in PEER_GONE):
        return SemipixError(
            f"{run}: another process of this training died at step {step} ({message[:120]}); see its last message, "
            f"then continue with: semipix train resume={run}"
        )
    if message.startswith("Early stopping conditioned on metric"):
        return SemipixError(f"trainer.callbacks: {message}")
    if message.startswith("You set `devices="):  # Lightning compares it with the environment of torchrun or SLURM
        return SemipixError(f"trainer.devices, trainer.num_nodes: {message}")
    if "SyncBatchNorm expected" in message or "SyncBatchNorm layers only work with GPU" in message:
        return SemipixError("trainer.sync_batchnorm: needs GPUs; on CPUs set trainer.sync_batchnorm=false")
    if "more than 1 value per channel" in message:
        raised = ["data.batch_size", "data.labeled_per_batch", "data.crop"]
        if configuration.method.takes("detection_images"):  # of as many images the detector sees views of their own
            raised.append("method.detection_images")
        return SemipixError(
            f"data.batch_size: batch norm needs more than one value per channel, but its smallest map has only one "
            f"({message}); raise {', '.join(raised[:-1])} or {raised[-1]}, or set freeze_batch_norm=true"
        )
    if isinstance(error, RuntimeError) and (line := died_worker(error)):
        return SemipixError(f"{run}: {line}")
    return error
