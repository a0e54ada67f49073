"""What does it save to let the C library keep freed memory, as every `semipix` command does (`keep_freed_memory`)?

Steps of methods run in processes with it and without it, in turns, because the speed of a machine varies. Prints
medians of a step's seconds and the peak memory of a process.

    python -m benchmarks.speed.allocator --json benchmarks/results/allocator.json
"""

import argparse
import json
import statistics
import time

import torch

from benchmarks.common import Record, device, new_parser, output_of, run, write_records
from benchmarks.speed.memory import peak_bytes
from benchmarks.speed.step import CASES, FLOOR, Bench
from semipix.errors import SemipixError
from semipix.launch.variants import environment
from semipix.processes import MALLOC_VARIABLES, keep_freed_memory

NAMES = (FLOOR, "supervised", "gct_cues", "gct_strong", "unimatch")
"""What is measured: two supervised steps, and steps of methods."""

WARM_UP = 2
"""Steps that are not counted."""


def measured(given: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step of one kind in this process, and its peak of memory."""
    if given.process == "kept" and not keep_freed_memory():
        raise SemipixError(f"allocator: another C library found, or one of {', '.join(MALLOC_VARIABLES)} is set")
    bench = Bench(CASES[given.case], (given.size, given.size), (4, 4), "fp32", device())
    step = bench.step(given.name)
    seconds = []
    for _ in range(WARM_UP + given.steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[WARM_UP:]), "bytes": peak_bytes()}


def record_of(given: argparse.Namespace, name: str) -> Record:
    """Both kinds of processes in turns."""
    found: dict[str, list[dict[str, float]]] = {"kept": [], "returned": []}
    for _ in range(given.repeats):
        for kind, values in found.items():
            arguments = ["--process", kind, "--name", name, "--case", given.case]
            arguments += ["--size", str(given.size), "--steps", str(given.steps)]
            values.append(json.loads(output_of("benchmarks.speed.allocator", arguments).splitlines()[-1]))
    medians = {
        key: {kind: statistics.median(each[key] for each in values) for kind, values in found.items()}
        for key in ("seconds", "bytes")
    }
    return {"name": name, "case": given.case, "size": given.size, "repeats": given.repeats, **medians}


def main() -> None:
    parser = new_parser("speed.allocator", __doc__)
    parser.add_argument("--case", choices=CASES, default="unet")
    parser.add_argument("--size", type=int, default=96, help="side of the images")
    parser.add_argument("--steps", type=int, default=5, help="steps of each process that are counted")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind")
    parser.add_argument("--process", choices=("kept", "returned"), help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process:
        print(json.dumps(measured(given)))
        return
    records = []
    for name in NAMES:
        records.append(record_of(given, name))
        seconds, peak = records[-1]["seconds"], records[-1]["bytes"]
        saved = 1 - seconds["kept"] / seconds["returned"]
        grown = peak["kept"] / peak["returned"] - 1
        print(f"{name}: {seconds['kept']:.3f} s, {saved:.1%} less; peak {peak['kept'] / 2**30:.2f} GiB, {grown:+.1%}")
    write_records(given.json, records, environment(threads=torch.get_num_threads()))


if __name__ == "__main__":
    run(main)
