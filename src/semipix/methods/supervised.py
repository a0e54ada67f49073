"""Training from only the labeled images: the baseline that every other method has to beat.

term        | data    | trains | objective
----------- | ------- | ------ | ---------------------
supervised  | labeled | model  | R(T(x), y), Eq. 1
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.methods.base import MakeModel, MakeOptimizer, Method, Routes
from semipix.tasks.base import Task


class Supervised(Method):
    """One task model, trained on labels.

    Args:
        task: what a pixel means.
        make_model: makes the task model.
    """

    uses_unlabeled: ClassVar[bool] = False
    trains: ClassVar[Routes] = {"supervised": ("model",)}

    def __init__(self, task: Task, make_model: MakeModel) -> None:
        super().__init__(task)
        self.model = make_model(0)

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.model

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        output = self.model(batch.labeled)  # (L, K, H, W)
        return {"supervised": self.task.loss(output, batch.target)}

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.model)]
