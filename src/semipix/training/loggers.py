"""Loggers that write metrics to other places than the run folder's table, by name."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from semipix.errors import SemipixError, reason_of

NONE = "none"
"""Name for no further logger."""

PROJECT = "semipix"
"""Default name of the project in Weights & Biases, and of the experiment in MLflow."""


def tensorboard(run: Path) -> Logger:
    """A logger that writes event files to `tensorboard/` in the run folder."""
    return TensorBoardLogger(run, "tensorboard", "")


def wandb(run: Path) -> Logger:
    """A run of Weights & Biases with its local files in the run folder; its environment variables have their effect."""
    return WandbLogger(name=run.name, save_dir=run, project=os.environ.get("WANDB_PROJECT", PROJECT))


def mlflow(run: Path) -> Logger:
    """A run of MLflow in the store of MLFLOW_TRACKING_URI, by default `mlflow.db` (SQLite) in the run folder."""
    store = os.environ.get("MLFLOW_TRACKING_URI")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if store:
        return MLFlowLogger(experiment, run.name, store)
    folder = run.absolute()
    return MLFlowLogger(
        experiment, run.name, f"sqlite:///{folder / 'mlflow.db'}", artifact_location=(folder / "mlflow").as_uri()
    )


LOGGERS: dict[str, Callable[[Path], Logger]] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
"""Values of `trainer.logger`; each is also the name of an extra of the package."""


def make_logger(name: str, run: Path) -> Logger:
    """Make a logger by its name.

    Args:
        name: a key of `LOGGERS`.
        run: the run folder.

    Raises:
        SemipixError: the name is unknown, or the logger's package is not installed.
    """
    if name not in LOGGERS:
        close = difflib.get_close_matches(name, LOGGERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join((*LOGGERS, NONE))}"
        raise SemipixError(f"trainer.logger: {name!r} found, which is not a logger; {hint}")
    try:
        return LOGGERS[name](run)
    except ImportError as error:
        raise SemipixError(
            f"trainer.logger={name}: its package cannot be imported ({reason_of(error, 120)}); pip install "
            f"'semipix[{name}]', or set trainer.logger={NONE}"
        ) from error
