"""Keep libraries' warnings about what semipix does on purpose off the screen."""

import logging
import threading
import warnings

QUIET = (
    ".*does not have many workers.*",
    ".*not resumable.*",
    ".*[Cc]heckpoint directory.*exists.*",
    ".*dirpath has changed.*",  # a run folder may be moved
    ".*isinstance.*",
    ".*smaller than the logging interval.*",  # short runs are no slip
    ".*GPU available but not used.*",  # the user said accelerator=cpu
    ".*method of metric.*was called before the.*",  # a diagnostic that no pixel fed is not a number, and left out
    ".*sync_dist.*",
    ".*zero-element tensors.*",  # an error follows
)

_usual_hook = threading.excepthook


def quiet() -> None:
    """Keep warnings about what this package does on purpose from the user's screen."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _thread_ended


def _thread_ended(failure: threading.ExceptHookArgs) -> None:
    """Print why a thread ended, except where it could not write: the training meets that error too and says it."""
    if not isinstance(failure.exc_value, OSError):
        _usual_hook(failure)
