"""What a configuration has to satisfy before anything is built or written."""

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix.config import (
    GROUPS,
    NEEDED,
    OUTSIDE,
    TOP,
    Config,
    check_keys,
    check_kind,
    check_needed,
    check_type,
    target_of,
    unknown_key,
)
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.errors import SemipixError
from semipix.methods.base import Method
from semipix.tasks.base import Task
from semipix.training.stopping import early_stop

KINDS: dict[str, type] = {
    "task": Task,
    "method": Method,
    "model": torch.nn.Module,
    "second_model": torch.nn.Module,
    "data": Source,
    "optimizer": Optimizer,
    "scheduler": LRScheduler,
    "trainer": pl.Trainer,
}
"""What the `_target_` of each group makes."""

MOST_STEPS = 2**31 - 1
"""Largest number of steps, epochs or batches; no training is as long."""

MOST_SEED = 2**32 - 1
"""Largest seed that NumPy takes."""

LEAST_OF_TRAINER = {
    **dict.fromkeys(("accumulate_grad_batches", "num_nodes", "check_val_every_n_epoch", "early_stopping"), 1),
    **dict.fromkeys(("log_every_n_steps", "gradient_clip_val"), 0),
}
"""Smallest values of options by which Lightning divides, or which it takes for something else."""

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
"""Names of the strategies that train; the others of Lightning start processes without the command line that a training
repeats, or store a network in parts."""


def check_config(config: Config) -> None:
    """Refuse unknown keys and wrong types before anything is built or written.

    Raises:
        SemipixError: a key that nothing takes, or a value that no rule allows.
    """
    known = {*TOP, *GROUPS, *OUTSIDE}
    for key in config:
        if key not in known:
            raise SemipixError(unknown_key(key, known))
    check_needed(config)
    for key, hint in TOP.items():
        value = config[key]
        check_type(key, str(value) if isinstance(value, Mapping) else value, hint)  # nothing is built for these keys
    if not 0 <= config["seed"] <= MOST_SEED:
        raise SemipixError(f"seed: {config['seed']} found, a whole number from 0 to {MOST_SEED} expected")
    for key in ("steps", "epochs", "validations", "checkpoint_every"):
        if (config[key] or 0) > MOST_STEPS:
            raise SemipixError(f"{key}: {config[key]} found, at most {MOST_STEPS} expected")
    for key in ("steps", "epochs", "checkpoint_every"):
        if config[key] is not None and config[key] <= 0:
            raise SemipixError(f"{key}: {config[key]} found, a positive number expected")
    if config["validations"] < 0:
        raise SemipixError(f"validations: {config['validations']} found, 0 or more expected")
    for name, kind in KINDS.items():
        if name in NEEDED or config.get(name):
            check_kind(name, config[name], kind)
    if _needs_closure(target_of("optimizer", config["optimizer"])):
        name = config["optimizer"]["_target_"]
        raise SemipixError(f"optimizer._target_: {name!r} computes the loss several times a step; choose another")
    for name in ("task", "method", "model", "optimizer"):
        check_keys(name, config[name])
    try:
        check_keys("trainer", config["trainer"], early_stop)
    except SemipixError as error:
        if str(error).startswith("trainer.precision"):  # the names are Lightning's, to which semipix adds one
            raise SemipixError(f"{error}; or auto, which takes what this machine is fastest in") from None
        raise
    check_keys("data", config["data"], SemiSupervisedDataModule)
    for name in ("second_model", "scheduler"):
        if config.get(name):
            check_keys(name, config[name])
    for key, mend in (("max_steps", "steps"), ("max_epochs", "epochs")):
        if key in config["trainer"]:
            raise SemipixError(f"trainer.{key}: the schedule has to know the length too; set {mend}=VALUE instead")
    _check_trainer(config["trainer"])


def _check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse numbers that Lightning takes, and then divides by or never ends at, and strategies that do not train.

    Raises:
        SemipixError: an option is out of range.
    """
    numbers = {key: value for key, value in options.items() if isinstance(value, int | float)}
    for key, value in numbers.items():
        if value > MOST_STEPS:
            raise SemipixError(f"trainer.{key}: {value} found, at most {MOST_STEPS} expected")
        if value < LEAST_OF_TRAINER.get(key, -math.inf):
            raise SemipixError(f"trainer.{key}: {value} found, {LEAST_OF_TRAINER[key]} or more expected")
    if numbers.get("val_check_interval", 1) <= 0:
        raise SemipixError(
            f"trainer.val_check_interval: {numbers['val_check_interval']} found, a number above 0 expected"
        )
    if numbers.get("overfit_batches"):
        raise SemipixError(
            "trainer.overfit_batches: semipix draws the batches itself; set data.labels=N for few images"
        )
    strategy = options.get("strategy", "auto")
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise SemipixError(f"trainer.strategy: {strategy!r} found, {' or '.join(STRATEGIES)} expected")
    devices, most = str(options.get("devices")), max(64, os.cpu_count() or 1)
    if devices.isdecimal() and int(devices) > most:
        raise SemipixError(f"trainer.devices: {devices} found, at most {most} expected on this machine")


def _needs_closure(optimizer: Any) -> bool:
    """Whether an optimizer's step has to be handed a function that computes the loss, as L-BFGS's has."""
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        return False
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty
