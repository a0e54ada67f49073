"""What methods with a flaw detector have in common (Ke et al., ECCV 2020): its flaw maps, and its own loss."""

from typing import cast

import torch
from torch import Tensor, nn

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import Pair, flaw_target
from semipix.functional.precision import at_least_float32
from semipix.functional.routing import differentiated_at_once, frozen, masked_mean
from semipix.models.flaw_detector import FlawDetector, Norm
from semipix.tasks.base import Task


def make_detector(task: Task, norm: Norm, scale: float) -> FlawDetector:
    """A flaw detector for images and predictions of a task.

    Args:
        task: has the numbers of channels of images and predictions.
        norm: the paper's "batch", or the released code's "batch_instance".
        scale: size at which the detector looks, as a share of the image's.

    Raises:
        SemipixError: the norm is unknown, or the scale is not in (0, 1].
    """
    if norm not in ("batch", "batch_instance"):
        raise SemipixError(f"method.detector_norm: {norm!r} found, batch or batch_instance expected")
    if not 0 < scale <= 1:
        raise SemipixError(f"method.detector_scale: {scale} found, a number above 0 and at most 1 expected")
    return FlawDetector(task.in_channels, task.channels, norm, scale)


def flaw_maps(detector: nn.Module, image: Tensor, predictions: Pair) -> Pair:
    """The frozen detector's raw maps of both predictions, in one pass over a stacked batch.

    Args:
        detector: maps an image and a prediction to a flaw map.
        image: (N, C_in, H, W).
        predictions: two activated predictions (N, K, H, W) in [0, 1].

    Returns:
        Raw flaw maps (N, 1, H, W) twice, with gradients to the predictions and not to the detector.
    """
    maps = frozen(detector, torch.cat([image, image]), torch.cat(predictions).to(image.dtype))
    return cast(Pair, at_least_float32(maps).chunk(2))


def flaw_of(detector: nn.Module, image: Tensor, prediction: Tensor) -> Tensor:
    """The frozen detector's flaw map (N, 1, H, W) in [0, 1] of one activated prediction (N, K, H, W)."""
    return at_least_float32(frozen(detector, image, prediction.to(image.dtype))).clamp(0, 1)


def detection_loss(detector: nn.Module, task: Task, batch: Batch, predictions: Pair) -> Tensor:
    """Eq. 3: the detector learns where both predictions of the labeled images are wrong.

    Args:
        detector: maps an image and a prediction to a flaw map.
        task: has the valid pixels, and the constants of the flaw target.
        batch: labeled images first.
        predictions: two activated predictions (N, K, H, W) in [0, 1], which get no gradient.

    Returns:
        A scalar, the sum of both predictions, whose gradients to the detector are already computed.
    """
    labeled = len(batch.target)
    target, valid = task.encode(batch.target), task.valid(batch.target)
    stacked = torch.cat([prediction[:labeled].detach() for prediction in predictions])  # (2L, K, H, W)
    target, valid = torch.cat([target, target]), torch.cat([valid, valid])
    goal = flaw_target(stacked, target, mu=task.mu, nu=task.nu, valid=valid)
    image = torch.cat([batch.labeled, batch.labeled])

    def loss() -> Tensor:
        flaw = at_least_float32(detector(image, stacked.to(image.dtype)))
        return 2 * masked_mean((flaw - goal).square(), valid)  # a sum over the pair, as the other terms

    return differentiated_at_once(detector, loss)
