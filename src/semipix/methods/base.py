"""The interface of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from semipix.batch import Batch
from semipix.tasks.base import Task

MakeModel = Callable[[int], nn.Module]
"""Makes task model number i: 0 is `model`, 1 is `second_model` or, without one, `model` initialised anew."""

MakeOptimizer = Callable[[nn.Module], Optimizer]
"""Makes the configured optimizer for a task model, with the model's own learning-rate ratios."""


class Method(nn.Module, ABC):
    """Networks and the losses that tie them together. A method never names a task, a data set or a trainer.

    Attributes:
        uses_unlabeled: whether batches carry unlabeled images.
        uses_strong: whether batches carry strong views of them.
    """

    uses_unlabeled: ClassVar[bool] = True
    uses_strong: ClassVar[bool] = False

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Network output (N, K, H, W) of the network that is evaluated, exported and deployed."""

    @abstractmethod
    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """Weighted scalar terms of one step; their sum takes one backward.

        Args:
            batch: labeled images first.
            epoch: fractional epoch, for ramp-ups.
        """

    @abstractmethod
    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        """One optimizer for each trained network: task models by `make_optimizer`, helpers by their paper."""

    def after_step(self) -> None:
        """Called after each optimizer step, for what is not trained by gradient."""

    def maps(self, batch: Batch) -> dict[str, Tensor]:
        """Maps (N, 1, H, W) in [0, 1] worth a picture, by name; `flaw` is the deployed network's flaw map."""
        return {}

    def candidates(self) -> dict[str, nn.Module]:
        """Networks that could be deployed, by name; validation compares them where there are several."""
        return {"model": self}

    def deploy(self, name: str) -> None:
        """Make `forward` run the named candidate."""

    def deployed_name(self) -> str:
        """Name of the candidate that `forward` runs."""
        return next(iter(self.candidates()))

    def diagnostics(self) -> dict[str, Metric]:
        """Fresh metrics that `diagnose` feeds during validation."""
        return {}

    def diagnose(self, batch: Batch, metrics: Mapping[str, Metric]) -> None:
        """Update the diagnostics with labeled validation images; `target` may have a size of its own."""
