"""Loggers beside the table of metrics, by name."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from semipix.errors import SemipixError, reason_of

NONE = "none"
"""Asks for no further logger."""

PROJECT = "semipix"
"""Name of the project in Weights & Biases, and of the experiment in MLflow."""


def tensorboard(run: Path) -> Logger:
    """Event files in `tensorboard/` of the run folder."""
    return TensorBoardLogger(run, "tensorboard", "")


def wandb(run: Path) -> Logger:
    """A run of Weights & Biases, its local files in the run folder; WANDB_MODE=offline and the like are obeyed."""
    return WandbLogger(name=run.name, save_dir=run, project=os.environ.get("WANDB_PROJECT", PROJECT))


def mlflow(run: Path) -> Logger:
    """A run of MLflow in the store of MLFLOW_TRACKING_URI, by default `mlflow.db` (SQLite) of the run folder."""
    store = os.environ.get("MLFLOW_TRACKING_URI")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if store:
        return MLFlowLogger(experiment, run.name, store)
    folder = run.absolute()
    return MLFlowLogger(
        experiment, run.name, f"sqlite:///{folder / 'mlflow.db'}", artifact_location=(folder / "mlflow").as_uri()
    )


LOGGERS: dict[str, Callable[[Path], Logger]] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
"""What `trainer.logger` may name; each is an extra of the package, too."""


def make_logger(name: str, run: Path) -> Logger:
    """A logger by its name.

    Args:
        name: a key of `LOGGERS`.
        run: the run folder.

    Raises:
        SemipixError: there is no such logger, or its package is not installed.
    """
    if name not in LOGGERS:
        close = difflib.get_close_matches(name, LOGGERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join((*LOGGERS, NONE))}"
        raise SemipixError(f"trainer.logger: {name!r} found, which is no logger; {hint}")
    try:
        return LOGGERS[name](run)
    except ImportError as error:
        raise SemipixError(
            f"trainer.logger={name}: its package cannot be imported ({reason_of(error, 120)}); pip install "
            f"'semipix[{name}]', or set trainer.logger={NONE}"
        ) from error
