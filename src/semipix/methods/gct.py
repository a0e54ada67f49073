"""Guided Collaborative Training: two models teach each other, steered by a detector of their flaws.

Ke, Qiu, Li, Yan and Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020).

term                 | data    | trains           | objective (sg = stop gradient)
-------------------- | ------- | ---------------- | ------------------------------------------------------------
supervised           | labeled | both task models | R(T(x), y), Eq. 1
dynamic_consistency  | all     | both task models | where the other's flaw is lower, match sg(other), Eq. 4 and 5
flaw_correction      | all     | both task models | where both are flawed, push the frozen map to 0, Eq. 6 and 7
flaw_detection       | labeled | detector         | F(x, sg(p)) matches flaw_target(p, y), Eq. 3, or the error itself
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import directions, exchange
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import masked_mean
from semipix.methods.base import Evidence, MakeModel, Options, Routes, check_weights
from semipix.methods.flaw_detection import Kind, compared
from semipix.methods.flaw_guided import FlawGuidedPair
from semipix.methods.pair import BOTH_MODELS, Deploy
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

Constraints = Literal["both", "consistency", "correction"]


class GCT(FlawGuidedPair):
    """Two task models and a flaw detector; the better of the pair on validation is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        constraints: both constraints on unlabeled pixels, or only one of them (Fig. 5).
        flaw_threshold: flaw above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        lambda_dc: weight of dynamic consistency.
        lambda_fc: weight of flaw correction.
        lambda_detection: weight of the detector's own loss, 10 in the released code.
        rampup_epochs: epochs over which dynamic consistency grows.
        warmup_epochs: epochs of only supervision and detection, before both constraints begin.
        fusion: whether validation also compares the fusion of the pair by its flaws for deployment.
        detector: `paper`, the detector of Appendix B; `cues`, a small network that reads what the pair says;
            `features`, which also reads feature maps of the first model.
        detector_norm: norm of the paper's detector: batch norm, or the released code's half batch and half instance
            norm.
        detector_scale: size at which the paper's detector looks at image and prediction, as a share of theirs; 0.5
            costs a quarter.
        detector_lr: the detector's learning rate, for Adam with betas 0.9 and 0.99; none means 1e-4 for `paper` and
            3e-3 for the others.
        detection_images: labeled images of a step, in each process, whose strong views train a detector other than
            `paper`.
        corrupted: share of the predictions from which such a detector learns that are labels with errors instead, in
            [0, 1].
        withhold: share of the labeled images that each model goes without, in [0, 0.5], so that their errors show the
            detector what the models do to images that they never learned.
        deploy: deploy the better of the pair on validation, or always the first or the second model.
    """

    labelers: ClassVar[tuple[str, ...]] = ("first", "second")
    trains: ClassVar[Routes] = {
        "supervised": BOTH_MODELS,
        "dynamic_consistency": BOTH_MODELS,
        "flaw_correction": BOTH_MODELS,
        "flaw_detection": ("detector",),
    }
    test_options: ClassVar[Options] = {"flaw_threshold": 0.1, "rampup_epochs": 0}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        constraints: Constraints = "both",
        flaw_threshold: float = 0.6,
        lambda_dc: float = 100.0,
        lambda_fc: float = 1.0,
        lambda_detection: float = 10.0,
        rampup_epochs: float = 3.0,
        warmup_epochs: float = 0.0,
        fusion: bool = False,
        detector: Kind = "cues",
        detector_norm: Norm = "batch",
        detector_scale: float = 1.0,
        detector_lr: float | None = None,
        detection_images: int = 1,
        corrupted: float = 0.0,
        withhold: float = 0.0,
        deploy: Deploy = "better",
    ) -> None:
        super().__init__(
            task,
            make_model,
            flaw_threshold=flaw_threshold,
            lambda_detection=lambda_detection,
            fusion=fusion,
            detector=detector,
            detector_norm=detector_norm,
            detector_scale=detector_scale,
            detector_lr=detector_lr,
            detection_images=detection_images,
            corrupted=corrupted,
            withhold=withhold,
            deploy=deploy,
        )
        if constraints not in ("both", "consistency", "correction"):
            raise SemipixError(f"method.constraints: {constraints!r} found, both, consistency or correction expected")
        check_weights(lambda_dc=lambda_dc, lambda_fc=lambda_fc)
        check_weights(rampup_epochs=rampup_epochs, warmup_epochs=warmup_epochs)
        self.constraints = constraints
        self.lambda_dc = lambda_dc
        self.lambda_fc = lambda_fc
        self.rampup_epochs = rampup_epochs
        self.warmup_epochs = warmup_epochs

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """Where the other model learns from each."""
        first_learns, second_learns, _ = directions(
            compared(self.detector, self._flaws_of(evidences)), self.flaw_threshold
        )
        return {"first": second_learns, "second": first_learns}

    def taught_in_parts(self) -> bool:
        return self.detector.probabilistic  # the paper's maps are normalised as a whole

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        first_output, second_output = (model(batch.image) for model in self.models)  # (N, K, H, W) each
        first, second = self.task.activate(first_output), self.task.activate(second_output)
        losses = {"supervised": self._supervised_loss(batch, first_output, second_output)}
        del first_output, second_output  # whole maps of all classes, which nothing needs any more
        losses["flaw_detection"] = self.lambda_detection * self._detection_loss(batch, (first, second))
        if epoch < self.warmup_epochs:
            return losses

        (first, second), (first_learned, second_learned) = self._learned(batch, (first, second))  # (N, 1, H, W) pixels
        corrects = self.constraints != "consistency" and self.lambda_fc > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and corrects):  # only flaw correction needs gradients
            first_flaw, second_flaw = self._flaws(batch.image, (first, second))  # (N, 1, H, W)
        normalized = compared(self.detector, (first_flaw, second_flaw), batch.shown)
        # The second model is the first one's goal where its flaw is lower, and the reverse.
        (first_goal, second_goal), both_flawed = exchange((first, second), normalized, self.flaw_threshold)
        if self.constraints != "correction":
            weight = self.lambda_dc * sigmoid_rampup(epoch - self.warmup_epochs, self.rampup_epochs)
            losses["dynamic_consistency"] = weight * (
                _mse(first, first_goal, first_learned) + _mse(second, second_goal, second_learned)
            )
        if corrects:
            first_correction = masked_mean(both_flawed * first_flaw.square(), first_learned)
            second_correction = masked_mean(both_flawed * second_flaw.square(), second_learned)
            losses["flaw_correction"] = self.lambda_fc * (first_correction + second_correction)
        return losses


def _mse(prediction: Tensor, goal: Tensor, learned: Tensor) -> Tensor:
    """Squared distance of a prediction from its goal, the mean over learned pixels and channels."""
    return masked_mean(F.mse_loss(prediction, goal, reduction="none"), learned)
