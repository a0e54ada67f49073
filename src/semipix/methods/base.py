"""The interface of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torchmetrics import Metric

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.tasks.base import Task

MakeModel = Callable[[int], nn.Module]
"""Makes task model number i: 0 is `model`, 1 is `second_model` or, without one, `model` with another initialisation."""

MakeOptimizer = Callable[[nn.Module], Optimizer]
"""Makes the configured optimizer for a task model, with the model's own learning-rate ratios."""


Routes = Mapping[str, tuple[str, ...]]
"""The networks that each term of a method trains, by the term's name in `losses`."""

Options = Mapping[str, Any]
"""Values of hyper-parameters by their names."""


class Evidence(NamedTuple):
    """What a method knows of its prediction of some images; maps of probable errors are made from it.

    Attributes:
        output: network output (N, K, H, W) of the deployed network, as `forward` returns it.
        predictions: activated predictions (N, K, H, W), the deployed one first. A single model has one. A pair has two;
            if the fused pair is deployed, the predictions of both models follow the fused one.
        flaw: the detector's map (N, 1, h, w) in [0, 1] of the deployed prediction, or None.
    """

    output: Tensor
    predictions: tuple[Tensor, ...]
    flaw: Tensor | None = None

    def of_images(self, indices: Sequence[int]) -> "Evidence":
        """The evidence of some of the images."""
        kept = list(indices)
        flaw = None if self.flaw is None else self.flaw[kept]
        return Evidence(self.output[kept], tuple(each[kept] for each in self.predictions), flaw)


class Method(nn.Module, ABC):
    """Networks and the losses that tie them together. A method never names a task, a data set or a trainer.

    The first group of class attributes says what a method needs; training and data read it. The second group says what
    a method does in a step; only semipix's own tests read it, and a method outside of semipix works without it.

    Attributes:
        uses_unlabeled: whether batches hold unlabeled images.
        needs_unlabeled: whether a step is impossible without them.
        strong_views: how many strong views of each unlabeled image batches hold.
        labeled_views: of how many labeled images of a batch there are two strong views.
        labelers: names of the candidates whose predictions become pseudo labels.
        classification_only: whether predictions have to be distributions over classes, so that regression is refused.
        flaw_is_error: whether `Evidence.flaw` estimates the error itself, so that in regression it orders pixels better
            than the disagreement of a pair does.

        trains: the networks that each term trains. A network is named as its parameters are, `detector` or `models.0`;
            `model.features` and `model.head` are the two parts of a model that follows the feature protocol.
        off_by_default: terms in `trains` that are absent with the default hyper-parameters.
        never_trained: networks that no term trains, such as an averaged teacher.
        draws_numbers: whether `losses` draws random numbers, such as boxes, rotations or dropout.
        test_options: hyper-parameters with which every term is above 0 for a small untrained model.

    Args:
        task: what a pixel means.

    Raises:
        SemipixError: the method serves only classification, and the task is regression.
    """

    uses_unlabeled: ClassVar[bool] = True
    needs_unlabeled: ClassVar[bool] = False
    strong_views: ClassVar[int] = 0
    labeled_views: int = 0
    labelers: ClassVar[tuple[str, ...]] = ()
    classification_only: ClassVar[bool] = False
    flaw_is_error: bool = False

    trains: ClassVar[Routes] = {}
    off_by_default: ClassVar[tuple[str, ...]] = ()
    never_trained: ClassVar[tuple[str, ...]] = ()
    draws_numbers: ClassVar[bool] = False
    test_options: ClassVar[Options] = {}

    def __init__(self, task: Task) -> None:
        super().__init__()
        if self.classification_only and not task.classification:
            raise SemipixError(
                f"method: {type(self).__name__} serves only classification of pixels, {type(task).__name__} is "
                "regression; take gct, mean_teacher or another method that docs/methods lists for regression"
            )
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
        """One optimizer for each trained network.

        Args:
            make_optimizer: makes the configured optimizer, for task models. A detector or discriminator has the one of
                its paper, see `helper_optimizer`.
        """

    def after_step(self) -> None:
        """Update what no gradient trains, such as an averaged teacher; called after each optimizer step."""

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """The pixels whose pseudo labels would be learned if these images had no labels.

        Args:
            evidences: what is known of each candidate's prediction.

        Returns:
            (N, 1, H, W) bool by the names in `labelers`. Of a method that raises the confidence they need after
            validation, those that are taught at most, see `least_confidence`.
        """
        return {}

    def taught_in_parts(self) -> bool:
        """Whether `taught` can be asked for parts of an image, since no pixel depends on the whole."""
        return True

    def confidence_of(self, name: str, prediction: Tensor) -> Tensor:
        """What the method compares with the confidence that a pseudo label needs, (N, 1, H, W) in [0, 1].

        Args:
            name: one of `labelers`.
            prediction: its activated prediction (N, K, H, W).
        """
        return self.task.confidence(prediction)

    def is_steered(self) -> bool:
        """Whether `after_validation` changes anything."""
        return False

    def least_confidence(self, name: str) -> float:
        """The confidence that pseudo labels need at present beside what `taught` says; infinity if none count.

        Args:
            name: one of `labelers`.
        """
        return 0.0

    def withheld_from(self, place: float) -> str | None:
        """Name of the candidate that trained without the labeled image of this place (see `Batch.place`), or None."""
        return None

    def after_validation(self, needed_confidence: Callable[[str, float], float]) -> None:
        """React to what validation found out about pseudo labels.

        Args:
            needed_confidence: the smallest confidence, as `confidence_of` has it, at which a share of a candidate's
                pseudo labels is right, of its name and this share; infinity if it is at none.
        """

    def unlabeled(self, batch: Batch) -> Tensor:
        """The unlabeled images of a batch, (N - L, C_in, H, W).

        Raises:
            SemipixError: there are none, or fewer strong views than the method asks for.
        """
        images = batch.unlabeled
        if not len(images):
            raise SemipixError(
                f"method: {type(self).__name__} learns from unlabeled images, but the batch holds none; set "
                "data.labels below the number of images, or add images without labels"
            )
        found = 0 if batch.strong is None else len(batch.strong)
        if found < self.strong_views * len(images):
            raise SemipixError(
                f"method: {type(self).__name__} asks for {self.strong_views} strong views of {len(images)} unlabeled "
                f"images, {found} found in Batch.strong; let the data module make them"
            )
        return images

    def compared(self, batch: Batch) -> Tensor:
        """(N, 1, H, W) bool: the pixels of all images at which predictions are compared with each other.

        They are those that the task says (`Task.valid_of_all`) and that the images show (`Batch.shown`).
        """
        valid = self.task.valid_of_all(batch.target, batch.image)
        return valid if batch.shown is None else valid & batch.shown

    def compared_without_labels(self, batch: Batch) -> Tensor | None:
        """(N, 1, H, W) bool: `compared` if no label were used, which includes void pixels; None if these are all."""
        return self.compared(batch) if self.task.trimap else batch.shown

    def compared_unlabeled(self, batch: Batch) -> Tensor | None:
        """(U, 1, H, W) bool: the pixels of the unlabeled images at which predictions are compared; None if all are.

        What is learned from unlabeled images is a mean over these pixels, and all others teach nothing.
        """
        pixels = self.compared_without_labels(batch)
        return None if pixels is None else pixels[len(batch.target) :]

    def evidence(self, image: Tensor) -> Evidence:
        """The prediction of images (N, C_in, H, W) and what the method knows of its errors; by default nothing."""
        output = self(image)
        return Evidence(output, (self.task.activate(output),))

    def evidences(self, image: Tensor, flaws_of: Collection[str] | None = None) -> dict[str, Evidence]:
        """The evidence of each candidate as if it were the deployed one, by its name.

        Args:
            image: (N, C_in, H, W).
            flaws_of: candidates whose flaw maps are needed, others may have none; by default all.
        """
        if len(self.candidates()) == 1:
            return {self.deployed_name(): self.evidence(image)}
        outputs = self.candidate_outputs(image)
        return {name: Evidence(output, (self.task.activate(output),)) for name, output in outputs.items()}

    def candidates(self) -> dict[str, nn.Module]:
        """Networks that can be deployed, by name; validation compares them where there are several."""
        return {"model": self}

    def choices(self) -> list[str]:
        """Names of the candidates of which validation deploys the best; by default all."""
        return list(self.candidates())

    def candidate_outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Network output (N, K, H, W) of each candidate, by its name."""
        return {name: network(image) for name, network in self.candidates().items()}

    def deploy(self, name: str) -> None:
        """Make `forward` run the named candidate."""

    def deployed_name(self) -> str:
        """Name of the candidate that `forward` runs."""
        return next(iter(self.candidates()))

    def deployed_network(self) -> nn.Module:
        """A module that computes what `forward` does, without the parts that only training needs where it has any."""
        return self.candidates()[self.deployed_name()]

    def diagnostics(self) -> dict[str, Metric]:
        """Fresh metrics that `diagnose` feeds during validation."""
        return {}

    def diagnose(self, batch: Batch, evidences: Mapping[str, Evidence], metrics: Mapping[str, Metric]) -> None:
        """Update the metrics with a batch of labeled validation images.

        Args:
            batch: labeled images only; `target` may have another size than `image`.
            evidences: what `evidences` returned for these images.
            metrics: what `diagnostics` returned.
        """


def helper_optimizer(network: nn.Module, rate: float) -> Optimizer:
    """The optimizer of detectors and discriminators in GCT's paper: Adam with betas 0.9 and 0.99.

    Args:
        network: a network that is no task model.
        rate: the learning rate.
    """
    return Adam(network.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)


def check_weights(**values: float) -> None:
    """Refuse negative hyper-parameters: weights, lengths and rates.

    Raises:
        SemipixError: a value is negative or NaN.
    """
    for key, value in values.items():
        if not value >= 0:
            raise SemipixError(f"method.{key}: {value} found, 0 or more expected")


def check_shares(**values: float) -> None:
    """Refuse thresholds, decays and probabilities outside of [0, 1].

    Raises:
        SemipixError: a value is outside of [0, 1] or NaN.
    """
    for key, value in values.items():
        if not 0 <= value <= 1:
            raise SemipixError(f"method.{key}: {value} found, a number in [0, 1] expected")


def check_area(area: float, without: str) -> None:
    """Refuse a share of an image that no box covers.

    Args:
        area: share of an image that a box covers.
        without: what does without boxes, for the message.

    Raises:
        SemipixError: the share is outside of (0, 1] or NaN.
    """
    if not 0 < area <= 1:
        raise SemipixError(f"method.area: {area} found, a number in (0, 1] expected; {without} does without boxes")
