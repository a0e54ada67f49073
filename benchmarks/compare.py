"""Is a method better than supervised training, on real photographs with few labels?

Trains every variant on the same splits with the same number of steps, measures each on the test images, and writes one
JSON of records. A run that is already there is not trained again, so an interrupted comparison goes on.

    python benchmarks/compare.py portrait --data ../shared/data/portrait --labels 8 16 32 --seeds 0 1
    python benchmarks/compare.py camvid --data ../shared/data/camvid --labels 12 --seeds 0 1
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

SETTINGS: dict[str, list[str]] = {
    "portrait": ["data.resize=[160,120]", "data.crop=96", "data.val=40", "optimizer.lr=5e-4", "steps=300"],
    "camvid": ["data.resize=[180,240]", "data.crop=[128,160]", "optimizer.lr=1e-3", "steps=400"],
}
COMMON = ["data=folder", "data.workers=0", "trainer.precision=bf16-mixed", "validations=3"]

# Ramp-up and warm-up are in epochs; these runs are about one epoch long.
VARIANTS: dict[str, list[str]] = {
    "supervised": ["method=supervised"],
    "supervised_short": ["method=supervised", "length=labeled"],
    "all_labels": ["method=supervised", "data.labels=all"],
    "mean_teacher": ["method=mean_teacher", "method.rampup_epochs=0.3"],
    "gct_paper": ["method=gct", "method.rampup_epochs=0.3"],
}


def overrides_of(setting: str, variant: list[str], labels: str, seed: int, data: Path) -> list[str]:
    """Overrides of one run; the variant has the last word."""
    merged = [*COMMON, *SETTINGS[setting], f"data.root={data}", f"data.labels={labels}", f"seed={seed}", *variant]
    return list({item.partition("=")[0]: item for item in merged}.values())


def run(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train and measure one run in a process of one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    semipix = [sys.executable, "-m", "semipix.cli"]
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "evaluation-test.json").exists():
        resumable = (folder / "checkpoints" / "last.ckpt").exists() and not (folder / "summary.json").exists()
        train = ["train", f"resume={folder}"] if resumable else ["train", *overrides, f"run={folder}"]
        commands = [["evaluate", str(folder)]] if (folder / "summary.json").exists() else [train, ["evaluate", str(folder)]]
        with log.open("a") as output:
            for command in commands:
                subprocess.run([*semipix, *command], env=environment, stdout=output, stderr=output, check=True)
    measured = json.loads((folder / "evaluation-test.json").read_text())
    trained = json.loads((folder / "summary.json").read_text())
    print(f"{folder}: test mIoU {100 * measured['miou']:.1f}", flush=True)
    return {"test": measured, "trained": trained, "overrides": overrides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", default=["8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME:KEY=VALUE,...", help="further variants")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    variants = {name: VARIANTS[name] for name in options.variants}
    for extra in options.extra:
        name, _, items = extra.partition(":")
        variants[name] = items.split(",")

    jobs = {}
    for name, variant in variants.items():
        for labels in ["all"] if name == "all_labels" else options.labels:
            for seed in options.seeds:
                folder = options.runs / options.setting / f"{labels}-{name}-{seed}"
                jobs[name, labels, seed] = folder, overrides_of(options.setting, variant, labels, seed, options.data)
    with ThreadPoolExecutor(options.parallel) as pool:
        futures = {key: pool.submit(run, *job) for key, job in jobs.items()}
    records = [
        {"setting": options.setting, "variant": name, "labels": labels, "seed": seed, **futures[name, labels, seed].result()}
        for name, labels, seed in jobs
    ]
    report(records)
    if options.out:
        device = {"machine": platform.machine(), "processor": "CPU", "threads_per_run": 1}
        packages = ("torch", "lightning", "timm", "segmentation-models-pytorch", "semipix")
        versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
        options.out.write_text(json.dumps({"device": device, "versions": versions, "records": records}, indent=1) + "\n")


def report(records: list[dict[str, Any]]) -> None:
    """Print the test mIoU of each variant: mean over seeds, then each seed."""
    cells = defaultdict(list)
    for record in records:
        cells[record["variant"], record["labels"]].append(100 * record["test"]["miou"])
    for (name, labels), values in cells.items():
        print(f"{name:28} {labels:>5}  {statistics.mean(values):5.1f}  ({', '.join(f'{v:.1f}' for v in values)})")


if __name__ == "__main__":
    main()
