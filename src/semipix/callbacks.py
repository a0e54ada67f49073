"""What a training shows and keeps while it runs, and when it stops: early, or after a signal."""

import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar
from torch import Tensor
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from semipix import interruption
from semipix.batch import Batch
from semipix.learner import Learner
from semipix.tasks.base import Task


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint by a metric; one whose metric is NaN never is. Lightning would keep a first one."""

    @property
    def state_key(self) -> str:
        """That of Lightning's class, so that checkpoints of older trainings fit."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        return current is not None and not bool(current.isnan()) and super().check_monitor_top_k(trainer, current)


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


class RunProgress(ProgressBar):
    """One bar over all steps of the run, with loss, speed and time left, whatever an epoch's length.

    A test has a bar over its batches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm[Any] | None = None
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open("train", "step", trainer.max_steps, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.bar is not None and trainer.global_step > self.bar.n:
            if trainer.global_step % 10 == 0 or self.bar.n == self.bar.initial:
                self._show(trainer)
            self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None and not trainer.sanity_checking:
            self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self._show(trainer)
        self._close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open("evaluate", "batch", int(sum(trainer.num_test_batches)), 0)

    def on_test_batch_end(self, *args: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, name: str, unit: str, total: int, done: int) -> None:
        if self.enabled:
            interval = 0.2 if sys.stderr.isatty() else 15  # a log file wants fewer lines
            self.bar = tqdm(total=total, initial=done, desc=name, unit=unit, mininterval=interval)

    def _show(self, trainer: pl.Trainer) -> None:
        assert self.bar is not None
        metrics = trainer.progress_bar_metrics.items()
        self.bar.set_postfix(
            {key.removeprefix("train/"): f"{float(value):.4g}" for key, value in metrics}, refresh=False
        )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class SamplePictures(Callback):
    """Rows of input, label, prediction and the method's maps for the first validation images.

    Args:
        folder: where `step-NNNNNN.png` goes after each validation.
        count: how many images.
        side: longer side of one picture in pixels.
    """

    def __init__(self, folder: Path, count: int = 4, side: int = 192) -> None:
        self.folder = folder
        self.count = count
        self.side = side

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Learner)
        assert trainer.val_dataloaders is not None
        dataset = trainer.val_dataloaders.dataset
        shown = range(min(self.count, len(dataset)))
        rows = []
        precision = trainer.precision_plugin
        with precision.forward_context():
            for sample in (dataset[index] for index in shown):
                image = precision.convert_input(sample.image.to(pl_module.device))
                rows += self._row(pl_module, image, sample.target.to(pl_module.device))
        self.folder.mkdir(parents=True, exist_ok=True)
        grid = make_grid(rows, nrow=len(rows) // len(shown))
        save_image(grid, self.folder / f"step-{trainer.global_step:06d}.png")

    def _row(self, learner: Learner, image: Tensor, target: Tensor) -> list[Tensor]:
        method, task = learner.method, learner.method.task
        batch = image.unsqueeze(0)
        prediction = task.activate(method(batch))[0]
        label = F.interpolate(task.encode(target.unsqueeze(0)), image.shape[-2:])[0]
        known = F.interpolate(task.valid(target.unsqueeze(0)).float(), image.shape[-2:])[0]  # elsewhere black is drawn
        maps = method.maps(Batch(batch, target.new_zeros((0, *target.shape)))).values()
        pictures = [
            image[:3],
            task.render(image, label) / 255.0 * known,
            task.render(image, prediction) / 255.0,
            *(single[0].expand(3, -1, -1) for single in maps),
        ]
        return [self._fit(picture.float().cpu()) for picture in pictures]

    def _fit(self, picture: Tensor) -> Tensor:
        """Scale a picture (3, H, W) to the common square, padded with black."""
        height, width = picture.shape[-2:]
        scale = self.side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = F.interpolate(picture.unsqueeze(0), size, mode="bilinear", antialias=True)[0]
        return F.pad(scaled, (0, self.side - size[1], 0, self.side - size[0])).clamp(0, 1)
