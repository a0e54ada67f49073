"""The configuration of a training: parsed and checked once, before anything is built or written."""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix.config import GROUPS, NEEDED, OUTSIDE, TOP, Node, check_needed, target_of, unknown_key
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.errors import SemipixError
from semipix.functional.precision import fast_precision
from semipix.methods.base import Method
from semipix.models.adapt import BAND_NAMES, CHANNEL_NAMES, IN_CHANNEL_NAMES
from semipix.signatures import check_type
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
"""Smallest values of options by which Lightning divides, or whose smaller values have another meaning."""

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
"""Names of the strategies that work. The others of Lightning start processes without the command line, which a further
process needs, or store a network in parts."""

SHARING: dict[str, Callable[..., Any]] = {"data": SemiSupervisedDataModule, "trainer": early_stop}
"""Callables whose keys are in a group beside those of its target."""

CHOSEN_FROM_DATA = (
    *("task.classes", "data.val", "data.scale", "data.labeled_per_batch", "data.rare_share", "task.class_weights"),
    *("data.strong_jitter", "data.strong_grey", "data.strong_blur", "data.strong_mask", "data.strong_drop"),
    *("data.strong_permute", "data.strong_gain", "data.strong_learn_hidden", "data.mean", "data.std"),
)
"""Keys that a configuration may leave open, and for which a run folder holds what its data led to."""

LENGTHS = ("total_iters", "T_max", "total_steps")
"""What schedules call their length; `build_learner` sets it from the steps."""

SET_OF_TRAINER = (
    *("max_steps", "max_epochs", "logger", "callbacks", "plugins", "default_root_dir", "use_distributed_sampler"),
    *("val_check_interval", "check_val_every_n_epoch", "limit_val_batches", "num_sanity_val_steps"),
    *("enable_model_summary", "enable_progress_bar"),
)
"""Options of Lightning's trainer that `build_trainer` sets where the configuration does not."""


@dataclass(frozen=True)
class Configuration:
    """What a training is made of. Its groups have a value for every parameter of their constructors.

    Left out are parameters that semipix fills in when it builds the object, and those whose default is no plain value.

    Attributes:
        task, method, model, second_model, data, optimizer, scheduler, trainer: the groups. Without a second model both
            networks are of the first kind; without a scheduler the learning rate is constant.
        seed, epochs, steps, length, validations, checkpoint_every, channels_last, freeze_batch_norm, memory, compile,
        calibrate: the keys that belong to no group, see `conf/train.yaml`.
    """

    task: Node
    method: Node
    model: Node
    second_model: Node | None
    data: Node
    optimizer: Node
    scheduler: Node | None
    trainer: Node
    seed: int
    epochs: float
    steps: int | None
    length: Literal["full", "labeled", "unlabeled"]
    validations: int
    checkpoint_every: int
    channels_last: bool
    freeze_batch_norm: bool
    memory: Literal["full", "low"]
    compile: bool
    calibrate: bool

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Self:
        """Check a resolved configuration, and fill in what it leaves to defaults.

        Args:
            mapping: groups and keys as plain values. `run` and `resume` are ignored.

        Raises:
            SemipixError: a key is missing or unknown, or a value is of a wrong type or out of range.
        """
        known = {*TOP, *GROUPS, *OUTSIDE}
        for key in mapping:
            if key not in known:
                raise SemipixError(unknown_key(key, known))
        check_needed(mapping)
        _check_top(mapping)
        values: dict[str, Any] = dict.fromkeys(GROUPS) | {key: mapping[key] for key in TOP}
        values |= {name: _group(name, mapping) for name in GROUPS if name in NEEDED or mapping.get(name)}
        return cls(**values)

    def with_options(self, group: str, changes: Mapping[str, Any]) -> Self:
        """The same configuration with other values of some keys of a group.

        Raises:
            SemipixError: a key is unknown, or a value is of a wrong type.
        """
        changed: dict[str, Any] = {group: getattr(self, group).with_options(changes)}
        return replace(self, **changed)

    def as_mapping(self) -> dict[str, Any]:
        """The configuration as plain values, which `parse` takes: groups first, without those that are not used."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        nodes = {name: values[name].as_mapping() for name in GROUPS if values[name] is not None}
        return {**nodes, **{key: values[key] for key in TOP}}


def _check_top(mapping: Mapping[str, Any]) -> None:
    """Check the keys that belong to no group.

    Raises:
        SemipixError: a value is of a wrong type or out of range.
    """
    for key, hint in TOP.items():
        value = mapping[key]
        check_type(key, str(value) if isinstance(value, Mapping) else value, hint)  # nothing is built for these keys
    if not 0 <= mapping["seed"] <= MOST_SEED:
        raise SemipixError(f"seed: {mapping['seed']} found, a whole number from 0 to {MOST_SEED} expected")
    for key in ("steps", "epochs", "validations", "checkpoint_every"):
        if (mapping[key] or 0) > MOST_STEPS:
            raise SemipixError(f"{key}: {mapping[key]} found, at most {MOST_STEPS} expected")
    for key in ("steps", "epochs", "checkpoint_every"):
        if mapping[key] is not None and mapping[key] <= 0:
            raise SemipixError(f"{key}: {mapping[key]} found, a positive number expected")
    if mapping["validations"] < 0:
        raise SemipixError(f"validations: {mapping['validations']} found, 0 or more expected")


def _group(name: str, mapping: Mapping[str, Any]) -> Node:
    """A checked group with the values of all its parameters.

    Raises:
        SemipixError: its target, a key or a value is refused.
    """
    group = mapping[name]
    if name == "trainer":
        group = _with_precision(group)
    if name == "optimizer" and _needs_closure(target_of(name, group)):
        path = group["_target_"]
        raise SemipixError(f"optimizer._target_: {path!r} computes the loss several times a step; choose another")
    try:
        node = Node.parse(name, group, KINDS[name], SHARING.get(name))
    except SemipixError as error:
        if str(error).startswith("trainer.precision"):  # the names are Lightning's, to which semipix adds one
            raise SemipixError(f"{error}; or auto, which takes what this machine is fastest in") from None
        raise
    if name == "trainer":
        _check_trainer(node.options)
    return node.with_options(_chosen(node, mapping)).with_defaults(_filled_in(node))


def _with_precision(trainer: Any) -> Any:
    """The group with `precision=auto` replaced by the precision that this machine trains fastest in."""
    if not isinstance(trainer, Mapping) or trainer.get("precision") != "auto":
        return trainer
    return {**trainer, "precision": fast_precision(str(trainer.get("accelerator", "auto")))}


def _chosen(node: Node, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Values that semipix chooses where the configuration leaves them open, and that differ from the defaults."""
    if "model" in node.name and mapping["memory"] == "low" and node.takes("checkpointing"):
        return {} if "checkpointing" in node.options else {"checkpointing": True}
    # Torch's kernels that update all weights at once, where nothing else is asked for.
    if node.name == "optimizer" and node.takes("fused"):
        return {} if node.options.keys() & {"fused", "foreach", "differentiable"} else {"fused": True}
    return {}


def _filled_in(node: Node) -> set[str]:
    """Parameters of a group whose values `build` derives from something else than the group."""
    if "model" in node.name:
        found = [
            next((name for name in names if node.takes(name)), None) for names in (IN_CHANNEL_NAMES, CHANNEL_NAMES)
        ]
        return {*BAND_NAMES, *(name for name in found if name is not None)}
    if node.name == "data" and not node.takes("seed"):
        return {"seed"}
    return {*LENGTHS} if node.name == "scheduler" else {*SET_OF_TRAINER} if node.name == "trainer" else set()


def _check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse options that Lightning takes, but with which it fails later, never ends or does not train.

    Raises:
        SemipixError: an option is out of range, or the length of the training is given as an option of the trainer.
    """
    for key, ours in (("max_steps", "steps"), ("max_epochs", "epochs")):
        if key in options:
            raise SemipixError(f"trainer.{key}: the schedule has to know the length too; set {ours}=VALUE instead")
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
    """Whether an optimizer's step needs a function that computes the loss, as L-BFGS does."""
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        return False
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty
