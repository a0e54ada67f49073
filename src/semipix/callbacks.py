"""What a training shows while it runs: one progress bar and sample pictures."""

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from semipix.batch import Batch
from semipix.learner import Learner


class RunProgress(ProgressBar):
    """One bar over all steps of the run, with loss, speed and time left, whatever an epoch's length."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm[Any] | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    _enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._enabled:
            interval = 0.2 if sys.stderr.isatty() else 15  # a log file wants fewer lines
            self.bar = tqdm(
                total=trainer.max_steps, initial=trainer.global_step, desc="train", unit="step", mininterval=interval
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.bar is not None and trainer.global_step > self.bar.n:
            self.bar.update(trainer.global_step - self.bar.n)
            if trainer.global_step % 10 == 0 or trainer.global_step == trainer.max_steps:
                self._show(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None and not trainer.sanity_checking:
            self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        assert self.bar is not None
        shown = {key: f"{float(value):.4g}" for key, value in trainer.progress_bar_metrics.items()}
        self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

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
        dataset = trainer.val_dataloaders.dataset
        shown = range(min(self.count, len(dataset)))
        rows = []
        for sample in (dataset[index] for index in shown):
            rows += self._row(pl_module, sample.image.to(pl_module.device), sample.target.to(pl_module.device))
        self.folder.mkdir(parents=True, exist_ok=True)
        grid = make_grid(rows, nrow=len(rows) // len(shown))
        save_image(grid, self.folder / f"step-{trainer.global_step:06d}.png")

    def _row(self, learner: Learner, image: Tensor, target: Tensor) -> list[Tensor]:
        method, task = learner.method, learner.method.task
        batch = image.unsqueeze(0)
        prediction = task.activate(method(batch))[0]
        label = F.interpolate(task.encode(target.unsqueeze(0)), image.shape[-2:])[0]
        maps = method.maps(Batch(batch, target.new_zeros((0, *target.shape)))).values()
        pictures = [
            image[:3],
            task.render(image, label) / 255.0,
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
