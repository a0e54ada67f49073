"""What methods with a detector have in common: making it, its flaw maps, and its own loss.

Ke et al., "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020), and detectors that came
later (`semipix.models.cue_detector`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import Pair, flaw_target, normalize_flaw
from semipix.functional.precision import at_least_float32
from semipix.functional.routing import differentiated_at_once, frozen, masked_mean
from semipix.models.cue_detector import CueDetector, FeatureDetector
from semipix.models.detector import Detector
from semipix.models.flaw_detector import FlawDetector, Norm
from semipix.tasks.base import Task

Kind = Literal["paper", "cues", "features"]
"""The paper's detector; one that reads what the pair says; one that also reads feature maps."""

RATES = {"paper": 1e-4, "cues": 3e-3, "features": 3e-3}
"""Learning rate of each kind; the paper's for its own."""


def make_detector(
    task: Task, kind: Kind = "paper", norm: Norm = "batch", scale: float = 1.0, widths: Sequence[int] = ()
) -> Detector:
    """A detector for images and predictions of a task.

    Args:
        task: has the numbers of channels of images and predictions.
        kind: which one.
        norm: of the paper's detector: its own "batch", or the released code's "batch_instance".
        scale: size at which the paper's detector looks, as a share of the image's.
        widths: channels of the feature maps of a task model, for `features`.

    Raises:
        SemipixError: the kind or the norm is unknown, or the scale is not in (0, 1].
    """
    if kind not in get_args(Kind):
        raise SemipixError(f"method.detector: {kind!r} found, {', '.join(get_args(Kind)[:-1])} or features expected")
    if norm not in ("batch", "batch_instance"):
        raise SemipixError(f"method.detector_norm: {norm!r} found, batch or batch_instance expected")
    if not 0 < scale <= 1:
        raise SemipixError(f"method.detector_scale: {scale} found, a number above 0 and at most 1 expected")
    if kind == "cues":
        return CueDetector(task.in_channels, task.channels, task.classification)
    if kind == "features":
        return FeatureDetector(task.in_channels, task.channels, task.classification, widths)
    return FlawDetector(task.in_channels, task.channels, norm, scale)


def flaw_maps(detector: Detector, image: Tensor, predictions: Pair, features: Sequence[Tensor] | None = None) -> Pair:
    """The frozen detector's maps of both predictions, in one pass over a stacked batch.

    Args:
        detector: maps an image and a pair of predictions to a map of the first one.
        image: (N, C_in, H, W).
        predictions: two activated predictions (N, K, H, W) in [0, 1].
        features: feature maps (N, C_i, h_i, w_i), for detectors that read them.

    Returns:
        Flaw maps (N, 1, H, W) twice, with gradients to the predictions and not to the detector: probabilities, or the
        raw maps of a detector without a fixed range.
    """
    own = torch.cat(predictions).to(image.dtype)
    other = torch.cat(predictions[::-1]).to(image.dtype)
    both = None if features is None else [torch.cat([maps, maps]) for maps in features]
    raw = frozen(detector, torch.cat([image, image]), own, other, both)
    maps, count = detector.flaw(at_least_float32(raw)), image.shape[0]
    return maps[:count], maps[count:]  # not by chunk(), which an export takes for a constant number of images


def flaw_of(
    detector: Detector, image: Tensor, own: Tensor, other: Tensor, features: Sequence[Tensor] | None = None
) -> Tensor:
    """The frozen detector's flaw map (N, 1, H, W) in [0, 1] of one activated prediction (N, K, H, W).

    Args:
        detector, image, features: see `flaw_maps`.
        own: the prediction whose errors are asked for.
        other: the other one of the pair.
    """
    raw = frozen(detector, image, own.to(image.dtype), other.to(image.dtype), features)
    return detector.flaw(at_least_float32(raw)).clamp(0, 1)


def compared(detector: Detector, flaws: Pair, shown: Tensor | None = None) -> Pair:
    """Two flaw maps (N, 1, H, W) in [0, 1] that can be compared with each other and with a threshold, no gradient.

    Probabilities can be compared as they are. Maps without a fixed range are normalised over the pixels (N, 1, H, W)
    that show something, see `normalize_flaw`.
    """
    if detector.probabilistic:
        return flaws[0].detach(), flaws[1].detach()
    return normalize_flaw(flaws[0], shown), normalize_flaw(flaws[1], shown)


class Known(NamedTuple):
    """Predictions of images whose labels are known, from which a detector learns.

    Attributes:
        images: the images (V, C_in, H, W) that the first and the second model saw.
        predictions: their activated predictions (V, K, H, W) in [0, 1].
        targets: the labels of these images in prediction space (V, K, H, W).
        valid: (V, 1, H, W) bool, False at ignored pixels.
    """

    images: Pair
    predictions: Pair
    targets: Pair
    valid: Tensor


def labeled_images(task: Task, batch: Batch, predictions: Pair) -> Known:
    """The labeled images of a batch.

    Args:
        task: encodes the labels.
        batch: labeled images first.
        predictions: two activated predictions (N, K, H, W) of all images of the batch, or of its first ones.
    """
    first, second = (prediction[: len(batch.target)].detach() for prediction in predictions)
    target = task.encode(batch.target)
    return Known((batch.labeled, batch.labeled), (first, second), (target, target), task.valid(batch.target))


def detection_loss(detector: Detector, task: Task, known: Known, features: Sequence[Tensor] | None = None) -> Tensor:
    """The detector learns where both predictions of labeled images are wrong.

    The paper's detector learns the dense target that pipeline C makes (Eq. 3), by the squared error. A detector of
    probabilities learns the error itself, by cross entropy: the task's mu times the sum over channels of |p - y|, in
    [0, 1].

    Args:
        detector: maps an image and a pair of predictions to a map of the first one.
        task: has mu and nu.
        known: images, predictions, which get no gradient, and labels.
        features: feature maps (2V, C_i, h_i, w_i) of both models' images, for detectors that read them.

    Returns:
        A scalar, the sum of both predictions, whose gradients to the detector are already computed.
    """
    image, target = torch.cat(known.images), torch.cat(known.targets)  # (2V, ...)
    own, other = torch.cat(known.predictions), torch.cat(known.predictions[::-1])
    valid = torch.cat([known.valid, known.valid])
    if detector.probabilistic:
        error = (at_least_float32(own) - at_least_float32(target)).abs().sum(1, keepdim=True)
        goal = (task.mu * error).clamp(0, 1)
    else:
        goal = flaw_target(own, target, mu=task.mu, nu=task.nu, valid=valid)

    def loss() -> Tensor:
        raw = at_least_float32(detector(image, own.to(image.dtype), other.to(image.dtype), features))
        if detector.probabilistic:
            errors = F.binary_cross_entropy_with_logits(raw, goal, reduction="none")
        else:
            errors = (raw - goal).square()
        return 2 * masked_mean(errors, valid)  # a sum over the pair, as the other terms

    return differentiated_at_once(detector, loss)
