"""Measure a run on held-out images."""

import math
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl

from semipix import interruption
from semipix.config import call
from semipix.errors import SemipixError
from semipix.training.build import build_learner, data_of_run, trained_method
from semipix.training.callbacks import RunProgress
from semipix.training.failures import memory_short
from semipix.training.quiet import quiet
from semipix.training.run_folder import load_config, with_root, write_json
from semipix.training.stopping import StopOnSignal


def evaluate(
    run: Path,
    split: str = "test",
    checkpoint: str | None = None,
    batch_size: int | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
) -> dict[str, float]:
    """Measure a run and write its metrics to the run folder; see `measure` for the arguments.

    Raises:
        SemipixError: as `measure` and `keep`.
    """
    results = measure(run, split, checkpoint, batch_size, root, max_pixels, trust)
    keep(run, split, results)
    return results


def measure(
    run: Path,
    split: str = "test",
    checkpoint: str | None = None,
    batch_size: int | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
) -> dict[str, float]:
    """Metrics over whole images at their own size, with the run's own data and split; writes no file.

    Args:
        run: run folder.
        split: `test` or `val`.
        checkpoint: `best` or `last`; by default best if there is one.
        batch_size: images per batch; by default the run's `data.eval_batch_size`.
        root: the data folder, if it was moved; by default the run's `data.root`.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.

    Returns:
        Metrics by name; NaN for a class that is in no label and in no prediction.

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
    data = data_of_run(configuration, run, method.task, [split] if split == "test" else ["train", "val"])
    if not getattr(data.split, split):
        raise SemipixError(f"{run}: its data has no {split} images; choose another --split or add images/{split}")
    learner = build_learner(configuration, method, steps=1)
    options = {key: value for key, value in configuration.trainer.arguments().items() if key == "precision"}
    # A run may be measured on a machine without the accelerator that it was trained on.
    options["accelerator"] = "cpu" if configuration.trainer.options.get("accelerator") == "cpu" else "auto"
    trainer = call(
        "trainer",
        pl.Trainer,
        devices=1,
        logger=False,
        enable_model_summary=False,
        callbacks=[StopOnSignal(), RunProgress()],
        **options,
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
    if line := learner.slabs.line():
        print(f"semipix: {line}", file=sys.stderr)
    if learner.unmeasured:
        raise SemipixError(f"{run}: {split}: {learner.unmeasured}")
    return {key.removeprefix("test/"): value for key, value in found.items()}


def keep(run: Path, split: str, results: dict[str, float]) -> None:
    """Write metrics to `evaluation-{split}.json` in the run folder, null for NaN.

    Raises:
        SemipixError: the file cannot be written.
    """
    path = run / f"evaluation-{split}.json"
    try:
        write_json(path, results)
    except OSError as error:
        raise SemipixError(
            f"{path}: the figures could not be kept in this file: {error.strerror}; make room, or let the folder be "
            "written, and evaluate again"
        ) from error


def results_table(results: dict[str, float]) -> str:
    """Metrics as aligned lines; a class that is in no label and in no prediction is shown as absent."""
    width = max(len(name) for name in results)
    return "\n".join(f"{name:{width}}  {_shown(name, value)}" for name, value in results.items())


def _shown(name: str, value: float) -> str:
    if not math.isnan(value):
        return f"{value:.4f}"
    return "absent" if name.startswith("iou/") else "not measured"
