"""What a training costs: its time, the time of a step, and memory."""

import statistics
import sys
import time
from collections import deque
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

MIB = 2**20
"""Bytes of a mebibyte."""

MOST_STEPS = 10_000
"""Last steps whose times are kept, for the median."""


class Cost(Callback):
    """Measures a training over all its parts: the time of a resumed one begins with what its checkpoint says.

    What was done after the last checkpoint of a killed training is done again, and counts once.
    """

    def __init__(self) -> None:
        self._before = 0.0  # seconds of the parts of the training before this one
        self._began = self._last = time.perf_counter()
        self._step = 0
        self._steps: deque[float] = deque(maxlen=MOST_STEPS)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._began = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last, self._step = time.perf_counter(), trainer.global_step
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step > self._step:  # not while gradients are accumulated
            now = time.perf_counter()
            self._steps.append(now - self._last)
            self._last, self._step = now, trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        seconds = state_dict.get("seconds")
        self._before = float(seconds) if isinstance(seconds, int | float) else 0.0

    @property
    def seconds(self) -> float:
        """Of the training so far, from its start, with validation."""
        return self._before + time.perf_counter() - self._began

    def summary(self, device: torch.device) -> dict[str, float | str]:
        """`seconds`, `step_seconds`, `peak_memory_mib` and the name of the `device` for `summary.json`.

        `step_seconds` is the median time from the end of a step to the end of the next one, with the reading of its
        images and without validation. `peak_memory_mib` is what tensors took on a GPU at most, otherwise the largest
        resident set of this process; processes that read images are not in it. It is left out where the system does
        not say it.

        Args:
            device: on which the training ran.
        """
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        found: dict[str, float | str] = {"device": name, "seconds": round(self.seconds, 1)}
        if self._steps:
            found["step_seconds"] = round(statistics.median(self._steps), 5)
        if (peak := peak_memory(device)) is not None:
            found["peak_memory_mib"] = round(peak / MIB, 1)
        return found


def peak_memory(device: torch.device) -> int | None:
    """Largest memory so far in bytes: allocated on a GPU, otherwise the resident set of this process; None if unknown.

    Args:
        device: of the computation.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
