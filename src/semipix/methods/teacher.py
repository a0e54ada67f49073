"""What methods with a student and an averaged teacher have in common."""

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.functional.ema import ema_decay, ema_update
from semipix.methods.base import MakeModel, MakeOptimizer, Method, check_shares
from semipix.tasks.base import Task


class AveragedTeacher(Method):
    """A method with a student and a teacher, the student's moving average, which is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        decay: largest decay of the average of parameters and buffers.
    """

    never_trained: ClassVar[tuple[str, ...]] = ("teacher",)
    step: Tensor

    def __init__(self, task: Task, make_model: MakeModel, decay: float) -> None:
        super().__init__(task)
        check_shares(decay=decay)
        self.student: nn.Module = make_model(0)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.decay = decay
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.teacher(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.teacher

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.student)]

    def after_step(self) -> None:
        ema_update(self.teacher, self.student, ema_decay(int(self.step), self.decay))
        self.step += 1
