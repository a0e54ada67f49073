"""`semipix demo`: is guided collaborative training worth it on the built-in data?"""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from semipix import train
from semipix.report.comparison import environment, run_variants
from semipix.report.pictures import rows

COMMON = [
    "data=scenes",
    "data.labels=16",
    "data.crop=96",
    "data.workers=0",
    "trainer.precision=auto",
    "steps=120",
    "validations=2",
]
"""What all runs share."""

GUIDED = [
    "method=gct",
    "method.lambda_dc=3",
    "method.lambda_fc=0.1",
    "method.warmup_epochs=0.25",
    "method.rampup_epochs=0.5",
    "data.labeled_per_batch=6",
]
"""GCT for short training with few labels; benchmarks/compare.py shows why the paper's weights do not suit it."""

VARIANTS = {
    "gct": ("GCT", [*GUIDED, "optimizer.lr=3e-3"]),
    "supervised": ("supervised, equally long", ["method=supervised", "optimizer.lr=3e-3"]),
    "supervised_short": (
        "supervised, the paper's length",
        ["method=supervised", "length=labeled", "optimizer.lr=3e-4"],
    ),
}
"""Title and overrides of each run, the longest first; benchmarks/demo_rates.py found the learning rates."""


def demo(out: Path) -> dict[str, Any]:
    """Train, measure and show GCT and both supervised baselines.

    Args:
        out: gets a run folder for each, `summary.json` and `index.html`. Runs that are there already are not trained
            again.

    Returns:
        Metrics in percent by run.
    """
    jobs = {name: (out / name, [*COMMON, *overrides]) for name, (_, overrides) in VARIANTS.items()}
    found = run_variants(jobs)
    summary = {
        name: {
            "miou": round(100 * result["test"]["miou"], 2),
            "accuracy": round(100 * result["test"]["accuracy"], 2),
            "steps": result["trained"]["steps"],
            "seconds": result["trained"]["seconds"],
        }
        for name, result in found.items()
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    summary = {name: summary[name] for name in ("supervised_short", "supervised", "gct")}
    table = [{"title": VARIANTS[name][0], "lr": _rate(found[name]), **figures} for name, figures in summary.items()]
    verdict = _verdict(summary)
    for line in table:
        print(f"{line['title']:32} mIoU {line['miou']:5.1f} %   {line['steps']:4} steps  {line['seconds']:4.0f} s")
    print(verdict)
    page = _page(out, found, table, verdict)
    (out / "index.html").write_text(page)
    print(f"open {out / 'index.html'}")
    return summary


def _rate(result: dict[str, Any]) -> str:
    rates = [str(item).partition("=")[2] for item in result["overrides"] if item.startswith("optimizer.lr=")]
    return rates[0]


def _verdict(summary: dict[str, dict[str, Any]]) -> str:
    """What the figures say, in one sentence, whichever way it went."""
    gain = summary["gct"]["miou"] - summary["supervised"]["miou"]
    if gain > 0:
        return f"GCT ends {gain:.1f} points of mIoU above the equally long supervised run."
    return (
        f"GCT ends {-gain:.1f} points of mIoU below the equally long supervised run: between weak views of the same "
        "images the two models have too little to teach each other. The diagnostics show what the exchange gains and "
        "what it costs."
    )


def _page(out: Path, found: dict[str, Any], table: list[dict[str, Any]], verdict: str) -> str:
    split = train.load_split(out / "gct")
    prefix = "val/diagnostics/"
    diagnostics = {
        key.removeprefix(prefix): value for key, value in found["gct"]["trained"].items() if key.startswith(prefix)
    }
    versions = environment()["versions"]
    templates = Environment(loader=PackageLoader("semipix", "report"), autoescape=select_autoescape(["html", "j2"]))
    return templates.get_template("demo.html.j2").render(
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        test=len(split.test),
        verdict=verdict,
        table=table,
        diagnostics=diagnostics,
        pictures=rows({VARIANTS[name][0]: out / name for name in ("supervised", "gct")}),
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
    )
