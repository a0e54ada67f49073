"""How often does `method=auto` choose the right method, and what does it cost?

For each number of labels and each seed, trains with `method=auto` in a setting of `experiment=compare/SETTING`, and
beside it each method that was not chosen, at full length on the same split. All are measured on the test images, which
no pilot has seen; in settings without test images (polyu, lol, matting) on the validation images, by which the pilots
chose. The run with `method=auto` has the weights that its chosen method has without pilots, so it counts as the run of
this method. Runs and records that are there already are kept.

    python -m benchmarks.accuracy.choices portrait --data PORTRAIT --labels 8 32 --seeds 0 1 2
    python -m benchmarks.accuracy.choices camvid_long --data CAMVID --keys method.min_pilot_steps=80 --name pilots_of_80

`--keys` changes how `method=auto` chooses; each variant of it needs a `--name`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.compare import SETTINGS, labels_of, measure_of
from benchmarks.common import Record, new_parser, run, write_records
from benchmarks.common import records_in as read_records
from semipix.launch.auto import WITHOUT_FEATURES
from semipix.launch.auto_choice import BASELINE
from semipix.launch.variants import environment, run_variants
from semipix.training.run_folder import CHOICE, CONFIG, PILOTS, read_config

KEYS = ("setting", "name", "labels", "seed")
"""What identifies a record."""


def record_of(choice: Mapping[str, Any], figures: Mapping[str, float], seconds: float) -> Record:
    """What is recorded of one choice.

    Args:
        choice: content of `choice.json`.
        figures: the test metric of each method, trained at full length: mIoU or PSNR, also where the pilots are
            compared by another metric.
        seconds: of the final training.
    """
    best = max(figures, key=figures.__getitem__)
    return {
        "chosen": choice["chosen"],
        "best": best,
        "figures": dict(figures),
        "regret": figures[best] - figures[choice["chosen"]],
        "gain": figures[choice["chosen"]] - figures[BASELINE],
        "pilot_seconds": sum(pilot["seconds"] for pilot in choice["pilots"].values()),
        "training_seconds": seconds,
        "choice": dict(choice),
    }


def options_of(pilot: Path) -> list[str]:
    """What `method=auto` has changed in a method, because the model has no feature maps; nothing without a pilot."""
    if not (pilot / CONFIG).is_file():
        return []
    method = read_config(pilot, trust=True)[0]["method"]
    return [f"method.{key}={value}" for key, value in WITHOUT_FEATURES.items() if method.get(key) == value]


def summary(records: Sequence[Record]) -> str:
    """What the choices of one setting and number of labels come to, in one line."""
    count = len(records)
    right = sum(record["chosen"] == record["best"] for record in records)
    worse = sum(record["gain"] < 0 for record in records)
    cost = sum(record["pilot_seconds"] for record in records) / sum(record["training_seconds"] for record in records)
    means = {key: sum(record[key] for record in records) / count for key in ("gain", "regret")}
    return (
        f"the best method chosen in {right} of {count}, one worse than supervised in {worse}; mean gain over "
        f"supervised {means['gain']:+.2f}, mean distance from the best {means['regret']:.2f}; the pilots took "
        f"{cost:.1f} times the final training"
    )


def main() -> None:
    parser = new_parser("accuracy.choices", __doc__)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--labels", nargs="+", help="instead of the setting's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--candidates", nargs="+", default=["unimatch", "gct_strong"])
    parser.add_argument("--keys", nargs="*", default=[], metavar="KEY=VALUE", help="of method=auto")
    parser.add_argument("--name", default="default", help="of these keys, for the records")
    parser.add_argument(
        "--shared", nargs="*", default=[], metavar="KEY=VALUE", help="of all trainings, such as steps=400"
    )
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/choices"), help="gets a run folder for each")
    given = parser.parse_args()

    measure = measure_of(given.setting)
    folder = given.runs / given.setting
    records = read_records(given.json)
    cells = [
        {"setting": given.setting, "name": given.name, "labels": labels, "seed": seed}
        for labels in given.labels or [labels_of(given.setting)]
        for seed in given.seeds
    ]
    missing = [cell for cell in cells if not any(all(record[key] == cell[key] for key in KEYS) for record in records)]
    shared = {
        _of(cell): [
            *(f"experiment=compare/{given.setting}", f"data.root={given.data}", f"data.labels={cell['labels']}"),
            *(f"seed={cell['seed']}", *given.shared),
        ]
        for cell in missing
    }
    auto = ["method=auto", f"method.candidates=[{','.join(given.candidates)}]", *given.keys]
    runs = {_of(cell): folder / f"{_of(cell)}-auto-{given.name}" for cell in missing}
    by_auto = run_variants(
        {name: (runs[name], [*shared[name], *auto]) for name in runs}, given.parallel, split=measure.split
    )
    choices = {name: json.loads((run_folder / CHOICE).read_text()) for name, run_folder in runs.items()}
    others = run_variants(
        {
            f"{name}-{method}": (
                folder / f"{name}-{method}",
                [*shared[name], f"method={method}", *options_of(runs[name] / PILOTS / method)],
            )
            for name in runs
            for method in (BASELINE, *given.candidates)
            if method != choices[name]["chosen"]
        },
        given.parallel,
        split=measure.split,
    )
    for cell in missing:
        name, chosen = _of(cell), choices[_of(cell)]["chosen"]
        found = {method: others.get(f"{name}-{method}", by_auto[name]) for method in (BASELINE, *given.candidates)}
        figures = {method: measure.scale * result["test"][measure.metric] for method, result in found.items()}
        seconds = by_auto[name]["trained"]["seconds"]
        records.append(
            {**cell, "shared": given.shared, "keys": given.keys, **record_of(choices[name], figures, seconds)}
        )
        shown = ", ".join(f"{method} {value:.2f}" for method, value in figures.items())
        print(f"{given.setting} {name}: {chosen} chosen; {shown}")
    write_records(given.json, records, environment())
    for labels in dict.fromkeys(cell["labels"] for cell in cells):
        alike = [cell for cell in cells if cell["labels"] == labels]
        chosen_records = [r for r in records if any(all(r[key] == cell[key] for key in KEYS) for cell in alike)]
        print(f"{given.setting}, {labels} labels: {summary(chosen_records)}")


def _of(cell: Mapping[str, Any]) -> str:
    return f"{cell['labels']}-{cell['seed']}"


if __name__ == "__main__":
    run(main)
