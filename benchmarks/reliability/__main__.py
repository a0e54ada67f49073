"""Run all sections, one section or one case; write the figures to benchmarks/results/reliability.json.

python -m benchmarks.reliability
python -m benchmarks.reliability --only images
python -m benchmarks.reliability --only images --seed 0 --case 17
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.reliability import sections
from benchmarks.reliability.outcomes import BAD, GOOD, Result, Section

RESULTS = Path(__file__).resolve().parents[1] / "results/reliability.json"
PROGRESS = 5.0
"""Seconds between two lines of progress."""


def measure(section: Section, seed: int, numbers: list[int] | None) -> dict[str, Any]:
    """Run a section and count its outcomes."""
    began = shown = time.monotonic()
    cases = section.cases(seed, numbers)
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="semipix-reliability-") as folder:
        for done, result in enumerate(section.run(cases, Path(folder).resolve()), 1):
            counts[result.outcome.kind] += 1
            if result.outcome.kind in BAD:
                failed.append(result)
                print(f"  FAILED {described(result)}", flush=True)
            elif numbers is not None:
                print(f"  {described(result)}", flush=True)
            if time.monotonic() - shown > PROGRESS:
                shown = time.monotonic()
                print(f"  {section.name}: {done} of {len(cases)}, {len(failed)} failed", flush=True)
    if counts.total() != len(cases):
        raise RuntimeError(f"{section.name}: {counts.total()} results of {len(cases)} cases")
    figures = {kind: counts[kind] for kind in (*GOOD, *BAD)}
    print(
        f"{section.name}: {len(cases)} tried, "
        + ", ".join(f"{count} {kind}" for kind, count in figures.items() if count)
    )
    return {
        "tried": len(cases),
        **figures,
        "seconds": round(time.monotonic() - began, 1),
        "failed": [
            {
                "seed": seed,
                "case": each.case.number,
                "name": each.name,
                "outcome": each.outcome.kind,
                "message": each.outcome.message[:300],
            }
            for each in failed
        ],
    }


def described(result: Result) -> str:
    case = result.case
    return (
        f"{case.section} --seed {case.seed} --case {case.number} ({result.name}): "
        f"{result.outcome.kind}: {result.outcome.message[:200]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=sorted(sections.ALL), metavar="SECTION", help="may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, action="append", metavar="N", help="one case of --only; may be repeated")
    parser.add_argument("--json", type=Path, help=f"default: {RESULTS.name} after a run of whole sections")
    options = parser.parse_args()
    if options.case and len(options.only or ()) != 1:
        parser.error("--case needs one --only SECTION")
    from semipix.launch.variants import environment

    names = options.only or list(sections.ALL)
    found = {name: measure(sections.ALL[name], options.seed, options.case) for name in names}
    place = options.json or (None if options.case else RESULTS)
    if place is not None:
        before = json.loads(place.read_text())["sections"] if place.exists() else {}
        kept = {name: {**before, **found}[name] for name in sections.ALL if name in before or name in found}
        place.write_text(json.dumps({**environment(), "seed": options.seed, "sections": kept}, indent=2) + "\n")
    return 1 if any(each["failed"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
