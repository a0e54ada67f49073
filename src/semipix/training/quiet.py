"""Suppress libraries' warnings about things that semipix does on purpose."""

import logging
import threading
import warnings

QUIET = (
    ".*does not have many workers.*",
    ".*not resumable.*",
    ".*[Cc]heckpoint directory.*exists.*",
    ".*isinstance.*",
    ".*smaller than the logging interval.*",  # short runs are allowed
    ".*GPU available but not used.*",  # the user has set accelerator=cpu
    ".*method of metric.*was called before the.*",  # a diagnostic without pixels is NaN and left out
    ".*sync_dist.*",
    ".*zero-element tensors.*",  # an error of semipix follows
)
"""Regular expressions of warnings that are not shown."""

_usual_hook = threading.excepthook


def quiet() -> None:
    """Suppress these warnings and Lightning's information messages."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _thread_ended


def _thread_ended(failure: threading.ExceptHookArgs) -> None:
    """Print the error of a thread; not an OSError, which the main thread also gets and reports."""
    if not isinstance(failure.exc_value, OSError):
        _usual_hook(failure)
