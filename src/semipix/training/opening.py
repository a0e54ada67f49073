"""The five lines with which a training begins: task, data, model, method, length."""

from pathlib import Path

import lightning.pytorch as pl
from torch import nn

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.methods.base import Method
from semipix.models.adapt import Adapter
from semipix.tasks.base import Task

MOST_NAMES = 8
"""Class names that are listed; of more, the first ones."""


def opening_lines(
    method: Method, data: SemiSupervisedDataModule, trainer: pl.Trainer, run: Path
) -> tuple[str, str, str, str, str]:
    """What a training is about to do.

    Args:
        method: with its networks.
        data: the data module.
        trainer: knows how many steps there are, and how often validation runs.
        run: the run folder.
    """
    models = [module for module in method.modules() if isinstance(module, Adapter)]
    titles = dict.fromkeys(f"{_title(each.model)}, {_count(each)} parameters" for each in models)
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    normalised = bool(models) and all(each.normalises_bands for each in models)
    images = f"{data.batch_size * data.accumulate} images"
    if data.mixed:
        images += f", {data.labeled_per_batch * data.accumulate} of them labeled"
    if data.accumulate > 1:
        images += f", in {data.accumulate} batches"
    place = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    return (
        f"task: {_task_line(method.task)}",
        data.counts() + (", normalised by their statistics" if normalised else ""),
        f"model: {'; '.join(titles)}",
        f"method: {type(method).__name__}, {_several(len(models), 'network')} of the model, "
        f"{_millions(trained)} trained parameters in all",
        f"length: {_several(trainer.max_steps, 'step')} of {images}, {_validations(trainer, data)}; writes {place}",
    )


def _validations(trainer: pl.Trainer, data: SemiSupervisedDataModule) -> str:
    """How often validation runs, unless the training stops early."""
    if not data.split.val or not trainer.limit_val_batches:
        return "no validation"
    interval = trainer.val_check_interval
    if trainer.check_val_every_n_epoch is not None or not isinstance(interval, int):
        return "validated as the keys of trainer say"
    count = trainer.max_steps * data.accumulate // interval
    return f"validated {_several(count, 'time')}" if count else "no validation"


def _task_line(task: Task) -> str:
    name = type(task).__name__.lower()
    classes = getattr(task, "classes", None)
    if classes is None:
        return f"{name}, {task.in_channels} channels to {task.channels}"
    more = f" and {len(classes) - MOST_NAMES} more" if len(classes) > MOST_NAMES else ""
    weights = getattr(task, "class_weights", None)
    weighted = (
        "" if weights is None else f"; weights {', '.join(f'{weight:g}' for weight in weights[:MOST_NAMES])}{more}"
    )
    return f"{name}, {len(classes)} classes: {', '.join(classes[:MOST_NAMES])}{more}{weighted}"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _title(model: nn.Module) -> str:
    return str(getattr(model, "title", type(model).__name__))


def _count(model: nn.Module) -> str:
    return _millions(sum(parameter.numel() for parameter in model.parameters()))


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)
