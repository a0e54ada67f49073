"""Is a method better than supervised training, on real photographs with few labels?

Trains variants of methods (`src/semipix/conf/variant`) in one setting (`src/semipix/conf/experiment/compare`) on the
same splits for the same number of steps, and measures each on the test images. Prints the test metric of every variant:
the mean over seeds with its interval of 95 %, or the value of each of fewer than three seeds. A run that exists, as a
folder or as a record of the same configuration in the file of `--json`, is not trained again. So an interrupted
comparison can be continued and a finished one extended.

    python -m benchmarks.accuracy.compare portrait --data PORTRAIT --labels 8 16 32
    python -m benchmarks.accuracy.compare camvid --data CAMVID
    python -m benchmarks.accuracy.compare camvid_long --data CAMVID --variants supervised gct gct_strong
    python -m benchmarks.accuracy.compare camvid_ablation --data CAMVID --seeds 0 \\
        --ablation constraints threshold rampup

One run: `semipix train experiment=compare/portrait variant=gct data.root=PORTRAIT data.labels=8 seed=0`.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_module

from benchmarks.common import Record, new_parser, node, options, over_seeds, records_in, run, write_records
from semipix.config import plain
from semipix.errors import SemipixError
from semipix.functional.precision import fast_precision
from semipix.launch.overrides import open_overrides
from semipix.launch.variants import environment, run_variants

SETTINGS = options("experiment/compare")
VARIANTS = options("variant")


class Measure(NamedTuple):
    """What is reported of a run.

    Attributes:
        metric: its key in what `semipix evaluate` writes.
        scale: what it is multiplied by.
        split: the images it is measured on.
    """

    metric: str
    scale: float
    split: str


REGRESSION = ("polyu", "lol", "matting")
"""Settings of regression whose validation images are used as test images, because there are no usable test images."""
MADE = ("mattes", "noisy", "dark")
"""Settings of regression whose data `benchmarks.accuracy.make_data` makes, with test images."""

PAPER_EPOCHS = 20
"""Epochs of the paper's training on VOC. A ramp-up keeps its share of the training: 5 epochs are a quarter of it."""
CAMVID_EPOCHS = 80 * 2 / 363
"""Passes over the unlabeled images in `camvid_ablation`: steps, unlabeled images a step, unlabeled images."""

ABLATIONS: dict[str, dict[str, str]] = {
    "constraints": {name: f"method.constraints={name}" for name in ("consistency", "correction", "both")},
    "threshold": {str(value): f"method.flaw_threshold={value}" for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
    "rampup": {
        str(value): f"method.rampup_epochs={value / PAPER_EPOCHS * CAMVID_EPOCHS:.3f}" for value in (0, 1, 3, 5, 10)
    },
}
"""The paper's ablations on CamVid, Fig. 5 and both parts of Table 4: what is changed in the setting `ABLATED`."""
ABLATED = "camvid_ablation"

TRAINED = "trained"
"""Mark of a record: evaluation used the input statistics of training; records without it used 0.5 and 0.5."""

ELSEWHERE = ("run", "data.root", "trainer.precision")
"""Keys that differ from machine to machine; `precision` of a record says which one it was trained in."""


def measure_of(setting: str) -> Measure:
    """What is reported of a setting's runs."""
    if setting in (*REGRESSION, *MADE):
        return Measure("psnr", 1.0, "val" if setting in REGRESSION else "test")
    return Measure("miou", 100.0, "test")


def labels_of(setting: str) -> str:
    """How many labels a setting has unless others are asked for."""
    return str(node("experiment/compare", setting)["data"]["labels"])


def overrides_of(setting: str, changes: Sequence[str], labels: str, seed: int, data: Path) -> list[str]:
    """Overrides of one run.

    Args:
        setting: what all variants share.
        changes: `variant=NAME`, and what else this run changes.
        labels: how many labels, unless the variant says so.
        seed: of the split, the weights and the batches.
        data: folder of the data.
    """
    shared = [f"experiment=compare/{setting}", f"data.root={data}", f"seed={seed}"]
    return [*shared, *([] if "variant=all_labels" in changes else [f"data.labels={labels}"]), *changes]


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that overrides of `semipix train` make."""
    with initialize_config_module("semipix.conf", version_base="1.3"):
        return plain(compose("train", open_overrides([*overrides, "run=run"])))


def configuration(overrides: Sequence[str]) -> dict[str, Any]:
    """The same by dotted keys, without what differs from machine to machine."""
    return {key: value for key, value in leaves(composed(overrides)).items() if key not in ELSEWHERE}


def leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def keys_of(record: Record) -> tuple[str, ...]:
    """Setting, variant, labels and seed of a record."""
    return tuple(str(record[key]) for key in ("setting", "variant", "labels", "seed"))


def is_same(record: Record, keys: Record, config: Mapping[str, Any]) -> bool:
    """Whether a record is of a run with these keys and this configuration; keys that came later count as unchanged."""
    if keys_of(record) != keys_of(keys):
        return False
    trained = record.get("config") or configuration(record["overrides"])
    return all(config.get(key) == value for key, value in trained.items())


def figure(record: Record) -> float:
    """The test metric that a record's setting reports; NaN where nothing could be measured."""
    measure = measure_of(record["setting"])
    value = record["test"][measure.metric]
    return math.nan if value is None else float(value * measure.scale)


def report(records: Sequence[Record]) -> None:
    """Print the test metric of each variant: the mean over seeds with its interval, or each of fewer than three."""
    cells = defaultdict(list)
    for record in records:
        cells[record["variant"], record["labels"]].append(figure(record))
    for (name, labels), values in cells.items():
        print(f"{name:28} {labels:>5}  {over_seeds(values, 2)}")


def changes_of(variants: Sequence[str], ablations: Sequence[str], extra: Sequence[str]) -> dict[str, list[str]]:
    """What each run changes in its setting, by the name that its record has."""
    found = {name: [f"variant={name}"] for name in ([] if ablations else variants)}
    for group in ablations:
        found |= {f"{group}_{value}": [change] for value, change in ABLATIONS[group].items()}
    return found | {name: items.split(";") for name, _, items in (given.partition(":") for given in extra)}


def arguments() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = new_parser("accuracy.compare", __doc__)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--labels", nargs="+", help="instead of the setting's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--variants", nargs="*", default=VARIANTS, choices=VARIANTS, metavar="VARIANT", help="default: all"
    )
    parser.add_argument("--ablation", nargs="*", default=[], choices=ABLATIONS, help="instead of variants")
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME:KEY=VALUE;...", help="further variants")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="gets a run folder for each")
    return parser


def runs_of(given: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """Setting, variant, labels and seed of each run that is asked for, and what it changes in its setting."""
    for seed in given.seeds:
        for name, changes in changes_of(given.variants, given.ablation, given.extra).items():
            for labels in ["all"] if name == "all_labels" else given.labels or [labels_of(given.setting)]:
                yield {"setting": given.setting, "variant": name, "labels": labels, "seed": seed}, changes


def main() -> None:
    given = arguments().parse_args()
    if given.ablation and given.setting != ABLATED:
        raise SemipixError(f"--ablation: {given.setting} found, the paper's ablations are changes of {ABLATED}")

    records = records_in(given.json)
    keys, jobs, configs = {}, {}, {}
    for key, changes in runs_of(given):
        run_name = f"{key['labels']}-{key['variant']}-{key['seed']}"
        overrides = overrides_of(given.setting, changes, key["labels"], key["seed"], given.data)
        config = configuration(overrides)
        if any(is_same(record, key, config) for record in records):
            continue
        keys[run_name], configs[run_name] = key, config
        jobs[run_name] = given.runs / given.setting / run_name, overrides
    found = run_variants(jobs, given.parallel, split=measure_of(given.setting).split) if jobs else {}
    kept = {"precision": fast_precision(), "input_statistics": TRAINED, **environment()}
    new = [{**keys[name], **found[name], "config": configs[name], **kept} for name in jobs]
    replaced = {keys_of(record) for record in new}
    records = [record for record in records if keys_of(record) not in replaced] + new
    report([record for record in records if record["setting"] == given.setting])
    if new:
        write_records(given.json, records, environment())


if __name__ == "__main__":
    run(main)
