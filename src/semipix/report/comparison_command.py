"""`semipix compare`: from run folders to a comparison, and the files that it leaves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from semipix.atomic import write_text
from semipix.errors import SemipixError
from semipix.report.comparison import FILE, Comparison, Run
from semipix.report.comparison_figures import Measured, is_measured, measured, split_of, with_same_pixels
from semipix.report.comparison_runs import alike, find_runs, named, without_twins
from semipix.report.comparison_statistics import comparison_of
from semipix.report.comparison_tables import markdown, table_csv
from semipix.training.image_figures import with_shared_scenes


def compare(
    paths: Sequence[Path],
    split: str | None = None,
    *,
    evaluate: bool = True,
    root: Path | None = None,
    trust: bool = False,
) -> Comparison:
    """Compare runs that were trained on the same data and splits.

    Runs that are not finished, or cannot be evaluated, are left out and listed with the reason.

    Args:
        paths: run folders, or folders with run folders below them.
        split: `test` or `val`; by default `test` where the runs have test images.
        evaluate: whether runs without figures of their images are evaluated, which needs their data.
        root: the data folder, if it was moved.
        trust: allow run folders to name code outside of the known packages.

    Raises:
        SemipixError: there is no run, none can be compared, or runs differ in task, metric, data or splits.
        KeyboardInterrupt: the user interrupted; what was evaluated is kept in the run folders.
    """
    found, others = find_runs(paths, trust)
    finished = [run for run in found if run.state == "finished" and run.split is not None]
    for run in found:
        if run not in finished:
            reason = run.reason or "its split.json cannot be read; restore the file"
            others.append(run.as_run(False, reason))
    if not finished:
        reasons = "; ".join(f"{run.folder}: {run.reason}" for run in others[:3])
        raise SemipixError(f"none of {len(others)} runs is finished, so that nothing can be compared: {reasons}")
    finished, unlike = alike(finished)
    finished = named(finished)
    chosen = split or split_of(finished)
    kept: list[Measured] = []
    unmeasured: list[Run] = []
    waiting = sorted(finished, key=lambda run: not is_measured(run, chosen))
    while waiting:  # a copy of a run takes its place where that cannot be measured
        first, copies = without_twins(waiting)
        more, failed = measured(first, chosen, evaluate=evaluate, root=root, trust=trust)
        kept += more
        unmeasured += failed
        waiting = [run for run, twin in copies if any(str(twin.folder) == each.folder for each in failed)]
        others += [
            run.as_run(False, f"the same variant, labels and seed as {twin.folder}")
            for run, twin in copies
            if run not in waiting
        ]
    others += [*unlike, *unmeasured]
    if not kept:
        first_one = unmeasured[0]
        raise SemipixError(
            f"none of {len(finished)} finished runs has figures of its {chosen} images: {first_one.folder}: "
            f"{first_one.reason}"
        )
    kept, others_measured = with_same_pixels(kept)
    others += others_measured
    figures = with_shared_scenes([each.images for each in kept])
    kept = [replace(each, images=images) for each, images in zip(kept, figures, strict=True)]
    runs = sorted([*(each.run.as_run(True) for each in kept), *others], key=lambda run: run.folder)
    return comparison_of(kept, runs, chosen, progress=lambda rows: tqdm(rows, desc="compare", unit="row", delay=5))


def write(comparison: Comparison, folder: Path) -> None:
    """Write `compare.json`, `compare.csv` and `compare.md`.

    Raises:
        OSError: a file cannot be written; the error names it.
    """
    write_text(folder / "compare.csv", table_csv(comparison), errors="surrogateescape")
    write_text(folder / "compare.md", markdown(comparison), errors="surrogateescape")
    comparison.to_json(folder / FILE)
