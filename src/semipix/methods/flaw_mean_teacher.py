"""Mean Teacher with a flaw detector that switches consistency off where the teacher is the worse of the two.

Ke, Qiu, Li, Yan and Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020),
Section 4.5, on Tarvainen and Valpola, "Mean teachers are better role models" (NeurIPS 2017).

term            | data    | trains   | objective (sg = stop gradient)
--------------- | ------- | -------- | ---------------------------------------------------------------------
supervised      | labeled | student  | R(S(x), y), Eq. 1
consistency     | all     | student  | MSE between activated S(x) and sg of activated T(x), 0 where the
                |         |          | teacher's normalised flaw is greater than the student's
flaw_detection  | labeled | detector | F(x, sg(p)) matches flaw_target(p, y) for both predictions, Eq. 3
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.functional.flaw import normalize_flaw
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen, masked_mean
from semipix.methods.base import Evidence, MakeModel, MakeOptimizer, Routes, check_weights, helper_optimizer
from semipix.methods.flaw_detection import detection_loss, flaw_maps, flaw_of, labeled_images, make_detector
from semipix.methods.mean_teacher import MeanTeacher
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task


class FlawMeanTeacher(MeanTeacher):
    """A student, its average as teacher, which is deployed, and a detector of both their flaws.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        lambda_consistency: weight of the consistency term.
        lambda_detection: weight of the detector's own loss, 10 in the released code of GCT.
        rampup_epochs: epochs over which the weight of consistency grows.
        decay: largest decay of the average of parameters and buffers.
        detector_norm: the paper's batch norm, or the released code's half batch and half instance norm.
        detector_scale: size at which the detector looks at image and prediction, as a share of theirs; 0.5 costs a
            quarter.
        detector_lr: the detector's learning rate, for Adam with betas 0.9 and 0.99.
    """

    trains: ClassVar[Routes] = {
        "supervised": ("student",),
        "consistency": ("student",),
        "flaw_detection": ("detector",),
    }

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 1.0,
        lambda_detection: float = 10.0,
        rampup_epochs: float = 3.0,
        decay: float = 0.99,
        detector_norm: Norm = "batch",
        detector_scale: float = 1.0,
        detector_lr: float = 1e-4,
    ) -> None:
        super().__init__(
            task, make_model, lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs, decay=decay
        )
        check_weights(lambda_detection=lambda_detection, detector_lr=detector_lr)
        self.detector = make_detector(task, "paper", detector_norm, detector_scale)
        self.lambda_detection = lambda_detection
        self.detector_lr = detector_lr

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        output = self.student(batch.image)  # (N, K, H, W)
        prediction = self.task.activate(output)
        with torch.no_grad():  # the teacher normalises by this batch; no gradient goes through the flaw maps
            goal = self.task.activate(frozen(self.teacher, batch.image))
            flaws = flaw_maps(self.detector, batch.image, (prediction, goal))
            student_flaw, teacher_flaw = (normalize_flaw(flaw, batch.shown) for flaw in flaws)  # (N, 1, H, W) each
        taught = teacher_flaw <= student_flaw  # everywhere, if the detector reports no flaw at all
        error = taught * F.mse_loss(prediction, goal, reduction="none")
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        valid = self.compared(batch)
        known = labeled_images(self.task, batch, (prediction, goal))
        detection = detection_loss(self.detector, self.task, known)
        return {
            "supervised": self.task.loss(output[: len(batch.target)], batch.target),
            "consistency": weight * masked_mean(error, valid),
            "flaw_detection": self.lambda_detection * detection,
        }

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [*super().optimizers(make_optimizer), helper_optimizer(self.detector, self.detector_lr)]

    def evidence(self, image: Tensor) -> Evidence:
        found = super().evidence(image)
        prediction = found.predictions[0]
        return found._replace(flaw=flaw_of(self.detector, image, prediction, prediction))
