"""Build what a configuration names: data, task, method, learner and trainer."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.profilers import Profiler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from semipix.config import Config, arguments, call, made, parameters, target_of
from semipix.data.batches.strong_views import StrongViews
from semipix.data.compatibility import check_serves
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.listing import SPLITS
from semipix.data.source import Source
from semipix.data.splits import Split
from semipix.errors import SemipixError, reason_of
from semipix.functional.length import training_steps
from semipix.functional.precision import fast_precision
from semipix.methods.base import Method
from semipix.models.adapt import Adapter, make_model
from semipix.tasks.base import Task
from semipix.training.callbacks import BestCheckpoint, RunProgress, SamplePictures
from semipix.training.check import MOST_STEPS
from semipix.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from semipix.training.learner import Learner
from semipix.training.loggers import NONE, make_logger
from semipix.training.optimizers import CombinedOptimizer
from semipix.training.run_folder import checkpoint_of, load_config, load_split
from semipix.training.stopping import StopOnSignal, early_stop

STARTED_BY = ("MASTER_ADDR", "SLURM_NTASKS", "LSB_DJOB_RANKFILE", "OMPI_COMM_WORLD_SIZE")
"""What the environment of a process holds that was started on several nodes."""


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


def with_precision(config: Config) -> Config:
    """The configuration with `trainer.precision=auto` replaced by what this machine trains fastest in."""
    trainer = config["trainer"]
    if not isinstance(trainer, Mapping) or trainer.get("precision") != "auto":
        return config
    return {**config, "trainer": {**trainer, "precision": fast_precision(str(trainer.get("accelerator", "auto")))}}


def with_classes(config: Config, data: SemiSupervisedDataModule) -> dict[str, Any]:
    """The configuration with the data's classes written down, so that predicting needs no data."""
    task = dict(config["task"])
    if "classes" in parameters(target_of("task", task))[0] and task.get("classes") is None:
        task["classes"] = list(data.classes or [])
    return {**config, "task": task}


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
        raise SemipixError(
            f"{path}: not a checkpoint of the networks in config.yaml: {reason_of(error, 160)}"
        ) from error
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
