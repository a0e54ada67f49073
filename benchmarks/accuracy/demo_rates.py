"""Which learning rate is best for each run of `semipix demo`?

Prints the mIoU of every run at every rate on the validation images. The demo's table is measured on test images.

    python -m benchmarks.accuracy.demo_rates --json benchmarks/results/demo_rates.json
"""

from pathlib import Path

from benchmarks.common import new_parser, run, write_records
from semipix.launch.variants import environment, run_variants
from semipix.report.demo import COMMON, VARIANTS


def main() -> None:
    parser = new_parser("accuracy.demo_rates", __doc__)
    parser.add_argument("--rates", nargs="+", default=["1e-3", "3e-3"])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_rates"), help="gets a run folder for each")
    given = parser.parse_args()
    jobs = {}
    for name, (_, overrides) in VARIANTS.items():
        rest = [item for item in overrides if not item.startswith("optimizer.lr=")]
        for rate in given.rates:
            run_name = f"{name}-{rate}"
            jobs[run_name] = given.runs / run_name, [*COMMON, *rest, f"optimizer.lr={rate}"]
    found = run_variants(jobs)
    for run_name, result in found.items():
        print(f"{run_name:24} validation mIoU {100 * result['trained']['val/miou']:5.1f}")
    write_records(given.json, [{"run": run_name, **result} for run_name, result in found.items()], environment())


if __name__ == "__main__":
    run(main)
