"""What methods with two task models and a flaw detector have in common: deployment, flaw maps and diagnostics.

Ke, Qiu, Li, Yan and Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020).
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC

from semipix.batch import Batch
from semipix.functional.flaw import Pair, directions, fuse, normalize_flaw
from semipix.methods.base import Evidence, MakeModel, MakeOptimizer, check_shares, check_weights, helper_optimizer
from semipix.methods.flaw_detection import detection_loss, flaw_maps, flaw_of, make_detector
from semipix.methods.pair import Deploy, ModelPair
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

AUROC_BINS = 50
"""Thresholds at which the AUROC of the flaw map is read, so that its memory does not grow with the pixels."""


class FlawGuidedPair(ModelPair):
    """A method with two task models and a detector of their flaws.

    Validation deploys the better model or, with fusion, the pair fused by its flaws where that is better.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        flaw_threshold: flaw above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        lambda_detection: weight of the detector's own loss.
        fusion: whether validation also compares the fusion of the pair by its flaws.
        detector_norm: norm of the detector, batch or batch_instance.
        detector_scale: size at which the detector looks at image and prediction, as a share of theirs.
        detector_lr: the detector's learning rate.
        deploy: what validation deploys, see `ModelPair`.
    """

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        flaw_threshold: float,
        lambda_detection: float,
        fusion: bool,
        detector_norm: Norm,
        detector_scale: float,
        detector_lr: float,
        deploy: Deploy = "better",
    ) -> None:
        super().__init__(task, make_model, deploy)
        check_shares(flaw_threshold=flaw_threshold)
        check_weights(lambda_detection=lambda_detection, detector_lr=detector_lr)
        self.detector = make_detector(task, detector_norm, detector_scale)
        self.flaw_threshold = flaw_threshold
        self.lambda_detection = lambda_detection
        self.fusion = fusion
        self.detector_lr = detector_lr

    def forward(self, image: Tensor) -> Tensor:
        if self.deployed_name() == "fused":
            return self.candidate_outputs(image)["fused"]
        return super().forward(image)

    def _flaws(self, image: Tensor, predictions: Pair) -> Pair:
        """The frozen detector's raw maps of both predictions (N, 1, H, W)."""
        return flaw_maps(self.detector, image, predictions)

    def _detection_loss(self, batch: Batch, predictions: Pair) -> Tensor:
        """Eq. 3: the detector learns where both predictions of the labeled images are wrong."""
        return detection_loss(self.detector, self.task, batch, predictions)

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [*super().optimizers(make_optimizer), helper_optimizer(self.detector, self.detector_lr)]

    def evidence(self, image: Tensor) -> Evidence:
        if self.deployed_name() != "fused":
            found = super().evidence(image)
            return found._replace(flaw=flaw_of(self.detector, image, found.predictions[0]))
        pair = cast(Pair, tuple(self.task.activate(model(image)) for model in self.deployable()))
        flaws = self._flaws(image, pair)
        output = self.task.deactivate(fuse(pair, flaws))
        # A fused pixel is flawed where its better prediction is.
        return Evidence(output, (self.task.activate(output), *pair), torch.minimum(*flaws).clamp(0, 1))

    def candidates(self) -> dict[str, nn.Module]:
        return {**super().candidates(), **({"fused": self} if self.fusion else {})}

    def candidate_outputs(self, image: Tensor) -> dict[str, Tensor]:
        outputs = {name: model(image) for name, model in zip(("first", "second"), self.deployable(), strict=True)}
        if self.fusion:
            predictions = cast(Pair, tuple(self.task.activate(output) for output in outputs.values()))
            outputs["fused"] = self.task.deactivate(fuse(predictions, self._flaws(image, predictions)))
        return outputs

    def diagnostics(self) -> dict[str, Metric]:
        return diagnostic_metrics()

    def diagnose(self, batch: Batch, outputs: Mapping[str, Tensor], metrics: Mapping[str, Metric]) -> None:
        predictions = self.task.activate(outputs["first"]), self.task.activate(outputs["second"])
        flaws = self._flaws(batch.image, predictions)
        normalized = normalize_flaw(flaws[0]), normalize_flaw(flaws[1])
        learns = directions(normalized, self.flaw_threshold)
        update_diagnostics(metrics, self.task, batch.target, predictions, flaws, learns)


def diagnostic_metrics() -> dict[str, Metric]:
    """Metrics that say why guided training helps or hurts: AUROC of each flaw map, then shares of pixels.

    `*_learns` and `both_flawed` are shares of all valid pixels. `teacher_right_pupil_wrong` and
    `teacher_wrong_pupil_right` are shares of the pixels that are taught: the first is what the exchange gains, the
    second what it costs.
    """
    shares = ("first_learns", "second_learns", "both_flawed", "teacher_right_pupil_wrong", "teacher_wrong_pupil_right")
    return {
        "flaw_auroc_first": BinaryAUROC(thresholds=AUROC_BINS),
        "flaw_auroc_second": BinaryAUROC(thresholds=AUROC_BINS),
        **{share: MeanMetric() for share in shares},
    }


def update_diagnostics(
    metrics: Mapping[str, Metric],
    task: Task,
    target: Tensor,
    predictions: Pair,
    flaws: Pair,
    learns: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Update the metrics with one labeled batch.

    Args:
        metrics: what `diagnostic_metrics` returned.
        task: decides which pixels are wrong.
        target: labels (B, ...), of another size than the maps where images were resized.
        predictions: two activated predictions (B, K, H, W).
        flaws: two raw flaw maps (B, 1, H, W).
        learns: what `directions` returned, (B, 1, H, W) bool each.
    """
    valid = task.valid(target)
    size = valid.shape[-2:]
    first_wrong, second_wrong = (
        task.wrong(F.interpolate(p, size, mode="bilinear"), target)[valid] for p in predictions
    )
    first_flaw, second_flaw = (F.interpolate(flaw.clamp(0, 1), size, mode="bilinear")[valid] for flaw in flaws)
    first_learns, second_learns, both_flawed = (F.interpolate(mask.float(), size)[valid].bool() for mask in learns)
    metrics["flaw_auroc_first"].update(first_flaw, first_wrong.int())
    metrics["flaw_auroc_second"].update(second_flaw, second_wrong.int())
    metrics["first_learns"].update(first_learns.float())
    metrics["second_learns"].update(second_learns.float())
    metrics["both_flawed"].update(both_flawed.float())
    first_taught = first_learns, first_wrong, second_wrong  # taught pixels, the pupil's errors, the teacher's errors
    second_taught = second_learns, second_wrong, first_wrong
    for taught, pupil, teacher in (first_taught, second_taught):
        if taught.any():
            metrics["teacher_right_pupil_wrong"].update((pupil & ~teacher)[taught].float())
            metrics["teacher_wrong_pupil_right"].update((teacher & ~pupil)[taught].float())
