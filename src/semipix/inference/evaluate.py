"""Measure a run on held-out images."""

import functools
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl

from semipix import interruption
from semipix.config import call
from semipix.errors import SemipixError, one_line
from semipix.methods.base import Evidence, Method
from semipix.methods.tiles import Tiling
from semipix.methods.views import AveragedViews
from semipix.training.build import build_learner, data_of_run, deploy_candidate, trained_method
from semipix.training.calibration import ErrorMap, load, uncalibrated
from semipix.training.callbacks import RunProgress
from semipix.training.failures import memory_short
from semipix.training.image_figures import TILED, UNFINISHED, ImageRecords
from semipix.training.quiet import quiet
from semipix.training.run_folder import checkpoint_of, is_finished, load_config, with_root, write_json
from semipix.training.stopping import StopOnSignal

ERRORS = "errors/"
"""How the names of the figures of error maps begin: `errors/MAP/MEASURE`."""

CONFUSION = "confusion"
"""Key of the confusion matrix in `evaluation-SPLIT.json`, beside the metrics."""


class Evaluation(NamedTuple):
    """What was measured of a run.

    Attributes:
        figures: metrics by name; NaN for a class that is in no label and in no prediction. `errors/MAP/MEASURE` are the
            figures of the deployed network's error maps.
        confusion: `classes`: their names; `pixels`: a row for each label with the number of its pixels by predicted
            class. None in regression.
        curves: points of the error maps' curves, see `ErrorMapMetric.curves`.
        records: the figures of each image.
    """

    figures: dict[str, float]
    records: ImageRecords
    confusion: dict[str, Any] | None = None
    curves: dict[str, dict[str, list[float]]] = {}  # noqa: RUF012 (the default is never changed)


def evaluate(
    run: Path,
    split: str = "test",
    *,
    checkpoint: str | None = None,
    batch_size: int | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    tiling: Tiling | None = None,
    tta: str | None = None,
    deploy: str | None = None,
) -> dict[str, float]:
    """Measure a run, and write what was measured to the run folder; for the arguments see `measured`.

    Returns:
        The metrics by name.

    Raises:
        SemipixError: as `measured` and `keep`.
    """
    evaluation = measured(
        run,
        split,
        checkpoint=checkpoint,
        batch_size=batch_size,
        root=root,
        max_pixels=max_pixels,
        trust=trust,
        tiling=tiling,
        tta=tta,
        deploy=deploy,
    )
    keep(run, kept_name(split, deploy, tta), evaluation, checkpoint, tiled=tiling is not None)
    return evaluation.figures


def measured(
    run: Path,
    split: str = "test",
    *,
    checkpoint: str | None = None,
    batch_size: int | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    tiling: Tiling | None = None,
    tta: str | None = None,
    deploy: str | None = None,
) -> Evaluation:
    """Metrics over whole images at their own size, with the run's own data and split; writes no file.

    Args:
        run: run folder.
        split: `test` or `val`.
        checkpoint: `best` or `last`; by default best if there is one.
        batch_size: images per batch; by default the run's `data.eval_batch_size`.
        root: the data folder, if it was moved; by default the run's `data.root`.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.
        tiling: compute all images that are larger than a tile in such tiles, as `semipix predict --tile` does.
        tta: average the predictions of `flips` or `scales` of each image, see `AveragedViews`.
        deploy: measure the error maps of this candidate, and its metrics as those of the run.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, the split has no
            images or no pixel to measure, the data differ from the run's, or memory is too small.
    """
    quiet()
    configuration = load_config(run, trust)
    if root is not None:
        configuration = with_root(configuration, root)
    given = {"eval_batch_size": batch_size, "max_pixels": max_pixels}
    given = {key: value for key, value in given.items() if value is not None}
    configuration = configuration.with_options("data", given)
    method = trained_method(configuration, run, checkpoint)
    deploy_candidate(method, deploy)
    data = data_of_run(configuration, run, method.task, [split] if split == "test" else ["train", "val"])
    if not getattr(data.split, split):
        raise SemipixError(f"{run}: its data has no {split} images; choose another --split or add images/{split}")
    learner = build_learner(configuration, method, steps=1)
    learner.written = written_map(run, method, checkpoint, tta or "")
    learner.tiling = tiling
    learner.views = AveragedViews(method, tta, configuration.data.options.get("rotate", 0.0))
    learner.records = ImageRecords(data.source.scene)
    # In float32, as prediction and calibration compute, whatever `trainer.precision` the run was trained in. It may be
    # measured on a machine without the accelerator that it was trained on.
    accelerator = "cpu" if configuration.trainer.options.get("accelerator") == "cpu" else "auto"
    trainer = call(
        "trainer",
        pl.Trainer,
        devices=1,
        logger=False,
        enable_model_summary=False,
        callbacks=[StopOnSignal(), RunProgress()],
        accelerator=accelerator,
    )
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    try:
        with interruption.deferred("batch"):
            found = trainer.test(learner, loader, verbose=False)[0]
    except interruption.Stopped:
        raise interruption.Interrupted(interruption.received() or signal.SIGINT) from None
    except (RuntimeError, MemoryError) as error:
        interruption.raise_if_interrupted(error)
        if not (short := memory_short(error)):
            raise
        raise SemipixError(
            f"{run}: out of {short} in batches of {data.eval_batch_size} {split} images; lower --batch-size, or train "
            "with a smaller data.resize"
        ) from error
    for line in learner.large.lines():
        print(f"semipix: {line}", file=sys.stderr)
    if learner.unmeasured:
        raise SemipixError(f"{run}: {split}: {learner.unmeasured}")
    figures = {key.removeprefix("test/"): value for key, value in found.items()}
    classes = list(getattr(method.task, "classes", None) or ())
    confusion = None if learner.confusion is None else {"classes": classes, "pixels": learner.confusion.tolist()}
    return Evaluation(figures, learner.records, confusion, learner.error_curves)


def written_map(
    run: Path, method: Method, checkpoint: str | None, views: str = ""
) -> Callable[[Evidence], ErrorMap | None]:
    """The error map that `semipix predict` writes: the calibrated one, or the best of the others.

    Without a calibration that fits, which prediction refuses, there is none, and a line says so.
    """
    try:
        calibration = load(run, method, checkpoint_of(run, checkpoint).stem, views)
    except SemipixError as error:
        print(f"semipix: errors/map is not measured: {one_line(str(error))}", file=sys.stderr)
        return lambda evidence: None
    return functools.partial(uncalibrated, method) if calibration is None else lambda evidence: calibration


def kept_name(split: str, deploy: str | None = None, tta: str | None = None) -> str:
    """What files of an evaluation are called: `test`, or `test-flips`, so that the deployed network's stay."""
    return "-".join(part for part in (split, deploy, tta) if part)


def keep(run: Path, split: str, evaluation: Evaluation, checkpoint: str | None = None, *, tiled: bool = False) -> None:
    """Write what was measured to the run folder, null for NaN.

    - `evaluation-{split}.csv`: the figures of each image.
    - `evaluation-{split}-curves.json`: the curves of error maps.
    - `evaluation-{split}.json`: metrics and confusion matrix; written last, since it marks the run as evaluated.

    Args:
        run: run folder.
        split: what was measured, see `kept_name`.
        evaluation: what was measured.
        checkpoint: the network that was measured, as `measured` takes it.
        tiled: whether large images were computed in tiles, which changes the figures.

    Raises:
        SemipixError: a file cannot be written.
    """
    network = checkpoint_of(run, checkpoint).stem + (TILED if tiled else "")
    metrics: dict[str, Any] = dict(evaluation.figures)
    if evaluation.confusion is not None:
        metrics[CONFUSION] = evaluation.confusion
    path = run / f"evaluation-{split}.csv"
    try:
        evaluation.records.write(path, network if is_finished(run) else f"{network}{UNFINISHED}")
        path = run / f"evaluation-{split}-curves.json"
        write_json(path, evaluation.curves)
        path = run / f"evaluation-{split}.json"
        write_json(path, metrics)
    except OSError as error:
        raise SemipixError(
            f"{path}: the figures could not be kept in this file: {error.strerror}; make room, or let the folder be "
            "written, and evaluate again"
        ) from error


def results_table(results: dict[str, float]) -> str:
    """Metrics as aligned lines, then the figures of error maps with a line for each map.

    A class that is in no label and in no prediction is shown as absent.
    """
    metrics = {name: value for name, value in results.items() if not name.startswith(ERRORS)}
    width = max(len(name) for name in metrics)
    lines = [f"{name:{width}}  {_shown(name, value)}" for name, value in metrics.items()]
    if maps := maps_of(results):
        lines += ["", *_map_lines(maps)]
    return "\n".join(lines)


def maps_of(results: dict[str, float]) -> dict[str, dict[str, float]]:
    """The figures of error maps in metrics: for each map its measures by name."""
    found: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        if name.startswith(ERRORS):
            key, _, measure = name.removeprefix(ERRORS).partition("/")
            found.setdefault(key, {})[measure] = value
    return found


def _map_lines(maps: dict[str, dict[str, float]]) -> list[str]:
    """A title with the measures, then a line for each map."""
    measures = list(next(iter(maps.values())))
    title = "errors found by"
    width = max(len(name) for name in (title, *maps))
    lines = [f"{title:{width}}" + "".join(f"  {measure:>{_column(measure)}}" for measure in measures)]
    for name, figures in maps.items():
        shown = {measure: "-" if math.isnan(figures[measure]) else f"{figures[measure]:.4f}" for measure in measures}
        lines.append(f"{name:{width}}" + "".join(f"  {shown[measure]:>{_column(measure)}}" for measure in measures))
    return lines


def _column(measure: str) -> int:
    """Characters of a column: of its title, or of a figure such as -0.1234."""
    return max(len(measure), 7)


def _shown(name: str, value: float) -> str:
    if not math.isnan(value):
        return f"{value:.4f}"
    return "absent" if name.startswith("iou/") else "not measured"
