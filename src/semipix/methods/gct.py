"""Guided Collaborative Training: two models teach each other, steered by a detector of their flaws.

Ke, Qiu, Li, Yan and Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020).

term                 | data    | trains           | objective (sg = stop gradient)
-------------------- | ------- | ---------------- | ------------------------------------------------------------
supervised           | labeled | both task models | R(T(x), y), Eq. 1
dynamic_consistency  | all     | both task models | where the other's flaw is lower, match sg(other), Eq. 4 and 5
flaw_correction      | all     | both task models | where both are flawed, push the frozen map to 0, Eq. 6 and 7
flaw_detection       | labeled | detector         | F(x, sg(p)) matches flaw_target(p, y), Eq. 3
"""

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import Pair, directions, exchange, fuse, normalize_flaw
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import masked_mean
from semipix.methods import flaw_diagnostics, networks
from semipix.methods.base import MakeModel, MakeOptimizer, check_shares, check_weights
from semipix.methods.flaw_detection import detection_loss, flaw_maps, flaw_of, make_detector
from semipix.methods.networks import helper_optimizer
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

Constraints = Literal["both", "consistency", "correction"]


class GCT(networks.Pair):
    """Two task models and a flaw detector; the better of the pair on validation is deployed.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        constraints: both constraints on unlabeled pixels, or one alone (Fig. 5).
        flaw_threshold: flaw above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        lambda_dc: weight of dynamic consistency.
        lambda_fc: weight of flaw correction.
        lambda_detection: weight of the detector's own loss, 10 in the released code.
        rampup_epochs: epochs over which dynamic consistency grows.
        warmup_epochs: epochs of supervision and detection alone, before both constraints set in.
        fusion: let validation also consider the flaw-guided fusion of the pair for deployment.
        detector_norm: the paper's batch norm, or the released code's half batch and half instance norm.
        detector_scale: size at which the detector looks at image and prediction, as a share of theirs; 0.5 costs a
            quarter.
        detector_lr: the detector's learning rate, for Adam with betas 0.9 and 0.99.
    """

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
        detector_norm: Norm = "batch",
        detector_scale: float = 1.0,
        detector_lr: float = 1e-4,
    ) -> None:
        super().__init__(task, make_model)
        if constraints not in ("both", "consistency", "correction"):
            raise SemipixError(f"method.constraints: {constraints!r} found, both, consistency or correction expected")
        check_shares(flaw_threshold=flaw_threshold)
        check_weights(lambda_dc=lambda_dc, lambda_fc=lambda_fc, lambda_detection=lambda_detection)
        check_weights(rampup_epochs=rampup_epochs, warmup_epochs=warmup_epochs)
        self.detector = make_detector(task, detector_norm, detector_scale)
        self.constraints = constraints
        self.flaw_threshold = flaw_threshold
        self.lambda_dc = lambda_dc
        self.lambda_fc = lambda_fc
        self.lambda_detection = lambda_detection
        self.rampup_epochs = rampup_epochs
        self.warmup_epochs = warmup_epochs
        self.fusion = fusion
        self.detector_lr = detector_lr

    def forward(self, image: Tensor) -> Tensor:
        if self.deployed_name() == "fused":
            return self.candidate_outputs(image)["fused"]
        return super().forward(image)

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        labeled = len(batch.target)
        outputs = [model(batch.image) for model in self.models]  # (N, K, H, W) twice
        predictions = cast(Pair, tuple(self.task.activate(output) for output in outputs))
        losses = {"supervised": networks.total(self.task.loss(output[:labeled], batch.target) for output in outputs)}
        del outputs  # whole maps of all classes, which nothing needs any more
        losses["flaw_detection"] = self.lambda_detection * self._detection_loss(batch, predictions)
        if epoch < self.warmup_epochs:
            return losses

        valid = self.task.valid_of_all(batch.target, batch.image)  # (N, 1, H, W)
        flaws = self._flaws(batch.image, predictions)  # (N, 1, H, W) twice, with gradients to the predictions
        steering = cast(Pair, tuple(normalize_flaw(flaw) for flaw in flaws))
        goals, both_flawed = exchange(predictions, steering, self.flaw_threshold)
        if self.constraints != "correction":
            weight = self.lambda_dc * sigmoid_rampup(epoch - self.warmup_epochs, self.rampup_epochs)
            errors = (F.mse_loss(*pair, reduction="none") for pair in zip(predictions, goals, strict=True))
            losses["dynamic_consistency"] = weight * networks.total(masked_mean(error, valid) for error in errors)
        if self.constraints != "consistency":
            corrections = (masked_mean(both_flawed * flaw.square(), valid) for flaw in flaws)
            losses["flaw_correction"] = self.lambda_fc * networks.total(corrections)
        return losses

    def _flaws(self, image: Tensor, predictions: Pair) -> Pair:
        """The frozen detector's raw maps of both predictions (N, 1, H, W)."""
        return flaw_maps(self.detector, image, predictions)

    def _detection_loss(self, batch: Batch, predictions: Pair) -> Tensor:
        """Eq. 3: the detector learns where both predictions of the labeled images are wrong."""
        return detection_loss(self.detector, self.task, batch, predictions)

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [*super().optimizers(make_optimizer), helper_optimizer(self.detector, self.detector_lr)]

    def maps(self, batch: Batch) -> dict[str, Tensor]:
        predictions = cast(Pair, tuple(self.task.activate(model(batch.image)) for model in self.deployable()))
        flaws = [flaw.clamp(0, 1) for flaw in self._flaws(batch.image, predictions)]
        if self.deployed_name() == "fused":  # a fused pixel is flawed where its better prediction is
            return {"flaw": torch.minimum(*flaws), "first_flaw": flaws[0], "second_flaw": flaws[1]}
        return {"flaw": flaws[int(self.deployed)], "other_flaw": flaws[1 - int(self.deployed)]}

    def forward_with_flaw(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.deployed_name() == "fused":  # takes both predictions
            return super().forward_with_flaw(image)
        output = self(image)
        return output, flaw_of(self.detector, image, self.task.activate(output))

    def candidates(self) -> dict[str, nn.Module]:
        return {**super().candidates(), **({"fused": self} if self.fusion else {})}

    def candidate_outputs(self, image: Tensor) -> dict[str, Tensor]:
        outputs = {name: model(image) for name, model in zip(("first", "second"), self.deployable(), strict=True)}
        if self.fusion:
            predictions = cast(Pair, tuple(self.task.activate(output) for output in outputs.values()))
            outputs["fused"] = self.task.deactivate(fuse(predictions, self._flaws(image, predictions)))
        return outputs

    def diagnostics(self) -> dict[str, Metric]:
        return flaw_diagnostics.metrics()

    def diagnose(self, batch: Batch, outputs: Mapping[str, Tensor], metrics: Mapping[str, Metric]) -> None:
        predictions = cast(Pair, tuple(self.task.activate(outputs[name]) for name in ("first", "second")))
        flaws = self._flaws(batch.image, predictions)
        learns = directions(cast(Pair, tuple(normalize_flaw(flaw) for flaw in flaws)), self.flaw_threshold)
        flaw_diagnostics.update(metrics, self.task, batch.target, predictions, flaws, learns)
