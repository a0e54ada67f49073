"""CutMix: Mean Teacher on unlabeled images into which a box of another one is pasted.

French, Laine, Aila, Mackiewicz and Finlayson, "Semi-supervised semantic segmentation needs strong, varied
perturbations" (BMVC 2020); constants as in the released code of GCT (Ke et al., ECCV 2020).

term         | data              | trains  | objective (sg = stop gradient)
------------ | ----------------- | ------- | ----------------------------------------------------------------
supervised   | labeled           | student | R(S(x), y), Eq. 1 of GCT
consistency  | mixed, unlabeled  | student | MSE between activated S(mix(u)) and sg of mix(activated T(u)),
             |                   |         | times the share of pixels of which T is sure
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.batch import Batch
from semipix.functional.mixing import cutmix_mask, mix, mix_shown
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen, mean_where
from semipix.methods.base import MakeModel, Options, Routes, check_area, check_shares, check_weights
from semipix.methods.teacher import AveragedTeacher
from semipix.tasks.base import Task


class CutMix(AveragedTeacher):
    """A student that learns mixed images from its own average, the teacher, which is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        lambda_consistency: weight of the consistency term.
        confidence: what the teacher's confidence in a pixel has to exceed to count as sure, in [0, 1].
        area: share of an image that the pasted box covers, in (0, 1].
        rampup_epochs: epochs over which the weight of the consistency term grows.
        decay: largest decay of the average of parameters and buffers.
    """

    needs_unlabeled: ClassVar[bool] = True
    classification_only: ClassVar[bool] = True
    trains: ClassVar[Routes] = {"supervised": ("student",), "consistency": ("student",)}
    draws_numbers: ClassVar[bool] = True
    test_options: ClassVar[Options] = {"confidence": 0.3}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 20.0,
        confidence: float = 0.97,
        area: float = 0.5,
        rampup_epochs: float = 0.0,
        decay: float = 0.99,
    ) -> None:
        super().__init__(task, make_model, decay)
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        check_shares(confidence=confidence)
        check_area(area, without="mean_teacher")
        self.lambda_consistency = lambda_consistency
        self.confidence = confidence
        self.area = area
        self.rampup_epochs = rampup_epochs

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        images = self.unlabeled(batch)  # (U, C_in, H, W)
        labeled, compared = len(batch.target), self.compared_unlabeled(batch)
        with torch.no_grad():  # the teacher sees whole images, normalised by this batch
            goal = self.task.activate(frozen(self.teacher, images))  # (U, K, H, W)
            # One factor for all pixels, as French et al. do, so that edges, which are never sure, still learn.
            sure = mean_where((self.task.confidence(goal) > self.confidence).float(), compared)

        box = cutmix_mask(images, area=(self.area, self.area))  # (U, 1, H, W)
        # One pass, so that batch norm sees labeled and mixed images together.
        output = self.student(torch.cat([batch.labeled, mix(box, images)]))  # (L + U, K, H, W)
        errors = F.mse_loss(self.task.activate(output[labeled:]), mix(box, goal), reduction="none")
        error = mean_where(errors, mix_shown(box, compared))
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            "consistency": weight * sure * error,
        }
