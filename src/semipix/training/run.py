"""Train a configuration into a run folder, and resume such a training."""

import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from semipix import interruption
from semipix.data.compatibility import check_serves
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.splits import Split
from semipix.data.survey import SEVERAL_PAGES, further_parts
from semipix.errors import SemipixError, one_line
from semipix.methods.base import Method
from semipix.processes import die_with_parent, is_first_process, is_started_by_lightning
from semipix.training.build import (
    build_data,
    build_learner,
    build_method,
    build_task,
    build_trainer,
    data_of_run,
    steps_of,
    with_bands,
    with_chosen_options,
    with_class_weights,
    with_classes,
)
from semipix.training.calibrating import calibrate_at_end
from semipix.training.callbacks import BestCheckpoint, KeptMetrics
from semipix.training.checkpoints import read_checkpoint
from semipix.training.configuration import Configuration
from semipix.training.cost import Cost
from semipix.training.failures import explained
from semipix.training.label_range import range_warning
from semipix.training.learner import Learner
from semipix.training.loggers import begun, package_of
from semipix.training.missed_classes import advice, missed_classes
from semipix.training.opening import opening_lines
from semipix.training.run_folder import (
    SUMMARY,
    checkpoint_of,
    claimed,
    emptied_where_refused,
    has_checkpoint,
    is_finished,
    load_config,
    no_empty_folders,
    with_root,
    write_config,
    write_json,
)
from semipix.training.stopping import StopOnSignal, stopped_early
from semipix.training.trust import check_state

_Callback = TypeVar("_Callback", bound=Callback)


class TrainingInterrupted(interruption.Interrupted):
    """A training that a signal has ended.

    Args:
        error: what ended it.
        trainer: of the training.

    Attributes:
        step: of the checkpoint that was written then, or None.
        begun: whether a step was made.
    """

    def __init__(self, error: BaseException, trainer: pl.Trainer) -> None:
        # Where another process has got the signal, this one has no number.
        number = signal.SIGTERM if isinstance(error, interruption.Stopped) else signal.SIGINT
        super().__init__(interruption.received() or number)
        self.step = next(
            (each.step for each in getattr(trainer, "callbacks", ()) if isinstance(each, StopOnSignal)), None
        )
        self.begun = trainer.global_step > 0


def start(
    configuration: Configuration, run: Path, command: str = "Python", split: Split | None = None
) -> dict[str, float]:
    """Train in a new run folder.

    Args:
        configuration: of the training.
        run: the folder; it is made where it is missing.
        command: the command line that started the training, for `config.yaml`.
        split: the lists of images; by default they are drawn as the configuration says.

    Returns:
        What `summary.json` holds.

    Raises:
        SemipixError: the folder already holds a training, another training is writing it, or the input is at fault.
    """
    check_name(run)
    with ExitStack() as claim:
        if is_first_process():
            claim.enter_context(no_empty_folders(run))
            claim.enter_context(claimed(run))
        return start_claimed(configuration, run, command, split)


def check_name(run: Path) -> None:
    """Refuse a run folder whose name cannot be written.

    Raises:
        SemipixError: the name has a null character, or is not UTF-8 text.
    """
    if "\0" in str(run):
        raise SemipixError(f"run={str(run)!r}: a name with a null character; choose another run=PATH")
    try:
        str(run.absolute()).encode()
    except UnicodeEncodeError:
        raise SemipixError(
            f"run={run}: a name that is not UTF-8 text, which loggers cannot write; choose another run=PATH"
        ) from None


def check_new(run: Path) -> None:
    """Refuse a run folder that holds a training already.

    Raises:
        SemipixError: it has a checkpoint.
    """
    if has_checkpoint(run):
        raise SemipixError(f"{run}: holds a training already; continue it with resume={run} or choose another run=PATH")


def start_claimed(
    configuration: Configuration, run: Path, command: str = "Python", split: Split | None = None
) -> dict[str, float]:
    """Train in a new run folder that the first process has locked, as `start` does."""
    if is_first_process():
        check_new(run)
    data = build_data(configuration, split)
    configuration = with_class_weights(with_bands(with_classes(configuration, data), data), data)
    task = build_task(configuration)
    check_serves(task, data.source)
    interruption.raise_if_interrupted()
    method = build_method(configuration, task)
    if method.needs_unlabeled and not data.mixed:
        raise SemipixError(
            f"data.labels={data.labels}: leaves no unlabeled image, from which "
            f"{type(method).__name__} learns; set data.labels=1/8 to hide labels for an experiment, add images without "
            "labels, or set method=gct or method=supervised, which need none"
        )
    trainer: pl.Trainer | None = None
    first = is_first_process()
    if first and (line := range_warning(task, data.source, data.split.labeled)):
        data.source.warnings = [*data.source.warnings, line]
    with (
        emptied_where_refused(run, lambda: trainer is not None and trainer.global_step > 0) if first else nullcontext()
    ):
        learner, trainer = _built(configuration, data, method, run)
        if first:
            write_config(run, with_chosen_options(configuration, data), command)
            data.split.to_json(run / "split.json")
        return _fit(configuration, data, learner, trainer, run, None)


def resume(run: Path, root: Path | None = None, trust: bool = False) -> dict[str, float]:
    """Continue an interrupted run. Its weights become those that an uninterrupted run would have reached.

    Args:
        run: run folder.
        root: where the run's data folder is now; by default the run's `data.root`.
        trust: run code that the folder names outside of the known packages, see `load_config`.

    Raises:
        SemipixError: the folder holds no run or no checkpoint, it could run code and is not trusted, another training
            is writing it, or its data are not those that the run was trained on.
    """
    configuration = load_config(run, trust)
    if root is not None:
        configuration = with_root(configuration, root)
    with ExitStack() as claim:
        if is_first_process() and not is_finished(run):
            claim.enter_context(claimed(run))
        last = checkpoint_of(run, "last")
        state = read_checkpoint(last)
        if not trust:
            check_state(last, state)
        done = state["global_step"]
        task = build_task(configuration)
        data = data_of_run(configuration, run, task, ["train", "val"])
        if is_finished(run):
            summary = dict(json.loads((run / SUMMARY).read_text()))
            if done >= steps_of(configuration, data) or "stopped_early" in summary:
                if is_first_process():
                    print(f"{run}: finished already, nothing to resume")
                return summary
            if is_first_process():
                claim.enter_context(claimed(run))
        method = build_method(configuration, task, pretrained=False)
        built = _built(configuration, data, method, run)
        if is_first_process() and is_finished(run):
            _set_aside(run, done)
        return _fit(configuration, data, *built, run, last)


def _set_aside(run: Path, steps: int) -> None:
    """Rename the figures of a finished training that goes on: they are not those of the network that it will have.

    Args:
        run: run folder.
        steps: of the training until now; they are added to the names.
    """
    for path in [*run.glob("evaluation-*.*"), run / SUMMARY]:
        if "-steps." not in path.name:
            path.rename(path.with_name(f"{path.stem}-{steps}-steps{path.suffix}"))
    print(f"{run}: the figures after {steps} steps are kept as evaluation-*-{steps}-steps.*", flush=True)


def _built(
    configuration: Configuration, data: SemiSupervisedDataModule, method: Method, run: Path
) -> tuple[Learner, pl.Trainer]:
    """Learner and trainer of a run. Nothing but the stores of loggers is written yet."""
    steps = steps_of(configuration, data)
    validate = bool(data.split.val) and configuration.validations > 0
    learner = build_learner(configuration, method, steps, data.strong)
    return learner, build_trainer(configuration, run, method.task, steps, validate=validate)


def _fit(
    configuration: Configuration,
    data: SemiSupervisedDataModule,
    learner: Learner,
    trainer: pl.Trainer,
    run: Path,
    checkpoint: Path | None,
) -> dict[str, float]:
    if is_started_by_lightning():
        die_with_parent()
    data.skipped.path = run / "skipped.txt"
    if is_first_process():
        _begin(data, opening_lines(learner.method, data, trainer, run))
    loggers = trainer.loggers if is_first_process() else []
    try:
        with begun(loggers, configuration.as_mapping()), interruption.deferred("step"):
            # Lightning downloads what begins with http, and by default torch's environment decides what is unpickled.
            start = None if checkpoint is None else checkpoint.absolute()
            trainer.fit(learner, datamodule=data, ckpt_path=start, weights_only=True)
            trainer.save_checkpoint(run / "checkpoints" / "last.ckpt")
    except (interruption.Stopped, KeyboardInterrupt, SystemExit) as error:  # Lightning makes the third of the second
        raise TrainingInterrupted(error, trainer) from None
    except Exception as error:
        if interruption.received():  # as when the data-loading workers have got the signal too
            raise TrainingInterrupted(error, trainer) from error
        if package_of(error) or isinstance(error, _EXPLAINED):
            raise explained(error, run, trainer.global_step, configuration) from error
        raise
    check_steps(trainer)
    metrics = _callback(trainer, KeptMetrics).latest(trainer)
    summary: dict[str, Any] = {
        "steps": trainer.global_step,
        **_callback(trainer, Cost).summary(trainer.strategy.root_device),
        "labeled": len(data.split.labeled),
        "unlabeled": data.unlabeled_count,
        **metrics,
        **_best(trainer),
    }
    if why := stopped_early(trainer):
        summary["stopped_early"] = why
    if is_first_process():
        if missed := missed_classes(trainer, learner.method.task, metrics):
            summary["missed_classes"] = list(missed)
            weights = getattr(learner.method.task, "class_weights", None)
            weights = None if weights is None else weights.tolist()
            print(f"semipix: {one_line(advice(missed, data, weights))}", file=sys.stderr)
        if skipped := data.skipped.count():
            summary["skipped"] = skipped
            line = f"{skipped} files could not be read and were skipped, see {data.skipped.path}"
            print(f"semipix: {line}", file=sys.stderr)
        write_json(run / SUMMARY, summary)
        if configuration.calibrate:
            calibrate_at_end(configuration, run)
    return summary


_EXPLAINED = (MisconfigurationException, RuntimeError, MemoryError, OSError, ValueError)
"""Errors of a training that may have a translation."""


def _callback(trainer: pl.Trainer, kind: type[_Callback]) -> _Callback:
    """The callback of a class that every trainer of a run has."""
    return next(each for each in getattr(trainer, "callbacks", ()) if isinstance(each, kind))


def _best(trainer: pl.Trainer) -> dict[str, float]:
    """The validation metric of `best.ckpt`, as `best/METRIC`; `val/METRIC` is that of the last validation."""
    for each in getattr(trainer, "callbacks", ()):
        if isinstance(each, BestCheckpoint) and each.best_model_score is not None:
            return {f"best/{str(each.monitor).removeprefix('val/')}": float(each.best_model_score)}
    return {}


def check_steps(trainer: pl.Trainer) -> None:
    """Refuse a training that has ended too early.

    Raises:
        SemipixError: the training made no step, or fewer than it should although nothing asked it to stop.
    """
    made, asked = trainer.global_step, trainer.max_steps
    if made == 0 or (made < asked and not trainer.should_stop):
        raise SemipixError(
            f"trainer: the training ended after {made} of {asked} steps; check trainer.callbacks, trainer.strategy and "
            "the limits among the keys of trainer"
        )


def _begin(data: SemiSupervisedDataModule, opening: Sequence[str]) -> None:
    """Print what begins, and what of the data is unusual or left out."""
    print("\n".join(opening), flush=True)
    further = further_parts(data.source.files(SEVERAL_PAGES), data.source.reader)
    for line in [*data.source.warnings, *data.source.left_out, *further]:
        print(f"semipix: {'warning: ' if line in data.source.warnings else ''}{one_line(line)}", file=sys.stderr)
