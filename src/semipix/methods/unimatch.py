"""UniMatch V2: an averaged teacher labels weak views for two strong views with complementary feature channels.

Yang, Zhao and Zhao, "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation" (PAMI 2025).

term         | data                          | trains  | objective (sg = stop gradient)
------------ | ----------------------------- | ------- | -----------------------------------------------------------
supervised   | labeled                       | student | R(S(x), y), Eq. 1 of GCT
consistency  | two strong views of unlabeled | student | where T(weak) is sure: S(strong) matches sg(hard(T(weak)))
"""

from typing import ClassVar

import torch
from torch import Tensor

from semipix.batch import Batch
from semipix.functional.mixing import cutmix_mask, mix
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen
from semipix.methods.base import MakeModel, Options, Routes, check_shares, check_weights
from semipix.methods.pseudo_labels import SurePixels
from semipix.methods.teacher import AveragedTeacher
from semipix.models.adapt import features_of
from semipix.tasks.base import Task


def complementary_dropout(features: Tensor) -> Tensor:
    """Give each of two views half of the channels, doubled: the channels that one view lacks, the other has.

    Args:
        features: maps (2 U, C, h, w), the first view of all images before the second.

    Returns:
        Maps of the same shape.
    """
    kept = torch.rand(len(features) // 2, features.shape[1], 1, 1).to(features.device) < 0.5
    return features * 2 * torch.cat([kept, ~kept])


class UniMatch(AveragedTeacher):
    """A student that learns from its own average, the teacher, which is deployed.

    In regression every pixel counts as sure and the label is the prediction itself.

    Args:
        task: what a pixel means.
        make_model: makes the student, which follows the feature protocol; the teacher starts as its copy.
        lambda_consistency: weight of the consistency term, a mean over both views.
        confidence: smallest confidence of a pseudo label, in [0, 1].
        per_class: whether the smallest confidence is lower for classes that are predicted with less confidence.
        cutmix: share of the strong views into which a box of another one is pasted.
        rampup_epochs: epochs over which the weight of the consistency term grows.
        decay: largest decay of the average of parameters and buffers.
    """

    needs_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2
    trains: ClassVar[Routes] = {"supervised": ("student",), "consistency": ("student",)}
    draws_numbers: ClassVar[bool] = True
    test_options: ClassVar[Options] = {"confidence": 0.3}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 1.0,
        confidence: float = 0.95,
        per_class: bool = False,
        cutmix: float = 0.5,
        rampup_epochs: float = 0.0,
        decay: float = 0.996,
    ) -> None:
        super().__init__(task, make_model, decay)
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        check_shares(confidence=confidence, cutmix=cutmix)
        self.lambda_consistency = lambda_consistency
        self.sure = SurePixels(task, confidence, per_class)
        self.cutmix = cutmix
        self.rampup_epochs = rampup_epochs

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        weak = self.unlabeled(batch)  # (U, C_in, H, W)
        assert batch.strong is not None
        labeled = len(batch.target)
        with torch.no_grad():
            prediction = self.task.activate(frozen(self.teacher, weak))  # (U, K, H, W)
            sure = self.sure(prediction)  # (U, 1, H, W)
            goal = self.task.sharpen(prediction, temperature=0)

        views, goals, known = [], [], []
        for strong in torch.split(batch.strong, len(weak))[:2]:
            box = cutmix_mask(weak, area=(0.02, 0.4), probability=self.cutmix)
            views.append(mix(box, strong))
            goals.append(mix(box, goal))
            known.append(mix(box, sure))
        model = features_of(self.student)
        images = torch.cat([batch.labeled, *views])
        features = model.features(images)  # (L + 2U, C_i, h_i, w_i) each
        features = [torch.cat([maps[:labeled], complementary_dropout(maps[labeled:])]) for maps in features]
        output = self.task.constrain(model.head(features, weak.shape[-2:]), images)  # (L + 2U, K, H, W)
        errors = self.task.pixel_loss(output[labeled:], torch.cat(goals))
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            # The mean is over all pixels, so the loss is small where few are sure.
            "consistency": weight * (torch.cat(known) * errors).mean(),
        }
