"""`semipix demo`: are unlabeled images worth it on the built-in data?"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from semipix.atomic import write_text
from semipix.inference.evaluate import maps_of
from semipix.interruption import Interrupted, number_of
from semipix.launch.variants import environment, run_variants
from semipix.report.pictures import rows
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
    "supervised": ("supervised, equally long", ["method=supervised", "optimizer.lr=1e-3"]),
    "supervised_short": (
        "supervised, the paper's length",
        ["method=supervised", "length=labeled", "optimizer.lr=1e-3"],
    ),
}
"""Title and overrides of each run, the longest first; benchmarks/accuracy/demo_rates.py found the learning rates."""


def demo(out: Path) -> dict[str, Any]:
    """Train, measure and show GCT and both supervised baselines.

    Args:
        out: gets a run folder for each, `summary.json` and `index.html`. Runs that are there already are not trained
            again.

    Returns:
        Metrics in percent by run.

    Raises:
        KeyboardInterrupt: the user interrupted; its message says how to continue.
    """
    jobs = {name: (out / name, [*COMMON, *overrides]) for name, (_, overrides) in VARIANTS.items()}
    try:
        found = run_variants(jobs)
    except KeyboardInterrupt as error:
        message = f"interrupted; continue with the same command, which trains what {out} lacks"
        raise Interrupted(number_of(error), message) from error
    summary = {
        name: {
            "miou": round(100 * result["test"]["miou"], 2),
            "accuracy": round(100 * result["test"]["accuracy"], 2),
            "steps": result["trained"]["steps"],
            "seconds": result["trained"]["seconds"],
        }
        for name, result in found.items()
    }
    write_json(out / "summary.json", summary)
    summary = {name: summary[name] for name in ("supervised_short", "supervised", "gct_strong")}
    table = [{"title": VARIANTS[name][0], "lr": _rate(found[name]), **figures} for name, figures in summary.items()]
    verdict = _verdict(summary)
    for line in table:
        print(f"{line['title']:32} mIoU {line['miou']:5.1f} %   {line['steps']:4} steps  {line['seconds']:4.0f} s")
    print(verdict)
    page = _page(out, found, table, verdict)
    write_text(out / "index.html", page)
    print(f"open {out / 'index.html'}")
    return summary


def _rate(result: dict[str, Any]) -> str:
    rates = [str(item).partition("=")[2] for item in result["overrides"] if item.startswith("optimizer.lr=")]
    return rates[0]


def _verdict(summary: dict[str, dict[str, Any]]) -> str:
    """What the figures say, in one sentence, whichever way it went."""
    gain = summary["gct_strong"]["miou"] - summary["supervised"]["miou"]
    if abs(gain) < 0.05:
        return "GCT on strong views ends with the mIoU of the equally long supervised run."
    if gain > 0:
        return f"GCT on strong views ends {gain:.1f} points of mIoU above the equally long supervised run."
    return (
        f"GCT on strong views ends {-gain:.1f} points of mIoU below the equally long supervised run. The diagnostics "
        "show what the exchange gains and what it costs."
    )


MEASURES = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "risk80": "errors in the surest 80 %",
    "aurc": "AURC",
    "ece": "ECE",
    "image_spearman": "correlation over images",
}
"""Titles of the measures of error maps, in the order of the page's columns."""


def _error_maps(found: dict[str, Any]) -> list[list[str]]:
    """For each error map of the two runs with pictures a row: training, map, and its figures on the test images."""
    rows = []
    for name in ("gct_strong", "supervised"):
        for key, figures in maps_of(found[name]["test"]).items():
            values = [figures[measure] for measure in MEASURES]
            rows.append([VARIANTS[name][0], key, *("-" if value is None else f"{value:.3f}" for value in values)])
    return rows


def _page(out: Path, found: dict[str, Any], table: list[dict[str, Any]], verdict: str) -> str:
    split = load_split(out / "gct_strong")
    prefix = "val/diagnostics/"
    trained = found["gct_strong"]["trained"]
    diagnostics = {key.removeprefix(prefix): value for key, value in trained.items() if key.startswith(prefix)}
    versions = environment()["versions"]
    templates = Environment(loader=PackageLoader("semipix", "report"), autoescape=select_autoescape(["html", "j2"]))
    return templates.get_template("demo.html.j2").render(
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        test=len(split.test),
        verdict=verdict,
        table=table,
        measures=list(MEASURES.values()),
        error_maps=_error_maps(found),
        diagnostics=diagnostics,
        pictures=rows({VARIANTS[name][0]: out / name for name in ("supervised", "gct_strong")}),
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
    )
