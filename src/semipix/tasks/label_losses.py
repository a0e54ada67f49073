"""Losses of class maps by name, and their weights in a sum."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from semipix.batch import VOID
from semipix.errors import SemipixError
from semipix.functional.routing import masked_mean

LabelLoss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Outputs (L, K, H, W), labels (L, H, W), valid pixels (L, 1, H, W) and class weights (K,) or None to a scalar."""

WITHOUT_WEIGHTS = ("lovasz",)
"""Losses that take no class weights."""


def cross_entropy(output: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross entropy of the valid pixels, weighted by the class of the label."""
    pixels = F.cross_entropy(output, target, ignore_index=VOID, reduction="none").unsqueeze(1)
    if class_weights is None:
        return masked_mean(pixels, valid)
    weight = class_weights[target.masked_fill(target == VOID, 0)].unsqueeze(1)
    return masked_mean(pixels * weight, valid) / masked_mean(weight, valid).clamp(min=1e-9)


def _library_loss(name: str) -> LabelLoss:
    """A loss of segmentation-models-pytorch over the valid pixels of all images together; 0 if there is none."""

    def loss(output: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
        from segmentation_models_pytorch import losses  # the import takes a second, and most trainings do not need it

        kept = valid.squeeze(1)
        known = output.movedim(1, -1)[kept]  # (P, K), without the outputs at void pixels
        if not len(known):
            return masked_mean(output, valid)
        weights = {} if class_weights is None else {"class_weights": class_weights}
        library_loss = getattr(losses, name)(losses.MULTICLASS_MODE, **weights)
        value: Tensor = library_loss(known.T[None, ..., None], target[kept][None, ..., None])
        return value

    return loss


LOSSES: dict[str, LabelLoss] = {
    "cross_entropy": cross_entropy,
    "dice": _library_loss("DiceLoss"),
    "focal": _library_loss("FocalLoss"),
    "jaccard": _library_loss("JaccardLoss"),
    "lovasz": _library_loss("LovaszLoss"),
}
"""The losses by their names in `task.loss`."""


def loss_weights(loss: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The weight of each loss in the sum, by name.

    Args:
        loss: one name, several names, which get weight 1, or a mapping from names to weights.

    Raises:
        SemipixError: there is no name, a name is unknown or given twice, or a weight is not a positive number.
    """
    names = [loss] if isinstance(loss, str) else list(loss)
    for name in names:
        if name not in LOSSES:
            close = difflib.get_close_matches(str(name), LOSSES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(LOSSES)}"
            raise SemipixError(f"task.loss: {name!r} found, which is not a loss of segmentation; {hint}")
    if not names or len(set(names)) < len(names):
        found = f"{', '.join(names)} found" if names else "none found"
        raise SemipixError(f"task.loss: {found}, at least one loss expected and each of them once")
    weights = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(names, 1.0)
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < math.inf:
            raise SemipixError(f"task.loss.{name}: {weight!r} found, a positive number expected")
    return {name: float(weight) for name, weight in weights.items()}


def takes_weights(loss: str | Sequence[str] | Mapping[str, float]) -> bool:
    """Whether class weights can be used with a loss, or a sum of losses, of `Segmentation`.

    Raises:
        SemipixError: see `loss_weights`.
    """
    return not {*loss_weights(loss)} & {*WITHOUT_WEIGHTS}
