"""The page of one run: `semipix evaluate RUN --report`."""

import math
from pathlib import Path

from semipix.methods.tiles import Tiling
from semipix.report.page import Page, Section, write_page
from semipix.report.page_sections import (
    MeasuredRun,
    classes_section,
    drawn,
    error_maps_section,
    learning_section,
    metric_title,
    metrics_table,
    on_images,
    pictures_section,
    primary_interval,
    read_measured,
    shown,
)
from semipix.report.pictures import chosen, gallery
from semipix.training.build import build_task
from semipix.training.configuration import Configuration
from semipix.training.run_folder import load_config, load_split, read_config

MANY = 12
"""Images from which on two of each kind are shown."""


def report_file(run: Path, split: str) -> Path:
    """Where the page is written if no file is given."""
    return run / f"report-{split}.html"


def write_run_page(
    run: Path,
    split: str = "test",
    file: Path | None = None,
    *,
    checkpoint: str | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    tiling: Tiling | None = None,
) -> Path:
    """Write the page of a run that was evaluated on a split.

    Args:
        run: run folder.
        split: `test` or `val`.
        file: where to; by default `report-SPLIT.html` in the run folder.
        checkpoint: of the pictures' predictions, `best` or `last`; that of the evaluation.
        root: the data folder, if it was moved.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages.
        tiling: of the pictures' predictions; that of the evaluation.

    Returns:
        The file.

    Raises:
        SemipixError: the run was not evaluated, its data or its networks cannot be read, or Plotly is missing.
        OSError: the file cannot be written.
    """
    configuration = load_config(run, trust)
    task = build_task(configuration)
    measured = read_measured(run.resolve().name, run, split)
    note = on_images([measured], [configuration.seed])
    images = {}
    if measured.images is not None:
        figures = measured.images.alone
        images = chosen(figures, task.higher_is_better, metric_title(task.primary), 2 if len(figures) >= MANY else 1)
    pictures = gallery(
        {measured.title: run},
        images,
        split,
        checkpoint=checkpoint,
        root=root,
        max_pixels=max_pixels,
        trust=trust,
        tiling=tiling,
    )
    about = f"The worst, median and best {split} images by the {metric_title(task.primary)} of each image alone."
    page = Page(
        title=f"{measured.title}: {configuration.method.path.split('.')[-2]} on {split} images",
        sentence=_sentence(measured, configuration, task.primary),
        sections=[
            Section("Figures", [metrics_table(measured)]),
            classes_section([measured], note),
            learning_section({measured.title: run}, task.primary),
            error_maps_section([measured], note),
            pictures_section(pictures, about, ("label", measured.title)),
        ],
        footer=_footer(run, trust),
    )
    file = file or report_file(run, split)
    write_page(page, file)
    return file


def _sentence(run: MeasuredRun, configuration: Configuration, metric: str) -> str:
    """What was measured, in one sentence."""
    split = load_split(run.folder)
    found = primary_interval(run)
    interval = ""
    if found is not None and not math.isnan(found.low):
        interval = f" (95 % interval over {drawn([run])} {shown(found.low)} to {shown(found.high)}; one seed)"
    method = configuration.method.path.split(".")[-2]
    learned = f"{method} learned from {len(split.labeled):,} labeled"
    if configuration.method.target.uses_unlabeled:  # type: ignore[attr-defined]
        learned += f" and {len(split.unlabeled):,} unlabeled"
    measured = f"the {metric_title(metric)} on {len(getattr(split, run.split)):,} {run.split} images is"
    return f"{learned} images, and {measured} {shown(run.figures[metric])}{interval}."


def _footer(run: Path, trust: bool) -> list[str]:
    """The run folder, and the versions and the command that trained it."""
    _, records = read_config(run, trust)
    versions = ", ".join(f"{name} {number}" for name, number in records["versions"].items())
    return [f"Run folder: {run}", f"Trained by: {records['command']}", f"Versions: {versions}"]
