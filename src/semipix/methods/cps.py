"""Cross pseudo supervision: two models, each learning the other's hard predictions.

Chen, Yuan, Zeng and Wang, "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision" (CVPR 2021).

term               | data                         | trains           | objective (sg = stop gradient)
------------------ | ---------------------------- | ---------------- | --------------------------------------------
supervised         | labeled                      | both task models | R(T(x), y), Eq. 1 of GCT
cross_supervision  | all; mixed unlabeled images  | both task models | T1(x) matches sg(hard(T2(x))), and the reverse
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from semipix.batch import Batch
from semipix.functional.mixing import cutmix_mask, mix, mix_shown
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import mean_where, without_dropout
from semipix.methods.base import Evidence, MakeModel, Routes, check_area, check_weights
from semipix.methods.pair import BOTH_MODELS, Deploy, ModelPair
from semipix.tasks.base import Task


class CPS(ModelPair):
    """Two task models that label for each other; the better of the pair on validation is deployed.

    With CutMix the labels come from the images as they are, and are learned from images into which a box of another
    one is pasted. In regression the label is the other's prediction itself.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        lambda_cps: weight of cross supervision.
        cutmix: learn from mixed unlabeled images, instead of from all images as they are.
        area: share of an image that a box covers, in (0, 1].
        rampup_epochs: epochs over which the weight of cross supervision grows.
        deploy: deploy the better of the pair on validation, or always the first or the second model.
    """

    needs_unlabeled: ClassVar[bool] = True
    labelers: ClassVar[tuple[str, ...]] = ("first", "second")
    trains: ClassVar[Routes] = {"supervised": BOTH_MODELS, "cross_supervision": BOTH_MODELS}
    draws_numbers: ClassVar[bool] = True  # boxes, with `cutmix`

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_cps: float = 1.5,
        cutmix: bool = True,
        area: float = 0.5,
        rampup_epochs: float = 0.0,
        deploy: Deploy = "better",
    ) -> None:
        super().__init__(task, make_model, deploy)
        check_weights(lambda_cps=lambda_cps, rampup_epochs=rampup_epochs)
        if cutmix:
            check_area(area, without="method.cutmix=false")
        self.lambda_cps = lambda_cps
        self.cutmix = cutmix
        self.area = area
        self.rampup_epochs = rampup_epochs

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """All pixels."""
        return {
            name: torch.ones_like(evidence.predictions[0][:, :1], dtype=torch.bool)
            for name, evidence in evidences.items()
        }

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        images = self.unlabeled(batch)  # (U, C_in, H, W)
        if self.cutmix:
            box = cutmix_mask(images, area=(self.area, self.area))
            with torch.no_grad():
                first_label, second_label = (
                    mix(box, self._label(without_dropout(model, images))) for model in self.models
                )
            mixed = torch.cat([batch.labeled, mix(box, images)])
            first_output, second_output = (model(mixed) for model in self.models)  # (N, K, H, W) each
            crossed, counted = slice(len(batch.target), None), mix_shown(box, self.compared_unlabeled(batch))
        else:
            first_output, second_output = (model(batch.image) for model in self.models)
            first_label, second_label = self._label(first_output.detach()), self._label(second_output.detach())
            crossed, counted = slice(None), self.compared_without_labels(batch)
        # The second model's label teaches the first model, and the reverse.
        first_error = mean_where(self.task.pixel_loss(first_output[crossed], second_label), counted)
        second_error = mean_where(self.task.pixel_loss(second_output[crossed], first_label), counted)
        weight = self.lambda_cps * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.supervised_loss(first_output, second_output, batch.target),
            "cross_supervision": weight * (first_error + second_error),
        }

    def _label(self, output: Tensor) -> Tensor:
        """A network output as a hard label in prediction space (N, K, H, W)."""
        return self.task.sharpen(self.task.activate(output), temperature=0)
