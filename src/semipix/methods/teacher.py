"""What methods with a student and an averaged teacher have in common."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.functional.ema import ema_decay, ema_update
from semipix.methods.base import MakeModel, MakeOptimizer, Method, check_shares
from semipix.tasks.base import Task


class CountsSteps(nn.Module):
    """A module that knows how many steps it has trained: in a buffer for checkpoints, and in a number.

    The buffer is read only at the first step, since reading it waits for the GPU.
    """

    step: Tensor
    _steps: int | None = None

    def next_step(self) -> int:
        """Count a step, and return how many there were before it."""
        done = int(self.step) if self._steps is None else self._steps
        self._steps = done + 1
        self.step += 1
        return done

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._steps = None


class AveragedTeacher(CountsSteps, Method):
    """A method with a student and a teacher, the student's moving average, which is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        decay: largest decay of the average of parameters and buffers.
    """

    never_trained: ClassVar[tuple[str, ...]] = ("teacher",)

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
        ema_update(self.teacher, self.student, ema_decay(self.next_step(), self.decay))
