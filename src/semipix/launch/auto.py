"""`method=auto`: train short pilots, choose the method that is better than supervised training, and train it.

1. Hold out. The pilots are measured on the run's validation images, or where these are too few on labels that are held
   out from the pilots alone; the final training has them again.
2. Pilots. Supervised training and each candidate train for a share of the steps, on the same images, split and seed.
   Each is an ordinary run folder in `pilots/` and a process of its own, since each may start processes for further
   GPUs.
3. Choose. A candidate is chosen if its metric is better than that of supervised training beyond the bootstrap interval
   over the held-out images; otherwise supervised training is. `choice.json` says why.
4. Train. The chosen method is trained from the start, with all labels and steps, as if it had been asked for. A pilot
   is not continued: its learning rate has come to its end, and it has not seen the held-out labels.

An interrupted run goes on with the pilot that was interrupted: `pilots/config.yaml` holds what was asked for.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from semipix.config import Node, unknown_key
from semipix.data.compatibility import check_serves
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.splits import Split, hold_out
from semipix.errors import SemipixError, one_line
from semipix.functional.bootstrap import mean_interval, paired_difference
from semipix.inference.evaluate import evaluate
from semipix.interruption import ENDING_SIGNALS, Interrupted, raise_if_interrupted
from semipix.launch.auto_choice import BASELINE, Choice, Pilot, decide
from semipix.launch.runner import USERS_ERROR, has_trained, semipix, side_by_side, surroundings
from semipix.launch.runner import run as run_command
from semipix.launch.sweep import leaves, stored_leaves
from semipix.launch.variants import state_of
from semipix.methods.base import MakeModel
from semipix.methods.pair import ModelPair
from semipix.methods.supervised import Supervised
from semipix.models.adapt import Adapter, features_of
from semipix.processes import is_first
from semipix.tasks.base import Task
from semipix.training import run as training
from semipix.training.build import build_data, build_method, build_task, steps_of, with_bands, with_classes
from semipix.training.configuration import CHOSEN_FROM_DATA, Configuration
from semipix.training.image_figures import MeasuredImages, kept_images, read_images, with_shared_scenes
from semipix.training.run_folder import (
    CHOICE,
    CONFIG,
    PILOTS,
    SUMMARY,
    checkpoint_of,
    claimed,
    has_checkpoint,
    is_choosing,
    is_finished,
    load_config,
    load_split,
    needs_trust,
    no_empty_folders,
    read_config,
    with_root,
    write_config,
)

TRIES = 2
"""How often a pilot is started that ends by a signal."""

SEVERAL_PROCESSES = (
    *("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""Environment variables that a training of several processes may have left in this process; a pilot starts its own."""

VALIDATION = ("val_check_interval", "check_val_every_n_epoch", "limit_val_batches")
"""Keys of the trainer that a pilot does not share: it is validated once, at its end, with all held-out images."""

WITHOUT_FEATURES: dict[str, Any] = {"feature_dropout": 0.0, "complementary_dropout": False}
"""Values with which methods serve models that do not give their feature maps."""

ONE_NETWORK: dict[str, Any] = {"deploy": "first", "fusion": False}
"""Values with which a pilot of a pair measures one network, as that of supervised training does: the best of several on
the held-out images would look better than it is."""


class PilotFailedError(SemipixError):
    """A pilot has ended by something else than an error that the user can fix; its log says by what."""


class Auto(Supervised):
    """Supervised training, unless a candidate is better in short pilots. Only `semipix train` can choose.

    Args:
        task: what a pixel means.
        make_model: makes the task model.
        candidates: methods that are compared with supervised training: names, or classes with their modules.
        held_out: share of the labels, above 0 and at most 0.5, on which the pilots are measured and without which they
            train. Validation images that the run has are counted; those that the data bring along suffice.
        min_held_out: fewest held-out images, or scenes where the data name them; with fewer supervised training is
            chosen without pilots. At least 2.
        pilot_share: steps of a pilot as a share of those of the training, above 0 and at most 1.
        min_pilot_steps: fewest steps of a pilot; it never has more than the training itself.
        level: of the interval that has to be on the better side of 0, above 0 and below 1.

    Raises:
        SemipixError: always; the class holds the keys of `method=auto`, and `semipix train` replaces it.
    """

    uses_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        candidates: tuple[str, ...] = ("unimatch", "gct_strong"),
        held_out: float = 0.25,
        min_held_out: int = 3,
        pilot_share: float = 0.25,
        min_pilot_steps: int = 300,
        level: float = 0.95,
    ) -> None:
        raise SemipixError("method: auto is no method but a choice between some, which semipix train makes; name one")


@dataclass(frozen=True)
class Settings:
    """The keys of `method=auto`; see `Auto`."""

    candidates: Sequence[str]
    held_out: float
    min_held_out: int
    pilot_share: float
    min_pilot_steps: int
    level: float

    @classmethod
    def of(cls, node: Node) -> Self:
        """The settings of a configuration's group.

        Raises:
            SemipixError: a value is out of range.
        """
        found = cls(**node.arguments())
        for key, value, most in (("held_out", found.held_out, 0.5), ("pilot_share", found.pilot_share, 1)):
            if not 0 < value <= most:
                raise SemipixError(f"method.{key}: {value} found, a number above 0 and at most {most} expected")
        if not 0 < found.level < 1:
            raise SemipixError(f"method.level: {found.level} found, a number between 0 and 1 expected, such as 0.95")
        for key, value, least in (
            ("min_held_out", found.min_held_out, 2),
            ("min_pilot_steps", found.min_pilot_steps, 1),
        ):
            if value < least:
                raise SemipixError(f"method.{key}: {value} found, {least} or more expected")
        found.nodes()
        return found

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The group `method` of supervised training and of each candidate, by the method's name.

        Raises:
            SemipixError: there is no candidate, or one is unknown or named twice.
        """
        folder = resources.files("semipix.conf").joinpath("method")
        files = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
        known = sorted({*files} - {"auto", BASELINE})
        found: dict[str, dict[str, Any]] = {BASELINE: yaml.safe_load(files[BASELINE].read_text("utf-8"))}
        for candidate in self.candidates:
            name = candidate.rpartition(".")[2]
            if candidate not in known and "." not in candidate:
                raise SemipixError(f"method.candidates: {candidate} found, some of {', '.join(known)} expected")
            if name in found:
                raise SemipixError(f"method.candidates: {name} found twice, each method once expected")
            found[name] = (
                yaml.safe_load(files[name].read_text("utf-8")) if candidate in known else {"_target_": candidate}
            )
        if len(found) == 1:
            raise SemipixError("method.candidates: [] found, at least one method expected; or set method=supervised")
        return found


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse keys of single methods beside `method=auto`, which a choice between methods cannot pass on.

    Args:
        config: a composed configuration.

    Raises:
        SemipixError: there is one.
    """
    group = config.get("method")
    if not isinstance(group, Mapping) or group.get("_target_") != f"{Auto.__module__}.{Auto.__name__}":
        return
    known = Settings.__dataclass_fields__.keys()
    for key in group.keys() - known - {"_target_"}:
        close = unknown_key(f"method.{key}", known).partition("; ")[2]
        hint = (
            close if close.startswith("did") else f"method=auto takes {', '.join(known)}; name one method to set {key}"
        )
        raise SemipixError(f"unknown key method.{key}; {hint}")


def is_auto(configuration: Configuration) -> bool:
    """Whether the method of a training is still to be chosen."""
    return configuration.method.target is Auto


def start(configuration: Configuration, run: Path, command: str = "Python") -> dict[str, float]:
    """Train in a new run folder, as `training.run.start` does; where it is asked for, after a choice of the method.

    Args:
        configuration: of the training. With `method=auto` the folder may hold pilots of the same configuration, which
            are not trained again.
        run: the folder.
        command: the command line that started the training, for `config.yaml`.

    Returns:
        What `summary.json` holds.

    Raises:
        SemipixError: the folder holds another training, or the input is at fault.
    """
    if not is_auto(configuration):
        return training.start(configuration, run, command)
    # What the command names may run. A folder that was there may have come from somebody else.
    trust = not (run / PILOTS).exists() or needs_trust(configuration)
    return _choose_and_train(configuration, run, command, None, trust)


def resume(folder: Path, root: Path | None = None, trust: bool = False) -> dict[str, float]:
    """Continue a run, as `training.run.resume` does; also one whose method is not chosen yet, and a pilot.

    Args:
        folder: run folder.
        root: where the run's data folder is now; by default the run's `data.root`.
        trust: run code that the folder names outside of the known packages, see `load_config`.

    Raises:
        SemipixError: as `training.run.resume`.
    """
    if is_choosing(folder):
        asked = load_config(folder / PILOTS, trust)
        if not is_auto(asked):
            raise SemipixError(
                f"{folder / PILOTS / CONFIG}: {asked.method.path} found, method=auto expected; restore it"
            )
        _, records = read_config(folder / PILOTS, trust)
        return _choose_and_train(asked, folder, str(records["command"]), root, trust)
    if _is_prepared(folder):
        configuration = load_config(folder, trust)
        moved = configuration if root is None else with_root(configuration, root)
        return training.start(moved, folder, f"semipix train resume={folder}", load_split(folder))
    return training.resume(folder, root, trust)


def _is_prepared(folder: Path) -> bool:
    """Whether a folder is that of a pilot without a checkpoint: its configuration and its split are there."""
    pilots = folder.absolute().parent
    return (
        pilots.name == PILOTS
        and (pilots / CONFIG).is_file()
        and (folder / CONFIG).is_file()
        and not has_checkpoint(folder)
    )


def _choose_and_train(
    asked: Configuration, run: Path, command: str, root: Path | None, trust: bool
) -> dict[str, float]:
    """Choose the method in the first process; those that Lightning starts later find `choice.json`."""
    training.check_name(run)
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS") or 1) > 1:
        raise SemipixError(
            "method=auto: processes that torchrun or SLURM started found, one expected; start semipix train alone, "
            "which starts trainer.devices=N processes itself, or choose a method"
        )
    if is_first():
        training.check_new(run)
        with no_empty_folders(run), claimed(run), _nothing_left_untrained(run):
            _choose(asked, run, command, root, trust)
            return training.start_claimed(_chosen(asked, run, root), run, command)
    return training.start(_chosen(asked, run, root), run, command)


def _chosen(asked: Configuration, run: Path, root: Path | None) -> Configuration:
    """The configuration of the method that `choice.json` names.

    Raises:
        SemipixError: the file is missing or damaged, or names a method that was no candidate.
    """
    path = run / CHOICE
    try:
        name = json.loads(path.read_text("utf-8"))["chosen"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SemipixError(
            f"{path}: no record of a choice found ({type(error).__name__}); remove it and start again"
        ) from None
    nodes = Settings.of(asked.method).nodes()
    if name not in nodes:
        raise SemipixError(f"{path}: chosen: {name!r} found, {' or '.join(nodes)} expected; restore the file")
    node = nodes[name]
    if (run / PILOTS / name / CONFIG).is_file():
        pilot = read_config(run / PILOTS / name, trust=True)[0]["method"]  # nothing that it names is imported
        node = {**node, **{key: value for key, value in WITHOUT_FEATURES.items() if pilot.get(key) == value}}
    return _with_method(asked if root is None else with_root(asked, root), node)


def _with_method(configuration: Configuration, node: Mapping[str, Any], **top: Any) -> Configuration:
    """The configuration with another method, and other values of keys that belong to no group."""
    return Configuration.parse({**configuration.as_mapping(), "method": dict(node), **top})


@contextlib.contextmanager
def _nothing_left_untrained(run: Path) -> Iterator[None]:
    """Remove what was written if the training is refused or interrupted before any pilot has made a step.

    What was there before, such as the pilots of another configuration, stays. So does the log of a failed pilot.

    Args:
        run: the run folder, locked by this process.
    """
    pilots, choice = (not (run / name).exists() for name in (PILOTS, CHOICE))
    try:
        yield
    except PilotFailedError:
        raise
    except (SemipixError, KeyboardInterrupt):
        if not has_checkpoint(run) and not any((run / PILOTS).glob("*/checkpoints/*.ckpt")):
            if pilots:
                shutil.rmtree(run / PILOTS, ignore_errors=True)
            if choice:
                (run / CHOICE).unlink(missing_ok=True)
        raise


def _choose(asked: Configuration, run: Path, command: str, root: Path | None, trust: bool) -> None:
    """Write `choice.json`; pilots that are missing are trained before.

    Raises:
        SemipixError: the folder holds pilots of another configuration, the input is at fault, or the pilot of
            supervised training failed.
        KeyboardInterrupt: the user interrupted.
    """
    settings = Settings.of(asked.method)
    _check_same(asked, run)
    if (run / CHOICE).exists():
        return
    here = asked if root is None else with_root(asked, root)
    data = build_data(here)
    task = build_task(with_bands(with_classes(here, data), data))
    check_serves(task, data.source)
    raise_if_interrupted()
    nodes, left_out = _trainable(here, task, settings)
    (run / PILOTS).mkdir(parents=True, exist_ok=True)
    write_config(run / PILOTS, asked, command)
    split = hold_out(data.split, data.source, settings.held_out, settings.min_held_out, here.seed)
    _check_images(run, split)
    if why := _why_no_pilots(data, split, nodes, settings):
        choice = Choice(BASELINE, why, left_out=left_out)
    else:
        assert split is not None
        _prepare(here, nodes, steps_of(here, data), split, run, command)
        left_out |= _train_pilots(run, list(nodes), root, trust)
        names = [name for name in nodes if name not in left_out]
        choice = _compared(names, run, task, settings, left_out, root, trust)
    choice.write(run)
    if left_out:
        lines = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        count = f"{len(left_out)} of {len(settings.candidates)} candidates left out"
        print(f"semipix: {one_line(f'{count}: {lines}')}", file=sys.stderr)
    print(f"method=auto: {choice.chosen} is chosen: {choice.reason}", flush=True)


def _check_same(asked: Configuration, run: Path) -> None:
    """Refuse a folder that holds pilots of another configuration.

    Raises:
        SemipixError: it does; the message names the first key that differs.
    """
    if not (run / PILOTS / CONFIG).exists():
        return
    found = leaves(read_config(run / PILOTS, trust=True)[0])  # compared alone; nothing that it names is imported
    given = stored_leaves(asked.as_mapping())
    for key in sorted(found.keys() | given.keys()):
        if found.get(key) != given.get(key):
            raise SemipixError(
                f"{run}: {key}={found.get(key)!r} found in its {PILOTS}/{CONFIG}, {given.get(key)!r} expected: it "
                "holds another training; choose another run=PATH, or remove it"
            )


def _check_images(run: Path, split: Split | None) -> None:
    """Refuse pilots whose training has begun with other images than pilots would have now.

    Args:
        run: the run folder.
        split: the lists of pilots that begin now; None if there are too few images for pilots.

    Raises:
        SemipixError: labels or data have changed since.
    """
    for path in sorted((run / PILOTS).glob("*/split.json")):
        if not has_checkpoint(path.parent):
            continue
        begun = load_split(path.parent).parts()
        now = {} if split is None else split.parts()
        for part in ("labeled", "unlabeled", "val"):
            if changed := sorted({*begun[part]} ^ {*now.get(part, ())}):
                raise SemipixError(
                    f"{path}: {part}: {len(changed)} images differ from those that pilots would have now, such as "
                    f"{changed[0]}: labels or data have changed since this pilot was begun; restore them, or choose "
                    "another run=PATH"
                )


def _trainable(here: Configuration, task: Task, settings: Settings) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The group `method` of each method that trains this task and model, and why the other candidates do not.

    Raises:
        SemipixError: supervised training does not.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name, node in settings.nodes().items():
        try:
            found[name] = _serving(here, task, node)
        except SemipixError as error:
            if name == BASELINE:
                raise
            left_out[name] = str(error)
    return found, left_out


def _serving(here: Configuration, task: Task, node: dict[str, Any]) -> dict[str, Any]:
    """The group `method` with values that serve the model: one that gives no feature maps has none to drop."""
    configuration = _with_method(here, node)
    method = build_method(configuration, task, pretrained=False)
    try:
        for module in method.modules():
            if isinstance(module, Adapter):
                features_of(module.model)
    except SemipixError:
        return {**node, **{key: value for key, value in WITHOUT_FEATURES.items() if configuration.method.takes(key)}}
    return node


def _why_no_pilots(
    data: SemiSupervisedDataModule, split: Split | None, methods: Collection[str], settings: Settings
) -> str:
    """Why supervised training is chosen at once; empty where pilots can tell."""
    if not data.unlabeled_count:
        return "every image is labeled, so there are no unlabeled images to learn from"
    if len(methods) == 1:
        return "no candidate can be trained on these data with this model"
    if split is None:
        return (
            f"{len(data.split.labeled)} labeled and {len(data.split.val)} validation images are too few to tell: "
            f"{settings.min_held_out} have to be held out (method.min_held_out), and half of the labels left"
        )
    return ""


def _prepare(
    here: Configuration, nodes: Mapping[str, Mapping[str, Any]], steps: int, split: Split, run: Path, command: str
) -> None:
    """Write configuration and split of each pilot that has not begun, and say what will be trained."""
    settings = Settings.of(here.method)
    of_pilot = min(steps, max(settings.min_pilot_steps, round(settings.pilot_share * steps)))
    trainer = {key: value for key, value in here.trainer.as_mapping().items() if key not in VALIDATION}
    for name, node in nodes.items():
        folder = run / PILOTS / name
        # One validation, at the end: the best of several on the held-out images would look better than it is.
        pilot = _with_method(here, node, steps=of_pilot, length="full", validations=1, calibrate=False, trainer=trainer)
        if isinstance(pilot.method.target, type) and issubclass(pilot.method.target, ModelPair):
            one = {key: value for key, value in ONE_NETWORK.items() if pilot.method.takes(key)}
            pilot = pilot.with_options("method", one)
        if has_checkpoint(folder):
            _check_begun(folder, pilot)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_config(folder, pilot, command)
            split.to_json(folder / "split.json")
    print(
        f"method=auto: pilots of {', '.join(nodes)}: {of_pilot} of {steps} steps each, {len(split.labeled)} labeled "
        f"images, {len(split.val)} held out; see {run / PILOTS}",
        flush=True,
    )


def _check_begun(folder: Path, pilot: Configuration) -> None:
    """Refuse a pilot whose training has begun with another configuration, before anything that it names is imported.

    Raises:
        SemipixError: it has; the message names the first key that differs.
    """
    found = leaves(read_config(folder, trust=True)[0])
    expected = stored_leaves(pilot.as_mapping())
    for key in sorted(found.keys() | expected.keys()):
        if key not in (*CHOSEN_FROM_DATA, "data.root") and found.get(key) != expected.get(key):
            raise SemipixError(
                f"{folder / CONFIG}: {key}={str(found.get(key))[:80]!r} found, {expected.get(key)!r} expected: this "
                "pilot was begun with other settings; remove its folder, and it is trained again"
            )


def _train_pilots(run: Path, names: Sequence[str], root: Path | None, trust: bool) -> dict[str, str]:
    """Train the pilots that are not finished, one after another.

    Returns:
        The candidates whose pilot failed, with the reason.

    Raises:
        SemipixError: the pilot of supervised training failed.
        KeyboardInterrupt: the user interrupted; a pilot that was training has written a checkpoint.
    """
    stopped: list[BaseException] = []

    def train(name: str) -> str:
        if stopped:  # the next pilot begins before `ended` is called
            return ""
        try:
            _train_pilot(run / PILOTS / name, root, trust)
        except BaseException as error:
            if isinstance(error, SemipixError) and name != BASELINE:
                return str(error)
            stopped.append(error)
            raise
        return ""

    def ended(name: str, error: BaseException | None) -> None:
        if error is not None:
            raise error

    failures = side_by_side(
        {name: partial(train, name) for name in names},
        parallel=1,
        ended=ended,
        state=lambda name: state_of(name, run / PILOTS / name),
    )
    return {name: why for name, why in failures.items() if why}


def _train_pilot(folder: Path, root: Path | None, trust: bool) -> None:
    """Train a pilot to its end in a process of its own; one that a signal ends is continued once.

    Raises:
        SemipixError: it failed; the message is its own.
        KeyboardInterrupt: the user interrupted, or somebody stopped the pilot alone, twice.
    """
    if is_finished(folder):
        return
    log = folder.with_name(folder.name + ".log")
    options = [*([] if root is None else ["--data", str(root)]), *(["--trust"] if trust else [])]
    environment = surroundings(SEVERAL_PROCESSES, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    for _ in range(TRIES):
        ended = run_command(semipix("train", f"resume={folder}", *options), log, env=environment)
        if has_trained(ended, folder):
            return
        if ended.code == USERS_ERROR:
            raise SemipixError(ended.line)
        number = -ended.code if ended.code < 0 else ended.code - 128
        if number <= 0:  # no signal
            break
    if number in ENDING_SIGNALS:
        raise Interrupted(number)
    raise PilotFailedError(f"{log}: the pilot of {folder.name} ended with exit status {ended.code}: {ended.line}")


def _compared(
    names: Sequence[str],
    run: Path,
    task: Task,
    settings: Settings,
    left_out: dict[str, str],
    root: Path | None,
    trust: bool,
) -> Choice:
    """Measure the pilots on the held-out images, and choose.

    Args:
        names: methods whose pilot is finished, supervised training first.
        run: the run folder.
        task: names the metric.
        settings: of the choice.
        left_out: candidates that are not compared, with the reason; those that cannot be measured are added.
        root: the data folder, if it has moved.
        trust: allow pilots to name code outside of the known packages.

    Raises:
        SemipixError: pilots were measured on different images.
    """
    measured: dict[str, MeasuredImages] = {}
    for name in names:
        try:
            measured[name] = _measured(run / PILOTS / name, root, trust)
        except SemipixError as error:
            if name == BASELINE:
                return Choice(BASELINE, f"the held-out images cannot be measured: {error}", left_out=left_out)
            left_out[name] = str(error)
    images, metric = measured[BASELINE].figures.names, measured[BASELINE].function
    for name, pilot in measured.items():
        if pilot.figures.names != images:
            raise SemipixError(
                f"{run / PILOTS / name}: measured on other images than {BASELINE}: {len(pilot.figures.names)} found, "
                f"the same {len(images)} expected; remove the folder, and the pilot is trained again"
            )
    # Images of one scene are no independent ones, so they are drawn together.
    shared = with_shared_scenes(list(measured.values()))
    figures = {name: found.independent for name, found in zip(measured, shared, strict=True)}
    pilots = {}
    for name, found in figures.items():
        summary = json.loads((run / PILOTS / name / SUMMARY).read_text())
        difference = paired_difference([found], [figures[BASELINE]], metric, level=settings.level)
        pilots[name] = Pilot(
            mean_interval([found], metric, level=settings.level, within=measured[name].within),
            None if name == BASELINE else difference,
            int(summary["steps"]),
            float(summary["seconds"]),
        )
    return decide(
        pilots,
        images,
        metric=task.primary,
        higher_is_better=task.higher_is_better,
        level=settings.level,
        left_out=left_out,
    )


def _measured(folder: Path, root: Path | None, trust: bool) -> MeasuredImages:
    """The figures of a pilot on each held-out image, measured unless those of the finished network are there.

    A user may have measured the pilot before it was finished, or in tiles.
    """
    kept = kept_images(folder, "val", checkpoint_of(folder).stem)
    if kept is not None and [*kept.figures.names] == sorted(load_split(folder).val):
        return kept
    evaluate(folder, "val", root=root, trust=trust)
    return read_images(folder / "evaluation-val.csv")
