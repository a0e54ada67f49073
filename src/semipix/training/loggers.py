"""Loggers that write metrics to other places than the run folder's table, by name."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from semipix.errors import SemipixError, one_line, reason_of

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


HINTS = {
    "wandb": "log in with wandb login or WANDB_API_KEY, set WANDB_MODE=offline",
    "mlflow": "check MLFLOW_TRACKING_URI, or unset it to keep the figures in the run folder",
}
"""What helps where a logger does not begin."""


def make_logger(name: str, run: Path) -> Logger:
    """Make a logger by its name.

    Args:
        name: a key of `LOGGERS`.
        run: the run folder.

    Raises:
        SemipixError: the name is unknown, the logger's package is not installed, or its store cannot be opened.
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
    except Exception as error:  # each package has errors of its own
        raise _refused(name, error) from error


@contextlib.contextmanager
def begun(loggers: Sequence[Logger], hyper_parameters: Mapping[str, Any]) -> Iterator[None]:
    """Begin loggers and give them the hyper-parameters; at the end, end the runs of Weights & Biases that began here.

    Lightning begins a logger with the first figure, and leaves a run of Weights & Biases open, into which a second
    training of the same process would write. A table of this package's own (CSVLogger) is left alone.

    Args:
        loggers: of a trainer, in the process that logs.
        hyper_parameters: the run's configuration.

    Raises:
        SemipixError: a logger does not begin, as without a login or network; names it, and the reason.
    """
    ours: list[Any] = []
    failed = True
    try:
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                continue
            try:
                open_before = getattr(sys.modules.get("wandb"), "run", None)
                experiment = getattr(logger, "experiment", None)  # begins it
                if isinstance(logger, WandbLogger) and experiment is not open_before:
                    ours.append(experiment)
                logger.log_hyperparams(dict(hyper_parameters))
            except Exception as error:
                if name := _name_of(logger):
                    raise _refused(name, error) from error
                raise  # a logger of the user's own
        yield
        failed = False
    finally:
        for each in ours:
            try:
                each.finish(exit_code=int(failed))
            except Exception as error:  # the training itself is complete
                line = one_line(f"trainer.logger=wandb: did not end in good order ({reason_of(error, 200)})")
                print(f"semipix: {line}", file=sys.stderr)


def package_of(error: BaseException) -> str | None:
    """The logger whose package raised an error; None for other errors."""
    package = type(error).__module__.partition(".")[0]
    return package if package in LOGGERS else None


def _name_of(logger: Logger) -> str | None:
    """The value of `trainer.logger` for a logger; None for another class."""
    kinds = {TensorBoardLogger: "tensorboard", WandbLogger: "wandb", MLFlowLogger: "mlflow"}
    return next((name for kind, name in kinds.items() if isinstance(logger, kind)), None)


def _refused(name: str, error: Exception) -> SemipixError:
    hint = f"{HINTS[name]}, or " if name in HINTS else ""
    reason = one_line(reason_of(error, 200)).rstrip(".")
    return SemipixError(f"trainer.logger={name}: does not begin ({reason}); {hint}set trainer.logger={NONE}")
