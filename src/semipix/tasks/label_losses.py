"""Losses of class maps by name, and weighted sums of them."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from semipix.errors import SemipixError
from semipix.functional.routing import masked_mean

VOID = 255
"""Label of ignored pixels."""

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Outputs (L, K, H, W), labels (L, H, W), known pixels (L, 1, H, W) and class weights (K,) or None to a scalar."""


def cross_entropy(output: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross entropy of the known pixels, weighted by the class of the label."""
    pixels = F.cross_entropy(output, target, ignore_index=VOID, reduction="none").unsqueeze(1)
    if class_weights is None:
        return masked_mean(pixels, valid)
    weight = class_weights[target.masked_fill(target == VOID, 0)].unsqueeze(1)
    return masked_mean(pixels * weight, valid) / masked_mean(weight, valid).clamp(min=1e-9)


def _of_library(name: str) -> Loss:
    """A loss of segmentation-models-pytorch over the known pixels of all images together; 0 where there is none."""

    def loss(output: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
        from segmentation_models_pytorch import losses  # takes a second, and is seldom needed

        kept = valid.squeeze(1)
        known = output.movedim(1, -1)[kept]  # (P, K); so no value of a void pixel is looked at
        if not len(known):
            return masked_mean(output, valid)
        weights = {} if class_weights is None else {"class_weights": class_weights}
        made = getattr(losses, name)(losses.MULTICLASS_MODE, **weights)
        found: Tensor = made(known.T[None, ..., None], target[kept][None, ..., None])
        return found

    return loss


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": _of_library("DiceLoss"),
    "focal": _of_library("FocalLoss"),
    "jaccard": _of_library("JaccardLoss"),
    "lovasz": _of_library("LovaszLoss"),
}
"""What a loss may be called."""

WITHOUT_WEIGHTS = ("lovasz",)
"""Losses that know no class weights."""


def loss_weights(loss: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Names of losses with their weights in the sum.

    Args:
        loss: one name, several of weight 1, or names with weights.

    Raises:
        SemipixError: no name, an unknown one, one that is given twice, or a weight that is not a positive number.
    """
    names = [loss] if isinstance(loss, str) else list(loss)
    for name in names:
        if name not in LOSSES:
            close = difflib.get_close_matches(str(name), LOSSES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(LOSSES)}"
            raise SemipixError(f"task.loss: {name!r} found, which is no loss of segmentation; {hint}")
    if not names or len(set(names)) < len(names):
        found = f"{', '.join(names)} found" if names else "none found"
        raise SemipixError(f"task.loss: {found}, at least one loss expected and each of them once")
    weights = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(names, 1.0)
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < math.inf:
            raise SemipixError(f"task.loss.{name}: {weight!r} found, a positive number expected")
    return {name: float(weight) for name, weight in weights.items()}
