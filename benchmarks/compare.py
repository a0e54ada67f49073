"""Is a method better than supervised training, on real photographs with few labels?

Trains every variant on the same splits with the same number of steps, measures each on the test images, and writes one
JSON of records. A run that is already there, as a folder or as a record with the same overrides in the JSON, is not
trained again, so an interrupted comparison goes on and a finished one can be added to.

    python benchmarks/compare.py portrait --data ../shared/data/portrait --labels 8 16 32
    python benchmarks/compare.py camvid --data ../shared/data/camvid --labels 12
    python benchmarks/compare.py camvid_long --data ../shared/data/camvid --labels 4
    python benchmarks/compare.py camvid_ablation --data ../shared/data/camvid --labels 4 --seeds 0 \\
        --ablation constraints threshold rampup
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from semipix.functional.precision import fast_precision
from semipix.report.comparison import environment, run_variants

COMMON = ["data.workers=0", "trainer.precision=auto"]


class Setting(NamedTuple):
    """Data, model and length that all variants share.

    Attributes:
        overrides: of `semipix train`.
        metric: what is reported of the test images.
        scale: what the metric is multiplied by.
        split: images that play the test's part: `val` where the data have no test images, or none worth measuring on.
    """

    overrides: list[str]
    metric: str = "miou"
    scale: float = 100.0
    split: str = "test"


FOLDER = ["data=folder", "validations=3"]
LONG = [
    *FOLDER,
    "data.resize=[120,160]",
    "data.crop=96",
    "optimizer.lr=2e-3",
    "steps=160",
    "trainer.limit_val_batches=4",
]

# Without validation the last weights are measured, so that images which play the test's part choose nothing.
HELD_OUT = ["validations=0", "optimizer.weight_decay=0"]

SETTINGS = {
    "portrait": Setting(
        [*FOLDER, "data.resize=[160,120]", "data.crop=96", "data.val=40", "optimizer.lr=5e-4", "steps=200"]
    ),
    "camvid": Setting(
        [
            *FOLDER,
            "data.resize=[180,240]",
            "data.crop=[96,128]",
            "optimizer.lr=1e-3",
            "steps=150",
            "trainer.limit_val_batches=4",
        ]
    ),
    "camvid_long": Setting(LONG),
    # The paper's batch of two labeled and two unlabeled images, and a length that leaves time for many runs.
    "camvid_ablation": Setting([*LONG, "steps=80", "data.batch_size=4", "data.labeled_per_batch=2"]),
    "polyu": Setting(
        [
            *("data=polyu", "task=denoising", "model=dhdn", "model.width=8", "data.crop=48"),
            *("optimizer.lr=2e-3", "steps=300", *HELD_OUT),
        ],
        metric="psnr",
        scale=1.0,
        split="val",
    ),
    "lol": Setting(
        [
            *("data=lol", "task=enhancement", "model=hdrnet", "model.resolution=128", "data.crop=96"),
            *("optimizer.lr=2e-3", "steps=300", *HELD_OUT),
        ],
        metric="psnr",
        scale=1.0,
        split="val",
    ),
    "matting": Setting(
        [
            *("data=matting", "task=matting", "model=unet", "data.crop=96", "data.trimap=trimap1"),
            *("data.batch_size=4", "optimizer.lr=1e-3", "steps=200", *HELD_OUT),
        ],
        metric="psnr",
        scale=1.0,
        split="val",
    ),
}

# Ramp-up and warm-up are in epochs, of which these runs are a fraction.
PAIR = ["method=gct", "data.labeled_per_batch=6", "method.warmup_epochs=0.05", "method.rampup_epochs=0.1"]
GUIDED = [*PAIR, "method.lambda_dc=3", "method.lambda_fc=0.1"]

# The average forgets in 20 steps, a tenth of these runs, where the papers' averages forget in a hundredth of theirs.
SHORT_MEMORY = ["method.decay=0.95"]

SURE = ["method.confidence=0.95"]
SMALL_BOXES = ["method.cutmix=0.5", "method.area=[0.02,0.4]"]
LARGE_BOXES = ["method.cutmix=1.0", "method.area=[0.25,0.5]"]

TRAINED = "trained"
"""Of a record: evaluation saw images by the statistics that training took; records without it took 0.5 and 0.5."""

ELSEWHERE = ("data.root=", "trainer.precision=")
"""What differs from machine to machine; `precision` of a record says which one it was trained in."""

# Tasks of the paper beside segmentation: the detector looks at half size, since it costs more than the small models.
HALF_SCALE = "method.detector_scale=0.5"

STRONG = ["method=gct_strong", *SHORT_MEMORY, *SURE, *SMALL_BOXES]
PLAIN = ["method.feature_dropout=0", "method.fusion=false"]

CONSTRAINTS = ("consistency", "correction", "both")
THRESHOLDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
RAMPUPS = (0, 1, 3, 5, 10)

VARIANTS: dict[str, list[str]] = {
    "supervised": ["method=supervised"],
    "supervised_short": ["method=supervised", "length=labeled"],
    "all_labels": ["method=supervised", "data.labels=all"],
    "mean_teacher": ["method=mean_teacher", "method.rampup_epochs=0.2"],
    "mean_teacher_short_memory": ["method=mean_teacher", "method.rampup_epochs=0.2", *SHORT_MEMORY],
    "s4l": ["method=s4l"],
    "advssl": ["method=advssl", "method.warmup_epochs=0.05"],
    "flaw_mean_teacher": ["method=flaw_mean_teacher", "method.rampup_epochs=0.2", *SHORT_MEMORY],
    "cct": ["method=cct", "method.rampup_epochs=0.2"],
    "cutmix": ["method=cutmix", *SHORT_MEMORY],
    "cps": ["method=cps"],
    "cps_without_cutmix": ["method=cps", "method.cutmix=false"],
    "fixmatch": ["method=fixmatch"],
    "unimatch": ["method=unimatch", *SHORT_MEMORY],
    "gct_strong": [*STRONG, "method.feature_dropout=0.5", "method.fusion=true"],
    "gct_strong_6_of_8": [*STRONG, "method.feature_dropout=0.5", "method.fusion=true", "data.labeled_per_batch=6"],
    "gct_strong_by_flaw": [*STRONG, "method.feature_dropout=0.5", "method.fusion=true", "method.confidence=0"],
    "supervised_half_batch": ["method=supervised", "data.batch_size=4"],
    "s4l_rotated_labels_alone": ["method=s4l", "method.lambda_s4l=0"],
    "s4l_rotations_alone": ["method=s4l", "method.lambda_rotated=0"],
    "mean_teacher_6_of_8": ["method=mean_teacher", "method.rampup_epochs=0.1", "data.labeled_per_batch=6"],
    "gct": GUIDED,
    "gct_half_scale": [*GUIDED, HALF_SCALE],
    "gct_half_scale_3_of_4": [*GUIDED, HALF_SCALE, "data.labeled_per_batch=3"],
    "gct_half_scale_paper_weights": ["method=gct", "method.rampup_epochs=0.2", HALF_SCALE],
    "gct_paper_weights": ["method=gct", "method.rampup_epochs=0.2"],
    "gct_strong_all_channels": [*STRONG, *PLAIN],
    "gct_strong_by_flaw_alone": ["method=gct_strong", *SHORT_MEMORY, "method.confidence=0", *LARGE_BOXES, *PLAIN],
    "gct_strong_by_confidence_alone": [*STRONG, "method.feature_dropout=0.5", "method.fusion=true", "method.gate=open"],
    "gct_no_exchange": [*PAIR, "method.lambda_dc=0", "method.lambda_fc=0"],
}

PAPER_EPOCHS = 20
"""Epochs of the paper's training on VOC. A ramp-up keeps its share of the training: 5 epochs are a quarter of it."""
CAMVID_EPOCHS = 80 * 2 / 363
"""Passes over the unlabeled images in `camvid_ablation`: steps, unlabeled images a step, unlabeled images."""

ABLATED = [item for item in GUIDED if not item.startswith("data.labeled_per_batch=")]

ABLATIONS: dict[str, dict[str, list[str]]] = {
    "constraints": {f"constraints_{name}": [*ABLATED, f"method.constraints={name}"] for name in CONSTRAINTS},
    "threshold": {f"threshold_{value}": [*ABLATED, f"method.flaw_threshold={value}"] for value in THRESHOLDS},
    "rampup": {
        f"rampup_{value}": [
            *(item for item in ABLATED if not item.startswith("method.rampup_epochs=")),
            f"method.rampup_epochs={value / PAPER_EPOCHS * CAMVID_EPOCHS:.3f}",
        ]
        for value in RAMPUPS
    },
}
"""The paper's ablations on CamVid: Fig. 5, and both parts of Table 4."""


def overrides_of(setting: str, variant: list[str], labels: str, seed: int, data: Path) -> list[str]:
    """Overrides of one run; the variant has the last word."""
    merged = [
        *COMMON,
        *SETTINGS[setting].overrides,
        f"data.root={data}",
        f"data.labels={labels}",
        f"seed={seed}",
        *variant,
    ]
    return list({item.partition("=")[0]: item for item in merged}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", default=["8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--ablation", nargs="*", default=[], choices=ABLATIONS, help="in place of the variants")
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME:KEY=VALUE;...", help="further variants")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    variants = {name: VARIANTS[name] for name in options.variants}
    if options.ablation:
        variants = {name: items for group in options.ablation for name, items in ABLATIONS[group].items()}
    variants |= {name: items.split(";") for name, _, items in (extra.partition(":") for extra in options.extra)}

    known = json.loads(options.out.read_text())["records"] if options.out and options.out.exists() else []
    records = {_identity(record): record for record in known}
    keys = {}
    jobs = {}
    for seed in options.seeds:
        for name, variant in variants.items():
            for labels in ["all"] if name == "all_labels" else options.labels:
                run = f"{labels}-{name}-{seed}"
                keys[run] = {"setting": options.setting, "variant": name, "labels": labels, "seed": seed}
                overrides = overrides_of(options.setting, variant, labels, seed, options.data)
                if _identity({**keys[run], "overrides": overrides}) in records:
                    continue
                jobs[run] = options.runs / options.setting / run, overrides
    split = SETTINGS[options.setting].split
    found = run_variants(jobs, options.parallel, split=split) if jobs else {}
    precision = fast_precision()
    kept = {"precision": precision, "input_statistics": TRAINED, **environment()}
    new = [{**keys[run], **found[run], **kept} for run in jobs]
    records |= {_identity(record): record for record in new}
    report(list(records.values()))
    if options.out and new:
        options.out.write_text(json.dumps({**environment(), "records": list(records.values())}, indent=1) + "\n")


def _identity(record: dict[str, Any]) -> tuple[str, ...]:
    """What makes two runs the same: setting, name and overrides, wherever the data lies, in whichever precision."""
    overrides = sorted(str(item) for item in record["overrides"] if not str(item).startswith(ELSEWHERE))
    return record["setting"], record["variant"], *overrides


def figure(record: dict[str, Any]) -> float:
    """The test metric that a record's setting reports; NaN where nothing could be measured."""
    setting = SETTINGS[record["setting"]]
    value = record["test"][setting.metric]
    return math.nan if value is None else float(value * setting.scale)


def report(records: list[dict[str, Any]]) -> None:
    """Print the test metric of each variant: mean over seeds, then each seed."""
    cells = defaultdict(list)
    for record in records:
        cells[record["variant"], record["labels"]].append(figure(record))
    for (name, labels), values in cells.items():
        print(f"{name:28} {labels:>5}  {statistics.mean(values):6.2f}  ({', '.join(f'{v:.2f}' for v in values)})")


if __name__ == "__main__":
    main()
