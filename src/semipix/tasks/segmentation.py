"""Semantic segmentation: one class for each pixel."""

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from semipix.batch import VOID
from semipix.errors import SemipixError
from semipix.functional.display import shown_colours
from semipix.functional.precision import at_least_float32
from semipix.tasks.base import Task
from semipix.tasks.label_losses import LOSSES, WITHOUT_WEIGHTS, loss_weights


def palette(classes: int) -> Tensor:
    """Colours (classes, 3) uint8: black for class 0, then hues at steps of the golden angle."""
    colours = [(0.0, 0.0, 0.0)] + [
        colorsys.hsv_to_rgb(index * 0.61803 % 1.0, 0.85, 1.0 - 0.35 * (index // 6 % 2)) for index in range(classes - 1)
    ]
    return (torch.tensor(colours, dtype=torch.float32) * 255).round().to(torch.uint8)


def fast_argmax(prediction: Tensor, dim: int) -> Tensor:
    """Index of the largest value, like torch.argmax, which takes five times as long on a CPU."""
    return prediction.max(dim).indices


def not_finite(largest: Tensor, target: Tensor) -> Tensor | None:
    """(B, H, W) bool: pixels with a label whose prediction is not finite; None, without a look at each, if all are.

    Args:
        largest: (B, H, W), the largest value of a prediction, which is NaN where any is.
        target: labels (B, H, W).
    """
    if bool(largest.sum().isfinite()):
        return None
    return ~largest.isfinite() & (target != VOID)


class FiniteConfusion(MulticlassConfusionMatrix):
    """Counts pixels by label and predicted class; figures are NaN if a prediction at a label is not finite.

    Otherwise such a prediction would count as that of the class of its NaN, mostly the first one.
    """

    unknown: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_state("unknown", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add predictions (B, K, H, W) and labels (B, H, W)."""
        largest, label = prediction.max(1)
        if (pixels := not_finite(largest, target)) is not None:
            self.unknown += pixels.sum()
        super().update(label, target)

    def measured(self, value: Tensor) -> Tensor:
        """The value, or NaN if a prediction was not finite."""
        return value.masked_fill(self.unknown > 0, math.nan)


class MeanIoU(FiniteConfusion, MulticlassJaccardIndex):
    """Mean intersection over union of the classes that are in a label or in a prediction."""

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN if no pixel has a label."""
        return self.measured(super().compute())


class PixelAccuracy(FiniteConfusion):
    """Share of the pixels with the right class, computed from the confusion matrix."""

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN if no pixel has a label."""
        return self.measured(self.confmat.diagonal().sum() / self.confmat.sum())


class ClassIoU(FiniteConfusion):
    """Intersection over union of each class; NaN for a class that is in no label and in no prediction.

    Args:
        classes: their names, in index order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(len(classes), ignore_index=VOID, validate_args=False)
        self.classes = list(classes)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """`iou/NAME` to a scalar in [0, 1], or NaN."""
        correct = self.confmat.diagonal()
        ious = self.measured(correct / (self.confmat.sum(0) + self.confmat.sum(1) - correct))
        return {f"iou/{name}": iou for name, iou in zip(self.classes, ious, strict=True)}


class LabelMetrics(MetricCollection):
    """Metrics of predictions (B, K, H, W) and labels (B, H, W), all computed from one confusion matrix.

    `miou` is the mean over the classes that are in a label or in a prediction; NaN if no pixel has a label. All are NaN
    if a prediction at a pixel with a label is not finite.

    The range of labels is not checked here: the data sources check it, and the check takes as long as the counting.

    Args:
        classes: names, in index order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        counted: dict[str, Any] = {"ignore_index": VOID, "validate_args": False}
        super().__init__(
            {
                "miou": MeanIoU(len(classes), average="macro", **counted),
                "accuracy": PixelAccuracy(len(classes), **counted),
                "iou": ClassIoU(classes),
            },
            compute_groups=[["miou", "accuracy", "iou"]],
        )


class Segmentation(Task):
    """Classification of pixels; labels are class indices, and pixels with label 255 are ignored.

    The flaw target has mu = 1/2, since the error of a pixel, summed over classes, is at most 2, and nu = 1
    (Appendix A). Pseudo labels are always compared by cross entropy, also with another supervised loss.

    Args:
        classes: names of the classes in index order, or their number.
        class_weights: weight of each class in the supervised loss; none means equal weights. `balanced` and
            `sqrt_balanced` let a training compute them from its labels, so that all classes count alike, or by the
            square roots of these weights. `auto` lets it compute those of `sqrt_balanced`, or none for `lovasz`, which
            takes no weights; without a training it means equal weights.
        loss: `cross_entropy`, `dice`, `focal`, `jaccard` or `lovasz`; a list of them, which are summed; or a mapping
            from their names to their weights in the sum.

    Raises:
        SemipixError: there are fewer than 2 or more than 255 classes, the number of weights differs from the number of
            classes, weights are negative or all 0, such a word is used without a training, a loss is unknown, or
            `lovasz` is used with weights.
    """

    mu: float = 0.5
    nu: int = 1
    primary: ClassVar[str] = "miou"
    uncounted: ClassVar[tuple[str, str]] = "has a label", "check the masks, or set data.mask_values"
    classification: ClassVar[bool] = True
    metrics_add_up: ClassVar[bool] = True

    def __init__(
        self,
        classes: int | Sequence[str],
        class_weights: Sequence[float] | Literal["auto", "balanced", "sqrt_balanced"] | None = "auto",
        loss: str | Sequence[str] | Mapping[str, float] = "cross_entropy",
    ) -> None:
        self.channels = classes if isinstance(classes, int) else len(classes)
        if not 2 <= self.channels <= VOID:
            raise SemipixError(f"task.classes: {self.channels} classes found, 2 to {VOID} expected")
        self.classes = [str(index) for index in range(classes)] if isinstance(classes, int) else list(classes)
        self.loss_weights = loss_weights(loss)
        given = None if isinstance(class_weights, str) and class_weights == "auto" else class_weights
        self.class_weights = None if given is None else self._checked_weights(given)

    def _checked_weights(self, class_weights: Sequence[float] | str) -> Tensor:
        """Class weights (K,), checked against the classes and the losses.

        Raises:
            SemipixError: see the class.
        """
        if isinstance(class_weights, str):
            raise SemipixError(
                f"task.class_weights: {class_weights} found, which only a training turns into numbers; give a number "
                "for each class, such as semipix.data.class_balance.balanced_weights returns"
            )
        if len(class_weights) != self.channels:
            raise SemipixError(
                f"task.class_weights: {len(class_weights)} found, expected one for each of {self.channels} classes"
            )
        if not all(0 <= weight < math.inf for weight in class_weights) or not any(class_weights):
            raise SemipixError(
                f"task.class_weights: {list(class_weights)} found, numbers of at least 0 expected, one of them positive"
            )
        for name in WITHOUT_WEIGHTS:
            if name in self.loss_weights:
                raise SemipixError(
                    f"task.class_weights: found with task.loss={name}, which takes no class weights; leave them out, "
                    f"or use another loss of {', '.join(LOSSES)}"
                )
        return torch.tensor(list(class_weights), dtype=torch.float32)

    def activate(self, output: Tensor) -> Tensor:
        return at_least_float32(output).softmax(1)

    def encode(self, target: Tensor) -> Tensor:
        known = target.masked_fill(target == VOID, 0)
        return F.one_hot(known, self.channels).movedim(-1, 1).float() * self.valid(target)

    def valid(self, target: Tensor) -> Tensor:
        return (target != VOID).unsqueeze(1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        output = at_least_float32(output)
        valid = self.valid(target)
        weights = None if self.class_weights is None else self.class_weights.to(output, non_blocking=True)
        terms = [weight * LOSSES[name](output, target, valid, weights) for name, weight in self.loss_weights.items()]
        return sum(terms[1:], start=terms[0])

    def deactivate(self, prediction: Tensor) -> Tensor:
        return at_least_float32(prediction).clamp(min=1e-12).log()

    def pixel_loss(self, output: Tensor, goal: Tensor) -> Tensor:
        return -(goal * at_least_float32(output).log_softmax(1)).sum(1, keepdim=True)

    def sharpen(self, prediction: Tensor, temperature: float) -> Tensor:
        if temperature == 1:
            return prediction
        if temperature == 0:
            return F.one_hot(fast_argmax(prediction, 1), self.channels).movedim(-1, 1).to(prediction.dtype)
        return (self.deactivate(prediction) / temperature).softmax(1)

    def confidence(self, prediction: Tensor) -> Tensor:
        return prediction.amax(1, keepdim=True)

    def uncertainties(self, prediction: Tensor) -> dict[str, Tensor]:
        """`softmax`, 1 - the largest probability, and `entropy`, as a share of that of equal probabilities."""
        entropy = torch.special.entr(prediction).sum(1, keepdim=True) / math.log(self.channels)
        return {"softmax": 1 - self.confidence(prediction), "entropy": entropy.clamp(0, 1)}

    def disagreement(self, first: Tensor, second: Tensor) -> Tensor:
        """The probability that labels drawn from both predictions differ."""
        return (1 - (first * second).sum(1, keepdim=True)).clamp(0, 1)

    def metrics(self) -> MetricCollection:
        return LabelMetrics(self.classes)

    def confusion(self, metrics: MetricCollection) -> Tensor | None:
        accuracy = metrics["accuracy"]
        return accuracy.confmat if isinstance(accuracy, PixelAccuracy) else None

    def image_figures(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Intersection and union of each class in pixels, from which mIoU is computed over all images.

        All are NaN for an image of which a prediction at a pixel with a label is not finite.
        """
        if self.primary != "miou":
            return super().image_figures(prediction, target)
        images, classes = len(target), self.channels
        counted = target != VOID
        place = torch.arange(images, device=target.device).view(-1, 1, 1) * classes + target
        largest, label = prediction.max(1)
        index = (place * classes + label)[counted]
        confusion = index.bincount(minlength=images * classes**2).view(images, classes, classes)
        correct = confusion.diagonal(dim1=1, dim2=2)  # (B, K)
        union = confusion.sum(1) + confusion.sum(2) - correct
        if (unknown := not_finite(largest, target)) is not None:
            broken = unknown.flatten(1).any(1, keepdim=True).cpu()
            correct, union = (count.cpu().double().masked_fill(broken, math.nan) for count in (correct, union))
        kinds = {"intersection": correct, "union": union}
        return {
            f"{kind}/{name}": count[:, number]
            for kind, count in kinds.items()
            for number, name in enumerate(self.classes)
        }

    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        colours = palette(self.channels).to(prediction.device, torch.float32)[fast_argmax(prediction, 0)].movedim(-1, 0)
        photo = shown_colours(image).clamp(0, 1) * 255
        return (0.4 * photo + 0.6 * colours).round().to(torch.uint8)

    @property
    def file_endings(self) -> tuple[str, ...]:
        return ("",)

    def to_file(self, prediction: Tensor) -> Tensor:
        """The index of the most probable class, 8 bit."""
        return fast_argmax(prediction, 0).to(torch.uint8)

    def wrong(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (fast_argmax(prediction, 1) != target).unsqueeze(1) & self.valid(target)
