"""How does the cost of a GCT step grow with pixels, batch and unlabeled images?

Measures three curves of `benchmarks.speed.step`'s case `unet` on the CPU or GPU. Prints the seconds at each point and
the slope of seconds over size on logarithmic axes: 1 is linear growth. Points take turns, so that a machine that
becomes slower affects all of them.

    python -m benchmarks.speed.scaling --json benchmarks/results/scaling.json
"""

import math
import statistics

import torch

from benchmarks.common import Record, device, device_name, new_parser, run, write_records
from benchmarks.speed.step import CASES, GCT, Bench, take_turns
from semipix.launch.variants import environment

SIDES = (64, 96, 128, 192, 256, 384, 512)
BATCHES = (2, 4, 8, 16)
UNLABELED = (2, 4, 8, 16)

Point = tuple[int, Bench]


def curves(precision: str) -> dict[str, list[Point]]:
    """For each curve its points: what grows, and the bench that is to be measured."""

    def bench(side: int, labeled: int, unlabeled: int) -> Bench:
        return Bench(CASES["unet"], (side, side), (labeled, unlabeled), precision, device())

    return {
        "pixels": [(side * side, bench(side, 1, 1)) for side in SIDES],
        "batch": [(count, bench(96, count // 2, count // 2)) for count in BATCHES],
        "unlabeled_images": [(2 + count, bench(96, 2, count)) for count in UNLABELED],
    }


def measure(points: list[Point], repeats: int) -> list[dict[str, float]]:
    """Median seconds of a step at each point."""
    steps = {str(size): bench.step(GCT) for size, bench in points}
    seconds, _ = take_turns(steps, repeats)
    return [{"size": size, "seconds": seconds[str(size)]} for size, _ in points]


def slope(points: list[dict[str, float]]) -> float:
    """Slope of the straight line through the points on logarithmic axes (least squares)."""
    x, y = ([math.log(point[key]) for point in points] for key in ("size", "seconds"))
    return statistics.linear_regression(x, y).slope


def main() -> None:
    parser = new_parser("speed.scaling", __doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    records: list[Record] = []
    for name, points in curves(given.precision).items():
        measured = measure(points, given.repeats)
        upper = slope(measured[len(measured) // 2 :])
        records.append({"curve": name, "slope": slope(measured), "upper_half_slope": upper, "points": measured})
        shown = ", ".join(f"{point['size']}: {point['seconds']:.3f} s" for point in measured)
        print(f"{name}: slope {slope(measured):.2f}, of the larger half {upper:.2f} ({shown})", flush=True)
    about = {**environment(device_name(), torch.get_num_threads()), "precision": given.precision}
    write_records(given.json, records, about)


if __name__ == "__main__":
    run(main)
