"""Does a training in bfloat16 end as well as one in float32?

Trains variants of a comparison in bfloat16, on the same splits and seeds as the float32 records of
`benchmarks.accuracy.compare`; if there is no such record, in float32 too. Needs a GPU or a CPU with bfloat16
instructions: torch's emulation is at least ten times slower. Prints the test metric of each pair of runs and the mean
difference. Runs that are already in a run folder or in the file of `--json` are not trained again.

    python -m benchmarks.accuracy.bf16 camvid_long --data CAMVID --json benchmarks/results/bf16.json
    python -m benchmarks.accuracy.bf16 camvid_long --data CAMVID --variants supervised --seeds 2 3 4 5 \\
        --json benchmarks/results/bf16.json
    python -m benchmarks.accuracy.bf16 camvid_long --data CAMVID --variants supervised --seeds 0 1 2 3 4 5 \\
        --part none --json benchmarks/results/bf16.json

`--part none` trains in float32 with another order of summation. It shows by how much runs differ through rounding, and
needs no bfloat16 instructions.
"""

import statistics
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.accuracy.compare import SETTINGS, VARIANTS, figure, labels_of, measure_of, overrides_of
from benchmarks.common import RESULTS, Record, new_parser, records_in, run, write_records
from semipix.errors import SemipixError
from semipix.functional.precision import fast_precision
from semipix.launch.variants import environment, run_variants

BFLOAT16, FLOAT32 = "bf16-mixed", "32-true"
"""Lightning's names."""

PARTS = {
    "all": [f"trainer.precision={BFLOAT16}"],
    "none": [f"trainer.precision={FLOAT32}", "channels_last=false"],
}
"""Overrides of a run that is compared with one in float32, by what of it is in bfloat16."""


def identity(record: Record) -> tuple[Any, ...]:
    """What makes two runs the same."""
    return *(record[key] for key in ("setting", "variant", "labels", "seed", "precision")), part_of(record)


def part_of(record: Record) -> str | None:
    """What of a run is in bfloat16, one of `PARTS`; None of the run that it is compared with."""
    part: str | None = record.get("part", "all" if record["precision"] == BFLOAT16 else None)
    return part


def pairs(records: Iterable[Record]) -> Iterator[tuple[Record, Record]]:
    """Runs of every part, each with the run in float32 that differs in nothing else."""
    by_identity = {identity(record): record for record in records}
    for key in sorted(key for key in by_identity if key[-1] is not None):
        if other := by_identity.get((*key[:-2], FLOAT32, None)):
            yield by_identity[key], other


def report(records: Iterable[Record]) -> None:
    """Print the figure of each pair of runs, and by how much that with parts in bfloat16 is ahead."""
    differences: dict[str, list[float]] = {part: [] for part in PARTS}
    for half, full in pairs(records):
        part = str(part_of(half))
        differences[part].append(figure(half) - figure(full))
        shown = f"{part:4} in bfloat16 {figure(half):6.2f}  float32 {figure(full):6.2f}  {differences[part][-1]:+6.2f}"
        print(f"{half['variant']:12} labels {half['labels']:>3}  seed {half['seed']}  {shown}")
    for part, found in differences.items():
        if len(found) > 1:
            spread = statistics.stdev(found)
            print(f"{part} in bfloat16 - float32: {statistics.mean(found):+.2f}, standard deviation {spread:.2f}")


def main() -> None:
    parser = new_parser("accuracy.bf16", __doc__)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--labels", help="instead of the setting's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--variants", nargs="+", default=["supervised", "gct", "gct_strong"], choices=VARIANTS, metavar="VARIANT"
    )
    parser.add_argument("--part", choices=PARTS, default="all", help="what computes in bfloat16")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/bf16"), help="gets a run folder for each")
    parser.add_argument("--float32", type=Path, help="by default benchmarks/results/SETTING.json")
    given = parser.parse_args()
    if given.part == "all" and fast_precision() != BFLOAT16:
        raise SemipixError(
            "--part all: this machine does not multiply bfloat16; use a GPU or CPU that does, or --part none"
        )

    compared = records_in(given.float32 or RESULTS / f"{given.setting}.json")
    own = records_in(given.json)
    known = {identity(record) for record in (*compared, *own)}
    keys, jobs = {}, {}
    labels = given.labels or labels_of(given.setting)
    for seed, name, part in product(given.seeds, given.variants, (given.part, None)):
        changes = PARTS[part] if part else [f"trainer.precision={FLOAT32}"]
        precision = changes[0].partition("=")[2]
        key = {"setting": given.setting, "variant": name, "labels": labels, "seed": seed, "precision": precision}
        key |= {"part": part} if part else {}
        if identity(key) in known:
            continue
        run_name = f"{labels}-{name}-{seed}-{precision}{'' if part in (None, 'all') else f'-{part}'}"
        keys[run_name] = key
        overrides = overrides_of(given.setting, [f"variant={name}", *changes], labels, seed, given.data)
        jobs[run_name] = given.runs / given.setting / run_name, overrides
    found = run_variants(jobs, given.parallel, split=measure_of(given.setting).split) if jobs else {}
    own += [
        {**keys[name], "test": found[name]["test"], "overrides": found[name]["overrides"], **environment()}
        for name in jobs
    ]
    report((*compared, *own))
    if jobs:
        write_records(given.json, own)


if __name__ == "__main__":
    run(main)
