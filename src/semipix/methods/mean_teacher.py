"""Mean Teacher: consistency with the moving average of the model's own past.

Tarvainen and Valpola, "Mean teachers are better role models" (NeurIPS 2017), for pixels as GCT (Ke et al., ECCV 2020,
Section 4) compares with it: no noise on the input.

term         | data    | trains  | objective (sg = stop gradient)
------------ | ------- | ------- | ----------------------------------------------------
supervised   | labeled | student | R(S(x), y), Eq. 1
consistency  | all     | student | MSE between activated S(x) and sg of activated T(x)
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.batch import Batch
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen, masked_mean
from semipix.methods.base import MakeModel, Routes, check_weights
from semipix.methods.teacher import AveragedTeacher
from semipix.tasks.base import Task


class MeanTeacher(AveragedTeacher):
    """A student that learns from labels and from its own average, the teacher, which is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        lambda_consistency: weight of the consistency term.
        rampup_epochs: epochs over which that weight grows.
        decay: largest decay of the average of parameters and buffers.
    """

    trains: ClassVar[Routes] = {"supervised": ("student",), "consistency": ("student",)}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 1.0,
        rampup_epochs: float = 3.0,
        decay: float = 0.99,
    ) -> None:
        super().__init__(task, make_model, decay)
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        self.lambda_consistency = lambda_consistency
        self.rampup_epochs = rampup_epochs

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        output = self.student(batch.image)  # (N, K, H, W)
        with torch.no_grad():  # the teacher normalises by this batch; its own statistics are the student's average
            goal = self.task.activate(frozen(self.teacher, batch.image))
        error = F.mse_loss(self.task.activate(output), goal, reduction="none")
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        valid = self.compared(batch)
        return {
            "supervised": self.task.loss(output[: len(batch.target)], batch.target),
            "consistency": weight * masked_mean(error, valid),
        }
