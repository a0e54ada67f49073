"""Does a training in bfloat16 end as well as one in float32?

Trains variants of a comparison in bfloat16 on the same splits and seeds as its float32 records, which
`benchmarks/compare.py` left; where there is no such record, in float32 too. A CPU without bfloat16 units computes
products by float32 units (`bf16_products.py`), since its own emulation is ten times slower and more. What a run folder
or the JSON has already is not trained again.

    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --json benchmarks/results/bf16.json
    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --variants supervised --seeds 2 3 4 5 \\
        --json benchmarks/results/bf16.json
    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --variants supervised --seeds 0 1 2 3 4 5 \\
        --part decoder --json benchmarks/results/bf16.json

`--part decoder` leaves the encoder in float32; `--part none` stays in float32 and only sums in another order, to see by
how much two runs differ that should not.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from bf16_products import BFloat16Products  # the module beside this one
from compare import SETTINGS, VARIANTS, figure, overrides_of  # the module beside this one

from semipix.cli import main as semipix
from semipix.functional.precision import fast_precision
from semipix.report.comparison import environment
from semipix.run_folder import is_finished, way_on

BFLOAT16, FLOAT32 = "bf16-mixed", "32-true"
"""Lightning's names."""

PARTS = {
    "all": [f"trainer.precision={BFLOAT16}"],
    "decoder": [f"trainer.precision={BFLOAT16}", "model._target_=float32_encoder.Float32Encoder"],
    "none": [f"trainer.precision={FLOAT32}", "channels_last=false"],
}
"""Overrides of a run that is compared with one in float32, by what of the UNet is in bfloat16."""


def in_float32_units(precision: str) -> bool:
    """Whether products of a training in this precision go through float32 units here."""
    return precision == BFLOAT16 and fast_precision() == FLOAT32


def run_one(folder: Path, overrides: list[str], split: str, precision: str) -> dict[str, Any]:
    """Train and measure one run in this process, of one thread."""
    torch.set_num_threads(1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with BFloat16Products() if in_float32_units(precision) else nullcontext():
        if not is_finished(folder) and (code := semipix(["train", *way_on(folder, [*overrides, f"run={folder}"])])):
            raise SystemExit(f"{folder}: semipix train ended with exit status {code}")
        if code := semipix(["evaluate", str(folder), "--split", split]):
            raise SystemExit(f"{folder}: semipix evaluate ended with exit status {code}")
    return {"test": json.loads((folder / f"evaluation-{split}.json").read_text()), "overrides": overrides}


def identity(record: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same."""
    return *(record[key] for key in ("setting", "variant", "labels", "seed", "precision")), part_of(record)


def part_of(record: dict[str, Any]) -> str | None:
    """What of a run's network is in bfloat16, one of `PARTS`; None of the run that it is compared with."""
    return record.get("part", "all" if record["precision"] == BFLOAT16 else None)


def pairs(records: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs of every part, each with the run in float32 that differs in nothing else."""
    by_identity = {identity(record): record for record in records}
    for key in sorted(key for key in by_identity if key[-1] is not None):
        if other := by_identity.get((*key[:-2], FLOAT32, None)):
            yield by_identity[key], other


def report(records: Iterable[dict[str, Any]]) -> None:
    """Print the figure of each pair of runs, and by how much that with parts in bfloat16 is ahead."""
    differences: dict[str, list[float]] = {part: [] for part in PARTS}
    for half, full in pairs(records):
        part = str(part_of(half))
        differences[part].append(figure(half) - figure(full))
        told = f"{part:8} in bfloat16 {figure(half):6.2f}  float32 {figure(full):6.2f}  {differences[part][-1]:+6.2f}"
        print(f"{half['variant']:12} labels {half['labels']:>3}  seed {half['seed']}  {told}")
    for part, found in differences.items():
        if len(found) > 1:
            spread = statistics.stdev(found)
            print(f"{part} in bfloat16 - float32: {statistics.mean(found):+.2f}, standard deviation {spread:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", default="4")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", default=["supervised", "gct", "gct_strong"], choices=VARIANTS)
    parser.add_argument("--part", choices=PARTS, default="all", help="what of the UNet computes in bfloat16")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bf16"))
    parser.add_argument("--float32", type=Path, help="by default benchmarks/results/SETTING.json")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    counterparts = options.float32 or Path(__file__).parent / "results" / f"{options.setting}.json"
    compared = json.loads(counterparts.read_text())["records"] if counterparts.exists() else []
    own = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    known = {identity(record) for record in (*compared, *own)}
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.parallel, get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = {}
        for seed, name, part in product(options.seeds, options.variants, (options.part, None)):
            changes = PARTS[part] if part else [f"trainer.precision={FLOAT32}"]
            precision = changes[0].partition("=")[2]
            keys = {"setting": options.setting, "variant": name, "labels": options.labels, "seed": seed}
            keys |= {"precision": precision, "part": part} if part else {"precision": precision}
            if identity(keys) in known:
                continue
            run = f"{options.labels}-{name}-{seed}-{precision}{'' if part in (None, 'all') else f'-{part}'}"
            overrides = overrides_of(options.setting, [*VARIANTS[name], *changes], options.labels, seed, options.data)
            folder = options.runs / options.setting / run
            jobs[pool.submit(run_one, folder, overrides, SETTINGS[options.setting].split, precision)] = keys
        for job in as_completed(jobs):
            keys = jobs[job]
            how = "in float32, rounded once" if in_float32_units(keys["precision"]) else "by the device"
            own.append({**keys, **job.result(), "products": how, **environment()})
            report((*compared, *own))
            if options.json:
                options.json.write_text(json.dumps(own, indent=1) + "\n")
    report((*compared, *own))


if __name__ == "__main__":
    main()
