"""`semipix demo`: are unlabeled images worth it on the built-in data?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semipix.interruption import Interrupted, number_of
from semipix.launch.variants import environment, run_variant, run_variants
from semipix.report.page import Page, Section, Table, require_plotly, write_page
from semipix.report.page_sections import (
    classes_section,
    error_maps_section,
    learning_section,
    pictures_section,
    read_measured,
)
from semipix.report.pictures import chosen, gallery
from semipix.training.run_folder import load_split, write_json

COMMON = [
    "data=scenes",
    "data.merge_classes=true",
    "data.labels=4",
    "data.crop=96",
    "data.rare_share=0",
    "data.workers=0",
    "trainer.precision=auto",
    "steps=120",
    "validations=2",
]
"""What all runs share."""

GUIDED = ["method=gct_strong", "method.decay=0.95"]
"""The recommended setting; averages forget in 20 steps, for these runs are short."""

VARIANTS = {
    "gct_strong": ("GCT on strong views", [*GUIDED, "optimizer.lr=3e-3"]),
    "supervised_short": (
        "supervised, the paper's length",
        ["method=supervised", "length=labeled", "optimizer.lr=1e-3"],
    ),
    "supervised": ("supervised, equally long", ["method=supervised", "optimizer.lr=1e-3"]),
}
"""Title and overrides of each run; benchmarks/accuracy/demo_rates.py found the learning rates.

The longest begins first, and beside it the shortest, so that there is something to see soon.
"""

SHOWN = ("supervised", "gct_strong")
"""The runs with pictures on the finished page."""


def demo(out: Path) -> dict[str, Any]:
    """Train, measure and show GCT and both supervised baselines.

    Args:
        out: gets a run folder for each, `summary.json` and `index.html`. Runs that are there already are not trained
            again.

    Returns:
        Metrics in percent by run.

    Raises:
        SemipixError: Plotly is not installed.
        KeyboardInterrupt: the user interrupted; its message says how to continue.
    """
    require_plotly()  # before anything is trained
    jobs = {name: (out / name, [*COMMON, *overrides]) for name, (_, overrides) in VARIANTS.items()}
    done: dict[str, dict[str, Any]] = {}

    def finished(name: str) -> None:
        done[name] = run_variant(*jobs[name])  # only reads, since the run is there
        if len(done) < len(jobs):
            verdict = f"{len(done)} of {len(jobs)} trainings are finished. Load this page again for the others."
            write_page(_page(out, done, _table(done), verdict, tuple(done)), out / "index.html")
            if len(done) == 1:
                print(f"first pictures: open {out / 'index.html'}")

    try:
        found = run_variants(jobs, finished=finished)
    except KeyboardInterrupt as error:
        message = f"interrupted; continue with the same command, which trains what {out} lacks"
        raise Interrupted(number_of(error), message) from error
    summary = _summary(found)
    write_json(out / "summary.json", summary)
    table = _table(found)
    verdict = _verdict(summary)
    for line in table:
        print(f"{line['title']:32} mIoU {line['miou']:5.1f} %   {line['steps']:4} steps  {line['seconds']:4.0f} s")
    print(verdict)
    write_page(_page(out, found, table, verdict, SHOWN), out / "index.html")
    print(f"open {out / 'index.html'}")
    return summary


def _summary(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Test metrics in percent, steps and seconds of each run."""
    return {
        name: {
            "miou": round(100 * result["test"]["miou"], 2),
            "accuracy": round(100 * result["test"]["accuracy"], 2),
            "steps": result["trained"]["steps"],
            "seconds": result["trained"]["seconds"],
        }
        for name, result in found.items()
    }


def _table(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each run, the recommended method last."""
    summary = _summary(found)
    order = [name for name in ("supervised_short", *SHOWN) if name in found]
    return [{"title": VARIANTS[name][0], "lr": _rate(found[name]), **summary[name]} for name in order]


def _rate(result: dict[str, Any]) -> str:
    rates = [str(item).partition("=")[2] for item in result["overrides"] if item.startswith("optimizer.lr=")]
    return rates[0]


def _verdict(summary: dict[str, dict[str, Any]]) -> str:
    """What the figures say, in one sentence, whichever way it went."""
    gain = summary["gct_strong"]["miou"] - summary["supervised"]["miou"]
    other = "the equally long supervised run (one seed each)"
    if abs(gain) < 0.05:
        return f"GCT on strong views ends with the mIoU of {other}."
    if gain > 0:
        return f"GCT on strong views ends {gain:.1f} points of mIoU above {other}."
    return (
        f"GCT on strong views ends {-gain:.1f} points of mIoU below {other}. The diagnostics "
        "show what the exchange gains and what it costs."
    )


def _page(out: Path, found: dict[str, Any], table: list[dict[str, Any]], verdict: str, shown: Sequence[str]) -> Page:
    """The page: figures, error maps, what the exchange does, and pictures of the worst, median and best images.

    Args:
        out: folder of the runs.
        found: results of the runs that are finished.
        table: a row for each of them.
        verdict: the answer.
        shown: the runs with curves and pictures; the last one chooses the images.
    """
    split = load_split(out / shown[0])
    runs = [read_measured(VARIANTS[name][0], out / name) for name in shown]
    folders = {VARIANTS[name][0]: out / name for name in shown}
    chooser = runs[-1]
    images = {} if chooser.images is None else chosen(chooser.images.alone, True, "mIoU", 2)
    note = f"Measured on {len(split.test)} held-out scenes, one training each."
    rows = [
        [
            line["title"],
            f"{line['miou']:.1f}",
            f"{line['accuracy']:.1f}",
            str(line["steps"]),
            f"{line['seconds']:.0f}",
            line["lr"],
        ]
        for line in table
    ]
    columns = ["training", "mIoU %", "pixel accuracy %", "steps", "seconds", "learning rate"]
    versions = environment()["versions"]
    pair = (runs[0].title, chooser.title) if len(runs) > 1 else ("label", chooser.title)
    return Page(
        title=f"Objects in scenes: {len(split.labeled)} labeled and {len(split.unlabeled)} unlabeled images",
        sentence=verdict,
        sections=[
            Section("Figures", [Table(columns, rows, f"{note} {BASELINES}")]),
            pictures_section(
                gallery(folders, images),
                f"The worst, median and best scenes by the mIoU of each under {chooser.title}.",
                pair,
            ),
            error_maps_section(list(reversed(runs)), note),
            _exchange(found),
            classes_section(runs, note),
            learning_section(folders, "miou", "Measured while training, on the validation scenes."),
        ],
        footer=["Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items())],
    )


BASELINES = (
    "All runs share the labeled images and the number of images a step. The paper's short baseline makes as many "
    "passes over the few labels as full supervision makes over all images, so it stops early; the equally long one is "
    "what you would train otherwise, and the one to beat."
)
"""What the table compares."""

EXCHANGE = (
    "On the validation scenes, for both models: AUROC says how well the flaw map finds the real errors. Of the pixels "
    "where one model teaches the other, teacher_right_pupil_wrong is what the exchange gains and "
    "teacher_wrong_pupil_right what it costs, before confidence closes the gate to unsure pixels."
)
"""What the diagnostics are."""


def _exchange(found: dict[str, Any]) -> Section:
    """The diagnostics of the guided run; without parts while it trains."""
    prefix = "val/diagnostics/"
    trained = found["gct_strong"]["trained"] if "gct_strong" in found else {}
    rows = [[key.removeprefix(prefix), f"{value:.3f}"] for key, value in trained.items() if key.startswith(prefix)]
    return Section("What the exchange does", [Table(["diagnostic", "value"], rows, EXCHANGE)] if rows else [])
