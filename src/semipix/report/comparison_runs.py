"""The run folders of a comparison: where they are, what became of them, and what was trained in them."""

import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from filelock import FileLock, Timeout

from semipix.config import target_of
from semipix.data.splits import Split
from semipix.errors import SemipixError, one_line, reason_of
from semipix.report.comparison import ALL_LABELS, BASELINE, Run
from semipix.signatures import parameters
from semipix.training.configuration import CHOSEN_FROM_DATA
from semipix.training.run_folder import CHOICE, CONFIG, LOCK, PILOTS, SUMMARY, is_choosing, load_split, read_config

JOBS = "jobs"
"""Folder of a sweep with a record of each of its jobs."""

SEVERAL = ("seed", "data.labels")
"""Keys that differ between the runs of one variant: each has its own row or is one of the seeds."""

ELSEWHERE = (
    *("data.root", "data.workers", "data.prefetch", "data.cache", "data.cache_limit", "data.cache_folder"),
    *("data.eval_batch_size", "data.max_pixels", "data.on_error", "data.download", "data.seed"),
    *("trainer.precision", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.num_nodes"),
    *("trainer.logger", "trainer.callbacks", "checkpoint_every", "calibrate", "compile", "channels_last", "memory"),
)
"""Keys that say where and how fast a run is trained, but not what."""

WEIGHTS = "task.class_weights"
"""Key of the weights of the classes."""

OF_TARGETS = ("kind", "unit", "missing", "mask_values", "colours", "seed", "block", "blocks")
"""Parameters of a source that decide what its labels and images are."""

BESIDE_METHOD = ("model.", "optimizer.", "scheduler.", "task.", "data.crop", "data.resize", "data.bands")
"""How keys begin that decide a result as much as the method does."""


@dataclass(frozen=True)
class Found:
    """A run folder whose configuration can be read.

    Attributes:
        folder: its path.
        settings: its configuration as nested plain values.
        command: the overrides that started it, by key.
        split: its images; None where they cannot be read.
        state: see `Run`.
        reason: why it is not finished.
        summary: content of `summary.json`; empty while it is not finished.
        variant: what was trained: the name of the method until `named` has compared the runs.
        usual_labels: the number of labeled images of the runs with the same `data.labels`, the mean where seeds differ;
            None until then.
    """

    folder: Path
    settings: Mapping[str, Any]
    command: Mapping[str, str]
    split: Split | None
    state: str
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    usual_labels: int | None = None

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def labels(self) -> int | None:
        """The number of labeled training images, see `usual_labels`."""
        if self.usual_labels is not None:
            return self.usual_labels
        return None if self.split is None else len(self.split.labeled)

    @property
    def samples(self) -> int:
        """N of the training rules: the images that were trained on in all."""
        return int(self.summary.get("steps", 0)) * int(self.settings["data"]["batch_size"])

    def as_run(self, compared: bool, reason: str = "") -> Run:
        """The run as it is listed."""
        return Run(str(self.folder), self.variant, self.labels, self.seed, self.state, compared, reason)


def find_runs(paths: Sequence[Path], trust: bool = False) -> tuple[list[Found], list[Run]]:
    """The runs in some folders.

    Args:
        paths: run folders, or folders with run folders below them, such as those of sweeps.
        trust: read run folders that name code outside of the known packages too.

    Returns:
        The runs by their folders, named by their methods; and what cannot be read, or was never begun.

    Raises:
        SemipixError: a path does not exist, or there is no run folder in any of them.
    """
    for path in paths:
        if not path.exists():
            raise SemipixError(f"{path}: no such folder, expected a run folder or a folder of runs")
    folders = {folder.resolve(): folder for path in paths for folder in run_folders(path)}
    found: list[Found] = []
    unreadable: list[Run] = []
    for folder in folders.values():
        try:
            found.append(_read(folder, trust))
        except SemipixError as error:
            unreadable.append(Run(str(folder), "", None, None, "failed", False, one_line(str(error))))
    unreadable += [run for path in paths for run in _never_begun(path) if Path(run.folder).resolve() not in folders]
    if not found and not unreadable:
        shown = ", ".join(map(str, paths))
        raise SemipixError(f"{shown}: no run folder found (with a {CONFIG}), expected those of semipix train")
    return [replace(run, variant=_name(run)) for run in found], unreadable


def run_folders(path: Path) -> list[Path]:
    """The run folders at and below a path, sorted; what is inside of a run folder is not one of them."""
    found = []
    for place, folders, files in os.walk(path, followlinks=True):
        if CONFIG in files:
            found.append(Path(place))
            folders.clear()
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
    return sorted(found)


def _read(folder: Path, trust: bool) -> Found:
    """One run.

    Raises:
        SemipixError: its configuration cannot be read, or it names code and is not trusted.
    """
    settings, records = read_config(folder, trust)
    _check_settings(folder, settings)
    command = {}
    with suppress(ValueError):  # of unbalanced quotes
        for word in shlex.split(str(records["command"])):
            key, equals, value = word.partition("=")
            if equals:
                command[key.lstrip("+")] = value
    split = None
    with suppress(SemipixError):
        split = load_split(folder)
    state, reason = _state(folder)
    summary: dict[str, Any] = {}
    if state == "finished":
        try:
            summary = dict(json.loads((folder / SUMMARY).read_text()))
            int(summary.get("steps", 0))
        except (ValueError, TypeError) as error:
            raise SemipixError(
                f"{folder / SUMMARY}: not the summary of a run ({reason_of(error, 60)}); remove it and resume the run"
            ) from None
    return Found(folder, settings, command, split, state, reason, summary)


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a configuration without what a comparison reads.

    Raises:
        SemipixError: it lacks a group or a number; the message names the key.
    """
    file = folder / CONFIG
    for group in ("task", "data", "method"):
        node = settings.get(group)
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            raise SemipixError(f"{file}: {group}: {str(node)[:60]} found, keys with a _target_ expected; restore it")
    for key, value in (("seed", settings.get("seed")), ("data.batch_size", settings["data"].get("batch_size"))):
        if not isinstance(value, int) or isinstance(value, bool):
            raise SemipixError(f"{file}: {key}: {value} found, a whole number expected; restore it")


def _state(folder: Path) -> tuple[str, str]:
    """What became of a training, and why it is not finished."""
    if (folder / SUMMARY).exists():
        return "finished", ""
    if folder.name == PILOTS and is_choosing(folder.parent):
        if _is_locked(folder.parent):
            return "running", "its pilots are still trained"
        return "interrupted", f"its method is not chosen yet; {_continue(folder.parent)}"
    if _is_locked(folder):
        return "running", "its training is still at work"
    if (folder / "checkpoints" / "last.ckpt").exists():
        return "interrupted", _continue(folder)
    record = _record(folder)
    why = record.get("reason") or "it ended before its first checkpoint"
    return "failed", one_line(str(why))


def _continue(folder: Path) -> str:
    return f"continue it with semipix train resume={shlex.quote(str(folder))}"


def _is_locked(folder: Path) -> bool:
    """Whether a training is writing a run folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of somebody else
        return False


def _record(folder: Path) -> dict[str, Any]:
    """The record of a run in its sweep; empty if there is none."""
    for sweep in list(folder.absolute().parents)[:3]:
        name = str(folder.absolute().relative_to(sweep)).replace("/", "__")
        with suppress(OSError, ValueError):
            found = json.loads((sweep / JOBS / f"{name}.json").read_text())
            return found if isinstance(found, dict) else {}
    return {}


def _never_begun(path: Path) -> list[Run]:
    """Jobs of sweeps below a path that wrote no configuration: they were refused, or were killed at once."""
    found = []
    for place, folders, files in os.walk(path, followlinks=True):
        if CONFIG in files:
            folders.clear()
        if Path(place).name != JOBS:
            continue
        for file in sorted(name for name in files if name.endswith(".json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads((Path(place) / file).read_text())
                folder, state = Path(record["folder"]), str(record["state"])
                if state in ("failed", "killed", "interrupted", "running") and not (folder / CONFIG).exists():
                    reason = one_line(str(record.get("reason") or "it ended before its training began"))
                    found.append(Run(str(folder), folder.name, None, None, "failed", False, reason))
    return found


def named(found: Sequence[Found]) -> list[Found]:
    """The runs with their variants: by the `variant` or `method` of their command, otherwise by their method's module.

    Runs of one variant differ in seed and labels alone. Where others have the same name, keys in which they differ are
    added to it, as many as tell them apart; of several supervised variants, that is called `supervised` whose other
    settings most of the methods share. Supervised runs with all labels beside such with fewer are `all_labels`.
    """
    kinds: dict[str, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for run in found:
        kinds[_name(run)][_text(_kind(run))].append(run)
    names: dict[Path, str] = {}
    for name, groups in kinds.items():
        titles = dict(zip(groups, _titles(name, [json.loads(kind) for kind in groups]), strict=True))
        if name == BASELINE and len(groups) > 1 and (kind := _of_most(groups, found)):
            titles[kind] = BASELINE
        names |= {run.folder: titles[kind] for kind, runs in groups.items() for run in runs}
    fewer = any(names[run.folder] == BASELINE and run.settings["data"].get("labels") != "all" for run in found)
    for run in found:
        if fewer and names[run.folder] == BASELINE and run.settings["data"].get("labels") == "all":
            names[run.folder] = ALL_LABELS
    counts: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for run in found:
        if run.split is not None:
            counts[_text(run.settings["data"].get("labels"))].add((run.seed, len(run.split.labeled)))
    usual = {asked: round(fmean(count for _, count in each)) for asked, each in counts.items()}
    return [
        replace(run, variant=names[run.folder], usual_labels=usual.get(_text(run.settings["data"].get("labels"))))
        for run in found
    ]


def _titles(name: str, kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of variants that are called alike: with the values of the first keys that tell them apart."""
    if len(kinds) == 1:
        return [name]
    shown: list[str] = []
    apart = 1
    for key in sorted({key for kind in kinds for key in kind}):
        different = len({_text([kind.get(each) for each in (*shown, key)]) for kind in kinds})
        if different > apart:
            shown.append(key)
            apart = different
    texts = (", ".join(f"{key.removeprefix('method.')}={kind.get(key)}" for key in shown) for kind in kinds)
    return [f"{name} ({text})" for text in texts]


def _of_most(supervised: Mapping[str, Sequence[Found]], found: Sequence[Found]) -> str | None:
    """The supervised variant whose settings beside the method most of the other methods' runs have; None if unclear."""
    others = Counter(
        _text(_beside(_kind(run))) for run in found if run.state == "finished" and not _name(run).startswith(BASELINE)
    )
    counts = {kind: others[_text(_beside(json.loads(kind)))] for kind in supervised}
    first, second = sorted(counts.values(), reverse=True)[:2]
    return max(counts, key=counts.__getitem__) if first > second else None


def _beside(kind: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a variant that are not its method's."""
    return {key: value for key, value in kind.items() if not key.startswith("method.")}


def beside_method(run: Found) -> dict[str, Any]:
    """The settings of a run that decide its result as much as its method does, by key."""
    return {key: value for key, value in _kind(run).items() if key.startswith(BESIDE_METHOD)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _name(run: Found) -> str:
    """What a run's variant is called as long as no other one is called so."""
    if (run.folder / CHOICE).exists():
        return "auto"
    given = run.command.get("variant") or run.command.get("method")
    target = str(run.settings["method"]["_target_"])
    name = given or target.split(".")[-2 if target.startswith("semipix.methods.") else -1]
    return "supervised_short" if name == "supervised" and run.settings["length"] == "labeled" else name


def _kind(run: Found) -> dict[str, Any]:
    """What is trained, by key: all settings but those that differ between seeds, label counts and machines."""
    leaves = _leaves(run.settings)
    if (run.folder / CHOICE).exists():  # what it chose is no setting; what was asked for is
        leaves = {key: value for key, value in leaves.items() if not key.startswith("method.")}
        with suppress(SemipixError):
            asked, _ = read_config(run.folder / PILOTS, trust=True)  # nothing that it names is imported
            leaves |= {key: value for key, value in _leaves(asked).items() if key.startswith("method.")}
    left_out = {*SEVERAL, *ELSEWHERE, *CHOSEN_FROM_DATA}
    kept = {key: value for key, value in leaves.items() if key not in left_out}
    kept |= {key: run.command[key] for key in CHOSEN_FROM_DATA if key in run.command}
    # Weights that were counted differ with the labels; whether classes are weighted at all was a default that changed.
    if leaves.get(WEIGHTS, "") is None:
        return {**kept, WEIGHTS: None}
    return {WEIGHTS: "auto", **kept} if WEIGHTS in leaves else kept


def _leaves(node: Any, name: str = "") -> dict[str, Any]:
    """A nested configuration as values by dotted keys."""
    if not isinstance(node, Mapping):
        return {name: node}
    nested = (_leaves(value, f"{name}.{key}" if name else str(key)) for key, value in node.items())
    return {key: value for leaves in nested for key, value in leaves.items()}


def without_twins(found: Sequence[Found]) -> tuple[list[Found], list[tuple[Found, Found]]]:
    """The first run of each variant, number of labels and seed; and each other one with the first of its kind."""
    first: dict[tuple[str, int | None, int], Found] = {}
    others = []
    for run in found:
        twin = first.setdefault((run.variant, run.labels, run.seed), run)
        if twin is not run:
            others.append((run, twin))
    return list(first.values()), others


def alike(found: Sequence[Found]) -> tuple[list[Found], list[Run]]:
    """The runs that can be compared, and the others with the reason.

    Runs have to have the same task, metric, data and classes, the same test images, with the same seed the same
    training and validation images, and with as many labels the same labeled ones. Of runs that differ, most decide.

    Args:
        found: runs with their splits, at least one.

    Raises:
        SemipixError: as many runs are of one kind as of another. Names a run of both.
    """
    left_out: list[Run] = []
    kept = list(found)
    for what in ("tasks", "metrics", "data", "classes"):
        kept = _of_majority(kept, partial(_subject, what), f"different {what}: {{}} and {{}}", left_out)
    kept = _of_majority(kept, partial(_images, "test images"), "different test images (split.json)", left_out)
    for part in ("training images", "validation images", "labeled images"):
        groups: dict[tuple[int, int | None], list[Found]] = {}
        for run in kept:
            groups.setdefault((run.seed, run.labels if part == "labeled images" else None), []).append(run)
        kept = []
        for (seed, _), runs in groups.items():
            message = f"seed {seed} means other {part} in each (split.json); compare runs on the same splits"
            kept += _of_majority(runs, partial(_images, part), message, left_out)
    return sorted(kept, key=lambda run: run.folder), left_out


def _of_majority(found: Sequence[Found], key: Callable[[Found], Any], message: str, left_out: list[Run]) -> list[Found]:
    """The runs of which there are most with the same key; the others are added to `left_out`.

    Raises:
        SemipixError: as many have another key.
    """
    groups: dict[Any, list[Found]] = {}
    for run in found:
        groups.setdefault(key(run), []).append(run)
    most, *others = sorted(groups.values(), key=len, reverse=True)
    for runs in others:
        for run in runs:
            line = f"{most[0].folder} and {run.folder}: {message.format(key(most[0]), key(run))}"
            if len(runs) == len(most):
                raise SemipixError(f"{line}; compare runs of the same one" if "; " not in message else line)
            left_out.append(run.as_run(False, line))
    return most


def _images(part: str, run: Found) -> frozenset[str]:
    """The images of a part of a run's split."""
    assert run.split is not None
    split = run.split
    return frozenset(
        {
            "test images": split.test,
            "training images": [*split.labeled, *split.unlabeled],
            "validation images": split.val,
            "labeled images": split.labeled,
        }[part]
    )


def _subject(what: str, run: Found) -> str:
    """The task, metric, data or classes of a run."""
    task, data = run.settings["task"], run.settings["data"]
    classes = task.get("classes")
    names = "none" if classes is None else ", ".join(map(str, classes)) if isinstance(classes, list) else str(classes)
    metric = str(getattr(target_of("task", task), "primary", ""))
    source = str(data["_target_"]).rpartition(".")[2]
    known, _ = parameters(target_of("data", data))
    given = [f"data.{key}={data[key]}" for key in OF_TARGETS if key in known and data.get(key) is not None]
    return {
        "tasks": str(task["_target_"]).rpartition(".")[2],
        "metrics": metric,
        "data": " with ".join([source, *given]),
        "classes": names,
    }[what]
