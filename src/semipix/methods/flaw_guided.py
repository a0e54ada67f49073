"""What methods with two task models and a flaw detector have in common: deployment, flaw maps and diagnostics.

Ke, Qiu, Li, Yan and Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional import error_measures as measures
from semipix.functional.corruption import corrupted_labels
from semipix.functional.flaw import Pair, directions, fuse
from semipix.functional.routing import frozen, without_dropout
from semipix.methods.base import Evidence, MakeModel, MakeOptimizer, check_shares, check_weights, helper_optimizer
from semipix.methods.flaw_detection import (
    RATES,
    Kind,
    Known,
    compared,
    detection_loss,
    flaw_maps,
    flaw_of,
    labeled_images,
    make_detector,
)
from semipix.methods.pair import Deploy, ModelPair
from semipix.models.adapt import features_of
from semipix.models.checkpointing import Part
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

PROBE = 64
"""Side of the image with which the channels of feature maps are counted."""

ROUNDING = 1e-6
"""Error of places in single precision."""


class FlawGuidedPair(ModelPair):
    """A method with two task models and a detector of their flaws.

    Validation deploys the better model or, with fusion, the pair fused by its flaws where that is better.

    The paper's detector learns from the training predictions of labeled images. The other detectors learn from errors
    that the models could not memorise: each deployable network predicts strong views of labeled images.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        flaw_threshold: flaw above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        lambda_detection: weight of the detector's own loss.
        fusion: whether validation also compares the fusion of the pair by its flaws.
        detector: `paper`, `cues` or `features`, see `semipix.methods.flaw_detection.make_detector`.
        detector_norm: norm of the paper's detector, batch or batch_instance.
        detector_scale: size at which the paper's detector looks at image and prediction, as a share of theirs.
        detector_lr: the detector's learning rate; none means the one of its kind.
        detection_images: labeled images of a step, in each process, whose strong views train a detector other than the
            paper's.
        corrupted: share of the predictions from which such a detector learns that are labels with errors instead, in
            [0, 1], see `corrupted_labels`.
        withhold: share of the labeled images that each model goes without, in [0, 0.5]: it learns neither their labels
            nor what the other model says of them. The two models go without different ones, whose errors show the
            detector what the models do to images that they never learned.
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
        detector: Kind,
        detector_norm: Norm,
        detector_scale: float,
        detector_lr: float | None,
        detection_images: int,
        corrupted: float,
        withhold: float,
        deploy: Deploy = "better",
    ) -> None:
        super().__init__(task, make_model, deploy)
        check_shares(flaw_threshold=flaw_threshold, corrupted=corrupted)
        check_weights(lambda_detection=lambda_detection)
        if not 0 <= withhold <= 0.5:
            raise SemipixError(f"method.withhold: {withhold} found, a share in [0, 0.5] expected")
        if detection_images < 1:
            raise SemipixError(f"method.detection_images: {detection_images} found, at least 1 expected")
        widths = self._widths() if detector == "features" else ()
        self.detector = make_detector(task, detector, detector_norm, detector_scale, widths)
        self.detector_lr = RATES[detector] if detector_lr is None else detector_lr
        check_weights(detector_lr=self.detector_lr)
        self.flaw_threshold = flaw_threshold
        self.lambda_detection = lambda_detection
        self.fusion = fusion
        self.corrupted = corrupted
        self.withhold = withhold
        self.labeled_views = detection_images if self.detector.probabilistic else 0
        self.flaw_is_error = self.detector.probabilistic

    def forward(self, image: Tensor) -> Tensor:
        if self.deployed_name() == "fused":
            return self.candidate_outputs(image)["fused"]
        return super().forward(image)

    def _flaws(self, image: Tensor, predictions: Pair) -> Pair:
        """The frozen detector's maps of both predictions (N, 1, H, W)."""
        return flaw_maps(self.detector, image, predictions, self._features(image))

    def _flaw_of(self, image: Tensor, predictions: Sequence[Tensor]) -> Tensor:
        """The frozen detector's map (N, 1, H, W) in [0, 1] of the first of two predictions."""
        return flaw_of(self.detector, image, predictions[0], predictions[1], self._features(image))

    def _detection_loss(self, batch: Batch, predictions: Pair) -> Tensor:
        """The detector learns where predictions of labeled images are wrong; a batch without strong views has its own.

        Args:
            batch: labeled images first.
            predictions: activated predictions (N, K, H, W) of the batch's images.
        """
        known = self._known(batch, predictions)
        return detection_loss(self.detector, self.task, known, self._features(torch.cat(known.images)))

    @torch.no_grad()
    def _known(self, batch: Batch, predictions: Pair) -> Known:
        """The predictions from which the detector learns."""
        views = batch.labeled_views()
        if not self.detector.probabilistic or not views:
            return labeled_images(self.task, batch, predictions)
        # Predictions are only compared with each other where their labels are equal.
        first, second = views if views[0].labels is None else (views[0], views[0])
        count = len(first.image)
        target, valid = self.task.encode(batch.target[:count]), self.task.valid(batch.target[:count])
        seen = zip(self.deployable(), (first, second), strict=True)
        own = [self.task.activate(without_dropout(model, view.image)) for model, view in seen]
        labels = first.label(target), second.label(target)
        if self.corrupted:
            drawn = torch.rand(2, count) < self.corrupted  # on the CPU, which reads it
            own = [
                _corrupted(prediction, label, valid, chosen)
                for prediction, label, chosen in zip(own, labels, drawn, strict=True)
            ]
        return Known((first.image, second.image), (own[0], own[1]), labels, valid)

    def _supervised_loss(self, batch: Batch, first_output: Tensor, second_output: Tensor) -> Tensor:
        """Eq. 1 for both models, each without the labels that are withheld from it.

        Args:
            batch: labeled images first.
            first_output: output (N, K, H, W) of the first model, labeled images first.
            second_output: output (N, K, H, W) of the second model, labeled images first.
        """
        if not self.withhold or batch.place is None:
            return self.supervised_loss(first_output, second_output, batch.target)
        labeled = len(batch.target)
        withheld = [self.withheld_from(place) for place in batch.place.tolist()]
        losses = []
        for name, output in (("first", first_output), ("second", second_output)):
            learned = [index for index, without in enumerate(withheld) if without != name]
            if not learned:
                losses.append(0 * output.sum())
                continue
            places = torch.tensor(learned).to(output.device, non_blocking=True)
            losses.append(self.task.loss(output[:labeled][places], batch.target[places]))
        return losses[0] + losses[1]

    def _learned(self, batch: Batch, predictions: Pair) -> tuple[Pair, Pair]:
        """What each model learns from without labels: nothing of an image that is withheld from it.

        Args:
            batch: labeled images first.
            predictions: of both models (N, K, H, W).

        Returns:
            The predictions, detached at the images that are withheld from their model, since the detector's map of the
            other prediction has gradients to them too; and the valid pixels (N, 1, H, W) of the other images, bool.
        """
        valid = self.compared(batch)
        if not self.withhold or batch.place is None:
            return predictions, (valid, valid)
        withheld = [self.withheld_from(place) for place in batch.place.tolist()]
        withheld += [None] * (len(valid) - len(withheld))  # of the unlabeled images
        learned = torch.tensor([[without != name for without in withheld] for name in ("first", "second")])
        first, second = learned.view(2, -1, 1, 1, 1).to(valid.device, non_blocking=True)
        kept = [torch.where(own, maps, maps.detach()) for own, maps in zip((first, second), predictions, strict=True)]
        return (kept[0], kept[1]), (valid & first, valid & second)

    def withheld_from(self, place: float) -> str | None:
        if not self.withhold:
            return None
        share = self.withhold + ROUNDING  # so that both go without equally many where a place is the share itself
        return "first" if place <= share else "second" if place >= 1 - share else None

    def _features(self, image: Tensor) -> list[Tensor] | None:
        """Feature maps of images (N, C_in, H, W), for detectors that read them: those of the first deployable model."""
        if not self.detector.reads_features:
            return None
        with torch.no_grad():
            maps: Any = frozen(Part(self.deployable()[0], "features"), image)
        return list(maps)

    @torch.no_grad()
    def _widths(self) -> list[int]:
        """Channels of the first model's feature maps.

        Raises:
            SemipixError: the model has none.
        """
        try:
            parts = features_of(self.models[0])
            training = self.models[0].training
            self.models[0].eval()
            maps = parts.features(torch.zeros(1, self.task.in_channels, PROBE, PROBE))
        except SemipixError as error:
            raise SemipixError(f"{error}; or set method.detector=cues, which reads no feature maps") from None
        self.models[0].train(training)
        return [part.shape[1] for part in maps]

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [*super().optimizers(make_optimizer), helper_optimizer(self.detector, self.detector_lr)]

    def evidence(self, image: Tensor) -> Evidence:
        if self.deployed_name() != "fused":
            found = super().evidence(image)
            return found._replace(flaw=self._flaw_of(image, found.predictions))
        return self.evidences(image)["fused"]

    def evidences(self, image: Tensor, flaws_of: Collection[str] | None = None) -> dict[str, Evidence]:
        found = super().evidences(image)
        if flaws_of is not None and len(flaws_of) < len(found) and not self.fusion:
            for name in flaws_of:
                found[name] = found[name]._replace(flaw=self._flaw_of(image, found[name].predictions))
            return found
        pair = cast(Pair, found["first"].predictions)
        flaws = self._flaws(image, pair)
        for name, flaw in zip(("first", "second"), flaws, strict=True):
            found[name] = found[name]._replace(flaw=flaw.clamp(0, 1))
        if self.fusion:
            output = self.task.deactivate(fuse(pair, flaws))
            # A fused pixel is flawed where its better prediction is.
            flaw = torch.minimum(*flaws).clamp(0, 1)
            found["fused"] = Evidence(output, (self.task.activate(output), *pair), flaw)
        return found

    def candidates(self) -> dict[str, nn.Module]:
        return {**super().candidates(), **({"fused": self} if self.fusion else {})}

    def candidate_outputs(self, image: Tensor) -> dict[str, Tensor]:
        return {name: found.output for name, found in self.evidences(image).items()}

    def _flaws_of(self, evidences: Mapping[str, Evidence]) -> Pair:
        """The flaw maps (N, 1, H, W) of both models in what is known of their predictions."""
        first, second = (evidences[name].flaw for name in ("first", "second"))
        assert first is not None and second is not None
        return first, second

    def diagnostics(self) -> dict[str, Metric]:
        return diagnostic_metrics()

    def diagnose(self, batch: Batch, evidences: Mapping[str, Evidence], metrics: Mapping[str, Metric]) -> None:
        predictions = evidences["first"].predictions[0], evidences["second"].predictions[0]
        flaws = self._flaws_of(evidences)
        learns = directions(compared(self.detector, flaws, batch.shown), self.flaw_threshold)
        update_diagnostics(metrics, self.task, batch.target, predictions, flaws, learns)


def _corrupted(prediction: Tensor, label: Tensor, valid: Tensor, chosen: Tensor) -> Tensor:
    """Predictions, of the chosen images labels with errors instead, at the pixels to which only known labels moved.

    Args:
        prediction: activated predictions (V, K, H, W).
        label: labels in prediction space (V, K, H, W), of any value at ignored pixels.
        valid: (V, 1, H, W) bool, False at ignored pixels.
        chosen: (V,) bool on the CPU, the images.
    """
    moved = corrupted_labels(torch.cat([label, valid.to(label)], 1), chosen)  # both take the same way
    wrong, known = moved[:, :-1].to(prediction), moved[:, -1:] > 0.999  # a mean that is not all of known pixels is less
    replaced = chosen.to(known.device, non_blocking=True).view(-1, 1, 1, 1) & known
    return torch.where(replaced, wrong, prediction)


class FlawAUROC(Metric):
    """The probability that a wrong pixel has a higher flaw than a right one; NaN if no pixel is right or none is wrong.

    Memory does not grow with the pixels: they are counted in the bins of `semipix.functional.error_measures`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Right and wrong pixels by their flaw.
        self.add_state("counts", torch.zeros(2, measures.SCORE_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, flaw: Tensor, wrong: Tensor) -> None:
        """Add pixels: flaws (n,) in [0, 1], and whether their predictions are wrong, (n,) bool."""
        index = measures.score_bins(flaw.float()).long() + measures.SCORE_BINS * wrong
        self.counts += index.bincount(minlength=self.counts.numel()).view_as(self.counts)

    def compute(self) -> Tensor:
        right, wrong = self.counts.cpu().double()
        return measures.auroc(right, wrong).float().to(self.device)


def diagnostic_metrics() -> dict[str, Metric]:
    """Metrics that say why guided training helps or hurts: AUROC of each flaw map, then shares of pixels.

    `*_learns` and `both_flawed` are shares of all valid pixels. `teacher_right_pupil_wrong` and
    `teacher_wrong_pupil_right` are shares of the pixels that are taught: the first is what the exchange gains, the
    second what it costs.
    """
    shares = ("first_learns", "second_learns", "both_flawed", "teacher_right_pupil_wrong", "teacher_wrong_pupil_right")
    return {
        "flaw_auroc_first": FlawAUROC(),
        "flaw_auroc_second": FlawAUROC(),
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
    valid = task.counted(target)
    size = valid.shape[-2:]
    first_wrong, second_wrong = (
        task.wrong(F.interpolate(p, size, mode="bilinear"), target)[valid] for p in predictions
    )
    first_flaw, second_flaw = (F.interpolate(flaw.clamp(0, 1), size, mode="bilinear")[valid] for flaw in flaws)
    first_learns, second_learns, both_flawed = (F.interpolate(mask.float(), size)[valid].bool() for mask in learns)
    metrics["flaw_auroc_first"].update(first_flaw, first_wrong)
    metrics["flaw_auroc_second"].update(second_flaw, second_wrong)
    metrics["first_learns"].update(first_learns.float())
    metrics["second_learns"].update(second_learns.float())
    metrics["both_flawed"].update(both_flawed.float())
    first_taught = first_learns, first_wrong, second_wrong  # taught pixels, the pupil's errors, the teacher's errors
    second_taught = second_learns, second_wrong, first_wrong
    for taught, pupil, teacher in (first_taught, second_taught):
        if taught.any():
            metrics["teacher_right_pupil_wrong"].update((pupil & ~teacher)[taught].float())
            metrics["teacher_wrong_pupil_right"].update((teacher & ~pupil)[taught].float())
