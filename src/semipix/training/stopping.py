"""Callbacks that stop a training: after a signal, or early when a metric no longer improves."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping

from semipix import interruption
from semipix.tasks.base import Task


def _nothing(*args: Any) -> None:
    pass


@contextmanager
def validation_to_begin(trainer: pl.Trainer) -> Iterator[None]:
    """Set counters that let Lightning begin validation again when a run is resumed from what is saved meanwhile.

    Args:
        trainer: that has begun a validation.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    real = progress.state_dict()
    progress.reset()
    progress.increment_ready()
    progress.increment_started()
    yield
    progress.load_state_dict(real)


class StopOnSignal(Callback):
    """Stops a training or a test after a signal, by raising `interruption.Stopped` at the next safe point.

    A training stops where it can be resumed to the same weights as without the signal: after an optimizer step, or in
    validation, which a resumed run begins again. After the last step it does not stop, since a resumed run would not
    repeat the last validation. Several processes of one training decide together after each step. They do not stop in
    validation, where they may have different numbers of images.

    Args:
        checkpoint: the file to which a checkpoint is written then; None for a test.

    Attributes:
        step: the step of the checkpoint that was written, or None.
    """

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.checkpoint = checkpoint
        self.step: int | None = None
        self._first = 0  # step at which this training began or was resumed
        self._steps = 0  # optimizer steps so far
        self._between_steps = True  # False while gradients are accumulated

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning's handler of SIGTERM would communicate with the other processes and end the training without a
        # checkpoint. It is replaced in Lightning's chain of handlers, which also calls those of SLURM and of semipix.
        trainer._signal_connector._sigterm_notifier_fn = _nothing  # type: ignore[assignment]

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_before_the_first_step(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = self._steps = trainer.global_step
        self._stop_before_the_first_step(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._stop_if_saved()
        self._stop_before_the_first_step(trainer)
        if trainer.world_size == 1 and interruption.received():  # the signal came while the batch was loaded
            progress = trainer.fit_loop.epoch_loop.batch_progress
            if self._between_steps and progress.current.completed:
                for count in (progress.total, progress.current):
                    count.ready = count.completed
                progress.is_last_batch = False  # the batch before this one was not the last of the epoch
                self._save_after_a_batch(trainer)
                raise interruption.Stopped

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._between_steps = trainer.global_step > self._steps
        self._steps = trainer.global_step
        continues = self._steps < trainer.max_steps and not trainer.should_stop
        if self._between_steps and continues and self._is_asked(trainer):
            self._save(trainer)  # a later hook raises, after the loggers have written this step's metrics

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_saved()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # One that a resumed run repeats was counted as begun when the checkpoint was written.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        if self.step is not None:
            self._save_before_validation(trainer)
            raise interruption.Stopped

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.world_size > 1 or not interruption.received():
            return
        if trainer.sanity_checking:
            raise interruption.Stopped
        if self._between_steps and self._steps < trainer.max_steps:
            self._save_before_validation(trainer)
            raise interruption.Stopped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save a checkpoint if the signal also ended the data-loading workers, so that no other hook is called."""
        if self.step is not None or self.checkpoint is None or trainer.world_size > 1 or not interruption.received():
            return
        if not self._first < self._steps < trainer.max_steps or not self._between_steps:
            return
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if trainer.validating:
            self._save_before_validation(trainer)
        elif progress.current.ready == progress.current.completed > 0:
            self._save_after_a_batch(trainer)

    def on_test_batch_start(self, *args: Any) -> None:
        if interruption.received():
            raise interruption.Stopped

    def _is_asked(self, trainer: pl.Trainer) -> bool:
        asked = interruption.received() is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        return asked

    def _stop_before_the_first_step(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._first and self._between_steps and self._is_asked(trainer):
            raise interruption.Stopped

    def _save_before_validation(self, trainer: pl.Trainer) -> None:
        with validation_to_begin(trainer):
            self._save(trainer)

    def _save_after_a_batch(self, trainer: pl.Trainer) -> None:
        """Save between two batches, with the counters of `on_train_batch_end`, so that validation is not repeated."""
        loop = trainer.fit_loop.epoch_loop
        for count in (loop.batch_progress.total, loop.batch_progress.current):
            count.completed -= 1
        loop._batches_that_stepped -= 1
        self._save(trainer)

    def _stop_if_saved(self) -> None:
        if self.step is not None:
            raise interruption.Stopped

    def _save(self, trainer: pl.Trainer) -> None:
        assert self.checkpoint is not None
        trainer.save_checkpoint(self.checkpoint)
        self.step = trainer.global_step


class EarlyStop(EarlyStopping):
    """Stops a training whose metric has not improved for a number of validations; NaN is not an improvement.

    Checkpoints contain its count and the best value, so that a resumed training stops at the same step as an
    uninterrupted one.

    Args:
        monitor: name of the metric.
        mode: `max` if larger values are better, otherwise `min`.
        patience: number of validations without improvement after which training stops.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(
            monitor, patience=patience, mode=mode, check_finite=False, check_on_train_epoch_end=False, verbose=False
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= bool(self.reason)  # resumed from its end, by a process that was killed there

    @property
    def reason(self) -> str:
        """Why training stopped, for the user; empty if this callback did not stop it."""
        if self.wait_count < self.patience:
            return ""
        best, validations = float(self.best_score), f"{self.patience} validation{'s' if self.patience > 1 else ''}"
        if not math.isfinite(best):
            return f"{self.monitor} was not a number in {validations}"
        return f"{self.monitor} has not been better than {best:.4g} for {validations}"


def early_stop(task: Task, early_stopping: int | None = None) -> list[Callback]:
    """The callback for `trainer.early_stopping`.

    Args:
        task: the task, whose primary metric is monitored.
        early_stopping: number of validations without improvement after which training stops; None for no early stop.

    Returns:
        A list of one callback, or an empty list.
    """
    if early_stopping is None:
        return []
    return [EarlyStop(f"val/{task.primary}", "max" if task.higher_is_better else "min", early_stopping)]


def stopped_early(trainer: pl.Trainer) -> str:
    """Why a training stopped before its last step; empty if it did not."""
    if trainer.global_step >= trainer.max_steps:
        return ""
    return next(
        (stop.reason for stop in trainer.early_stopping_callbacks if isinstance(stop, EarlyStop) and stop.reason), ""
    )
