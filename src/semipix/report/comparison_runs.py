"""The run folders of a comparison: where they are, what became of them, and what was trained in them."""

import json
import os
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from semipix.config import target_of
from semipix.data.splits import Split
from semipix.errors import SemipixError, one_line, reason_of
from semipix.report.comparison import ALL_LABELS, BASELINE, Run
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

MOST_NAMED = 3
"""Keys that the name of a variant lists, where two variants differ in nothing else."""


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
        variant: what was trained; empty until `named` has compared the runs.
    """

    folder: Path
    settings: Mapping[str, Any]
    command: Mapping[str, str]
    split: Split | None
    state: str
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def labels(self) -> int | None:
        """The number of labeled training images."""
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
        The runs by their folders, named by what was trained in them; and what cannot be read, or was never begun.

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
    return named(found), unreadable


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
        except (ValueError, TypeError) as error:
            raise SemipixError(
                f"{folder / SUMMARY}: not readable as JSON ({reason_of(error, 60)}); remove it and resume the run"
            ) from None
    return Found(folder, settings, command, split, state, reason, summary)


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
                    reason = one_line(str(record["reason"])) or "it ended before its training began"
                    found.append(Run(str(folder), folder.name, None, None, "failed", False, reason))
    return found


def named(found: Sequence[Found]) -> list[Found]:
    """The runs with their variants: by the `variant` or `method` of their command, otherwise by their method's module.

    Runs of one variant differ in seed and labels alone. Where others have the same name, the keys in which they differ
    are added to it. Supervised runs with all labels beside such with fewer are `all_labels`.
    """
    kinds: dict[str, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for run in found:
        kinds[_name(run)][json.dumps(_kind(run), sort_keys=True, default=str)].append(run)
    names: dict[Path, str] = {}
    for name, groups in kinds.items():
        settings = [json.loads(kind) for kind in groups]
        keys = sorted({key for each in settings for key in each})
        differing = [key for key in keys if len({json.dumps(each.get(key)) for each in settings}) > 1]
        for each, runs in zip(settings, groups.values(), strict=True):
            shown = [f"{key.removeprefix('method.')}={each.get(key)}" for key in differing[:MOST_NAMED]]
            title = f"{name} ({', '.join(shown)})" if len(groups) > 1 else name
            names |= {run.folder: title for run in runs}
    fewer = any(names[run.folder] == BASELINE and run.settings["data"].get("labels") != "all" for run in found)
    for run in found:
        if fewer and names[run.folder] == BASELINE and run.settings["data"].get("labels") == "all":
            names[run.folder] = ALL_LABELS
    return [replace(run, variant=names[run.folder]) for run in found]


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
    if (run.folder / CHOICE).exists():
        return {}
    leaves = _leaves(run.settings)
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


def without_twins(found: Sequence[Found]) -> tuple[list[Found], list[Run]]:
    """One run of each variant, number of labels and seed; the others are listed with the folder of the first one."""
    first: dict[tuple[str, int | None, int], Found] = {}
    others = []
    for run in found:
        twin = first.setdefault((run.variant, run.labels, run.seed), run)
        if twin is not run:
            others.append(run.as_run(False, f"the same variant, labels and seed as {twin.folder}"))
    return list(first.values()), others


def check_same(found: Sequence[Found]) -> None:
    """Refuse runs that cannot be compared.

    Raises:
        SemipixError: two runs differ in task, metric, data or classes; or two runs of one seed in their images, or with
            as many labels in the labeled ones. Names both.
    """
    reference = found[0]
    for run in found[1:]:
        for what, first, second in zip(
            ("tasks", "metrics", "data", "classes"), _subject(reference), _subject(run), strict=True
        ):
            if first != second:
                raise SemipixError(
                    f"{reference.folder} and {run.folder}: different {what}: {first} and {second}; compare runs of the "
                    "same one"
                )
    _check_splits(found)


def _subject(run: Found) -> tuple[str, str, str, str]:
    """Task, metric, data and classes of a run."""
    task, data = run.settings["task"], run.settings["data"]
    classes = task.get("classes")
    names = "none" if classes is None else ", ".join(map(str, classes)) if isinstance(classes, list) else str(classes)
    target = target_of("task", task)
    metric = str(getattr(target, "primary", ""))
    return str(task["_target_"]).rpartition(".")[2], metric, str(data["_target_"]).rpartition(".")[2], names


def _check_splits(found: Sequence[Found]) -> None:
    of_seed: dict[int, Found] = {}
    of_labels: dict[tuple[int, int | None], Found] = {}
    tests: dict[frozenset[str], Found] = {}
    for run in found:
        assert run.split is not None
        first = of_seed.setdefault(run.seed, run)
        second = of_labels.setdefault((run.seed, run.labels), run)
        tests.setdefault(frozenset(run.split.test), run)
        assert first.split is not None and second.split is not None
        pools = [{*each.split.labeled, *each.split.unlabeled} for each in (first, run) if each.split is not None]
        for part, same in (
            ("training images", pools[0] == pools[1]),
            ("validation images", set(first.split.val) == set(run.split.val)),
            ("labeled images", set(second.split.labeled) == set(run.split.labeled)),
        ):
            if not same:
                other = second if part == "labeled images" else first
                raise SemipixError(
                    f"{other.folder} and {run.folder}: seed {run.seed} means other {part} in each "
                    "(split.json); compare runs on the same splits"
                )
    if len(tests) > 1:
        one, two = list(tests.values())[:2]
        raise SemipixError(
            f"{one.folder} and {two.folder}: different test images (split.json); compare runs on the same data"
        )
