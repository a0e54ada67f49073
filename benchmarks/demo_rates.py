"""Which learning rate suits each run of `semipix demo`?

Chosen on validation images, which the demo's table does not use.

    python benchmarks/demo_rates.py --out benchmarks/results/demo_rates.json
"""

import argparse
import json
from pathlib import Path

from semipix.report.comparison import environment, run_variants
from semipix.report.demo import COMMON, VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", default=["1e-3", "3e-3"])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_rates"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jobs = {}
    for name, (_, overrides) in VARIANTS.items():
        rest = [item for item in overrides if not item.startswith("optimizer.lr=")]
        for rate in options.rates:
            run = f"{name}-{rate}"
            jobs[run] = options.runs / run, [*COMMON, *rest, f"optimizer.lr={rate}"]
    found = run_variants(jobs)
    for run, result in found.items():
        print(f"{run:24} validation mIoU {100 * result['trained']['val/miou']:5.1f}")
    if options.out:
        records = [{"run": run, **result} for run, result in found.items()]
        options.out.write_text(json.dumps({**environment(), "records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
