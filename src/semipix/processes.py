"""Processes that end with those that started them."""

import ctypes
import os
import signal
import sys


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def is_started_by_lightning() -> bool:
    """Whether this is a further process of a training, started by the first one and not by torchrun or SLURM."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & set(os.environ)
