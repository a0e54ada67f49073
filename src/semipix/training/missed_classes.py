"""Classes that validation labels have and the trained network hardly finds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from semipix.batch import VOID, EvalSample
from semipix.data.class_balance import MOST_WEIGHT, class_pixels, without_pixels
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.errors import SemipixError
from semipix.tasks.base import Task

LEAST_IOU = 0.05
"""Validation IoU below which a class counts as missed."""


class LabelCounts(Callback):
    """Counts the pixels of each class in the labels that a validation measures.

    Attributes:
        pixels: (256,) by class index, of the last validation and of all processes together.
    """

    def __init__(self) -> None:
        self.pixels = torch.zeros(VOID + 1, dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        return {"pixels": self.pixels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pixels = state_dict["pixels"].cpu()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pixels = torch.zeros(VOID + 1, dtype=torch.long)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Sequence[EvalSample],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for sample in batch:
            self.pixels += torch.bincount(sample.target.flatten(), minlength=VOID + 1).cpu()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pixels = trainer.strategy.reduce(self.pixels.to(pl_module.device), reduce_op="sum").cpu()


def missed_classes(trainer: pl.Trainer, task: Task, metrics: Mapping[str, float]) -> dict[str, float]:
    """The classes with a validation IoU below `LEAST_IOU` though the validation labels have them, with this IoU.

    Args:
        trainer: after a training with a `LabelCounts` callback. Both are those of the last validation.
        task: of the training; regression has no classes.
        metrics: of the last validation.
    """
    counts = next((each.pixels for each in trainer.callbacks if isinstance(each, LabelCounts)), None)  # type: ignore[attr-defined]
    if counts is None:
        return {}
    return below(metrics, counts, getattr(task, "classes", None) or ())


def below(metrics: Mapping[str, float], counts: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """The IoUs below `LEAST_IOU` of classes that have a pixel.

    Args:
        metrics: `val/iou/NAME` of each class.
        counts: number of pixels by class index.
        classes: names in index order.
    """
    ious = {
        name: metrics[key]
        for index, name in enumerate(classes)
        if (key := f"val/iou/{name}") in metrics and counts[index]
    }
    return {name: iou for name, iou in ious.items() if iou < LEAST_IOU}


def advice(missed: Mapping[str, float], data: SemiSupervisedDataModule, weights: Sequence[float] | None) -> str:
    """One line that names the missed classes and what to change.

    Args:
        missed: IoU by class.
        data: of the training; its labels are read to find classes that no label has.
        weights: the class weights of the task, if it has any.
    """
    found = ", ".join(f"{name} ({iou:.3f})" for name, iou in missed.items())
    changes = ["task.class_weights=sqrt_balanced or balanced"] if weights is None else []
    if weights is not None and max(weights) <= math.sqrt(MOST_WEIGHT):  # none that only `balanced` gives
        changes = ["task.class_weights=balanced"]
    changes += [f"a data.rare_share above {data.rare_share:.2g}"] if data.rare_share < 1 else []
    line = f"the last validation hardly finds classes that its labels have (IoU below {LEAST_IOU}): {found}; "
    line += f"try {', '.join([*changes, 'a smaller data.crop', 'or more labels with these classes'])}"
    if unlabeled := _without_label(missed, data):
        line += f"; no labeled training image has a pixel of {', '.join(unlabeled)}"
    return line


def _without_label(missed: Mapping[str, float], data: SemiSupervisedDataModule) -> list[str]:
    """The missed classes that are in no labeled training image; none where a label can no longer be read."""
    try:
        pixels = class_pixels(data.source, data.split.labeled, skip=True)
    except SemipixError:  # the training has ended, and is worth more than this line
        return []
    return [name for name in without_pixels(pixels, data.classes or ()) if name in missed]
