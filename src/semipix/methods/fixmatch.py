"""FixMatch for pixels: the model's own sure predictions on weak views are the labels of strong views.

Sohn et al., "FixMatch" (NeurIPS 2020), for pixels as Yang et al., "Revisiting Weak-to-Strong Consistency in
Semi-Supervised Semantic Segmentation" (CVPR 2023, Section 3.1) set it up: strong views are photometric and CutMix.

term         | data                         | trains | objective (sg = stop gradient)
------------ | ---------------------------- | ------ | --------------------------------------------------------
supervised   | labeled                      | model  | R(T(x), y), Eq. 1 of GCT
consistency  | strong views of unlabeled    | model  | where T(weak) is sure: T(strong) matches sg(hard(T(weak)))

What a strong view changes in the label as well, such as the order of the colours, is changed in T(weak).
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.functional.error_weight import error_weight
from semipix.functional.mixing import cutmix_mask, mix, mix_shown
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import mean_where, without_dropout
from semipix.methods.base import (
    Evidence,
    MakeModel,
    MakeOptimizer,
    Method,
    Options,
    Routes,
    check_shares,
    check_weights,
)
from semipix.methods.pseudo_labels import SurePixels
from semipix.tasks.base import Task


class FixMatch(Method):
    """One model that labels weak views for itself and learns them from strong, mixed views.

    In regression the label is the prediction itself, and every pixel counts as sure: `confidence` has no effect, and
    `error_scale` takes its place.

    Args:
        task: what a pixel means.
        make_model: makes the task model.
        lambda_consistency: weight of the consistency term.
        confidence: smallest confidence of a pseudo label, in [0, 1].
        error_scale: disagreement of the model's predictions of a weak view and its mirror image at which a pseudo label
            has weight 1/e; 0 gives all of them weight 1.
        per_class: whether the smallest confidence is lower for classes that are predicted with less confidence.
        cutmix: share of the strong views into which a box of another one is pasted.
        rampup_epochs: epochs over which the weight of the consistency term grows.
    """

    needs_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 1
    labelers: ClassVar[tuple[str, ...]] = ("model",)
    trains: ClassVar[Routes] = {"supervised": ("model",), "consistency": ("model",)}
    draws_numbers: ClassVar[bool] = True
    test_options: ClassVar[Options] = {"confidence": 0.3}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 1.0,
        confidence: float = 0.95,
        error_scale: float = 0.0,
        per_class: bool = False,
        cutmix: float = 0.5,
        rampup_epochs: float = 0.0,
    ) -> None:
        super().__init__(task)
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        check_weights(error_scale=error_scale)
        check_shares(confidence=confidence, cutmix=cutmix)
        self.model = make_model(0)
        self.lambda_consistency = lambda_consistency
        self.sure = SurePixels(task, confidence, per_class)
        self.error_scale = error_scale
        self.cutmix = cutmix
        self.rampup_epochs = rampup_epochs

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.model

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        return {name: self.sure(evidence.predictions[0]) for name, evidence in evidences.items()}

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        weak = self.unlabeled(batch)  # (U, C_in, H, W)
        labeled, counted = len(batch.target), self.compared_unlabeled(batch)
        with torch.no_grad():
            prediction = self.task.activate(without_dropout(self.model, weak))  # (U, K, H, W)
            sure = self.sure(prediction, shown=counted)  # (U, 1, H, W)
            if self.error_scale:
                mirrored = self.task.activate(without_dropout(self.model, weak.flip(-1))).flip(-1)
                sure = sure * error_weight(self.task.disagreement(prediction, mirrored), self.error_scale)
            goal = self.task.sharpen(prediction, temperature=0)

        strong = batch.strong_views()[0]
        box = cutmix_mask(weak, area=(0.02, 0.4), probability=self.cutmix)
        image, goal, sure = (mix(box, maps) for maps in (strong.image, strong.label(goal), strong.compared(sure)))
        counted = mix_shown(box, counted)
        output = self.model(torch.cat([batch.labeled, image]))  # (L + U, K, H, W)
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            # The mean is not over the sure pixels alone, so the loss is small where few are sure.
            "consistency": weight * mean_where(sure * self.task.pixel_loss(output[labeled:], goal), counted),
        }

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.model)]
