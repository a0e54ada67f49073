"""Write the figures of benchmarks/results as tables into the pages of docs, between `<!-- NAME -->` markers.

python -m benchmarks.tables            write the tables; prints nothing
python -m benchmarks.tables --check    write nothing; name the pages that differ from the results and exit with status 1
"""

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import error_tables
from benchmarks.accuracy.bf16 import pairs, part_of
from benchmarks.accuracy.compare import ABLATIONS, REGRESSION, SETTINGS, TRAINED, figure, measure_of
from benchmarks.common import RESULTS, ROOT, Record, half_interval, interval, records_in
from benchmarks.speed.export_models import shown

PAGES = ROOT / "docs" / "methods"
BASELINE = "supervised"
SEGMENTATION = ("portrait", "camvid_long", "camvid")

MEASURES = {"miou": ("mIoU in percent", 1), "psnr": ("PSNR in dB", 2)}
"""What a metric is called in a table, and the digits after its point."""


def results(*settings: str) -> str:
    """Test metric of every variant on each data set and number of labels: mean, each seed, gain over supervised."""
    parts = []
    for setting in settings:
        if not (RESULTS / f"{setting}.json").exists():
            continue
        records = _read(setting)
        measure, digits = MEASURES[measure_of(setting).metric]
        cells: dict[tuple[str, str], list[float]] = defaultdict(list)
        for record in sorted(records, key=lambda record: int(record["seed"])):
            cells[record["variant"], str(record["labels"])].append(figure(record))
        labels = sorted({column for _, column in cells if column != "all"}, key=int)
        ceiling = cells.get(("all_labels", "all"))
        notes = f"\nTrained with all labels: {_cell(ceiling, digits)}." if ceiling else ""
        fresh = {
            (record["variant"], str(record["labels"]))
            for record in records
            if record.get("input_statistics") == TRAINED
        }
        notes += "\n`*`: evaluated on the statistics that training took, the others on earlier ones." if fresh else ""
        parts.append(
            f"### {setting}\n\nTest {measure}: the mean over seeds, then each seed, then the gain over the "
            f"equally long supervised run.{notes}\n"
        )
        parts.append("| run | " + " | ".join(f"{count} labels" for count in labels) + " |")
        parts.append("| --- |" + " --- |" * len(labels))
        for variant in sorted(
            {name for name, _ in cells} - {"all_labels"}, key=lambda name: _rank(name, labels, cells)
        ):
            row = [
                _cell(cells[variant, count], digits, cells.get((BASELINE, count))) if (variant, count) in cells else "-"
                for count in labels
            ]
            row = [
                f"{cell} `*`" if (variant, count) in fresh else cell for cell, count in zip(row, labels, strict=True)
            ]
            parts.append(f"| {variant} | " + " | ".join(row) + " |")
        parts.append("")
    return "\n".join(parts).strip() or "not measured"


HEADROOM = {"miou": 2.0, "psnr": 0.5}
"""What all labels must add with every seed if a setting is to show gains: points of mIoU, and dB."""


def headroom() -> str:
    """What all labels add to few labels in as many steps: whether a setting can show what unlabeled images add."""
    parts = [
        "| setting | steps | labels | test metric | with all labels | difference | can show a gain |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    found: dict[tuple[str, int], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    ceilings: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for record in (record for name in (*SETTINGS, "headroom") for record in _read(name)):
        key, seed = (record["setting"], record["trained"]["steps"]), record["seed"]
        if record["variant"] == "all_labels":
            ceilings[key][seed] = figure(record)
        elif record["variant"] == BASELINE:
            found[key][int(record["labels"])][seed] = figure(record)
    for (setting, steps), by_labels in sorted(found.items()):
        metric = measure_of(setting).metric
        measure, digits = MEASURES[metric]
        for labels, few in sorted(by_labels.items()):
            every = ceilings[setting, steps]
            if seeds := sorted(few.keys() & every.keys()):
                cells = [_cell([values[seed] for seed in seeds], digits) for values in (few, every)]
                added = [every[seed] - few[seed] for seed in seeds]
                row = [f"`{setting}`", f"{steps}", f"{labels}", f"{measure.split()[0]} {cells[0]}", cells[1]]
                row += [interval(added, digits), _verdict(added, HEADROOM[metric])]
                parts.append(f"| {' | '.join(row)} |")
    return "\n".join(parts)


def _verdict(added: list[float], least: float) -> str:
    """Whether every seed gains enough; one seed is too few to say yes."""
    if min(added) < least:
        return "no"
    return "yes" if len(added) > 1 else "with one seed"


def ablations() -> str:
    """Test mIoU of every run of the paper's ablations, in the order of `compare.ABLATIONS`."""
    records = _read("camvid_ablation")
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[record["variant"]].append(figure(record))
    parts = []
    for title, runs in ABLATIONS.items():
        measured = {value: found[f"{title}_{value}"] for value in runs if f"{title}_{value}" in found}
        if measured:
            parts += [f"| {title} | " + " | ".join(measured) + " |", "| --- |" + " --- |" * len(measured)]
            parts += ["| test mIoU | " + " | ".join(_cell(values, 1) for values in measured.values()) + " |", ""]
    return "\n".join(parts).strip() or "not measured"


def _rank(variant: str, labels: list[str], cells: dict[tuple[str, str], list[float]]) -> float:
    """Best at the fewest labels first."""
    values = next((cells[variant, count] for count in labels if (variant, count) in cells), [0.0])
    return -statistics.mean(values)


def _cell(values: list[float], digits: int, baseline: list[float] | None = None) -> str:
    shown = f"{statistics.mean(values):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"
    if baseline is None:
        return shown
    return f"{shown} {statistics.mean(values) - statistics.mean(baseline):+.{digits}f}"


def costs() -> dict[str, str]:
    """Cost of a step of each method, in supervised steps on as many images."""
    records = _read("step")
    record = next(record for record in records if "s4l" in record["seconds"] and record["case"] == "unet")
    seconds = dict(record["seconds"])
    seconds["gct"] = seconds.get("gct_cues", seconds["gct"])  # the default; other forms are in the table of steps
    height, width = record["size"]
    setting = f"{height}x{width} pixels, {record['precision']}, UNet, {record['device'].split()[0]}"
    return {
        name: f"{seconds[name] / seconds[BASELINE]:.2f} supervised steps on as many images ({setting})"
        for name in seconds
        if (PAGES / f"{name}.md").exists()
    }


FORMS = {
    "gct": "GCT, as in the paper",
    "gct_cues": "`detector=cues` (the default)",
    "gct_features": "`detector=features`",
    "gct_half_scale": "`detector_scale=0.5`",
    "gct_low_memory": "`memory=low`",
    "gct_contiguous": "`channels_last=false`",
    "gct_compiled": "`compile=true`",
    "literal": "as released",
    "literal_channels_last": "as released, channels last",
}
"""Columns of the table of steps, by what a record calls them."""


def steps() -> str:
    """Cost of a step of GCT in its forms, in two supervised steps, and its peak memory."""
    records = _read("step")
    parts = [
        "Multiples of two supervised steps on the same images, then peak memory in GiB where it was measured.",
        "",
        "| case | two supervised steps | " + " | ".join(FORMS.values()) + " |",
        "| --- | --- |" + " --- |" * len(FORMS),
    ]
    for record in records:
        floor = record["seconds"]["floor"]
        row = [_case(record), f"{floor:.2f} s{_memory(record, 'floor')}"]
        for name in FORMS:
            known = name in record["seconds"]
            row.append(f"{record['seconds'][name] / floor:.2f}{_memory(record, name)}" if known else "-")
        parts.append("| " + " | ".join(row) + " |")
    return "\n".join(parts)


COUNTED = {
    "floor": "two supervised steps",
    "gct": "GCT, as in the paper",
    "gct_cues": "`detector=cues`",
    "literal": "as released",
}
"""Columns of the table of operations."""


def operations() -> str:
    """Operations of a step in two supervised steps, and how near to the device's matrix products they are computed."""
    parts = [
        "| case | matrix product | " + " | ".join(COUNTED.values()) + " |",
        "| --- | --- |" + " --- |" * len(COUNTED),
    ]
    for record in _read("step"):
        flops = record.get("flops", {})
        if not flops:
            continue
        row = [_case(record), f"{record['matrix_flops_per_second'] / 1e9:.0f} G/s"]
        for name in COUNTED:
            if name in flops:
                row.append(f"{flops[name] / flops['floor']:.2f}, {100 * record['matrix_share'][name]:.0f} %")
            else:
                row.append("-")
        parts.append("| " + " | ".join(row) + " |")
    return "\n".join(parts)


def _case(record: Record) -> str:
    """What was measured, of a record of a step."""
    labeled, unlabeled = record["images"]
    height, width = record["size"]
    case = f"{record['case']} {height}x{width}, {labeled} + {unlabeled} images, {record['precision']}"
    beside = ", all methods in memory" if "supervised" in record["seconds"] else ""
    return f"{case}, {record['device']}, {record['threads']} threads{beside}"


PARTS = {
    "all": "all",
    "none": "`supervised`, all in float32, summed in another order",
}
"""Runs that are compared with float32, by what computes in bfloat16."""


def bf16() -> str:
    """Test mIoU of trainings in bfloat16 beside those in float32; of the differences mean and standard deviation."""
    parts = [
        "| data, labels | method | seed | bfloat16 | float32 | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for setting, labels in (("camvid_long", "4"), ("portrait", "8")):
        records = (*_earlier(setting), *_read("bf16"))
        chosen = [record for record in records if (record["setting"], record["labels"]) == (setting, labels)]
        differences: dict[str, list[float]] = defaultdict(list)
        supervised = []
        for half, full in pairs(chosen):
            difference = figure(half) - figure(full)
            differences[str(part_of(half))].append(difference)
            if part_of(half) == "all":
                supervised += [figure(full)] if full["variant"] == "supervised" else []
                row = f"| `{half['variant']}` | {half['seed']} | {figure(half):.1f} | {figure(full):.1f} "
                parts.append(f"| `{setting}`, {labels} {row}| {difference:+.1f} |")
        spread = f"supervised: {statistics.stdev(supervised):.1f} between seeds"
        for part, found in differences.items():
            summary = f"{statistics.mean(found):+.2f}, standard deviation {statistics.stdev(found):.2f}"
            row = f"| {PARTS[part]} | {len(found)} runs | | {spread if part == 'all' else ''} | {summary} |"
            parts.append(f"| `{setting}`, {labels} {row}")
    return "\n".join(parts)


def inference() -> str:
    """What shares of the bare model's throughput `predict` and `evaluate` reach."""
    parts = [
        "| images, computing threads | `predict`, by the clock | `predict`, CPU time | `evaluate`, by the clock |",
        "| --- | --- | --- | --- |",
    ]
    for record in _read("inference"):
        shares = [f"{100 * record[name]:.0f} %" for name in ("predict_share", "predict_share_cpu", "evaluate_share")]
        parts.append(f"| `{record['case']}`, {record['threads']} | " + " | ".join(shares) + " |")
    return "\n".join(parts)


def reliability() -> str:
    """What came of the cases of benchmarks/reliability; nothing before its first full run."""
    path = RESULTS / "reliability.json"
    if not path.exists():
        return ""
    sections: dict[str, dict[str, Any]] = json.loads(path.read_text())["sections"]
    names = [name for name in next(iter(sections.values())) if name not in ("tried", "seconds", "failed")]
    parts = ["| section | tried | " + " | ".join(names) + " |", "| --- |" + " --- |" * (len(names) + 1)]
    for name, figures in sections.items():
        parts.append(f"| {name} | {figures['tried']} | " + " | ".join(str(figures[each]) for each in names) + " |")
    return "\n".join(parts)


def large_images() -> str:
    """Peak memory and processor time of predicting one image, before images were cut into slabs and since."""
    parts = [
        "| method, classes, megapixels | before: GiB | now: GiB | before: CPU time | now: CPU time |",
        "| --- | --- | --- | --- | --- |",
    ]
    path = RESULTS / "large_images.json"
    if not path.exists():
        return ""
    cases: dict[tuple[str, int, int], dict[str, Any]] = defaultdict(dict)
    for record in json.loads(path.read_text())["records"]:
        cases[record["method"], record["classes"], record["megapixels"]][record["tree"]] = record
    for (method, classes, megapixels), found in sorted(cases.items(), reverse=True):
        memory = [f"{found[tree]['peak_mib'] / 1024:.1f}" if tree in found else "-" for tree in ("before", "this")]
        times = [f"{found[tree]['cpu_seconds']:.0f} s" if tree in found else "-" for tree in ("before", "this")]
        parts.append(f"| `{method}`, {classes}, {megapixels} | " + " | ".join([*memory, *times]) + " |")
    return "\n".join(parts)


def half_scale() -> str:
    """What GCT loses where its detector looks at half size: test mIoU, and how well the detector ranks pixels."""
    parts = [
        "| data, labels, seed | detector at | mIoU | AUROC of both flaw maps | precision |",
        "| --- | --- | --- | --- | --- |",
    ]
    for setting, labels in (("portrait", "8"), ("camvid_long", "4")):
        found = {
            (record["seed"], record["variant"]): record
            for record in _earlier(setting)
            if str(record["labels"]) == labels and record["variant"] in ("gct", "gct_half_scale")
        }
        for (seed, variant), record in sorted(found.items()):
            size = "half size" if variant == "gct_half_scale" else "full size"
            ranks = [record["trained"][f"val/diagnostics/flaw_auroc_{name}"] for name in ("first", "second")]
            parts.append(
                f"| `{setting}`, {labels}, {seed} | {size} | {100 * record['test']['miou']:.1f} | "
                f"{ranks[0]:.2f}, {ranks[1]:.2f} | {record['precision']} |"
            )
    return "\n".join(parts)


def _memory(record: Record, name: str) -> str:
    return f", {record['bytes'][name] / 2**30:.2f}" if name in record["bytes"] else ""


def _earlier(setting: str) -> list[Record]:
    """Records that are compared with others from before the statistics of evaluation were those of training."""
    records = [*_read(setting), *_read("earlier_statistics")]
    return [record for record in records if record["setting"] == setting and "input_statistics" not in record]


PICKS = {"label grid": "labels", "class shares": "classes", "all features": "features"}
"""Measures of `benchmarks.accuracy.pick coverage` that are shown, and their titles."""


def picks() -> str:
    """How well each strategy's images represent all images, against random ones, and what was trained with them."""
    records = _read("pick")
    cells: dict[tuple[str, int, str], list[dict[str, float]]] = defaultdict(list)
    trained: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for record in records:
        if record["kind"] == "coverage":
            cells[record["setting"], record["labels"], record["strategy"]].append(record["measured"])
        else:
            key = record["setting"], record["variant"], record["labels"], record["strategy"]
            trained[key].append(figure(record))
    columns = sorted({(setting, labels) for setting, labels, _ in cells})
    titles = [f"{setting}, {labels} images: {', '.join(PICKS.values())}" for setting, labels in columns]
    parts = ["| strategy | " + " | ".join(titles) + " |", "| --- |" + " --- |" * len(columns)] if columns else []
    for strategy in dict.fromkeys(strategy for _, _, strategy in cells):
        found = [cells[*column, strategy] for column in columns]
        shown = (", ".join(f"{statistics.mean(each[name] for each in cell):.2f}" for name in PICKS) for cell in found)
        parts.append(f"| `{strategy}` | " + " | ".join(shown) + " |")
    if trained:
        parts += ["", "| setting | variant | labels | strategy | test metric, mean and each seed |"]
        parts.append("| --- | --- | --- | --- | --- |")
    for (setting, variant, labels, strategy), values in sorted(trained.items()):
        digits = MEASURES[measure_of(setting).metric][1]
        parts.append(f"| `{setting}` | `{variant}` | {labels} | `{strategy}` | {_cell(values, digits)} |")
    return "\n".join(parts) or "not measured"


def statistics_table() -> str:
    """What it cost to measure on other input statistics than those of training: the same weights, measured twice."""
    records = _read("input_statistics")
    parts = ["| run | trained statistics | 0.5 and 0.5 | difference |", "| --- | --- | --- | --- |"]
    differences = [record["trained"] - record["earlier"] for record in records]
    for record, difference in zip(records, differences, strict=True):
        parts.append(f"| `{record['run']}` | {record['trained']:.2f} | {record['earlier']:.2f} | {difference:+.2f} |")
    middle, half = statistics.mean(differences), half_interval(differences)
    parts.append(f"| mean, 95 % interval | | | {middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f}) |")
    return "\n".join(parts)


def exports() -> str:
    """Which untrained networks `semipix export` writes, with the largest difference from the source."""
    rows: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in _read("export"):
        rows[record["model"]][record["format"]] = record
    parts = ["| network | smallest side | torch-export | ONNX |", "| --- | --- | --- | --- |"]
    for name, found in rows.items():
        sides = [str(each["smallest"]) for each in found.values() if "smallest" in each]
        cells = [shown(found[format]) if format in found else "not tried" for format in ("torch-export", "onnx")]
        parts.append(f"| {' | '.join([name, *(sides[:1] or ['-']), *cells])} |")
    return "\n".join(parts)


def _read(name: str) -> list[Record]:
    return records_in(RESULTS / f"{name}.json")


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
    contents = {
        "results": results(*SEGMENTATION),
        "statistics": statistics_table(),
        "ablations": ablations(),
        "costs": "\n".join(table),
    }
    text = index.read_text()
    for marker, content in contents.items():
        text = filled(text, marker, content)
    tasks = ROOT / "docs" / "tasks.md"
    found = {index: text, tasks: filled(tasks.read_text(), "results", results(*REGRESSION))}
    speed = ROOT / "docs" / "speed.md"
    found[speed] = speed.read_text()
    for table_of in (steps, operations, bf16, half_scale):
        found[speed] = filled(found[speed], table_of.__name__, table_of())
    page = ROOT / "docs" / "results.md"
    found[page] = filled(page.read_text(), "headroom", headroom())
    page = ROOT / "docs" / "error-maps.md"
    found[page] = page.read_text()
    for table_of in (error_tables.error_maps, error_tables.maps_of_values, error_tables.gates):
        found[page] = filled(found[page], table_of.__name__, table_of())
    page = ROOT / "docs" / "picking.md"
    found[page] = filled(page.read_text(), "picks", picks())
    page = ROOT / "docs" / "inference.md"
    found[page] = filled(page.read_text(), "inference", inference())
    found[page] = filled(found[page], "large_images", large_images())
    page = ROOT / "docs" / "export.md"
    found[page] = filled(page.read_text(), "exports", exports())
    page = ROOT / "docs" / "reliability.md"
    found[page] = filled(page.read_text(), "reliability", reliability())
    for name, cost in measured.items():
        page = PAGES / f"{name}.md"
        found[page] = filled(page.read_text(), "cost", cost)
    return found


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = [path for path, text in pages().items() if path.read_text() != text]
    if options.check:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"{names}: not what benchmarks/results says; run python -m benchmarks.tables" if stale else 0)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
