"""The figures of the runs of a comparison: of each image, of the validations, and of what the training cost."""

import csv
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from semipix import interruption
from semipix.errors import SemipixError, one_line
from semipix.report.comparison import Curve, Run
from semipix.report.comparison_runs import Found
from semipix.training.image_figures import MeasuredImages, kept_images, read_images
from semipix.training.run_folder import checkpoint_of

TOLERANCE = 1e-4
"""Largest relative difference between the metric from the figures of images and the one in the evaluation."""


@dataclass(frozen=True)
class Measured:
    """A run with the figures of its images."""

    run: Found
    images: MeasuredImages

    @property
    def value(self) -> float:
        """The primary metric."""
        return self.images.value


def split_of(found: Sequence[Found]) -> str:
    """The images to compare by: `test` where all runs have test images, otherwise `val`."""
    return "test" if all(run.split is not None and run.split.test for run in found) else "val"


def measured(
    found: Sequence[Found], split: str, *, evaluate: bool = True, root: Path | None = None, trust: bool = False
) -> tuple[list[Measured], list[Run]]:
    """The figures of finished runs. A run that lacks them is evaluated, with a progress bar over those runs.

    Args:
        found: finished runs.
        split: `test` or `val`.
        evaluate: whether runs without figures are evaluated, which needs their data.
        root: the data folder, if it was moved.
        trust: evaluate runs that name code outside of the known packages too.

    Returns:
        Runs with figures, and the others with the reason.

    Raises:
        KeyboardInterrupt: the user interrupted; what was evaluated is kept.
    """
    kept: list[Measured] = []
    left_out: list[Run] = []
    missing = [run for run in found if _kept(run, split) is None]
    if missing and evaluate:
        missing_bar = tqdm(total=len(missing), desc="evaluate runs", unit="run", file=sys.stderr)
    else:
        missing_bar = None
    for run in found:
        images = _kept(run, split)
        if images is None and not evaluate:
            reason = f"no evaluation-{split}.csv of its deployed network; leave --no-evaluate out, or evaluate it"
            left_out.append(run.as_run(False, reason))
            continue
        try:
            if images is None:
                images = _evaluated(run, split, root, trust)
                if missing_bar is not None:
                    missing_bar.update()
            _check_value(run, images, split)
            kept.append(Measured(run, images))
        except SemipixError as error:
            left_out.append(run.as_run(False, one_line(str(error))))
    if missing_bar is not None:
        missing_bar.close()
    return kept, left_out


def is_measured(run: Found, split: str) -> bool:
    """Whether a run folder has the figures of its deployed network."""
    return _kept(run, split) is not None


def _kept(run: Found, split: str) -> MeasuredImages | None:
    """The figures that a run folder has of its deployed network, or None.

    Those of another checkpoint, or from before the end of the training, are not of the network that the run has now.
    """
    try:
        return kept_images(run.folder, split, checkpoint_of(run.folder).stem)
    except SemipixError:  # without checkpoints the figures are all that is left
        return kept_images(run.folder, split, "best") or kept_images(run.folder, split, "last")


def _evaluated(run: Found, split: str, root: Path | None, trust: bool) -> MeasuredImages:
    """Evaluate a run and read its figures.

    Raises:
        SemipixError: it has no checkpoint, its data are not there, or they are others.
    """
    from semipix.inference.evaluate import evaluate

    interruption.raise_if_interrupted()
    evaluate(run.folder, split, root=root, trust=trust)
    return read_images(run.folder / f"evaluation-{split}.csv")


def _check_value(run: Found, images: MeasuredImages, split: str) -> None:
    """Check that the figures of images give the metric of the evaluation.

    Raises:
        SemipixError: they do not, or the metric is not a number.
    """
    path = run.folder / f"evaluation-{split}.json"
    if math.isnan(images.value):
        raise SemipixError(f"{path.with_suffix('.csv')}: {images.metric} is not a number")
    try:
        value = json.loads(path.read_text())[images.metric]
        same = math.isclose(value, images.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE / 100)
    except (OSError, ValueError, KeyError, TypeError):
        raise SemipixError(f"{path}: no {images.metric} found, as semipix evaluate writes it; evaluate again") from None
    if not same:
        raise SemipixError(
            f"{path}: {images.metric} {value:g}, but the images of {path.with_suffix('.csv').name} give "
            f"{images.value:g}; evaluate again, or let the task's image_figures add up to its metric"
        )


def with_same_pixels(kept: Sequence[Measured]) -> tuple[list[Measured], list[Run]]:
    """The runs in which as many pixels of each image count as in most, and the others with the reason.

    Raises:
        SemipixError: of an image, as many runs have another number of pixels. Names two of them.
    """
    counts: dict[str, dict[int, list[Measured]]] = {}
    for each in kept:
        for name, count in zip(each.images.figures.names, each.images.pixels, strict=True):
            counts.setdefault(name, {}).setdefault(count, []).append(each)
    reasons: dict[Path, str] = {}
    for name, groups in counts.items():
        (usual, most), *others = sorted(groups.items(), key=lambda group: -len(group[1]))
        for count, runs in others:
            reason = (
                f"{most[0].run.folder} and {runs[0].run.folder}: {usual} and {count} pixels count in {name}; compare "
                "runs on the same data, with the same data.resize and mask values"
            )
            if len(runs) == len(most):
                raise SemipixError(reason)
            for each in runs:
                reasons.setdefault(each.run.folder, reason)
    same = [each for each in kept if each.run.folder not in reasons]
    return same, [each.run.as_run(False, reasons[each.run.folder]) for each in kept if each not in same]


def curve_of(each: Measured) -> Curve:
    """The validations of a run; without points where none is kept."""
    run = each.run
    points: dict[int, float] = {}
    key = f"val/{each.images.metric}"
    for path in sorted((run.folder / "metrics").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with suppress(OSError, ValueError, KeyError), path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get(key):
                    points[int(row["step"]) + 1] = float(row[key])  # Lightning counts steps from 0
    steps = sorted(points)
    return Curve(str(run.folder), run.variant, run.labels or 0, run.seed, steps, [points[step] for step in steps])
