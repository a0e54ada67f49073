"""Does a training in bfloat16 end as well as one in float32?

Trains variants of a comparison in bfloat16 on the same splits and seeds as its float32 records, which
`benchmarks/compare.py` left; where there is no such record, in float32 too. A CPU without bfloat16 units computes
products by float32 units (`bf16_products.py`), since its own emulation is ten times slower and more. What a run folder
or the JSON has already is not trained again.

    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --json benchmarks/results/bf16.json
    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --variants supervised --seeds 2 3 4 5 \\
        --json benchmarks/results/bf16.json
    python benchmarks/bf16.py camvid_long --data ../shared/data/camvid --variants supervised --seeds 0 1 2 3 4 5 \\
        --float32-encoder --json benchmarks/results/bf16.json
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

FLOAT32_ENCODER = "model._target_=float32_encoder.Float32Encoder"
"""An override: of the UNet, the decoder alone computes in bfloat16."""


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
    keys = ("setting", "variant", "labels", "seed", "precision")
    return (*(record[key] for key in keys), record.get("float32_encoder", False))


def pairs(records: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs in bfloat16, each with the run in float32 that differs in nothing else."""
    by_identity = {identity(record): record for record in records}
    for (*key, precision, _), record in sorted(by_identity.items()):
        if precision == BFLOAT16 and (other := by_identity.get((*key, FLOAT32, False))):
            yield record, other


def report(records: Iterable[dict[str, Any]]) -> None:
    """Print the figure of each pair of runs, and by how much bfloat16 is ahead, in whole and in the decoder alone."""
    differences: dict[str, list[float]] = {"bfloat16": [], "decoder bfloat16": []}
    for half, full in pairs(records):
        part = "decoder bfloat16" if half.get("float32_encoder") else "bfloat16"
        differences[part].append(figure(half) - figure(full))
        told = f"{part} {figure(half):6.2f}  float32 {figure(full):6.2f}  {differences[part][-1]:+6.2f}"
        print(f"{half['variant']:12} labels {half['labels']:>3}  seed {half['seed']}  {told}")
    for part, found in differences.items():
        if len(found) > 1:
            spread = statistics.stdev(found)
            print(f"{part} - float32: {statistics.mean(found):+.2f}, standard deviation {spread:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", default="4")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", default=["supervised", "gct", "gct_strong"], choices=VARIANTS)
    parser.add_argument("--float32-encoder", action="store_true", help="of the UNet, bfloat16 in the decoder alone")
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
        for seed, name, precision in product(options.seeds, options.variants, (BFLOAT16, FLOAT32)):
            keys = {"setting": options.setting, "variant": name, "labels": options.labels, "seed": seed}
            keys |= {"precision": precision}
            variant = [*VARIANTS[name], f"trainer.precision={precision}"]
            run = f"{options.labels}-{name}-{seed}-{precision}"
            if options.float32_encoder and precision == BFLOAT16:
                keys, run = {**keys, "float32_encoder": True}, f"{run}-float32_encoder"
                variant.append(FLOAT32_ENCODER)
            if identity(keys) in known:
                continue
            overrides = overrides_of(options.setting, variant, options.labels, seed, options.data)
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
