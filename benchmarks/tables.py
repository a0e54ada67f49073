"""Write the measured figures of benchmarks/results into the pages of docs/methods, between their markers.

python benchmarks/tables.py            write
python benchmarks/tables.py --check    say whether the pages hold what was measured
"""

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from compare import ABLATIONS  # the script beside this one

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "methods"
BASELINE = "supervised"


def results() -> str:
    """Test mIoU of every variant on each data set and number of labels: mean, each seed, gain over supervised."""
    parts = []
    for setting in ("portrait", "camvid_long", "camvid"):
        records = _read(setting)["records"]
        cells: dict[tuple[str, str], list[float]] = defaultdict(list)
        for record in sorted(records, key=lambda record: int(record["seed"])):
            cells[record["variant"], str(record["labels"])].append(100 * record["test"]["miou"])
        labels = sorted({column for _, column in cells if column != "all"}, key=int)
        ceiling = cells.get(("all_labels", "all"))
        told = f"\nTrained with all labels: {_cell(ceiling)}." if ceiling else ""
        parts.append(
            f"### {setting}\n\nTest mIoU in percent: the mean over seeds, then each seed, then the gain over the "
            f"equally long supervised run.{told}\n"
        )
        parts.append("| run | " + " | ".join(f"{count} labels" for count in labels) + " |")
        parts.append("| --- |" + " --- |" * len(labels))
        for variant in sorted(
            {name for name, _ in cells} - {"all_labels"}, key=lambda name: _rank(name, labels, cells)
        ):
            row = [
                _cell(cells[variant, count], cells.get((BASELINE, count))) if (variant, count) in cells else "-"
                for count in labels
            ]
            parts.append(f"| {variant} | " + " | ".join(row) + " |")
        parts.append("")
    return "\n".join(parts).strip()


def ablations() -> str:
    """Test mIoU of every run of the paper's ablations, in the order of `compare.ABLATIONS`."""
    records = _read("camvid_ablation")["records"] if (RESULTS / "camvid_ablation.json").exists() else []
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[record["variant"]].append(100 * record["test"]["miou"])
    parts = []
    for title, runs in ABLATIONS.items():
        measured = {name.removeprefix(f"{title}_"): found[name] for name in runs if name in found}
        if measured:
            parts += [f"| {title} | " + " | ".join(measured) + " |", "| --- |" + " --- |" * len(measured)]
            parts += ["| test mIoU | " + " | ".join(_cell(values) for values in measured.values()) + " |", ""]
    return "\n".join(parts).strip() or "not measured"


def _rank(variant: str, labels: list[str], cells: dict[tuple[str, str], list[float]]) -> float:
    """Best at the fewest labels first."""
    values = next((cells[variant, count] for count in labels if (variant, count) in cells), [0.0])
    return -statistics.mean(values)


def _cell(values: list[float], baseline: list[float] | None = None) -> str:
    shown = f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"
    return shown if baseline is None else f"{shown} {statistics.mean(values) - statistics.mean(baseline):+.1f}"


def costs() -> dict[str, str]:
    """Cost of a step of each method, in supervised steps on as many images."""
    (record,) = _read("step")["records"]
    seconds = record["seconds"]
    setting = f"{record['size']}x{record['size']} pixels, {record['precision']}, UNet, CPU"
    return {
        name: f"{value / seconds[BASELINE]:.2f} supervised steps on as many images ({setting})"
        for name, value in seconds.items()
    }


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def filled(text: str, marker: str, content: str) -> str:
    """The text with what lies between `<!-- marker -->` and `<!-- /marker -->` replaced."""
    pattern = re.compile(f"(<!-- {marker} -->\n).*?(\n<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"no marker {marker} found")
    return pattern.sub(lambda match: match[1] + content + match[2], text)


def pages() -> dict[Path, str]:
    """Every page with the present figures."""
    measured = costs()
    table = [
        "| method | one step costs |",
        "| --- | --- |",
        *(f"| {name} | {cost} |" for name, cost in measured.items()),
    ]
    index = PAGES / "README.md"
    contents = {"results": results(), "ablations": ablations(), "costs": "\n".join(table)}
    text = index.read_text()
    for marker, content in contents.items():
        text = filled(text, marker, content)
    found = {index: text}
    for name, cost in measured.items():
        page = PAGES / f"{name}.md"
        found[page] = filled(page.read_text(), "cost", cost)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = [path for path, text in pages().items() if path.read_text() != text]
    if options.check:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"{names}: not what benchmarks/results says; run python benchmarks/tables.py" if stale else 0)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
