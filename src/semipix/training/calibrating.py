"""Calibrate the error map of a run on images that trained nothing: at the end of its training, or afterwards."""

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from semipix import interruption
from semipix.batch import EvalSample
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.errors import SemipixError, one_line, reason_of
from semipix.methods.base import Evidence
from semipix.methods.views import AveragedViews
from semipix.models.memory_format import set_memory_format
from semipix.training.build import data_of_run, deploy_candidate, trained_method
from semipix.training.calibration import Calibration, save
from semipix.training.calibration_fit import calibrate
from semipix.training.configuration import Configuration
from semipix.training.failures import memory_short
from semipix.training.run_folder import checkpoint_of, load_config, load_split, with_root

MOST_IMAGES = 500
"""Most validation images that are used; of more, some are drawn."""


WITHHELD = "withheld"
"""The split of labels that were withheld from one of a pair."""


class Samples(Sequence[EvalSample]):
    """Images with their labels, read when they are asked for.

    Args:
        dataset: has the samples.
        found: indices of those that may be used; of many, some are drawn.
    """

    def __init__(self, dataset: Dataset[Any], found: Sequence[int]) -> None:
        self._dataset = dataset
        self._drawn = sorted(random.Random(0).sample(found, min(MOST_IMAGES, len(found))))

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, index: int) -> EvalSample:  # type: ignore[override]
        sample = self._dataset[self._drawn[index]]
        if isinstance(sample, SemipixError):
            raise SemipixError(*sample.args)
        assert isinstance(sample, EvalSample)
        return sample


def calibrate_run(
    run: Path,
    *,
    checkpoint: str | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    tta: str | None = None,
    deploy: str | None = None,
) -> list[str]:
    """Fit the error map of a finished run, and write it to `calibration.json` in the run folder.

    Args:
        run: run folder.
        checkpoint: `best` or `last`; by default best if there is one.
        root: the data folder, if it was moved; by default the run's `data.root`.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.
        tta: of predictions that are averaged over `flips` or `scales` of each image, see `AveragedViews`.
        deploy: of this candidate, instead of the one that validation chose.

    Returns:
        Lines that say what was fitted, and what it lacks.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, the data differ
            from the run's, its validation images do not suffice, or memory is too small.
        OSError: the file cannot be written.
    """
    configuration = load_config(run, trust)
    if root is not None:
        configuration = with_root(configuration, root)
    if max_pixels is not None:
        configuration = configuration.with_options("data", {"max_pixels": max_pixels})
    try:
        return _calibrate(configuration, run, checkpoint, tta, deploy)
    except (RuntimeError, MemoryError) as error:
        interruption.raise_if_interrupted(error)
        if not (short := memory_short(error)):
            raise
        raise SemipixError(
            f"{run}: out of {short} for the cues of a validation image; use a machine with more, or train with a "
            "smaller data.resize"
        ) from error


def calibrate_at_end(configuration: Configuration, run: Path) -> None:
    """Calibrate at the end of a training and print a line. What hinders it is printed, and does not fail the training.

    Raises:
        Interrupted: a signal was received; the message says that the training is finished.
    """
    try:
        lines = _calibrate(configuration, run, None)
    except KeyboardInterrupt as error:
        message = f"interrupted in the calibration; the training is finished, continue with: semipix calibrate {run}"
        raise interruption.Interrupted(interruption.number_of(error), message) from error
    except SemipixError as error:
        lines = [f"no error map was calibrated: {error}"]
    except (RuntimeError, MemoryError, OSError, ValueError) as error:  # such as a network that refuses an image's size
        interruption.raise_if_interrupted(error)
        short = memory_short(error)
        reason = f"out of {short}" if short else reason_of(error, 100)
        lines = [f"no error map was calibrated: {reason}; do it later: semipix calibrate {run}"]
    for line in lines:
        print(f"semipix: {one_line(line)}", file=sys.stderr)


def _calibrate(
    configuration: Configuration,
    run: Path,
    checkpoint: str | None,
    tta: str | None = None,
    deploy: str | None = None,
) -> list[str]:
    name = checkpoint_of(run, checkpoint).stem
    validated = bool(load_split(run).val)
    if not validated and not configuration.method.options.get("withhold"):
        raise SemipixError(
            f"{run}: the run has no validation images; train with data.val=0.2, with images/val and their labels, or "
            "with method.withhold=0.25 (gct and gct_strong)"
        )
    method = trained_method(configuration, run, name)
    deploy_candidate(method, deploy)
    views = AveragedViews(method, tta, configuration.data.options.get("rotate", 0.0))
    data = data_of_run(configuration, run, method.task, ["train", "val"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_memory_format(method.to(device), device.type, configuration.channels_last)
    if validated:
        samples = Samples(data.val_dataloader().dataset, range(len(data.split.val)))
        calibration = calibrate(
            method,
            samples,
            split="val",
            checkpoint=name,
            evidence=lambda sample, image: views.evidence(image),
            views=tta or "",
            scene=data.source.scene,
        )
    else:
        calibration = _calibrate_on_withheld(views, data, name)
    save(run, calibration)
    return lines_of(calibration)


def _calibrate_on_withheld(views: AveragedViews, data: SemiSupervisedDataModule, checkpoint: str) -> Calibration:
    """Calibrate on the labels that were withheld from one of the pair: its errors, on images that it never learned.

    The other model learned them. What reads both would know the answer there, and does not on new images: so the map is
    made of what a model says alone.
    """
    method = views.method
    dataset, places = data.labeled_samples()
    withheld = {index: method.withheld_from(place) for index, place in enumerate(places)}
    names = {data.split.labeled[index]: candidate for index, candidate in withheld.items() if candidate is not None}
    samples = Samples(dataset, [index for index, candidate in withheld.items() if candidate is not None])

    def evidence(sample: EvalSample, image: Tensor) -> Evidence:
        found = views.evidences(image, flaws_of=())[names[sample.name]]
        return Evidence(found.output, found.predictions[:1])

    return calibrate(
        method,
        samples,
        split=WITHHELD,
        checkpoint=checkpoint,
        evidence=evidence,
        views=views.kind or "",
        scene=data.source.scene,
    )


def lines_of(calibration: Calibration) -> list[str]:
    """What was fitted, and what it lacks, in lines for the user."""
    figures = calibration.figures
    rank, words = ("auroc", "AUROC") if calibration.kind == "probability" else ("rank_correlation", "rank correlation")
    singles = {name.partition("/")[2]: value for name, value in figures.items() if name.startswith(f"{rank}/")}
    compared = ", ".join(f"{name} {value:.3f}" for name, value in singles.items() if value is not None)
    lines = [
        f"error map: calibrated on {calibration.fitted_on} for {calibration.checkpoint}.ckpt, each measured by a map "
        f"of the others, from {calibration.features}: {words} {figures[rank] or math.nan:.3f}"
        f"{f' ({compared})' if compared else ''}, calibration error {figures['calibration_error']:.3f}"
    ]
    if calibration.split == WITHHELD:
        lines.append(
            "error map: of what a model says alone, since the other one of the pair learned these labels; validation "
            "images (data.val=0.2) let the map compare both, and read the detector"
        )
    if calibration.absent:
        lines.append(
            f"error map: no {calibration.split} label holds {', '.join(calibration.absent)}, so that errors there are "
            "estimated from the other classes"
        )
    if calibration.outside:
        lines.append(
            f"error map: {calibration.outside} of {calibration.pixels} labels are outside of the range, from task.low "
            "to task.high, which no prediction leaves; their errors are counted in full, as by evaluate"
        )
    return lines
