"""How does the cost of a GCT step grow with pixels, batch and unlabeled images?

Three curves of benchmarks/step.py's case `unet` on the CPU or GPU, each with the slope of seconds over size on
logarithmic axes: 1 is linear growth. Points take turns, so that a machine that slows down does so for all of them.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from step import CASES, GCT, Bench, take_turns  # the script beside this one

from semipix.report.comparison import environment

SIDES = (64, 96, 128, 192, 256, 384, 512)
BATCHES = (2, 4, 8, 16)
UNLABELED = (2, 4, 8, 16)

Point = tuple[int, Bench]


def curves(precision: str, device: torch.device) -> dict[str, list[Point]]:
    """For each curve its points: what grows, and the bench that is to be measured."""

    def bench(side: int, labeled: int, unlabeled: int) -> Bench:
        return Bench(CASES["unet"], (side, side), (labeled, unlabeled), precision, device)

    return {
        "pixels": [(side * side, bench(side, 1, 1)) for side in SIDES],
        "batch": [(count, bench(96, count // 2, count // 2)) for count in BATCHES],
        "unlabeled_images": [(2 + count, bench(96, 2, count)) for count in UNLABELED],
    }


def measure(points: list[Point], repeats: int) -> list[dict[str, float]]:
    """Median seconds of a step at each point."""
    steps = {str(size): bench.step(GCT) for size, bench in points}
    seconds, _ = take_turns(steps, repeats, points[0][1].device)
    return [{"size": size, "seconds": seconds[str(size)]} for size, _ in points]


def slope(points: list[dict[str, float]]) -> float:
    """Slope of the straight line through the points on logarithmic axes (least squares)."""
    x, y = ([math.log(point[key]) for point in points] for key in ("size", "seconds"))
    return statistics.linear_regression(x, y).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    records: list[dict[str, Any]] = []
    for name, points in curves(options.precision, device).items():
        measured = measure(points, options.repeats)
        upper = slope(measured[len(measured) // 2 :])
        records.append({"curve": name, "slope": slope(measured), "upper_half_slope": upper, "points": measured})
        shown = ", ".join(f"{point['size']}: {point['seconds']:.3f} s" for point in measured)
        print(f"{name}: slope {slope(measured):.2f}, of the larger half {upper:.2f} ({shown})", flush=True)
    if options.json:
        told = {**environment(threads=torch.get_num_threads()), "precision": options.precision}
        options.json.write_text(json.dumps({**told, "records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
