"""The tables of trained methods: what each reaches on test images, and what a change of the training changes.

Three seeds or more are shown by their mean and its interval of 95 %, fewer by the value of each (`over_seeds`).
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.accuracy.bf16 import pairs, part_of
from benchmarks.accuracy.compare import ABLATIONS, SETTINGS, TRAINED, figure, measure_of
from benchmarks.common import Record, half_interval, over_seeds, recorded, table_head, table_row, without_views

BASELINE = "supervised"

MEASURES = {"miou": ("mIoU in percent", 1), "psnr": ("PSNR in dB", 2)}
"""What a metric is called in a table, and the digits after its point."""

FURTHER = "error_maps"
"""Benchmark of the same settings with more seeds, whose runs complete those of the comparisons."""


class Column(NamedTuple):
    """A column of a table of methods.

    Attributes:
        setting: name in `experiment=compare/SETTING`.
        labels: how many labels.
        title: its heading.
    """

    setting: str
    labels: str
    title: str


Rows = Mapping[str, str]
"""Titles of the rows of a table of methods, by the names of the variants; several names are joined by `|`."""

Cells = Mapping[tuple[str, str], Mapping[int, Record]]
"""Records by variant and labels, then by seed."""

RESULTS_ROWS: Rows = {
    "gct_strong": "`gct_strong`, the paper's detector",
    "gct_strong_cues": "`gct_strong`, the default",
    "unimatch": "`unimatch`",
    "fixmatch": "`fixmatch`",
    "s4l": "`s4l`",
    "cutmix": "`cutmix`",
    "cps": "`cps`",
    "gct": "`gct`, the paper's",
    "gct_cues": "`gct`, `detector=cues`",
    BASELINE: "**supervised, as many steps**",
    "advssl": "`advssl`",
    "cct": "`cct`",
    "flaw_mean_teacher": "`flaw_mean_teacher`",
    "mean_teacher_short_memory": "`mean_teacher`, a memory of 20 steps",
    "mean_teacher": "`mean_teacher`, a memory of 100 steps",
    "supervised_short": "supervised, the paper's length",
    "all_labels": "all labels",
}

SHORT_ROWS: Rows = {
    name: RESULTS_ROWS[name] for name in ("gct_strong_cues", "gct_strong", "unimatch", "gct", BASELINE, "all_labels")
}
"""The rows of the README."""

WEAK_ROWS: Rows = {name: RESULTS_ROWS[name] for name in ("supervised_short", BASELINE, "mean_teacher", "gct")}

REGRESSION_ROWS: Rows = {
    BASELINE: "supervised",
    "gct_half_scale|gct_half_scale_3_of_4": "`gct`",
    "s4l": "`s4l`",
    "advssl": "`advssl`",
    "mean_teacher": "`mean_teacher`",
}

MADE_ROWS: Rows = {
    BASELINE: "supervised",
    "gct_strong_cues": "`gct_strong`, the default",
    "gct_strong": "`gct_strong`, the paper's detector",
    "same_colours": "`gct_strong`, views keep the order of colours and hide patches",
    "unimatch": "`unimatch`",
    "gct_cues_3_of_4": "`gct`, `detector=cues`",
    "gct_half_scale_3_of_4": "`gct`, the paper's detector",
    "mean_teacher": "`mean_teacher`",
    "all_labels": "all labels",
}

PORTRAITS = (Column("portrait", "8", "portraits, 8 labels"), Column("portrait", "32", "portraits, 32 labels"))
CAMVID = (
    Column("camvid_long", "4", "CamVid, 4 labels, 160 steps"),
    Column("camvid_1000", "4", "CamVid, 4 labels, 1,000 steps"),
    Column("camvid_1000", "8", "CamVid, 8 labels, 1,000 steps"),
)


def compared(setting: str) -> Cells:
    """The records of a setting's comparison, with further seeds of the same runs."""
    found: dict[tuple[str, str], dict[int, Record]] = defaultdict(dict)
    for record in (*recorded(setting), *recorded(FURTHER)):
        if record["setting"] == setting:
            found[record["variant"], str(record["labels"])].setdefault(int(record["seed"]), record)
    return found


def main_results() -> str:
    """Test mIoU of all methods of segmentation."""
    return methods_table(RESULTS_ROWS, (*PORTRAITS, *CAMVID))


def short_results() -> str:
    """The same of a few methods, for the README."""
    return methods_table(SHORT_ROWS, (*PORTRAITS, *CAMVID[1:]))


def weak_views() -> str:
    """What more labels change for methods without strong views."""
    return methods_table(WEAK_ROWS, [Column("portrait", count, f"{count} labels") for count in ("8", "16", "32")])


def other_tasks() -> str:
    """Test PSNR of the methods of regression."""
    columns = [
        Column("polyu", "2", "denoising: PolyU, 2 labeled scenes"),
        Column("lol", "8", "enhancement: LOL, 8 labeled scenes"),
        Column("matting", "5", "matting: alphamatting.com, 5 labeled images"),
    ]
    return methods_table(REGRESSION_ROWS, columns)


def made_tasks() -> str:
    """Test PSNR of the methods in settings of regression with headroom."""
    columns = (
        Column("noisy", "1", "denoising: `noisy`, 1 label"),
        Column("dark", "4", "enhancement: `dark`, 4 labels"),
        Column("mattes", "4", "matting: `mattes`, 4 labels"),
    )
    return methods_table(MADE_ROWS, columns).replace(" `*`", "")  # all these runs have the mark of input statistics


def methods_table(rows: Rows, columns: Sequence[Column]) -> str:
    """The test metric of some variants, in the order of `rows`, and in brackets the difference to the baseline.

    Rows without any run are left out.
    """
    measured = {column.setting: compared(column.setting) for column in columns}
    parts = table_head(["method", *(column.title for column in columns)])
    for names, title in rows.items():
        cells = []
        for setting, labels, _ in columns:
            digits = MEASURES[measure_of(setting).metric][1]
            counts = (labels, "all") if names == "all_labels" else (labels,)
            keys = [(name, count) for name in names.split("|") for count in counts]
            found = next((measured[setting][key] for key in keys if key in measured[setting]), {})
            baseline = {} if names == BASELINE else measured[setting].get((BASELINE, labels), {})
            cells.append(_shown(found, baseline, digits))
        if set(cells) != {"-"}:
            parts.append(table_row([title, *cells]))
    return "\n".join(parts)


def diagnosis() -> str:
    """What parts of `gct` do on portraits with 8 labels, and how well its flaw maps find errors."""
    titles = {
        "gct_paper_weights": "GCT, the paper's weights, 4 labeled of 8",
        "gct_no_exchange": "GCT, weights as above, both constraints off",
        "gct": "GCT, weights as above",
        "mean_teacher_6_of_8": "Mean Teacher, 6 labeled of 8",
        BASELINE: "supervised",
    }
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in recorded("portrait_diagnosis"):
        found[record["variant"]][int(record["seed"])] = record
    parts = ["| variant | test mIoU, seeds 0 and 1 | flaw AUROC, first and second model (seed 0 / 1) |"]
    parts.append("| --- | --- | --- |")
    for variant, title in titles.items():
        records = [record for _, record in sorted(found[variant].items())]
        maps = [[record["trained"].get(key) for key in _AUROC] for record in records]
        shown = " / ".join(f"{first:.2f} {second:.2f}" for first, second in maps) if None not in maps[0] else ""
        parts.append(table_row([title, over_seeds([figure(record) for record in records], 1), shown]))
    return "\n".join(parts)


_AUROC = ("val/diagnostics/flaw_auroc_first", "val/diagnostics/flaw_auroc_second")


def results(*settings: str) -> str:
    """Test metric of every variant on each data set and number of labels, and the difference to supervised."""
    parts = []
    for setting in settings:
        cells = compared(setting)
        if not cells:
            continue
        measure, digits = MEASURES[measure_of(setting).metric]
        labels = sorted({column for _, column in cells if column != "all"}, key=int)
        notes = ""
        if ceiling := cells.get(("all_labels", "all")):
            notes += f"\nTrained with all labels: {_cell(ceiling, digits)}."
        if any("*" in _mark(found) for found in cells.values()):
            notes += "\n`*`: evaluated on the statistics that training took, the others on earlier ones."
        if any(without_views(found.values()) for found in cells.values()):
            notes += "\n`†`: before a fault was repaired ([what it affects](../error-maps.md#measured))."
        parts.append(
            f"### {setting}\n\nTest {measure}; in brackets the difference to the equally long supervised run with the "
            f"same seed.{notes}\n"
        )
        parts += table_head(["run", *(f"{count} labels" for count in labels)])
        variants = {name for name, _ in cells} - {"all_labels"}
        for variant in sorted(variants, key=lambda name: (_rank(name, labels, cells), name)):
            row = []
            for count in labels:
                found = cells.get((variant, count), {})
                baseline = {} if variant == BASELINE else cells.get((BASELINE, count), {})
                row.append(_shown(found, baseline, digits))
            parts.append(table_row([variant, *row]))
        parts.append("")
    return "\n".join(parts).strip() or "not measured"


def _rank(variant: str, labels: list[str], cells: Cells) -> float:
    """Best at the fewest labels first, by the difference to the baseline with the same seeds."""
    count = next((count for count in labels if (variant, count) in cells), labels[0])
    gained = _gained(cells.get((variant, count), {}), cells.get((BASELINE, count), {}))
    return -statistics.mean(gained) if gained else 0.0


def _shown(found: Mapping[int, Record], baseline: Mapping[int, Record], digits: int) -> str:
    """A cell: the test metric, in brackets the difference to the baseline where there is one, and the mark."""
    if not found:
        return "-"
    gained = _gained(found, baseline)
    difference = f" ({over_seeds(gained, digits, signed=True)})" if gained else ""
    return f"{_cell(found, digits)}{difference}{_mark(found)}"


def _cell(found: Mapping[int, Record], digits: int) -> str:
    return over_seeds([figure(record) for _, record in sorted(found.items())], digits)


def _gained(found: Mapping[int, Record], baseline: Mapping[int, Record]) -> list[float]:
    """The differences to the baseline with the same seeds."""
    return [figure(found[seed]) - figure(baseline[seed]) for seed in sorted(found.keys() & baseline.keys())]


def _mark(found: Mapping[int, Record]) -> str:
    """A star at runs that were evaluated with the statistics of training, where others were not; and other marks."""
    new = [record.get("input_statistics") == TRAINED for record in found.values()]
    return (" `*`" if new and all(new) else "") + without_views(found.values())


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
    for record in (record for name in (*SETTINGS, "headroom", FURTHER) for record in recorded(name)):
        key, seed = (record["setting"], record["trained"]["steps"]), record["seed"]
        if record["variant"] == "all_labels":
            ceilings[key].setdefault(seed, figure(record))
        elif record["variant"] == BASELINE:
            found[key][int(record["labels"])].setdefault(seed, figure(record))
    for (setting, steps), by_labels in sorted(found.items()):
        metric = measure_of(setting).metric
        measure, digits = MEASURES[metric]
        for labels, few in sorted(by_labels.items()):
            every = ceilings[setting, steps]
            if seeds := sorted(few.keys() & every.keys()):
                cells = [over_seeds([values[seed] for seed in seeds], digits) for values in (few, every)]
                added = [every[seed] - few[seed] for seed in seeds]
                row = [f"`{setting}`", f"{steps}", f"{labels}", f"{measure.split()[0]} {cells[0]}", cells[1]]
                row += [over_seeds(added, digits, signed=True), _verdict(added, HEADROOM[metric])]
                parts.append(f"| {' | '.join(row)} |")
    return "\n".join(parts)


def _verdict(added: list[float], least: float) -> str:
    """Whether every seed gains enough; one seed is too few to say yes."""
    if min(added) < least:
        return "no"
    return "yes" if len(added) > 1 else "with one seed"


RARE = "rare_classes"
"""Benchmark of the trainings that are to keep rare classes."""

RARE_ROWS: Rows = {
    BASELINE: "supervised",
    "supervised_half_batch": "... 4 images a step",
    "rare_share": "... `data.rare_share=1/3`",
    "balanced": "... `task.class_weights=balanced`",
    "rare_share_balanced": "... both",
    "supervised_sqrt_balanced": "... `task.class_weights=sqrt_balanced`",
    "supervised_as_default": "... the defaults: `sqrt_balanced` and `data.rare_share=1/3`",
    "gct_strong_cues": "`gct_strong`",
    "strong_6_of_8": "... 6 labeled images of 8",
    "strong_rare_share": "... `data.rare_share=1/3`",
    "strong_balanced": "... `task.class_weights=balanced`",
    "strong_sqrt_balanced": "... `task.class_weights=sqrt_balanced`",
    "strong_as_default": "... the defaults: `sqrt_balanced` and `data.rare_share=1/3`",
    "strong_per_class": "... `method.per_class=true`",
    "strong_default_per_class": "... the defaults and `method.per_class=true`",
    "unimatch": "`unimatch`",
    "all_labels": "all labels, supervised",
}

WEIGHTED = (BASELINE, "supervised_sqrt_balanced", "gct_strong_cues", "strong_sqrt_balanced")
"""Those of them that are shown of portraits."""

FREQUENT = ("sky", "building", "road", "pavement", "tree", "car")
"""Classes of CamVid with 4.6 to 33 % of its pixels; the five others have at most 1.2 %."""


def rare_classes() -> str:
    """What keeps CamVid's rare classes: the mIoU, and the mean IoU of the frequent and of the rare classes.

    Beside it the mIoU on portraits, which have two frequent classes.
    """
    found: dict[tuple[str, str, str], dict[int, Record]] = defaultdict(dict)
    for record in (*recorded(RARE), *recorded(FURTHER), *recorded("camvid_1000")):
        if record["variant"] in RARE_ROWS:
            of_run = found[record["setting"], record["variant"], str(record["labels"])]
            of_run.setdefault(int(record["seed"]), record)
    titles = ["data, labels", "training", "seeds", "mIoU", "to supervised", "6 frequent classes", "5 rare classes"]
    parts = table_head(titles)
    cases = [*(("camvid_1000", "CamVid", labels) for labels in ("4", "8", "all")), ("portrait", "portraits", "8")]
    for setting, data, labels in cases:
        baseline = found.get((setting, BASELINE, labels), {})
        for variant, title in RARE_ROWS.items():
            if records := found.get((setting, variant, labels)):
                if setting == "portrait" and variant not in WEIGHTED:
                    continue
                gained = [] if variant == BASELINE else _gained(records, baseline)
                cells = [_cell(records, 1), over_seeds(gained, 1, signed=True) if gained else "-"]
                cells += _by_frequency(records) if setting == "camvid_1000" else ["-", "-"]
                title += without_views(records.values())
                parts.append(table_row([f"{data}, {labels}", title, f"{len(records)}", *cells]))
    return "\n".join(parts)


def _by_frequency(records: Mapping[int, Record]) -> list[str]:
    """The mean IoU of CamVid's frequent and of its rare classes, over seeds."""
    ious = [_ious(record) for _, record in sorted(records.items())]
    often = [statistics.mean(value for name, value in each.items() if name in FREQUENT) for each in ious]
    seldom = [statistics.mean(value for name, value in each.items() if name not in FREQUENT) for each in ious]
    return [over_seeds(often, 1), over_seeds(seldom, 1)]


def _ious(record: Record) -> dict[str, float]:
    """The IoU of each class, in percent."""
    test = record["test"]
    return {key.removeprefix("iou/"): 100 * value for key, value in test.items() if key.startswith("iou/")}


LIGHT_ROWS = {"supervised_light": BASELINE, "gct_strong_light": "gct_strong_cues"}
"""Trainings with a lighter decoder, and the same ones with the default decoder."""


def light_decoder() -> str:
    """Test mIoU of trainings with the default UNet and with a lighter decoder, and the differences of their seeds."""
    usual: dict[str, dict[int, Record]] = defaultdict(dict)
    light: dict[str, dict[int, Record]] = defaultdict(dict)
    for name, found in (("light_decoder", light), (FURTHER, usual)):
        for record in recorded(name):
            if (record["setting"], str(record["labels"])) == ("portrait", "8"):
                found[record["variant"]][int(record["seed"])] = record
    parts = table_head(["data, labels", "training", "seeds", "default", "lighter", "difference"])
    for lighter, variant in LIGHT_ROWS.items():
        if records := light[lighter]:
            gained = over_seeds(_gained(records, usual[variant]), 1, signed=True)
            cells = [len(records), _cell(usual[variant], 1), _cell(records, 1), gained]
            parts.append(table_row(["`portrait`, 8", f"`{variant}`", *cells]))
    return "\n".join(parts)


def ablations() -> str:
    """Test mIoU of every run of the paper's ablations, in the order of `compare.ABLATIONS`."""
    records = recorded("camvid_ablation")
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[record["variant"]].append(figure(record))
    parts = []
    for title, runs in ABLATIONS.items():
        measured = {value: found[f"{title}_{value}"] for value in runs if f"{title}_{value}" in found}
        if measured:
            parts += [f"| {title} | " + " | ".join(measured) + " |", "| --- |" + " --- |" * len(measured)]
            parts += ["| test mIoU | " + " | ".join(over_seeds(values, 1) for values in measured.values()) + " |", ""]
    return "\n".join(parts).strip() or "not measured"


PARTS = {
    "all": "all",
    "none": "`supervised`, all in float32, summed in another order",
}
"""Runs that are compared with float32, by what computes in bfloat16."""


def bf16() -> str:
    """Test mIoU of trainings in bfloat16 beside those in float32; of the differences the mean and its interval."""
    parts = [
        "| data, labels | method | seed | bfloat16 | float32 | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for setting, labels in (("camvid_long", "4"), ("portrait", "8")):
        records = (*_earlier(setting), *recorded("bf16"))
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
            summary = f"{over_seeds(found, 2, signed=True)}, standard deviation {statistics.stdev(found):.2f}"
            row = f"| {PARTS[part]} | {len(found)} runs | | {spread if part == 'all' else ''} | {summary} |"
            parts.append(f"| `{setting}`, {labels} {row}")
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


def _earlier(setting: str) -> list[Record]:
    """Records that are compared with others from before the statistics of evaluation were those of training."""
    records = [*recorded(setting), *recorded("earlier_statistics")]
    return [record for record in records if record["setting"] == setting and "input_statistics" not in record]


def statistics_table() -> str:
    """What it cost to measure on other input statistics than those of training: the same weights, measured twice."""
    records = recorded("input_statistics")
    parts = ["| run | trained statistics | 0.5 and 0.5 | difference |", "| --- | --- | --- | --- |"]
    differences = [record["trained"] - record["earlier"] for record in records]
    for record, difference in zip(records, differences, strict=True):
        parts.append(f"| `{record['run']}` | {record['trained']:.2f} | {record['earlier']:.2f} | {difference:+.2f} |")
    middle, half = statistics.mean(differences), half_interval(differences)
    parts.append(f"| mean, 95 % interval | | | {middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f}) |")
    return "\n".join(parts)
