"""How long does `semipix --help` take, and `semipix train` to the end of its first step on the built-in data?

Seconds on the clock, and of processor time, which others on the machine spoil less; medians. A run that nothing slows
down takes about its processor time.

    python benchmarks/startup.py --json benchmarks/results/startup.json
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semipix.report.comparison import environment

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "help": ["--help"],
    "train_to_first_step": [
        *("train", "data=scenes", "steps=1", "validations=0"),
        "trainer.callbacks=[{_target_: benchmarks.startup.FirstStep}]",
    ],
}


def FirstStep() -> Any:  # noqa: N802 - stands where a callback's class would, so that help imports no Lightning here
    """A callback that says when the first step has ended, and how much processor time it took until then."""
    from lightning.pytorch.callbacks import LambdaCallback

    def told(*args: Any) -> None:
        print("first step", time.time(), sum(os.times()[:2]), flush=True)

    return LambdaCallback(on_train_batch_end=told)


def measure(name: str, folder: str) -> tuple[float, float]:
    """Seconds of one command on the clock and of the processor."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    command = [sys.executable, "-m", "semipix.cli", *COMMANDS[name]]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = next((line.split() for line in ended.stdout.splitlines() if line.startswith("first step")), None)
    if first:
        return float(first[2]) - began, float(first[3])
    return time.time() - began, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def medians(found: Sequence[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "fastest_wall_s": round(min(found)[0], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    records = []
    for name in COMMANDS:
        found = []
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(name, folder))
        records.append({"command": name, "repeats": options.repeats, **medians(found)})
        print("  ".join(f"{key} {value}" for key, value in records[-1].items()), flush=True)
    if options.json:
        load = {"load_average": round(os.getloadavg()[0], 1)}
        options.json.write_text(json.dumps({**environment(), **load, "records": records}, indent=2))


if __name__ == "__main__":
    main()
