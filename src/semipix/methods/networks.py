"""What several methods have in common: a student with an averaged teacher, and a pair of which one is deployed."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from semipix.functional.ema import ema_decay, ema_update
from semipix.methods.base import MakeModel, MakeOptimizer, Method, check_shares
from semipix.tasks.base import Task


def total(terms: Iterable[Tensor]) -> Tensor:
    """The pair's terms as one scalar."""
    return torch.stack(list(terms)).sum()


def helper_optimizer(network: nn.Module, rate: float) -> Optimizer:
    """The paper's optimizer of detectors and discriminators: Adam with betas 0.9 and 0.99."""
    return Adam(network.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)


class AveragedTeacher(Method):
    """A method with a student and a teacher, the student's moving average, which is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        decay: largest decay of the average of parameters and buffers.
    """

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

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.student)]

    def after_step(self) -> None:
        ema_update(self.teacher, self.student, ema_decay(int(self.step), self.decay))
        self.step += 1


class Pair(Method):
    """A method with two task models, of which the better on validation is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
    """

    deployed: Tensor

    def __init__(self, task: Task, make_model: MakeModel) -> None:
        super().__init__(task)
        self.models = nn.ModuleList([make_model(0), make_model(1)])
        self.register_buffer("deployed", torch.zeros((), dtype=torch.long))

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.deployable()[int(self.deployed)](image)
        return output

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(model) for model in self.models]

    def deployable(self) -> nn.ModuleList:
        """The two networks that are compared and deployed."""
        return self.models

    def candidates(self) -> dict[str, nn.Module]:
        first, second = self.deployable()
        return {"first": first, "second": second}

    def deploy(self, name: str) -> None:
        self.deployed.fill_(list(self.candidates()).index(name))

    def deployed_name(self) -> str:
        return list(self.candidates())[int(self.deployed)]
