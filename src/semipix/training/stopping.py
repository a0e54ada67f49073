"""When a training stops: after a signal, or early."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping

from semipix import interruption
from semipix.tasks.base import Task


def _nothing(*args: Any) -> None:
    pass


class StopOnSignal(Callback):
    """Ends a training, or a test, at its next boundary after a signal, by `interruption.Stopped`.

    A training ends where a checkpoint leads to the weights of an uninterrupted one: after an optimizer's step, or in
    validation, which a resumed run then begins again. After the last step it goes on to its end, for a validation that
    is cut off there would never be made up for. Several processes of one training agree after each step; in validation
    they do not stop, since they may have different numbers of images.

    Args:
        checkpoint: the file that is written then; None for a test.

    Attributes:
        step: the step of the checkpoint that was written, or None.
    """

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.checkpoint = checkpoint
        self.step: int | None = None
        self._first = 0
        self._made = 0  # optimizer steps
        self._between_steps = True  # and not while gradients are accumulated

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning's own handler of SIGTERM talks to the other processes from within the handler, and its training ends
        # without a checkpoint. It stays in its chain of handlers, with those of SLURM and of semipix.
        trainer._signal_connector._sigterm_notifier_fn = _nothing  # type: ignore[assignment]

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_before_the_first_step(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = self._made = trainer.global_step
        self._stop_before_the_first_step(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._stop_if_saved()
        self._stop_before_the_first_step(trainer)
        if trainer.world_size == 1 and interruption.received():  # while this batch was waited for
            progress = trainer.fit_loop.epoch_loop.batch_progress
            if self._between_steps and progress.current.completed:
                for count in (progress.total, progress.current):
                    count.ready = count.completed
                progress.is_last_batch = False  # the one before this was not
                self._save_after_a_batch(trainer)
                raise interruption.Stopped

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._between_steps = trainer.global_step > self._made
        self._made = trainer.global_step
        goes_on = self._made < trainer.max_steps and not trainer.should_stop
        if self._between_steps and goes_on and self._is_asked(trainer):
            self._save(trainer)  # raises a moment later, when the loggers have the figures of this step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_saved()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.step is not None:
            self._save_before_validation(trainer)
            raise interruption.Stopped

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.world_size > 1 or not interruption.received():
            return
        if trainer.sanity_checking:
            raise interruption.Stopped
        if self._between_steps and self._made < trainer.max_steps:
            self._save_before_validation(trainer)
            raise interruption.Stopped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save where the signal has ended the data-loading workers too, so that nothing comes to stop at."""
        if self.step is not None or self.checkpoint is None or trainer.world_size > 1 or not interruption.received():
            return
        if not self._first < self._made < trainer.max_steps or not self._between_steps:
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
        """Save in validation. By these counters Lightning begins it again when the run is resumed."""
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()
        progress.increment_ready()
        progress.increment_started()
        self._save(trainer)

    def _save_after_a_batch(self, trainer: pl.Trainer) -> None:
        """Save between two batches, by the counters that `on_train_batch_end` sees: validation is not made again."""
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
    """Ends a training whose primary metric has not improved for a number of validations; NaN is no improvement.

    Its count and the best value are in the checkpoints, so that a resumed training stops where an uninterrupted one
    does.

    Args:
        monitor: the metric.
        mode: `max` where more is better, otherwise `min`.
        patience: validations without improvement after which training ends.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(
            monitor, patience=patience, mode=mode, check_finite=False, check_on_train_epoch_end=False, verbose=False
        )

    @property
    def reason(self) -> str:
        """Why training ended, in words; empty where it did not end by this."""
        if self.wait_count < self.patience:
            return ""
        best, several = float(self.best_score), f"{self.patience} validation{'s' if self.patience > 1 else ''}"
        if not math.isfinite(best):
            return f"{self.monitor} was not a number in {several}"
        return f"{self.monitor} has not been better than {best:.4g} for {several}"


def early_stop(task: Task, early_stopping: int | None = None) -> list[Callback]:
    """The callback for `trainer.early_stopping`.

    Args:
        task: its primary metric is watched.
        early_stopping: validations without improvement after which training ends; none lets it run to its end.
    """
    if early_stopping is None:
        return []
    return [EarlyStop(f"val/{task.primary}", "max" if task.higher_is_better else "min", early_stopping)]


def stopped_early(trainer: pl.Trainer) -> str:
    """Why a training ended before its last step; empty where it did not."""
    if trainer.global_step >= trainer.max_steps:
        return ""
    return next(
        (stop.reason for stop in trainer.early_stopping_callbacks if isinstance(stop, EarlyStop) and stop.reason), ""
    )
