"""Build what a configuration names: data, task, method, learner and trainer."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.profilers import Profiler

from semipix.config import RESERVED, call
from semipix.data.batches.strong_views import StrongViews
from semipix.data.class_balance import BALANCE, MOST_COUNTED, balanced_weights, class_pixels, without_pixels
from semipix.data.compatibility import check_serves
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.bands import KEYS, Bands
from semipix.data.files.listing import SPLITS
from semipix.data.source import Source
from semipix.data.splits import Split
from semipix.errors import SemipixError, reason_of
from semipix.functional.length import training_steps, validation_interval
from semipix.methods.base import Method
from semipix.models.adapt import Adapter, make_model
from semipix.tasks.base import Task
from semipix.tasks.label_losses import takes_weights
from semipix.training.callbacks import BestCheckpoint, KeptMetrics, LastCheckpoint, RunProgress, SamplePictures
from semipix.training.checkpoints import AtomicCheckpointIO, read_weights
from semipix.training.configuration import LENGTHS, MOST_STEPS, Configuration
from semipix.training.cost import Cost
from semipix.training.learner import Learner
from semipix.training.loggers import NONE, make_logger
from semipix.training.missed_classes import LabelCounts
from semipix.training.optimizers import CombinedOptimizer
from semipix.training.run_folder import checkpoint_of, load_config, load_split
from semipix.training.stopping import StopOnSignal, early_stop

STARTED_BY = ("MASTER_ADDR", "SLURM_NTASKS", "LSB_DJOB_RANKFILE", "OMPI_COMM_WORLD_SIZE")
"""Environment variables of processes that were started on several nodes."""


def build_data(
    configuration: Configuration, split: Split | None = None, needed_splits: Sequence[str] = SPLITS
) -> SemiSupervisedDataModule:
    """Build the data module. Only the labels of the needed splits have to be usable.

    Args:
        configuration: its group `data` has the keys of both the source and the data module.
        split: the lists of images; without it they are drawn as the configuration says.
        needed_splits: splits whose labels are read.
    """
    node = configuration.data
    decided = {"run_classes": _class_names(configuration), "needed_splits": needed_splits}
    source: Source = node.build(**{key: value for key, value in decided.items() if node.takes(key)})
    if isinstance(configuration.task.target, type):
        check_serves(configuration.task.target, source)
    loading = node.shared_arguments()
    if node.takes("seed"):  # then data.seed is the source's alone
        loading.pop("seed", None)
    if isinstance(configuration.task.target, type):
        loading["task"] = configuration.task.target
    loading["use_unlabeled"] = getattr(configuration.method.target, "uses_unlabeled", True)
    loading = {"seed": configuration.seed, **loading}
    data: SemiSupervisedDataModule = call("data", SemiSupervisedDataModule, source=source, split=split, **loading)
    data.accumulate = accumulated(configuration)
    return data


def accumulated(configuration: Configuration) -> int:
    """The number of batches whose gradients make one step."""
    return int(configuration.trainer.options.get("accumulate_grad_batches", 1))


def _class_names(configuration: Configuration) -> list[str] | None:
    """The class names that the configuration lists; None where it lists none, or only their number."""
    classes = configuration.task.options.get("classes")
    return [str(name) for name in classes] if isinstance(classes, list) else None


def build_task(configuration: Configuration, classes: Sequence[str] | None = None) -> Task:
    """Build the task, with the data's classes where the configuration names none."""
    node = configuration.task
    open_classes = node.takes("classes") and node.options.get("classes") is None
    task: Task = node.build(**({"classes": classes} if open_classes else {}))
    if (bands := bands_of(configuration)) is not None and bands.count is not None:
        task.in_channels = bands.count
    return task


def bands_of(configuration: Configuration) -> Bands | None:
    """The bands that the images of a configuration have; None for colours."""
    node = configuration.data
    return Bands.of_options(node.options) if all(map(node.takes, KEYS)) else None


def build_method(configuration: Configuration, task: Task, *, pretrained: bool = True) -> Method:
    """Build the method and its networks.

    Args:
        configuration: of the training.
        task: what a pixel means.
        pretrained: False where a checkpoint follows, so that semipix's own models look for no pretrained weights. Other
            models are built as configured, since more than weights may depend on it.
    """
    nodes = configuration.model, configuration.second_model or configuration.model
    bands = bands_of(configuration)
    statistics = None if bands is None or bands.mean is None or bands.std is None else (bands.mean, bands.std)

    def make(number: int) -> Adapter:
        node = nodes[number]
        extra = {}
        if not pretrained and node.takes("pretrained") and node.target.__module__.startswith("semipix."):
            extra["pretrained"] = False
        make_task_model = functools.partial(
            make_model, node.target, task.in_channels, task.channels, task.constrain, statistics
        )
        model: Adapter = replace(node, target=make_task_model).build(**extra)
        model.recompute = configuration.memory == "low" and not node.takes("checkpointing")
        return model

    pl.seed_everything(configuration.seed, verbose=False)  # the same first weights, whatever drew random numbers before
    method: Method = configuration.method.build(task=task, make_model=make)
    return method


def build_learner(
    configuration: Configuration, method: Method, steps: int, strong: StrongViews | None = None
) -> Learner:
    """The method with its optimizer, its per-step schedule over `steps` steps and the maker of its strong views.

    Raises:
        SemipixError: the optimizer or the scheduler refuses its options.
    """
    optimizer, scheduler = configuration.optimizer, configuration.scheduler
    schedule = None
    if scheduler is not None:
        lengths = {key: steps for key in LENGTHS if scheduler.takes(key) and key not in scheduler.options}
        schedule = functools.partial(scheduler.build, **lengths)
    _try_steps(optimizer.build, schedule, steps)
    return Learner(
        method,
        optimizer=functools.partial(optimizer.target, **optimizer.arguments()),
        scheduler=schedule,
        seed=configuration.seed,
        channels_last=configuration.channels_last,
        freeze_batch_norm=configuration.freeze_batch_norm,
        compile_networks=configuration.compile,
        strong=strong,
    )


def _try_steps(optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None, steps: int) -> None:
    """Try an optimizer's first step and a schedule's first and last, so that a failure is found before training.

    Raises:
        SemipixError: a rate is out of range, or a step fails.
    """
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    probe = optimizer([weight])
    call("optimizer", probe.step)
    if scheduler is None:
        return
    schedule = scheduler(CombinedOptimizer([probe]))
    schedule.optimizer.step()  # or torch warns of the order
    call("scheduler", schedule.step)
    schedule.last_epoch = max(schedule.last_epoch, steps - 1)
    call("scheduler", schedule.step)


def steps_of(configuration: Configuration, data: SemiSupervisedDataModule) -> int:
    """Optimizer steps of this run by the paper's training rules."""
    accumulate = accumulated(configuration)
    labeled, unlabeled = data.samples_of_a_pass()
    steps = training_steps(
        samples=labeled + unlabeled,
        labeled=labeled,
        batch_size=data.batch_size * accumulate,
        labeled_per_batch=data.labeled_per_batch * accumulate,
        epochs=configuration.epochs,
        steps=configuration.steps,
        length=configuration.length,
    )
    if steps > MOST_STEPS:
        raise SemipixError(
            f"epochs: {configuration.epochs} found, which are {steps} steps; at most {MOST_STEPS} expected"
        )
    return steps


def build_trainer(configuration: Configuration, run: Path, task: Task, steps: int, *, validate: bool) -> pl.Trainer:
    """Lightning's trainer with checkpoints, loggers, progress and pictures that belong to the run folder.

    Raises:
        SemipixError: an option is refused by Lightning, names a logger that cannot be had, or asks for early stopping
            without validation.
    """
    node = configuration.trainer
    options = node.arguments()
    if options.get("num_nodes", 1) != 1 and not {*STARTED_BY} & {*os.environ}:  # it would wait for them forever
        raise SemipixError(
            f"trainer.num_nodes: {options['num_nodes']} found, but this process was started alone; start one on each "
            "node by torchrun or SLURM, or leave trainer.num_nodes out"
        )
    stops = early_stop(task, **node.shared_arguments())
    if stops and not validate:
        raise SemipixError(
            "trainer.early_stopping: there is no validation to decide by; set validations=10, say, and give validation "
            "images with labels (data.val), or leave it out"
        )
    if not isinstance(profiler := options.get("profiler"), str | Profiler | None):
        raise SemipixError(
            f"trainer.profiler: {profiler!r} found, simple, advanced or an object given by its _target_ expected"
        )
    options.setdefault("plugins", [AtomicCheckpointIO()])
    interval = validation_interval(steps, max(1, configuration.validations)) * accumulated(configuration)
    callbacks: list[Callback] = [
        *_all_of("callbacks", options.pop("callbacks", None), Callback),
        Cost(),
        KeptMetrics(),
        StopOnSignal(run / "checkpoints" / "last.ckpt"),
        *([RunProgress()] if options.get("enable_progress_bar", True) else []),
        LastCheckpoint(
            run / "checkpoints",
            filename="last",
            every_n_train_steps=configuration.checkpoint_every,
            enable_version_counter=False,
        ),
    ]
    if validate:
        monitor, mode = f"val/{task.primary}", "max" if task.higher_is_better else "min"
        best = BestCheckpoint(
            run / "checkpoints", filename="best", monitor=monitor, mode=mode, enable_version_counter=False
        )
        counts = [LabelCounts()] if task.classification else []
        callbacks += [best, SamplePictures(run / "samples"), *counts, *stops]
    starts = len(list((run / "metrics").glob("*"))) if (run / "metrics").exists() else 0
    table = CSVLogger(run, "metrics", starts, flush_logs_every_n_steps=1)  # a kill loses no row
    ours = {
        "max_steps": steps,
        "max_epochs": -1,
        "callbacks": callbacks,
        "default_root_dir": run,
        "use_distributed_sampler": False,  # the stream sampler splits each batch over the processes itself
        "val_check_interval": interval,  # in batches
        "check_val_every_n_epoch": None,
        "limit_val_batches": None if validate else 0,
        "num_sanity_val_steps": 1 if validate else 0,
        "enable_model_summary": False,
    }
    named, objects = _named_loggers(options.pop("logger", None))
    trainer: pl.Trainer = node.call(**{**ours, **options, "logger": [table, *objects]})
    if (method := getattr(trainer.strategy, "_start_method", "popen")) != "popen":
        raise SemipixError(f"trainer.strategy: start_method={method!r} found, which does not train; leave it out")
    trainer.loggers = [*trainer.loggers, *(make_logger(name, run) for name in named)]  # some write files at once
    return trainer


def _named_loggers(given: Any) -> tuple[list[str], list[Logger]]:
    """The loggers that `trainer.logger` adds to the run folder's table.

    Args:
        given: a name, a logger object or a list of either; null, a boolean and `none` add nothing.

    Returns:
        names: of loggers that are still to be made.
        objects: loggers of the user's own.

    Raises:
        SemipixError: `given` is something else.
    """
    if isinstance(given, bool):
        return [], []
    if isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(each, str) for each in given)):
        return [name for name in ([given] if isinstance(given, str) else given) if name != NONE], []
    return [], _all_of("logger", given, Logger)


def _all_of(key: str, value: Any, kind: type) -> list[Any]:
    """The given objects as a list, which may be one object, a list or null.

    Args:
        key: of the trainer, for the message.
        value: the objects.
        kind: their class.

    Raises:
        SemipixError: an object is of another class.
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    for each in given:
        if not isinstance(each, kind):
            raise SemipixError(
                f"trainer.{key}: {each!r} found, a list of {kind.__name__} objects expected, each given by its _target_"
            )
    return given


def data_of_run(
    configuration: Configuration, run: Path, task: Task, needed_splits: Sequence[str]
) -> SemiSupervisedDataModule:
    """The data module of a run folder, with the run's split, for the run's task.

    Only the labels of the needed splits have to be usable.

    Raises:
        SemipixError: the data are missing, or differ from those that the run was trained on.
    """
    root = configuration.data.options.get("root")
    try:
        data = build_data(configuration, load_split(run), needed_splits)
    except SemipixError as error:
        if root is None or Path(root).expanduser().exists():
            raise
        raise SemipixError(f"{error}, or give its new place by --data ROOT") from error
    check_serves(task, data.source)
    return data


def with_classes(configuration: Configuration, data: SemiSupervisedDataModule) -> Configuration:
    """The configuration with the data's classes where it names none, so that prediction needs no data."""
    node = configuration.task
    if not node.takes("classes") or node.options.get("classes") is not None:
        return configuration
    return configuration.with_options("task", {"classes": list(data.classes or [])})


def with_bands(configuration: Configuration, data: SemiSupervisedDataModule) -> Configuration:
    """The configuration with the statistics of the data's bands, so that the networks of a run folder need no data."""
    bands = data.source.bands
    if bands is None or bands.mean is None or bands.std is None or not configuration.data.takes("mean"):
        return configuration
    return configuration.with_options("data", {"mean": list(bands.mean), "std": list(bands.std)})


def with_class_weights(configuration: Configuration, data: SemiSupervisedDataModule) -> Configuration:
    """The configuration with numbers for a word of `task.class_weights`, so that later commands need no labels.

    The pixels of the run's labeled training images are counted, of at most `MOST_COUNTED`. A class that none of them
    has gets weight 1; where the weights were asked for, the data's warnings then name it.

    Raises:
        SemipixError: a label cannot be read.
    """
    node = configuration.task
    word = node.options.get("class_weights")
    if not isinstance(word, str) or word not in BALANCE:
        return configuration
    unweighted = configuration.with_options("task", {"class_weights": None})
    task = build_task(unweighted, data.classes)  # refuses impossible classes and losses
    if word == "auto" and not takes_weights(node.options.get("loss", "cross_entropy")):
        return unweighted
    labeled = data.split.labeled
    counted = labeled[:: math.ceil(len(labeled) / MOST_COUNTED)]
    pixels = class_pixels(data.source, counted, skip=word == "auto" or data.on_error == "skip")
    names: Sequence[str] = getattr(task, "classes", ())
    if word != "auto" and (absent := without_pixels(pixels, names)):
        drawn = "" if len(counted) == len(labeled) else f" {len(counted)} that were read of the"
        line = (
            f"task.class_weights={word}: none of the{drawn} {len(labeled)} labeled images has a pixel of "
            f"{', '.join(absent)}, whose weight is 1; label images with these classes"
        )
        data.source.warnings = [*data.source.warnings, line]
    if not pixels:
        return unweighted
    return configuration.with_options("task", {"class_weights": balanced_weights(pixels, len(names), BALANCE[word])})


def with_chosen_options(configuration: Configuration, data: SemiSupervisedDataModule) -> Configuration:
    """The configuration with the values that the data module derived from the data, for keys that were left open.

    A run folder holds them, so that it does not depend on how a later version derives them.
    """
    node = configuration.data
    used = {
        "scale": list(data.scale),
        "labeled_per_batch": data.labeled_per_batch,
        "rare_share": data.rare_share,
        "strong_jitter": data.strong.jitter,
        "strong_grey": data.strong.grey_probability,
        "strong_blur": data.strong.blur_probability,
        "strong_mask": data.strong.mask,
        "strong_drop": data.strong.drop_probability,
        "strong_permute": data.strong.permute_probability,
        "strong_gain": data.strong.gain,
        "strong_learn_hidden": data.strong.learn_hidden,
    }
    chosen = {key: value for key, value in used.items() if node.options.get(key) is None and not node.takes(key)}
    # A source may take `val` too. Now that the split is made, the value goes to the source alone.
    missing = node.own.stored_defaults().keys() - node.options.keys() - RESERVED
    chosen |= {key: value for key, value in node.own.stored_defaults().items() if key in missing}
    return configuration.with_options("data", chosen)


def load_method(run: Path, which: str | None = None, trust: bool = False) -> Method:
    """The trained method of a run folder, in evaluation mode on the CPU.

    Args:
        run: run folder.
        which: checkpoint `best` or `last`; by default best where validation chose one.
        trust: run code that the folder names outside of the known packages, see `load_config`.

    Raises:
        SemipixError: no run, no checkpoint, or one that does not belong to the configuration; or the folder could run
            code and is not trusted.
    """
    return trained_method(load_config(run, trust), run, which)


def trained_method(configuration: Configuration, run: Path, which: str | None = None) -> Method:
    """The trained method of a run folder whose configuration is loaded already, see `load_method`.

    Raises:
        SemipixError: no checkpoint, or one that does not belong to the configuration.
    """
    path = checkpoint_of(run, which)
    method = build_method(configuration, build_task(configuration), pretrained=False)
    weights = read_weights(path)
    check_finite(path, weights)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise SemipixError(
            f"{path}: not a checkpoint of the networks in config.yaml: {reason_of(error, 80)}"
        ) from error
    return method.eval()


def deploy_candidate(method: Method, name: str | None) -> None:
    """Deploy a candidate of a trained method instead of the one that validation chose.

    Args:
        method: the method.
        name: of the candidate; None changes nothing.

    Raises:
        SemipixError: the method has no such candidate.
    """
    if name is None:
        return
    candidates = list(method.candidates())
    if name not in candidates:
        only = f"{type(method).__name__} has {', '.join(candidates)}" if len(candidates) > 1 else "there is only one"
        raise SemipixError(f"--deploy: {name} found, but {only}; choose one of them, or leave the option out")
    if len(candidates) > 1:
        method.deploy(name)


def check_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Refuse weights that hold NaN or infinite numbers.

    Args:
        path: the checkpoint.
        weights: its parameters and buffers by name.

    Raises:
        SemipixError: one of them holds NaN or an infinite number.
    """
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        finite = tensor.isfinite()
        if not bool(finite.all()):
            raise SemipixError(
                f"{path}: {int((~finite).sum())} of the {tensor.numel()} numbers of {name} are NaN or infinite; take "
                "another --checkpoint, or train again with a lower optimizer.lr"
            )
