"""The small siblings of the paper's tables: the record of their sweeps.

Reads the runs of a sweep of `semipix train experiment=paper/GRID`, whole or not, and adds them to the file of `--json`.
A run that was not trained and measured as the grid says is left out, and the reason is printed.

    python -m benchmarks.accuracy.paper_tables collect table1_small SWEEP --json benchmarks/results/paper_tables.json
    python -m benchmarks.tables

The second command writes the figures into docs/paper-tables.md. A sweep measures its runs at its end; where it was
interrupted, `semipix compare SWEEP` does.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Record, new_parser, node, options, records_in, run, write_records
from semipix.config import target_of
from semipix.data.class_balance import BALANCE
from semipix.errors import SemipixError, reason_of
from semipix.launch.comparison import NODE, Grid, jobs_of, shared_overrides
from semipix.launch.compose import configuration_of
from semipix.launch.overrides import open_overrides, parse_flags, quoted
from semipix.launch.sweep import leaves
from semipix.launch.variants import environment
from semipix.report.comparison_runs import ELSEWHERE
from semipix.training.configuration import CHOSEN_FROM_DATA, Configuration
from semipix.training.run_folder import CONFIG, SUMMARY, is_finished, read_config

GROUP = "experiment/paper"
GRIDS = [name for name in options(GROUP) if name.endswith("_small") and NODE in node(GROUP, name)]
"""The grids whose records are kept."""

FOLDER = re.compile(r"(?P<name>.+)-(?P<labels>[^-]+)-(?P<seed>\d+)")
"""Name of a run's folder in a sweep of a grid (`semipix.launch.comparison.jobs_of`)."""

PAPER_METRIC = {"table3_matting_small": "psnr"}
"""The metric of the paper's table where it is not the task's primary one."""

MOST_NAMED = 3
"""Keys of a run that are named where it differs from the grid."""


def grid_of(name: str) -> Grid:
    """The grid of an experiment `paper/NAME`."""
    return Grid.parse(node(GROUP, name)[NODE])


def key_of(record: Record) -> tuple[str, ...]:
    """What makes a record another one: grid, name of the run, labels and seed."""
    return tuple(str(record[key]) for key in ("grid", "name", "labels", "seed"))


def collect(name: str, sweep: Path) -> tuple[list[Record], list[str]]:
    """The records of a sweep's runs.

    Args:
        name: of the grid.
        sweep: its folder; runs of other grids in it are passed over.

    Returns:
        The records, and a line for each run of the grid that is left out.

    Raises:
        SemipixError: there is no such folder, or no run of the grid in it.
    """
    if not sweep.is_dir():
        raise SemipixError(f"{sweep}: no such folder, expected the sweep of semipix train experiment=paper/{name}")
    grid = grid_of(name)
    names = {*grid.methods, *grid.changes}
    records: list[Record] = []
    left_out: list[str] = []
    for folder in sorted(path.parent for path in sweep.glob(f"*/{CONFIG}")):
        found = FOLDER.fullmatch(folder.name)
        if found is None or found["name"] not in names:
            continue
        try:
            records.append(_record(name, grid, folder, found["name"], found["labels"], int(found["seed"])))
        except SemipixError as error:
            left_out.append(f"{folder.name}: {reason_of(error)}")
    if not records and not left_out:
        raise SemipixError(f"{sweep}: no run of experiment=paper/{name} found, such as {next(iter(names))}-8-0")
    return records, left_out


def _record(grid_name: str, grid: Grid, folder: Path, name: str, labels: str, seed: int) -> Record:
    """The record of one run.

    Raises:
        SemipixError: it is not finished or not measured, or it was not trained as the grid says.
    """
    config, about = read_config(folder)
    given = labels.replace("_of_", "/")
    (job,) = (
        each
        for each in jobs_of(_narrowed(grid, name, seed), [given])
        if each[-1] == f"hydra.sweep.subdir={quoted(folder.name)}"
    )
    changed = differing(config, [*shared_overrides([], grid), *open_overrides(job[:-1])])
    if changed:
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        raise SemipixError(f"{', '.join(changed[:MOST_NAMED])}{more}")
    if not is_finished(folder):
        raise SemipixError("not finished; the same command trains what is missing")
    summary = _json(folder / SUMMARY)
    metric = PAPER_METRIC.get(grid_name) or str(getattr(target_of("task", config["task"]), "primary", ""))
    split = next((each for each in ("test", "val") if (folder / f"evaluation-{each}.json").exists()), None)
    if split is None:
        raise SemipixError(f"not measured; run semipix compare {folder.parent}")
    value = _json(folder / f"evaluation-{split}.json").get(metric)
    if not isinstance(value, int | float):
        raise SemipixError(f"{metric} is missing in evaluation-{split}.json; measure it again by semipix evaluate")
    return {
        "grid": grid_name,
        "name": name,
        "labels": given,
        "seed": seed,
        "split": split,
        "metric": metric,
        "value": value,
        "overrides": job[:-1],
        **{key: summary[key] for key in ("steps", "seconds", "labeled", "unlabeled") if key in summary},
        "versions": about["versions"],
        "device": environment()["device"],
    }


def _narrowed(grid: Grid, name: str, seed: int) -> Grid:
    """The grid with one of its runs by name, for a seed that may be another one than the grid's."""
    changes = {name: grid.changes[name]} if name in grid.changes else {}
    return Grid(() if changes else (name,), grid.labels, (seed,), grid.experiment, changes, grid.overrides)


def differing(config: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """In what a run differs from what overrides ask for: `KEY=FOUND instead of EXPECTED`, without a machine's keys."""
    found = leaves(config)
    root = found.get("data.root")
    given = [*overrides, *([f"++data.root={quoted(str(root))}"] if root is not None else [])]
    expected = leaves(Configuration.parse(configuration_of(parse_flags(given))).as_mapping())
    open_keys = {key for key in CHOSEN_FROM_DATA if expected.get(key) in (None, *BALANCE)}  # the data decide on them
    keys = sorted((found.keys() | expected.keys()) - open_keys - {*ELSEWHERE})
    return [
        f"{key}={found.get(key)!r} instead of {expected.get(key)!r}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SemipixError(f"{path}: not readable as JSON ({reason_of(error, 60)})") from None
    return found if isinstance(found, dict) else {}


def main() -> None:
    parser = new_parser("accuracy.paper_tables", __doc__)
    parser.add_argument("action", choices=["collect"])
    parser.add_argument("grid", choices=GRIDS, metavar="GRID", help=", ".join(GRIDS))
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folders of sweeps of this grid")
    given = parser.parse_args()
    kept = {key_of(record): record for record in records_in(given.json)}
    count = 0
    for sweep in given.sweeps:
        records, left_out = collect(given.grid, sweep)
        kept |= {key_of(record): record for record in records}
        count += len(records)
        for line in left_out:
            print(f"left out: {line}")
    print(f"{given.grid}: {count} runs")
    if count:
        write_records(given.json, [kept[key] for key in sorted(kept)])


if __name__ == "__main__":
    run(main)
