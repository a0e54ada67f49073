"""What methods with two task models have in common: supervision of both, and deployment of the better one."""

from collections.abc import Collection
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.errors import SemipixError
from semipix.functional.flaw import Pair
from semipix.methods.base import Evidence, MakeModel, MakeOptimizer, Method
from semipix.tasks.base import Task

BOTH_MODELS = ("models.0", "models.1")
"""The route of a term that trains both task models."""


Deploy = Literal["better", "first", "second"]
"""Which of a pair is deployed: the better on validation, or always the same."""


class ModelPair(Method):
    """A method with two task models, of which the better on validation is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        deploy: the better on validation, or always the first or the second model.

    Raises:
        SemipixError: `deploy` is none of these.
    """

    deployed: Tensor

    def __init__(self, task: Task, make_model: MakeModel, deploy: Deploy = "better") -> None:
        super().__init__(task)
        if deploy not in get_args(Deploy):
            raise SemipixError(f"method.deploy: {deploy!r} found, better, first or second expected")
        self.always = None if deploy == "better" else deploy
        self.models = nn.ModuleList([make_model(0), make_model(1)])
        self.register_buffer("deployed", torch.tensor(int(deploy == "second")))

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.deployable()[int(self.deployed)](image)
        return output

    def supervised_loss(self, first_output: Tensor, second_output: Tensor, target: Tensor) -> Tensor:
        """Eq. 1 of GCT for both models, a scalar.

        Args:
            first_output: output (N, K, H, W) of the first model, labeled images first.
            second_output: output (N, K, H, W) of the second model, labeled images first.
            target: labels (L, ...) of the labeled images.
        """
        labeled = len(target)
        return self.task.loss(first_output[:labeled], target) + self.task.loss(second_output[:labeled], target)

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(model) for model in self.models]

    def deployable(self) -> nn.ModuleList:
        """The two networks that validation compares, one of which `forward` runs."""
        return self.models

    def evidence(self, image: Tensor) -> Evidence:
        outputs = [model(image) for model in self.deployable()]
        predictions = cast(Pair, tuple(self.task.activate(output) for output in outputs))
        deployed = int(self.deployed)
        return Evidence(outputs[deployed], predictions if deployed == 0 else predictions[::-1])

    def evidences(self, image: Tensor, flaws_of: Collection[str] | None = None) -> dict[str, Evidence]:
        outputs = {name: model(image) for name, model in zip(("first", "second"), self.deployable(), strict=True)}
        first, second = (self.task.activate(output) for output in outputs.values())
        return {
            "first": Evidence(outputs["first"], (first, second)),
            "second": Evidence(outputs["second"], (second, first)),
        }

    def candidates(self) -> dict[str, nn.Module]:
        first, second = self.deployable()
        return {"first": first, "second": second}

    def choices(self) -> list[str]:
        return super().choices() if self.always is None else [self.always]

    def deploy(self, name: str) -> None:
        self.deployed.fill_(list(self.candidates()).index(name))

    def deployed_name(self) -> str:
        return list(self.candidates())[int(self.deployed)]
