"""From a resolved configuration to a run folder."""

import functools
import inspect
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix import interruption
from semipix.atomic import write_text
from semipix.callbacks import BestCheckpoint, RunProgress, SamplePictures, StopOnSignal, early_stop, stopped_early
from semipix.checkpoints import AtomicCheckpointIO, read_checkpoint
from semipix.config import (
    GROUPS,
    NEEDED,
    OUTSIDE,
    TOP,
    arguments,
    call,
    check_keys,
    check_kind,
    check_needed,
    check_type,
    made,
    parameters,
    target_of,
    unknown_key,
    with_path_text,
)
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.layout import SPLITS
from semipix.data.loaders import died_worker
from semipix.data.serving import check_serves
from semipix.data.source import Source
from semipix.data.splits import Split
from semipix.data.strong import StrongViews
from semipix.data.survey import SEVERAL_PAGES, further_parts
from semipix.errors import SemipixError, one_line
from semipix.folders import emptied_where_refused, no_empty_folders
from semipix.functional.length import training_steps
from semipix.functional.precision import fast_precision
from semipix.learner import Learner
from semipix.loggers import NONE, make_logger
from semipix.methods.base import Method
from semipix.models.adapt import Adapter, make_model
from semipix.optimizers import CombinedOptimizer
from semipix.processes import die_with_parent, is_started_by_lightning
from semipix.run_folder import SUMMARY, claimed, is_finished, write_json
from semipix.tasks.base import Task
from semipix.trust import check_size, check_state, check_trusted, refused, without_downloads

Config = Mapping[str, Any]

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

STARTED_BY = ("MASTER_ADDR", "SLURM_NTASKS", "LSB_DJOB_RANKFILE", "OMPI_COMM_WORLD_SIZE")
"""What the environment of a process holds that was started on several nodes."""

NEW_KEYS = {"memory": "full", "compile": False}
"""What older run folders, whose configuration lacks these keys, were trained with."""

NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says where memory is short, if not by an error of its own."""

PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
"""What torch says to a process that waits for one that is no more."""


class TrainingInterrupted(interruption.Interrupted):
    """A training that a signal has ended.

    Args:
        error: what ended it.
        trainer: of the training.

    Attributes:
        step: of the checkpoint that was written then, or None.
        begun: whether a step was made.
    """

    def __init__(self, error: BaseException, trainer: pl.Trainer) -> None:
        # Where another process has got the signal, this one has no number.
        number = signal.SIGTERM if isinstance(error, interruption.Stopped) else signal.SIGINT
        super().__init__(interruption.received() or number)
        self.step = next(
            (each.step for each in getattr(trainer, "callbacks", ()) if isinstance(each, StopOnSignal)), None
        )
        self.begun = trainer.global_step > 0


def is_first_process() -> bool:
    """Whether this process writes the run folder; the others of a distributed training only compute."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


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


def build_data(
    config: Config, split: Split | None = None, needed_splits: Sequence[str] = SPLITS
) -> SemiSupervisedDataModule:
    """Build the data module; without a given split the lists are drawn by the configuration.

    Only the labels of the needed splits have to be usable.

    The node's keys are shared out by signature: some are the source's, the others the data module's.
    """
    options = arguments(config["data"])
    source_class = target_of("data", config["data"])
    of_source = parameters(source_class)[0]
    task = target_of("task", config["task"])
    # What the run itself decides: its classes, which the data must agree with, and what it needs of them.
    known = {"run_classes": _class_names(config), "needed_splits": needed_splits}
    given = {**options, **{key: value for key, value in known.items() if key in of_source}}
    source: Source = made(
        "data", call("data", source_class, **{key: given[key] for key in given if key in of_source}), Source
    )
    if isinstance(task, type):
        check_serves(task, source)
    shared = parameters(SemiSupervisedDataModule)[0] - {"seed"}  # `val` may be both a source's and the data module's
    loading = {
        "seed": config["seed"],
        **{key: options[key] for key in options if key in shared or key not in of_source},
    }
    loading["use_unlabeled"] = getattr(target_of("method", config["method"]), "uses_unlabeled", True)
    data: SemiSupervisedDataModule = call("data", SemiSupervisedDataModule, source=source, split=split, **loading)
    return data


def _class_names(config: Config) -> list[str] | None:
    """The class names that the configuration lists; None where it lists none, or only their number."""
    classes = config["task"].get("classes")
    return [str(name) for name in classes] if isinstance(classes, list) else None


def build_task(config: Config, classes: Sequence[str] | None = None) -> Task:
    """Build the task, with the data's classes where the configuration names none."""
    task_class = target_of("task", config["task"])
    options = arguments(config["task"])
    if "classes" in parameters(task_class)[0] and options.get("classes") is None:
        options["classes"] = classes
    task: Task = made("task", call("task", task_class, **options), Task)
    return task


def build_method(config: Config, task: Task, *, pretrained: bool = True) -> Method:
    """Build the method and its networks.

    Args:
        config: resolved configuration.
        task: what a pixel means.
        pretrained: False where a checkpoint follows, so that semipix's own models look for no pretrained weights. Other
            models are built as configured, since more than weights may depend on it.
    """
    nodes = ("model", config["model"]), ("second_model", config.get("second_model") or config["model"])

    def make(number: int) -> Any:
        name, node = nodes[number]
        target = target_of(name, node)
        options = arguments(node)
        if not pretrained and "pretrained" in parameters(target)[0] and target.__module__.startswith("semipix."):
            options["pretrained"] = False
        low = config.get("memory", "full") == "low"
        by_blocks = "checkpointing" in parameters(target)[0]
        if low and by_blocks:
            options.setdefault("checkpointing", True)
        make_task_model = functools.partial(make_model, target, task.in_channels, task.channels, task.constrain)
        made: Adapter = call(name, make_task_model, **options)
        made.recompute = low and not by_blocks
        return made

    pl.seed_everything(config["seed"], verbose=False)  # the same first weights, whatever drew random numbers before
    options = arguments(config["method"])
    method = call("method", target_of("method", config["method"]), task=task, make_model=make, **options)
    return made("method", method, Method)  # type: ignore[no-any-return]


def build_learner(config: Config, method: Method, steps: int, strong: StrongViews | None = None) -> Learner:
    """The method with its optimizer, its per-step schedule over `steps` steps and the maker of its strong views."""
    optimizer = functools.partial(target_of("optimizer", config["optimizer"]), **arguments(config["optimizer"]))
    scheduler = None
    if config.get("scheduler"):
        schedule = target_of("scheduler", config["scheduler"])
        options = arguments(config["scheduler"])
        for length in ("total_iters", "T_max", "total_steps"):
            if length in parameters(schedule)[0]:
                options.setdefault(length, steps)
        scheduler = functools.partial(schedule, **options)
    _try_steps(optimizer, scheduler, steps)
    return Learner(
        method,
        optimizer=optimizer,
        scheduler=scheduler,
        seed=config["seed"],
        channels_last=config["channels_last"],
        freeze_batch_norm=config["freeze_batch_norm"],
        compile_networks=config["compile"],
        strong=strong,
    )


def _try_steps(optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None, steps: int) -> None:
    """Make an optimizer's first step and a schedule's first and last, to refuse before training what cannot make them.

    Raises:
        SemipixError: a rate is out of range, or a step fails.
    """
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    probe = made("optimizer", call("optimizer", optimizer, [weight]), Optimizer)
    call("optimizer", probe.step)
    if scheduler is None:
        return
    schedule = made("scheduler", call("scheduler", scheduler, CombinedOptimizer([probe])), LRScheduler)
    schedule.optimizer.step()  # or torch warns of the order
    call("scheduler", schedule.step)
    schedule.last_epoch = max(schedule.last_epoch, steps - 1)
    call("scheduler", schedule.step)


def steps_of(config: Config, data: SemiSupervisedDataModule) -> int:
    """Optimizer steps of this run by the paper's training rules."""
    accumulate = config["trainer"].get("accumulate_grad_batches", 1)
    labeled = len(data.split.labeled)
    steps = training_steps(
        images=labeled + data.unlabeled_count,
        labeled=labeled,
        batch_size=data.batch_size * accumulate,
        epochs=config["epochs"],
        steps=config["steps"],
        length=config["length"],
    )
    if steps > MOST_STEPS:
        raise SemipixError(f"epochs: {config['epochs']} found, which are {steps} steps; at most {MOST_STEPS} expected")
    return steps


def build_trainer(config: Config, run: Path, task: Task, steps: int, *, validate: bool) -> pl.Trainer:
    """Lightning's trainer with checkpoints, loggers, progress and pictures that belong to the run folder.

    Raises:
        SemipixError: an option is refused by Lightning, names a logger that cannot be had, or asks for early stopping
            without validation.
    """
    options = arguments(config["trainer"])
    if options.get("num_nodes", 1) != 1 and not {*STARTED_BY} & {*os.environ}:  # it would wait for the others
        raise SemipixError(
            f"trainer.num_nodes: {options['num_nodes']} found, but this process was started alone; start one on each "
            "node by torchrun or SLURM, or leave trainer.num_nodes out"
        )
    stops = early_stop(task, options.pop("early_stopping", None))
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
    batches = steps * options.get("accumulate_grad_batches", 1)
    callbacks: list[Callback] = [
        *_all_of("callbacks", options.pop("callbacks", None), Callback),
        StopOnSignal(run / "checkpoints" / "last.ckpt"),
        *([RunProgress()] if options.get("enable_progress_bar", True) else []),
        ModelCheckpoint(
            run / "checkpoints",
            filename="last",
            every_n_train_steps=int(config["checkpoint_every"]),
            enable_version_counter=False,
        ),
    ]
    if validate:
        monitor, mode = f"val/{task.primary}", "max" if task.higher_is_better else "min"
        best = BestCheckpoint(
            run / "checkpoints", filename="best", monitor=monitor, mode=mode, enable_version_counter=False
        )
        callbacks += [best, SamplePictures(run / "samples"), *stops]
    starts = len(list((run / "metrics").glob("*"))) if (run / "metrics").exists() else 0
    table = CSVLogger(run, "metrics", starts, flush_logs_every_n_steps=1)  # a kill loses no row
    ours = {
        "max_steps": steps,
        "max_epochs": -1,
        "logger": [table],
        "callbacks": callbacks,
        "default_root_dir": run,
        "use_distributed_sampler": False,  # the stream sampler splits each batch over the processes itself
        "val_check_interval": max(1, batches // max(1, config["validations"])),
        "check_val_every_n_epoch": None,
        "limit_val_batches": None if validate else 0,
        "num_sanity_val_steps": 1 if validate else 0,
        "enable_model_summary": False,
    }
    named = _named_loggers(options)
    trainer = made(
        "trainer", call("trainer", target_of("trainer", config["trainer"]), **{**ours, **options}), pl.Trainer
    )
    if (method := getattr(trainer.strategy, "_start_method", "popen")) != "popen":
        raise SemipixError(f"trainer.strategy: start_method={method!r} found, which does not train; leave it out")
    trainer.loggers = [*trainer.loggers, *(make_logger(name, run) for name in named)]  # some write files at once
    return trainer  # type: ignore[no-any-return]


def _named_loggers(options: dict[str, Any]) -> list[str]:
    """Take the names of loggers out of a trainer's options; true, false and objects, which replace all, stay there.

    Raises:
        SemipixError: something else is given.
    """
    given = options.pop("logger", None)
    if isinstance(given, bool):
        options["logger"] = given
    elif isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(each, str) for each in given)):
        return [name for name in ([given] if isinstance(given, str) else given) if name != NONE]
    elif given is not None:
        options["logger"] = _all_of("logger", given, Logger)
    return []


def _all_of(key: str, value: Any, kind: type) -> list[Any]:
    """One object of a kind, or a list of them, or null, as a list.

    Raises:
        SemipixError: one is of another kind.
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    for each in given:
        if not isinstance(each, kind):
            raise SemipixError(
                f"trainer.{key}: {each!r} found, a list of {kind.__name__} objects expected, each given by its _target_"
            )
    return given


def checkpoint_of(run: Path, which: str | None = None) -> Path:
    """The run's checkpoint `best` or `last`; by default best where validation chose one.

    Raises:
        SemipixError: it does not exist.
    """
    names = [which] if which else ["best", "last"]
    for name in names:
        path = run / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            return path
    missing = " or ".join(f"{name}.ckpt" for name in names)
    raise SemipixError(
        f"{run / 'checkpoints'}: no checkpoint found, expected {missing}; best.ckpt needs validation images with "
        "labels, last.ckpt comes after checkpoint_every steps"
    )


def load_config(run: Path, trust: bool = False) -> dict[str, Any]:
    """The resolved configuration of a run folder.

    Args:
        run: run folder.
        trust: let it name any class and command, which then run as they would from the command line.

    Raises:
        SemipixError: the folder holds none, or a damaged one, or it could run code and is not trusted.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise SemipixError(f"{run}: no config.yaml found, so this is no run folder of semipix train")
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SemipixError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    needed = {*GROUPS, *TOP} - {"second_model", "scheduler", *NEW_KEYS}
    if not isinstance(config, dict) or not needed <= config.keys():
        found = f"without {', '.join(sorted(needed - config.keys()))}" if isinstance(config, dict) else "no mapping"
        raise SemipixError(f"{path}: {found}, expected the configuration that semipix train wrote; restore the file")
    check_size(path, config)
    if not trust:
        check_trusted(path, config, KINDS)
        config = without_downloads(config)
    return {**NEW_KEYS, **config}


def needs_trust(config: Config) -> bool:
    """Whether a configuration, once it is in a run folder, is loaded only by those who trust the folder."""
    return refused(config, KINDS) is not None


def with_root(config: Config, root: Path) -> dict[str, Any]:
    """The configuration of a run whose data folder has moved.

    Raises:
        SemipixError: its data are in no folder.
    """
    source = target_of("data", config["data"])
    if "root" not in parameters(source)[0]:
        name = getattr(source, "__name__", source)
        raise SemipixError(f"--data: {root} found, but {name}, the data of this run, has no folder; leave --data out")
    return {**config, "data": {**config["data"], "root": str(root)}}


def data_of_run(config: Config, run: Path, task: Task, needed_splits: Sequence[str]) -> SemiSupervisedDataModule:
    """The data module of a run folder, with the run's split, for the run's task.

    Only the labels of the needed splits have to be usable.

    Raises:
        SemipixError: the data are not there, or are not those that the run was trained on.
    """
    root = config["data"].get("root")
    try:
        data = build_data(config, load_split(run), needed_splits)
    except SemipixError as error:
        if root is None or Path(root).expanduser().exists():
            raise
        raise SemipixError(f"{error}, or give its new place by --data ROOT") from error
    check_serves(task, data.source)
    return data


def start(config: Config, run: Path) -> dict[str, float]:
    """Train in a new run folder.

    Raises:
        SemipixError: the folder already holds a training, another training is writing it, or the input is at fault.
    """
    if "\0" in str(run):
        raise SemipixError(f"run={str(run)!r}: a name with a null character; choose another run=PATH")
    try:
        str(run.absolute()).encode()
    except UnicodeEncodeError:
        raise SemipixError(
            f"run={run}: a name that is not UTF-8 text, which loggers cannot write; choose another run=PATH"
        ) from None
    with ExitStack() as claim:
        if is_first_process():
            claim.enter_context(no_empty_folders(run))
            claim.enter_context(claimed(run))
        return _start(config, run)


def _start(config: Config, run: Path) -> dict[str, float]:
    if is_first_process() and any((run / "checkpoints").glob("*.ckpt")):
        raise SemipixError(f"{run}: holds a training already; continue it with resume={run} or choose another run=PATH")
    config = with_precision(config)
    check_config(config)
    config = {**config, "data": with_path_text("data", config["data"], SemiSupervisedDataModule)}
    data = build_data(config)
    config = _with_classes(config, data)
    task = build_task(config)
    check_serves(task, data.source)
    interruption.check()
    method = build_method(config, task)
    if method.needs_unlabeled and not data.mixed:
        raise SemipixError(
            f"data.labels={data.labels}: leaves no unlabeled image, from which "
            f"{type(method).__name__} learns; set data.labels=1/8, say, or add images without labels"
        )
    learner, trainer = _built(config, data, method, run)
    first = is_first_process()
    with emptied_where_refused(run, lambda: trainer.global_step > 0) if first else nullcontext():
        if first:
            write_text(run / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            data.split.to_json(run / "split.json")
        return _fit(config, data, learner, trainer, run, None)


def with_precision(config: Config) -> Config:
    """The configuration with `trainer.precision=auto` replaced by what this machine trains fastest in."""
    trainer = config["trainer"]
    if not isinstance(trainer, Mapping) or trainer.get("precision") != "auto":
        return config
    return {**config, "trainer": {**trainer, "precision": fast_precision(str(trainer.get("accelerator", "auto")))}}


def _with_classes(config: Config, data: SemiSupervisedDataModule) -> dict[str, Any]:
    """The configuration with the data's classes written down, so that predicting needs no data."""
    task = dict(config["task"])
    if "classes" in parameters(target_of("task", task))[0] and task.get("classes") is None:
        task["classes"] = list(data.classes or [])
    return {**config, "task": task}


def resume(run: Path, root: Path | None = None, trust: bool = False) -> dict[str, float]:
    """Continue an interrupted run to the weights that an uninterrupted one would have reached.

    Args:
        run: run folder.
        root: where the run's data folder is now; by default the run's `data.root`.
        trust: run code that the folder names outside of the known packages, see `load_config`.

    Raises:
        SemipixError: the folder holds no run or no checkpoint, it could run code and is not trusted, another training
            is writing it, or its data are not those that the run was trained on.
    """
    config = load_config(run, trust)
    if root is not None:
        config = with_root(config, root)
    check_config(config)
    with ExitStack() as claim:
        if is_first_process() and not is_finished(run):
            claim.enter_context(claimed(run))
        last = checkpoint_of(run, "last")
        state = read_checkpoint(last)
        if not trust:
            check_state(last, state)
        done = state["global_step"]
        task = build_task(config)
        data = data_of_run(config, run, task, ["train", "val"])
        if is_finished(run):
            summary = dict(json.loads((run / SUMMARY).read_text()))
            if done >= steps_of(config, data) or "stopped_early" in summary:
                if is_first_process():
                    print(f"{run}: finished already, nothing to resume")
                return summary
            if is_first_process():
                claim.enter_context(claimed(run))
        method = build_method(config, task, pretrained=False)
        return _fit(config, data, *_built(config, data, method, run), run, last)


def load_split(run: Path) -> Split:
    """The split lists of a run folder."""
    return Split.from_json(run / "split.json")


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
    config = load_config(run, trust)
    path = checkpoint_of(run, which)
    method = build_method(config, build_task(config), pretrained=False)
    state = read_checkpoint(path)["state_dict"]
    weights = {key.removeprefix("method."): value for key, value in state.items() if key.startswith("method.")}
    check_finite(path, weights)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise SemipixError(f"{path}: not a checkpoint of the networks in config.yaml: {reason}") from error
    return method.eval()


def check_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose networks compute nothing.

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


def _built(config: Config, data: SemiSupervisedDataModule, method: Method, run: Path) -> tuple[Learner, pl.Trainer]:
    """Learner and trainer of a run; nothing is written yet, so that a refused option leaves nothing behind."""
    steps = steps_of(config, data)
    validate = bool(data.split.val) and config["validations"] > 0
    learner = build_learner(config, method, steps, data.strong)
    return learner, build_trainer(config, run, method.task, steps, validate=validate)


def _fit(
    config: Config,
    data: SemiSupervisedDataModule,
    learner: Learner,
    trainer: pl.Trainer,
    run: Path,
    checkpoint: Path | None,
) -> dict[str, float]:
    if is_started_by_lightning():
        die_with_parent()
    data.skipped.path = run / "skipped.txt"
    if is_first_process():
        _begin(data)
    began = time.perf_counter()
    try:
        with interruption.deferred("step"):
            # Lightning downloads what begins with http, and by default torch's environment decides what is unpickled.
            start = None if checkpoint is None else checkpoint.absolute()
            trainer.fit(learner, datamodule=data, ckpt_path=start, weights_only=True)
            trainer.save_checkpoint(run / "checkpoints" / "last.ckpt")
    except (interruption.Stopped, KeyboardInterrupt, SystemExit) as error:  # Lightning makes the third of the second
        raise TrainingInterrupted(error, trainer) from None
    except Exception as error:
        if interruption.received():  # as when the data-loading workers have got the signal too
            raise TrainingInterrupted(error, trainer) from error
        if isinstance(error, MisconfigurationException | RuntimeError | MemoryError | OSError | ValueError):
            raise _told(error, run, trainer.global_step, config) from error
        raise
    check_steps(trainer)
    summary: dict[str, Any] = {
        "steps": trainer.global_step,
        "seconds": round(time.perf_counter() - began, 1),
        "labeled": len(data.split.labeled),
        "unlabeled": data.unlabeled_count,
        **{key: float(value) for key, value in trainer.callback_metrics.items() if math.isfinite(float(value))},
    }
    if why := stopped_early(trainer):
        summary["stopped_early"] = why
    if is_first_process():
        if skipped := data.skipped.count():
            summary["skipped"] = skipped
            told = f"{skipped} files could not be read and were skipped"
            print(f"semipix: {told}, see {data.skipped.path}", file=sys.stderr)
        write_json(run / SUMMARY, summary)
    return summary


def check_steps(trainer: pl.Trainer) -> None:
    """Refuse a training that has ended too early.

    Raises:
        SemipixError: it made no step, or fewer than it should and nothing asked it to stop.
    """
    made, asked = trainer.global_step, trainer.max_steps
    if made == 0 or (made < asked and not trainer.should_stop):
        raise SemipixError(
            f"trainer: the training ended after {made} of {asked} steps; check trainer.callbacks, trainer.strategy and "
            "the limits among the keys of trainer"
        )


def _begin(data: SemiSupervisedDataModule) -> None:
    """Print what is trained on, and what of the data is unusual or left out."""
    print(data.counts(), flush=True)
    further = further_parts(data.source.files(SEVERAL_PAGES), data.max_pixels)
    for line in [*data.source.warnings, *data.source.left_out, *further]:
        print(f"semipix: {'warning: ' if line in data.source.warnings else ''}{one_line(line)}", file=sys.stderr)


def memory_short(error: Exception) -> str | None:
    """Which memory an error says is exhausted, `memory` or `GPU memory`; None for other errors."""
    message = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in message for sign in NO_MEMORY):
        return None
    return "GPU memory" if "CUDA" in message or isinstance(error, torch.OutOfMemoryError) else "memory"


def _told(error: Exception, run: Path, step: int, config: Config) -> Exception:
    """What a failed training means to a user; the error itself where it is no slip and no shortage."""
    message = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException):
        return SemipixError(f"trainer: {message}")
    if isinstance(error, OSError):
        return error if error.filename else OSError(error.errno, error.strerror or message, str(run))
    if short := memory_short(error):
        used = ", ".join(f"data.{key}={config['data'][key]}" for key in ("batch_size", "crop") if key in config["data"])
        return SemipixError(
            f"{run}: out of {short} at step {step}{f' with {used}' if used else ''}; lower data.batch_size or "
            "data.crop, and raise trainer.accumulate_grad_batches in turn, or set memory=low"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return SemipixError(
            f"compile: true found, but torch.compile failed ({message[:160]}); set compile=false, or mend the compiler"
        )
    if torch.distributed.is_initialized() and any(sign in message for sign in PEER_GONE):
        return SemipixError(
            f"{run}: another process of this training died at step {step} ({message[:120]}); see what it told last, "
            f"then continue with: semipix train resume={run}"
        )
    if message.startswith("Early stopping conditioned on metric"):
        return SemipixError(f"trainer.callbacks: {message}")
    if message.startswith("You set `devices="):  # Lightning, of what torchrun or SLURM was asked for
        return SemipixError(f"trainer.devices, trainer.num_nodes: {message}")
    if "SyncBatchNorm expected" in message or "SyncBatchNorm layers only work with GPU" in message:
        return SemipixError("trainer.sync_batchnorm: needs GPUs; on CPUs set trainer.sync_batchnorm=false")
    if "more than 1 value per channel" in message:
        return SemipixError(
            f"data.batch_size: batch norm needs more than one value a channel, and one image gives its coarsest map "
            f"one ({message}); raise data.batch_size, data.labeled_per_batch or data.crop, or set "
            "freeze_batch_norm=true"
        )
    if isinstance(error, RuntimeError) and (told := died_worker(error)):
        return SemipixError(f"{run}: {told}")
    return error
