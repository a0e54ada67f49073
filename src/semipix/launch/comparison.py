"""`experiment=compare`: methods x numbers of labels x seeds as one sweep, under the paper's training rules.

An experiment with a node `compare` is such a grid. All runs are trained on as many images as full supervision (rule 3
of the paper's Section 4), apart from `supervised_short`, which has as many epochs over its labels (rule 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Self

import yaml

from semipix.config import unknown_key
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.errors import SemipixError
from semipix.launch.overrides import MOST_JOBS, open_overrides, quoted
from semipix.signatures import check_type

NODE = "compare"
"""Key of a grid in the configuration of an experiment."""

ALL = "all"
"""As a number of labels: all that the data have."""

SPECIAL = {
    "supervised_short": ("method=supervised", "length=labeled"),
    "all_labels": ("method=supervised",),
}
"""Baselines that are no option of the group `method`, with their overrides."""

OF_THE_GRID = ("method", "seed", "data.labels", "length", "variant")
"""Keys that differ between the runs, so that a command cannot set them for all."""


@dataclass(frozen=True)
class Grid:
    """The runs of a comparison.

    Attributes:
        methods: options of the group `method`, `supervised_short` or `all_labels`. The last one has all labels of the
            data, and is run once for each seed.
        labels: values of `data.labels`; None means what the data have.
        seeds: of the split and the weights.
        experiment: another experiment that all runs take.
        changes: further runs by name, each with its overrides; one with `data.labels` has the same for all `labels`.
        overrides: of all runs; those of the command line have precedence.
    """

    methods: tuple[str, ...]
    labels: tuple[str, ...] | None
    seeds: tuple[int, ...]
    experiment: str | None
    changes: Mapping[str, tuple[str, ...]]
    overrides: tuple[str, ...] = ()

    @classmethod
    def parse(cls, node: Mapping[str, Any]) -> Self:
        """Check the node of a configuration.

        Raises:
            SemipixError: a key is unknown, a value is of a wrong type, empty or twice in a list, or a change has the
                name of a method or sets the seed.
        """
        known: dict[str, Any] = {
            "methods": list[str],
            "labels": list[int | float | str] | None,
            "seeds": list[int],
            "experiment": str | None,
            "changes": dict[str, list[str]],
            "overrides": list[str],
        }
        for key in node:
            if key not in known:
                raise SemipixError(unknown_key(f"{NODE}.{key}", known))
        for key, hint in known.items():
            if key in node:
                check_type(f"{NODE}.{key}", node[key], hint)
        for key in ("methods", "labels", "seeds"):
            values = node.get(key)
            if values is not None and len({*map(str, values)}) < max(1, len(values)) and (values or key != "methods"):
                found = "nothing" if not values else "the same value twice"
                raise SemipixError(f"{NODE}.{key}={_shown(values)}: {found} found, different values expected")
        labels = None if node.get("labels") is None else tuple(map(str, node["labels"]))
        changes = {name: tuple(items) for name, items in (node.get("changes") or {}).items()}
        if not node.get("methods") and not changes:
            raise SemipixError(f"{NODE}.methods=[]: nothing found, names of methods expected, such as [supervised,gct]")
        for name, items in changes.items():
            if name in (*(node.get("methods") or ()), *SPECIAL):
                raise SemipixError(f"{NODE}.changes.{name}: {name} is a method of the grid; give it another name")
            if seeds := [item for item in items if _key(item) == "seed"]:
                raise SemipixError(
                    f"{NODE}.changes.{name}: {seeds[0]} found, but each run has each of {NODE}.seeds; leave it out"
                )
        return cls(
            tuple(node.get("methods") or ()),
            labels,
            tuple(node.get("seeds", [0])),
            node.get("experiment"),
            changes,
            tuple(node.get("overrides") or ()),
        )


def _shown(values: Sequence[Any]) -> str:
    return f"[{','.join(map(str, values))}]"


def is_grid(experiment: str) -> bool:
    """Whether an experiment of semipix is a grid of runs."""
    path = files("semipix.conf").joinpath("experiment", f"{experiment}.yaml")
    return path.is_file() and NODE in (yaml.safe_load(path.read_text("utf-8")) or {})


def chosen_grid(overrides: Sequence[str]) -> str | None:
    """The experiment among overrides that is a grid, or None.

    Raises:
        SemipixError: it is chosen in a sweep.
    """
    names = [item.partition("=")[2] for item in overrides if item.partition("=")[0].lstrip("+") == "experiment"]
    swept = [part for name in names for part in name.split(",") if is_grid(part)]
    if not swept:
        return None
    if {"-m", "--multirun"} & {*overrides} or "," in names[-1]:
        raise SemipixError(
            f"experiment={swept[0]}: is a sweep already, which takes no -m; set {NODE}.methods, {NODE}.labels and "
            f"{NODE}.seeds"
        )
    return swept[-1]


def shared_overrides(overrides: Sequence[str], grid: Grid | None = None) -> list[str]:
    """The overrides that hold for every run of a grid.

    Args:
        overrides: of the command line.
        grid: has overrides of its own, for keys that the command line leaves open.

    Raises:
        SemipixError: one of them is a key by which the runs differ.
    """
    given = {_key(item) for item in overrides}
    own = [item for item in (grid.overrides if grid else ()) if _key(item) not in given]
    shared = []
    for item in (*open_overrides(own), *overrides):
        key = _key(item)
        if key in OF_THE_GRID:
            swept = {"method": "methods", "variant": "methods", "seed": "seeds"}.get(key, "labels")
            raise SemipixError(
                f"{item}: the runs of this experiment differ in {key}; set {NODE}.{swept}=[...] instead"
                if key != "length"
                else f"{item}: the runs of this experiment are as long as the paper's rules say; leave it out"
            )
        if key != "experiment" and key.partition(".")[0] != NODE:
            shared.append(item)
    return shared


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def jobs_of(grid: Grid, labels: Sequence[str]) -> list[list[str]]:
    """The overrides of each run, with the name of its folder in the sweep.

    Args:
        grid: the grid.
        labels: values of `data.labels` in place of the grid's own.

    Raises:
        SemipixError: there are too many runs.
    """
    jobs = []
    for seed in grid.seeds:
        for name in (*grid.methods, *grid.changes):
            changes = grid.changes.get(name) or SPECIAL.get(name, (f"method={name}",))
            for count in [ALL] if name == "all_labels" else labels:
                folder = f"{name}-{count}-{seed}".replace("/", "_of_")
                given = [] if any(_key(item) == "data.labels" for item in changes) else [f"data.labels={count}"]
                experiment = [f"experiment={grid.experiment}"] if grid.experiment else []
                jobs.append([*experiment, *changes, *given, f"seed={seed}", f"hydra.sweep.subdir={quoted(folder)}"])
    if len(jobs) > MOST_JOBS:
        raise SemipixError(f"{NODE}: {len(jobs)} runs found, at most {MOST_JOBS} expected; give fewer values")
    return jobs


def job_override(jobs: Sequence[Sequence[str]]) -> str:
    """The jobs as an override of Hydra's sweeper `semipix_jobs`."""
    lists = [",".join(map(quoted, job)) for job in jobs]
    return f"hydra.sweeper.jobs=[{','.join(f'[{each}]' for each in lists)}]"


def labels_of(grid: Grid, data: SemiSupervisedDataModule) -> tuple[Grid, tuple[str, ...]]:
    """The numbers of labels of a grid, and the grid without `all_labels` where all labels are used anyway.

    Args:
        grid: the grid.
        data: of a run, with the labels that the data have unless others are asked for.

    Raises:
        SemipixError: the data have no unlabeled image, and no smaller number of labels is asked for; or they have fewer
            labels than a number.
    """
    labels = grid.labels or (str(data.labels),)
    for count in grid.labels or ():
        try:
            data.split_with(count)
        except SemipixError as error:
            raise SemipixError(f"{NODE}.labels={_shown(labels)}: {error}") from error
    if {*labels} == {ALL} and not data.mixed:
        raise SemipixError(
            f"{NODE}.labels: all {len(data.split.labeled)} training images are labeled, so that there are no unlabeled "
            f"ones to learn from; hide labels for the comparison, such as {NODE}.labels=[8,16,32]"
        )
    if ALL in labels:
        grid = replace(grid, methods=tuple(name for name in grid.methods if name != "all_labels"))
    return grid, labels


def opening(grid: Grid, labels: Sequence[str], jobs: Sequence[Sequence[str]], folder: str) -> str:
    """The line with which a comparison begins."""
    names = [name for name in (*grid.methods, *grid.changes) if name != "all_labels"]
    parts = [f"{len(names)} methods ({', '.join(names)})", f"labels {', '.join(labels)}"]
    parts.append(f"seeds {', '.join(map(str, grid.seeds))}")
    more = "; all_labels for each seed" if "all_labels" in grid.methods else ""
    return f"compare: {len(jobs)} runs: {' x '.join(parts)}{more}; in {folder}"
