"""How long does `semipix --help` take, and `semipix train` to the end of its first step on the built-in data?

Prints medians of seconds by the clock and of processor time, and the fastest by the clock. Processor time depends less
on other processes of the machine; on an idle machine both are about equal.

    python -m benchmarks.speed.startup --json benchmarks/results/startup.json
"""

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, new_parser, output_of, run, write_records
from semipix.launch.variants import environment

COMMANDS = {
    "help": ["--help"],
    "train_to_first_step": [
        *("train", "data=scenes", "steps=1", "validations=0"),
        "trainer.callbacks=[{_target_: benchmarks.speed.startup.FirstStep}]",
    ],
}


def FirstStep() -> Any:  # noqa: N802 - named like the class that a callback usually is; no import of Lightning here
    """A callback that says when the first step has ended, and how much processor time it took until then."""
    from lightning.pytorch.callbacks import LambdaCallback

    def say(*args: Any) -> None:
        print("first step", time.time(), sum(os.times()[:2]), flush=True)

    return LambdaCallback(on_train_batch_end=say)


def measure(name: str, folder: str) -> tuple[float, float]:
    """Seconds of one command on the clock and of the processor."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # where FirstStep is found
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    printed = output_of("semipix.cli", COMMANDS[name], Path(folder), {"PYTHONPATH": path})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = next((line.split() for line in printed.splitlines() if line.startswith("first step")), None)
    if first:
        return float(first[2]) - began, float(first[3])
    return time.time() - began, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def medians(found: Sequence[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "fastest_wall_s": round(min(found)[0], 2)}


def main() -> None:
    parser = new_parser("speed.startup", __doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    records = []
    for name in COMMANDS:
        found = []
        for _ in range(given.repeats):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(name, folder))
        records.append({"command": name, "repeats": given.repeats, **medians(found)})
        print("  ".join(f"{key} {value}" for key, value in records[-1].items()), flush=True)
    write_records(given.json, records, {**environment(), "load_average": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    run(main)
