"""A calibrated error map: for each pixel the probability that it is wrong or, in regression, its expected error.

The score of a pixel is a weighted sum of its cues, of their means around it, and of their means over the image
(`semipix.functional.cues`). A table of knots makes the value of the score. Only the part of the image's means needs the
whole image, and it is a constant: so an image can be computed in slabs of rows, and its constant added at the end.

`semipix.training.calibration_fit` fits a calibration. A run folder keeps it in `calibration.json`: plain numbers.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.atomic import write_text
from semipix.errors import SemipixError, reason_of
from semipix.functional.conformal import Accepted, accept
from semipix.functional.cues import VERSION, probability_cues, value_cues, weighted_sum
from semipix.functional.searching import count_at_most
from semipix.methods.base import Evidence, Method
from semipix.methods.error_maps import error_maps
from semipix.tasks.base import Task

CALIBRATION = "calibration.json"
"""File of a run folder."""

PREFERRED = {True: ("softmax", "disagreement", "flaw"), False: ("disagreement", "flaw")}
"""Uncalibrated maps in classification and in regression, the best first: those that mean about what an error map does,
a probability of error and a difference in the range of the values. In regression a flaw map that estimates the error
itself comes first (docs/error-maps.md)."""

Kind = Literal["probability", "absolute error"]


class ErrorMap(Protocol):
    """Makes error maps of evidence; of large images in parts."""

    @property
    def name(self) -> str:
        """What it is: `calibrated`, or the name of an uncalibrated map."""

    def parts(self, task: Task, evidence: Evidence, image: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, 1, h, w) of the pixels, and maps (N, D, h, w) whose means over the image `constant` needs."""

    def constant(self, means: Tensor) -> Tensor:
        """What is added to all scores of an image (N,), from the means (N, D) of the maps of `parts`."""

    def values(self, scores: Tensor) -> Tensor:
        """Error map from scores to which the constant was added, of any shape; in [0, 1], see `Calibration.outside`."""


@dataclass(frozen=True)
class Uncalibrated:
    """An error map that `error_maps` makes, as it is.

    Attributes:
        name: `softmax`, `disagreement` or `flaw`.
    """

    name: str

    def parts(self, task: Task, evidence: Evidence, image: Tensor) -> tuple[Tensor, Tensor]:
        found = error_maps(task, evidence)[self.name]
        if found.shape[-2:] != evidence.output.shape[-2:]:
            found = F.interpolate(found, evidence.output.shape[-2:], mode="bilinear")
        return found, found[:, :0]

    def constant(self, means: Tensor) -> Tensor:
        return means.new_zeros(means.shape[0])

    def values(self, scores: Tensor) -> Tensor:
        return scores.clamp(0, 1)


@dataclass(frozen=True)
class Calibration:
    """A fitted error map and what is known of it.

    In regression errors are means over the channels, as shares of the range of the values.

    Attributes:
        checkpoint: of the run, `best` or `last`.
        fingerprint: of its weights, see `fingerprint`.
        kind: what a value is: the probability of an error, or the expected absolute error.
        cues: the version of the cues.
        networks: how many of the method's networks the cues come from: 1, or 2 of a pair.
        weights: weight of each feature in the score, by name; features without a weight are not used.
        intercept: added to the weighted sum.
        knot_scores: ascending scores of the knots.
        knot_values: ascending values of the knots, in [0, 1]; see `outside`.
        split: which images it was fitted on.
        images: how many.
        pixels: how many of their pixels.
        features: which were chosen: the name of a cue alone, `all cues`, `surroundings` (their means around the pixel
            too) or `image` (those over the image too).
        figures: measured on images that the map was not fitted on: AUROC and ECE in classification, rank correlation
            and mean difference of bins in regression; and of single cues the AUROC or the rank correlation.
        squares: in regression, mean squared error divided by the mean square of the map; in classification 1.
        absent: names of classes that are in no label.
        thresholds: ascending, for `semipix.functional.conformal.accept`.
        losses: for each scene, or image where the data name none, the mean of its images' monotone losses at each
            threshold, from maps that were fitted on others.
        network: the candidate whose predictions it is for.
        views: the views over which they are averaged, see `AveragedViews`; empty for the image alone.
        outside: in regression, how many of the pixels have a label outside of the task's range. Their errors are not
            clamped, so that values of the map can be above 1.
    """

    checkpoint: str
    fingerprint: str
    kind: Kind
    cues: int
    networks: int
    weights: Mapping[str, float]
    intercept: float
    knot_scores: Sequence[float]
    knot_values: Sequence[float]
    split: str
    images: int
    pixels: int
    features: str
    figures: Mapping[str, float | None]
    squares: float
    absent: Sequence[str]
    thresholds: Sequence[float]
    losses: Sequence[Sequence[float]]
    network: str = ""
    views: str = ""
    outside: int = 0
    name: str = field(default="calibrated", init=False)

    def parts(self, task: Task, evidence: Evidence, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `ErrorMap`."""
        cues = cues_of(task, evidence, image)
        means = [cues[name.removesuffix("@image")] for name in self._of_image()]
        scores = weighted_sum(cues, self.weights)
        return scores, torch.cat(means, 1) if means else scores[:, :0]

    def constant(self, means: Tensor) -> Tensor:
        """See `ErrorMap`."""
        weights = means.new_tensor([self.weights[name] for name in self._of_image()])
        return means @ weights + self.intercept

    def values(self, scores: Tensor) -> Tensor:
        """See `ErrorMap`. Between two knots values are linear; beyond the outermost knot they are its value."""
        places, heights = (scores.new_tensor(list(each)) for each in (self.knot_scores, self.knot_values))
        right = count_at_most(places, scores).clamp(1, len(places) - 1)
        # Of two places that are equal in this type, the distance is 0.
        widths = (places[right] - places[right - 1]).clamp(min=torch.finfo(places.dtype).tiny)
        share = ((scores - places[right - 1]) / widths).clamp(0, 1)
        return torch.lerp(heights[right - 1], heights[right], share)

    @property
    def independent(self) -> str:
        """What its losses are of: `images`, or `scenes` where the data name some."""
        return "images" if len(self.losses) == self.images else "scenes"

    @property
    def fitted_on(self) -> str:
        """The images that it was fitted on, in words."""
        images = f"{self.images} {'validation' if self.split == 'val' else self.split} images"
        return images if self.independent == "images" else f"{images} of {len(self.losses)} scenes"

    def accepted(self, risk: float) -> Accepted:
        """Which pixels to accept for a risk in (0, 1), see `semipix.functional.conformal.accept`."""
        return accept(self.thresholds, self.losses, risk)

    def _of_image(self) -> list[str]:
        return [name for name in self.weights if name.endswith("@image")]


def cues_of(task: Task, evidence: Evidence, image: Tensor) -> dict[str, Tensor]:
    """The cues (N, 1, h, w) of a task's evidence on images (N, C, h, w), by name."""
    if task.classification:
        return probability_cues(evidence.predictions, evidence.flaw)
    return value_cues(evidence.predictions, evidence.flaw, image)


def apply(
    error_map: ErrorMap, task: Task, evidence: Evidence, image: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """The error map of some images.

    Args:
        error_map: a calibration, or an uncalibrated map.
        task: the method's task.
        evidence: what the method knows of its predictions.
        image: the network's input (N, C, h, w).
        size: height and width of the map; by default those of the network's output.

    Returns:
        (N, 1, H, W) in [0, 1]: probabilities of an error, or expected absolute errors as shares of the range.
    """
    scores, maps = error_map.parts(task, evidence, image)
    scores = scores + error_map.constant(maps.mean((-2, -1))).view(-1, 1, 1, 1)
    if size is not None and scores.shape[-2:] != tuple(size):
        scores = F.interpolate(scores, tuple(size), mode="bilinear")
    return error_map.values(scores)


def uncalibrated(method: Method, evidence: Evidence) -> Uncalibrated | None:
    """The best map that needs no calibration; None if the evidence holds none, as of a single regression model.

    Args:
        method: whose `flaw_is_error` says which map is the best in regression.
        evidence: what the method knows of its predictions.
    """
    found = error_maps(method.task, evidence)
    names = PREFERRED[method.task.classification]
    if method.flaw_is_error and not method.task.classification:
        names = "flaw", *names
    return next((Uncalibrated(name) for name in names if name in found), None)


def fingerprint(method: Method) -> str:
    """SHA-256 of a method's weights and of the name of the network that it deploys."""
    digest = hashlib.sha256(method.deployed_name().encode())
    for name, tensor in sorted(method.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(run: Path, calibration: Calibration) -> None:
    """Write a calibration to the run folder, in place of an older one of the same checkpoint, network and views.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        entries = [each for each in saved(run) if not _is_for_same(each, calibration)]
    except SemipixError:  # damaged, and replaced
        entries = []
    write_text(run / CALIBRATION, as_text([*entries, calibration]))


def as_text(calibrations: Sequence[Calibration]) -> str:
    """The text of a file of calibrations."""
    return json.dumps({"calibrations": [_sealed(each) for each in calibrations]}, indent=1, allow_nan=False)


def _is_for_same(first: Calibration, second: Calibration) -> bool:
    """Whether two calibrations are of the same predictions; older ones do not name their network."""
    networks = {first.network, second.network} - {""}
    return (first.checkpoint, first.views) == (second.checkpoint, second.views) and len(networks) < 2


def load(run: Path, method: Method, checkpoint: str, views: str = "") -> Calibration | None:
    """The calibration of a run's checkpoint; None if there is none.

    Args:
        run: run folder.
        method: with the weights of the checkpoint.
        checkpoint: `best` or `last`.
        views: over which predictions are averaged; empty for the image alone.

    Raises:
        SemipixError: the file is damaged or was changed, or belongs to other weights or another version of the cues.
    """
    path = run / CALIBRATION
    if not path.exists():
        return None
    entries, found, network = saved(run), fingerprint(method), method.deployed_name()
    entries = [each for each in entries if each.views == views and each.network in ("", network)]
    again = f"calibrate again by semipix calibrate --checkpoint {checkpoint}, or remove the file"
    fitting = next((each for each in entries if each.fingerprint == found), None)
    if fitting is None:
        if any(each.checkpoint == checkpoint for each in entries):
            raise SemipixError(f"{path}: belongs to other weights than those of {checkpoint}.ckpt; {again}")
        return None
    if fitting.cues != VERSION:
        raise SemipixError(f"{path}: made with version {fitting.cues} of the cues, {VERSION} expected; {again}")
    return fitting


def saved(run: Path) -> list[Calibration]:
    """The calibrations of a run folder; none if there is no file.

    Raises:
        SemipixError: the file is damaged or was changed.
    """
    path = run / CALIBRATION
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        return [_unsealed(entry) for entry in content["calibrations"]]
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = reason_of(error, 80)
    raise SemipixError(
        f"{path}: damaged, or changed since semipix wrote it ({reason}); calibrate this run again by semipix "
        "calibrate, or remove the file"
    )


def _sealed(calibration: Calibration) -> dict[str, Any]:
    """A calibration as plain values with their checksum."""
    entry = asdict(calibration)
    del entry["name"]
    return {**entry, "checksum": _checksum(entry)}


def _unsealed(entry: Mapping[str, Any]) -> Calibration:
    """A calibration of plain values.

    Raises:
        ValueError: the checksum is another one, or the values are no calibration.
    """
    entry = dict(entry)
    if entry.pop("checksum", None) != _checksum(entry):
        raise ValueError("the checksum differs")
    names = {each.name for each in fields(Calibration) if each.init}
    if entry.keys() | {"network", "views", "outside"} != names:  # which older files lack
        raise ValueError(f"other keys than {', '.join(sorted(names))}")
    calibration = Calibration(**entry)
    numbers = [*calibration.weights.values(), calibration.intercept, *calibration.knot_scores, *calibration.knot_values]
    if len(calibration.knot_scores) < 2 or not all(math.isfinite(number) for number in numbers):
        raise ValueError("fewer than two knots, or numbers that are not finite")
    if not bool((torch.tensor(list(calibration.knot_scores), dtype=torch.float32).diff() > 0).all()):
        raise ValueError("knots that do not ascend in float32, as some of earlier versions")
    return calibration


def _checksum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
