"""Lightning callbacks: the best and the last checkpoint, kept metrics, the progress bar and sample pictures."""

import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from torch import Tensor
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from semipix.functional.display import shown_colours
from semipix.methods.error_maps import error_maps
from semipix.training.learner import Learner
from semipix.training.stopping import validation_to_begin

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
"""Keys of ModelCheckpoint's state that are files."""


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run folder, which may be moved before the run is resumed."""

    @property
    def state_key(self) -> str:
        """The key of Lightning's class, so that checkpoints of older trainings can be loaded."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state with its files in the present folder; Lightning would forget the best score of another one."""
        here = {key: self._here(state_dict[key]) for key in PATHS if key in state_dict}
        best = {self._here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": best, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        """The file of the same name in the present folder; empty for an empty path."""
        return str(Path(self.dirpath or "") / Path(path).name) if path else ""


class LastCheckpoint(RunCheckpoint):
    """Writes a checkpoint after every N steps, from which a killed training is resumed.

    Where a validation follows the step, the checkpoint says that this validation has still to run: its result decides
    about the best checkpoint, the early stop and what a method deploys. Lightning's own class writes a checkpoint after
    which the validation counts as done. With the last step only the validation would be left, which Lightning does not
    repeat; so the checkpoint before it is kept until the training is over.
    """

    _validates = False  # after the current batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # Lightning forgets that this step is saved, and would save again among the batches of the next one.
        self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        self._validates = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
        if not self._validates:
            super().on_train_batch_end(trainer, *args)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._validates and trainer.global_step < trainer.max_steps:
            with validation_to_begin(trainer):
                super().on_train_batch_end(trainer, pl_module, None, None, trainer.fit_loop.batch_idx)
        self._validates = False


class BestCheckpoint(RunCheckpoint):
    """Keeps the best checkpoint by a metric; unlike Lightning never one whose metric is NaN, also not the first."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        return current is not None and not bool(current.isnan()) and super().check_monitor_top_k(trainer, current)


class KeptMetrics(Callback):
    """Keeps the latest metrics in each checkpoint: a resumed training may have no step and no validation left.

    Attributes:
        before: finite metrics of the checkpoint from which this training goes on.
    """

    KEY = "semipix_metrics"

    def __init__(self) -> None:
        self.before: dict[str, float] = {}

    def latest(self, trainer: pl.Trainer) -> dict[str, float]:
        """Finite metrics of the last step and the last validation, also from before the training was resumed."""
        found = {key: float(value) for key, value in trainer.callback_metrics.items()}
        return {key: value for key, value in {**self.before, **found}.items() if math.isfinite(value)}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[self.KEY] = self.latest(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.before = dict(checkpoint.get(self.KEY, {}))  # older checkpoints have none


class RunProgress(ProgressBar):
    """One bar over all steps of a training, with loss, speed and remaining time; in a test, a bar over its batches."""

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
            interval = 0.2 if sys.stderr.isatty() else 15  # in seconds; each update is a line in a log file
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
    """Writes a picture after each validation: rows of input, label, prediction and the method's maps.

    Of an image that validation computes in parts, only the middle is shown, of the size of a tile at most: the whole
    image may be too large for one pass.

    Args:
        folder: the folder of the pictures `step-NNNNNN.png`.
        count: number of validation images that are shown.
        side: longer side of each image in the picture, in pixels.
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
                image, target = sample.image, sample.target
                if pl_module.large.applies((image.shape[-2], image.shape[-1])):
                    image, target = middles(image, target, pl_module.large.tiles.tiling.tile)
                image = precision.convert_input(image.to(pl_module.device))
                rows += self._row(pl_module, image, target.to(pl_module.device))
        self.folder.mkdir(parents=True, exist_ok=True)
        grid = make_grid(rows, nrow=len(rows) // len(shown))
        save_image(grid, self.folder / f"step-{trainer.global_step:06d}.png")

    def _row(self, learner: Learner, image: Tensor, target: Tensor) -> list[Tensor]:
        method, task = learner.method, learner.method.task
        batch = image.unsqueeze(0)
        evidence = method.evidence(batch)
        prediction = evidence.predictions[0][0]
        label = F.interpolate(task.encode(target.unsqueeze(0)), image.shape[-2:])[0]
        known = F.interpolate(task.valid(target.unsqueeze(0)).float(), image.shape[-2:])[0]  # others are black
        maps = error_maps(task, evidence).values()
        pictures = [
            shown_colours(image),
            task.render(image, label) / 255.0 * known,
            task.render(image, prediction) / 255.0,
            *(single[0].expand(3, -1, -1) for single in maps),
        ]
        return [self._fit(picture.float().cpu()) for picture in pictures]

    def _fit(self, picture: Tensor) -> Tensor:
        """Scale a picture (3, H, W) to a square of `side` pixels, padded with black."""
        height, width = picture.shape[-2:]
        scale = self.side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = F.interpolate(picture.unsqueeze(0), size, mode="bilinear", antialias=True)[0]
        return F.pad(scaled, (0, self.side - size[1], 0, self.side - size[0])).clamp(0, 1)


def middles(image: Tensor, target: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The middle of an image and the same part of its label.

    Args:
        image: (C, H, W).
        target: (..., h, w), which may be of another size than the image.
        most: largest height and width of the image's middle.
    """
    (height, width), (rows, columns) = image.shape[-2:], target.shape[-2:]
    top, left = max(height - most, 0) // 2, max(width - most, 0) // 2
    bottom, right = top + min(height, most), left + min(width, most)
    of_target = (
        slice(round(top * rows / height), max(1, round(bottom * rows / height))),
        slice(round(left * columns / width), max(1, round(right * columns / width))),
    )
    return image[..., top:bottom, left:right], target[..., *of_target]
