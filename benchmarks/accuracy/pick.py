"""Which images should be labeled first? `semipix data pick` compared with random images, on real photographs.

`coverage` measures without any training how well picked images represent all training images: the mean distance of an
image to the nearest picked one, by features of each depth, by colours, and by the labels, which picking does not see.
Each is divided by its mean over random picks of as many images. It also counts the classes in the picked labels.

    python -m benchmarks.accuracy.pick coverage portrait --data PORTRAIT --labels 4 8 32
    python -m benchmarks.accuracy.pick coverage camvid --data CAMVID --labels 4 12 32

`train` trains with the picked labels (a setting of `benchmarks.accuracy.compare`) and prints the test metric. A run
that is there already, as a folder or as a record in the file of `--json`, is not trained again.

    python -m benchmarks.accuracy.pick train portrait --data PORTRAIT --labels 8
    python -m benchmarks.accuracy.pick train camvid --data CAMVID --labels 12 --variants supervised gct_strong

A strategy is `random`, or the values of `--by` and `--depth`, as `kmeans-all`.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.accuracy.compare import SETTINGS, VARIANTS, configuration, figure, measure_of, overrides_of
from benchmarks.common import Record, new_parser, over_seeds, records_in, run, write_records
from semipix.batch import VOID
from semipix.data.files.decode import unit_range
from semipix.data.files.reader import Reader
from semipix.data.pick import features_cache, pick
from semipix.data.pick_choice import STRATEGIES, choose
from semipix.data.pick_features import DEPTHS, SIDE, at_depth, features_of
from semipix.data.sources.folder import FolderSource
from semipix.errors import SemipixError
from semipix.functional.precision import fast_precision
from semipix.launch.variants import environment, run_variants

ALL = ("random", *(f"{by}-{depth}" for by in STRATEGIES if by != "random" for depth in DEPTHS))
"""All strategies."""

TRAINED = ("random", "kcentre-all", "kmeans-early", "kmeans-middle", "kmeans-late", "kmeans-all")
"""Those that `train` compares by default."""

RANDOM_SEEDS = 20
"""Random picks whose mean is 1 in `coverage`."""

GRID, BINS, COLOURS = 8, 8, 64
"""Cells of the label grid, and bins of a colour, a side; and the side of the images whose colours are counted."""

Array = NDArray[np.float32]


def parts_of(strategy: str) -> tuple[str, str]:
    """The values of `--by` and `--depth`."""
    by, _, depth = strategy.partition("-")
    return by, depth or "all"


def label_spaces(source: FolderSource, names: Sequence[str]) -> dict[str, Array]:
    """What picking does not see, for each image: shares of classes, where they are, and shares of colours."""
    shares, grids, colours = [], [], []
    for name in tqdm(names, desc="labels and colours", leave=False, disable=None):
        image, mask = source.pair(name)
        known = F.one_hot(torch.where(mask == VOID, len(source.classes), mask.long()), len(source.classes) + 1)
        planes = known[..., :-1].permute(2, 0, 1).float()
        shares.append(planes.mean((1, 2)).numpy())
        grids.append(F.adaptive_avg_pool2d(planes, GRID).flatten().numpy())
        small = F.interpolate(unit_range(image.as_subclass(torch.Tensor))[None], (COLOURS, COLOURS), mode="area")[0]
        counts, _ = np.histogramdd(small.flatten(1).T.numpy(), BINS, [(0, 1)] * 3)
        colours.append((counts.ravel() / COLOURS**2).astype(np.float32))
    return {"class shares": np.array(shares), "label grid": np.array(grids), "colours": np.array(colours)}


def measured(spaces: dict[str, Array], chosen: Sequence[int]) -> dict[str, float]:
    """The mean distance of an image to the nearest chosen one in each space, and the classes of the chosen labels."""
    from sklearn.metrics import pairwise_distances_argmin_min

    found = {
        name: float(pairwise_distances_argmin_min(values, values[list(chosen)])[1].mean())
        for name, values in spaces.items()
    }
    return {**found, "classes": float((spaces["class shares"][list(chosen)] > 0).any(0).sum())}


def coverage_records(setting: str, data: Path, counts: Sequence[int], seeds: Sequence[int]) -> list[Record]:
    """How well each strategy's images represent all training images, a record for each seed."""
    source = FolderSource(data)
    names = source.labeled()
    features, problems = features_of([data / name for name in names], Reader((SIDE, SIDE)), features_cache([]))
    if problems:
        raise SemipixError(next(iter(problems.values())))
    depths = {depth: at_depth(features, depth) for depth in DEPTHS}
    spaces = {**{f"{depth} features": depths[depth] for depth in DEPTHS}, **label_spaces(source, names)}
    nothing = np.zeros(len(names), bool)
    records: list[Record] = []
    for count in counts:
        chance = [
            measured(spaces, choose("random", depths["all"], nothing, count, seed)) for seed in range(RANDOM_SEEDS)
        ]
        usual = {name: statistics.mean(each[name] for each in chance) for name in spaces} | {"classes": 1.0}
        for strategy in ALL:
            by, depth = parts_of(strategy)
            for seed in range(RANDOM_SEEDS) if by == "random" else seeds:
                found = measured(spaces, choose(by, depths[depth], nothing, count, seed))
                key = {"kind": "coverage", "setting": setting, "labels": count, "strategy": strategy, "seed": seed}
                records.append(
                    {
                        **key,
                        "measured": {
                            name: value / usual[name] if usual[name] else 1.0 for name, value in found.items()
                        },
                    }
                )
    return records


def report_coverage(records: Sequence[Record]) -> None:
    """Print the means over seeds."""
    cells: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for record in records:
        cells[record["labels"], record["strategy"]].append(record["measured"])
    for (count, strategy), found in cells.items():
        means = (f"{name} {statistics.mean(each[name] for each in found):.3f}" for name in found[0])
        print(f"{count:>4} {strategy:16} {', '.join(means)}")


def train_records(given: Any, records: Sequence[Record]) -> list[Record]:
    """Pick, train and measure what has no record yet."""
    jobs, keys, configs = {}, {}, {}
    for count in given.labels:
        for strategy in given.strategies:
            for seed in given.seeds:
                by, depth = parts_of(strategy)
                path = given.runs / given.setting / "lists" / f"{count}-{strategy}-{seed}.txt"
                if not path.exists():
                    pick(given.data, count, by, depth, seed, labels="none").write(path)
                for variant in given.variants:
                    key = {"kind": "trained", "setting": given.setting, "labels": count, "strategy": strategy}
                    key |= {"variant": variant, "seed": seed}
                    overrides = overrides_of(given.setting, [f"variant={variant}"], str(path), seed, given.data)
                    config = {key: value for key, value in configuration(overrides).items() if key != "data.labels"} | {
                        "picked": path.read_text().split("\n")
                    }
                    if any({**record, **key} == record and record["config"] == config for record in records):
                        continue
                    name = f"{count}-{strategy}-{variant}-{seed}"
                    jobs[name], keys[name], configs[name] = (given.runs / given.setting / name, overrides), key, config
    found = run_variants(jobs, given.parallel, split=measure_of(given.setting).split) if jobs else {}
    kept = {"precision": fast_precision(), **environment()}
    return [{**keys[name], **found[name], "config": configs[name], **kept} for name in jobs]


def report_trained(records: Sequence[Record]) -> None:
    """Print the test metric: the mean over seeds with its interval, or each of fewer than three."""
    cells = defaultdict(list)
    for record in records:
        cells[record["variant"], record["labels"], record["strategy"]].append(figure(record))
    for (variant, count, strategy), values in cells.items():
        print(f"{variant:12} {count:>4} {strategy:16} {over_seeds(values, 2)}")


def main() -> None:
    parser = new_parser("accuracy.pick", __doc__)
    parser.add_argument("what", choices=("coverage", "train"))
    parser.add_argument("setting", choices=SETTINGS, help="of segmentation, with a folder of images and masks")
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--labels", nargs="+", type=int, default=[8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--strategies", nargs="+", default=TRAINED, choices=ALL, metavar="STRATEGY", help="for train")
    parser.add_argument("--variants", nargs="+", default=["supervised"], choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/pick"), help="gets lists, and a folder for each run")
    given = parser.parse_args()
    records = records_in(given.json)
    if given.what == "coverage":
        new = coverage_records(given.setting, given.data, given.labels, given.seeds)
        report_coverage(new)
    else:
        new = train_records(given, records)
        trained = [record for record in [*records, *new] if record["kind"] == "trained"]
        report_trained([record for record in trained if record["setting"] == given.setting])
    replaced = [_key(record) for record in new]
    write_records(given.json, [record for record in records if _key(record) not in replaced] + new, environment())


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in ("kind", "setting", "labels", "strategy", "variant", "seed"))


if __name__ == "__main__":
    run(main)
