"""Guided collaborative training on strong views: the flaw maps of weak views decide who teaches which pixel.

Ours, from GCT (Ke et al., ECCV 2020), cross pseudo supervision (Chen et al., CVPR 2021) and weak-to-strong consistency
(Yang et al., CVPR 2023). The pair stays different: each model learns from the other, never from a merged target, and
sees strong views and boxes of its own.

term               | data                      | trains           | objective (sg = stop gradient)
------------------ | ------------------------- | ---------------- | ------------------------------------------------
supervised         | labeled                   | both task models | R(T(x), y), Eq. 1
cross_supervision  | strong views of unlabeled | both task models | where the gate is open: T1(strong) matches
                   |                           |                  | sg(label(T2(weak))), and the reverse
flaw_correction    | strong views of unlabeled | both task models | where both are flawed, push the frozen map to 0
flaw_detection     | labeled                   | detector         | F(x, sg(p)) matches the error of p, Eq. 3
"""

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.batch import Batch, StrongView
from semipix.errors import SemipixError
from semipix.functional.ema import ema_decay, ema_update
from semipix.functional.error_weight import error_weight
from semipix.functional.flaw import Pair, directions
from semipix.functional.mixing import cutmix_mask, joined, mix, mix_shown
from semipix.functional.precision import at_least_float32
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen, mean_where, without_dropout
from semipix.methods.base import Evidence, MakeModel, Options, Routes, check_shares, check_weights
from semipix.methods.flaw_detection import Kind, compared
from semipix.methods.flaw_guided import FlawGuidedPair
from semipix.methods.pair import BOTH_MODELS, Deploy
from semipix.methods.pseudo_labels import SurePixels
from semipix.methods.teacher import CountsSteps
from semipix.models.adapt import features_of
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

Gate = Literal["lower", "trusted", "agreed", "open"]


class Lesson(NamedTuple):
    """What one model learns from the other: strong views of the unlabeled images and their labels.

    Attributes:
        view: strong views (U, C_in, H, W).
        label: the other model's pseudo label of the weak views (U, K, H, W), changed as the strong views are.
        taught: (U, 1, H, W) bool, where the gate is open and the other model is sure; with `error_scale` weights in
            [0, 1].
        both_flawed: (U, 1, H, W) bool, where both predictions of the weak views are flawed.
        counted: (U, 1, H, W) bool, the pixels over which means are taken: `compared_unlabeled`, mixed as the views are;
            None if these are all.
    """

    view: Tensor
    label: Tensor
    taught: Tensor
    both_flawed: Tensor
    counted: Tensor | None


class StrongGCT(CountsSteps, FlawGuidedPair):
    """Two task models that label strong views for each other, and a flaw detector that decides which labels count.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        gate: which pixels a model teaches: `lower`, where its flaw is lower than the other's and small enough (Eq. 4);
            `trusted`, where its flaw is small enough; `agreed`, where the two teachers disagree little enough, without
            the detector; `open`, everywhere, which is cross pseudo supervision.
        flaw_threshold: flaw, or disagreement, above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        confidence: smallest confidence at which a pixel teaches, in [0, 1]; 0 leaves the choice to the flaw maps. In
            regression it has no effect.
        error_scale: disagreement of both teachers' predictions at which a pseudo label has weight 1/e; 0 gives all of
            them weight 1.
        label_accuracy: share of the pseudo labels that has to be right on the validation images, in [0, 1]; where those
            of at least `confidence` are right less often, a pixel needs more confidence from then on, or teaches
            nothing. 0 keeps `confidence`.
        per_class: whether the smallest confidence is lower for classes that are predicted with less confidence.
        lambda_cross: weight of cross supervision.
        lambda_fc: weight of flaw correction; at 0 the term is left out.
        lambda_detection: weight of the detector's own loss.
        temperature: of the pseudo labels, in [0, 1]: 0 is hard, 1 soft.
        decay: largest decay of the teachers, averages of the models; 0 lets the models themselves teach.
        cutmix: share of the strong views into which a box of another one is pasted.
        area: smallest and largest share of an image that a box covers.
        feature_dropout: share of the feature channels of strong views that are dropped, in [0, 1); above 0 the models
            have to follow the feature protocol.
        rampup_epochs: epochs over which cross supervision and flaw correction grow.
        warmup_epochs: epochs of only supervision and detection.
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

    needs_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2
    labelers: ClassVar[tuple[str, ...]] = ("first", "second")
    trains: ClassVar[Routes] = {
        "supervised": BOTH_MODELS,
        "cross_supervision": BOTH_MODELS,
        "flaw_correction": BOTH_MODELS,
        "flaw_detection": ("detector",),
    }
    off_by_default: ClassVar[tuple[str, ...]] = ("flaw_correction",)
    never_trained: ClassVar[tuple[str, ...]] = ("teachers",)
    draws_numbers: ClassVar[bool] = True
    test_options: ClassVar[Options] = {"confidence": 0.3, "flaw_threshold": 0.1, "lambda_fc": 1.0}
    needed: Tensor

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        gate: Gate = "trusted",
        flaw_threshold: float = 0.6,
        confidence: float = 0.95,
        label_accuracy: float = 0.0,
        per_class: bool = False,
        error_scale: float = 0.0,
        lambda_cross: float = 1.5,
        lambda_fc: float = 0.0,
        lambda_detection: float = 10.0,
        temperature: float = 0.0,
        decay: float = 0.99,
        cutmix: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        feature_dropout: float = 0.5,
        rampup_epochs: float = 0.0,
        warmup_epochs: float = 0.0,
        fusion: bool = True,
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
        if gate not in get_args(Gate):
            raise SemipixError(f"method.gate: {gate!r} found, lower, trusted, agreed or open expected")
        check_weights(lambda_cross=lambda_cross, lambda_fc=lambda_fc)
        check_weights(rampup_epochs=rampup_epochs, warmup_epochs=warmup_epochs, error_scale=error_scale)
        check_shares(
            confidence=confidence, label_accuracy=label_accuracy, temperature=temperature, decay=decay, cutmix=cutmix
        )
        if not 0 <= feature_dropout < 1:
            raise SemipixError(f"method.feature_dropout: {feature_dropout} found, a number in [0, 1) expected")
        if not 0 < area[0] <= area[1] <= 1:
            found = list(area)
            raise SemipixError(f"method.area: {found} found, [smallest,largest] share expected, above 0 and at most 1")
        self.gate = gate
        self.confidence = confidence
        self.label_accuracy = label_accuracy
        self.error_scale = error_scale
        self.lambda_cross = lambda_cross
        self.lambda_fc = lambda_fc
        self.temperature = temperature
        self.decay = decay
        self.cutmix = cutmix
        self.area = (area[0], area[1])
        self.feature_dropout = feature_dropout
        self.rampup_epochs = rampup_epochs
        self.warmup_epochs = warmup_epochs
        self.teachers = copy.deepcopy(self.models).requires_grad_(False) if decay else None
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        # The confidence at which each model's pixels teach; validation may raise it.
        self.register_buffer("needed", torch.full((2,), float(confidence)))
        self.sure = nn.ModuleList(SurePixels(task, confidence, per_class) for _ in range(2))

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """Where the gate is open and the teaching model is as sure as `confidence` asks for.

        `label_accuracy` may ask for more, see `least_confidence`.
        """
        first, second = (evidences[name].predictions[0] for name in ("first", "second"))
        flaws = compared(self.detector, self._flaws_of(evidences)) if self._reads_flaws else None
        first_learns, second_learns = self._gates((first, second), flaws)
        sure = [module(prediction) for module, prediction in zip(self.sure, (first, second), strict=True)]
        return {"first": second_learns & sure[0], "second": first_learns & sure[1]}

    def taught_in_parts(self) -> bool:
        return not self._reads_flaws or self.detector.probabilistic  # the paper's maps are normalised as a whole

    def confidence_of(self, name: str, prediction: Tensor) -> Tensor:
        found: Tensor = self.sure[self.labelers.index(name)].compared(prediction)  # type: ignore[operator]
        return found

    def is_steered(self) -> bool:
        return self.label_accuracy > 0

    def least_confidence(self, name: str) -> float:
        return float(self.needed[self.labelers.index(name)])

    @property
    def _reads_flaws(self) -> bool:
        """Whether the gate decides by the detector's maps."""
        return self.gate in ("lower", "trusted")

    def after_validation(self, needed_confidence: Callable[[str, float], float]) -> None:
        if self.label_accuracy:
            for index, name in enumerate(self.labelers):
                self.needed[index] = max(self.confidence, needed_confidence(name, self.label_accuracy))

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        labeled = len(batch.target)
        from_second, from_first = self._lessons(batch)
        first_output = self._output(self.models[0], batch.labeled, from_second.view)  # (L + U, K, H, W)
        second_output = self._output(self.models[1], batch.labeled, from_first.view)
        first, second = self.task.activate(first_output), self.task.activate(second_output)
        losses = {
            "supervised": self._supervised_loss(batch, first_output, second_output),
            "flaw_detection": self.lambda_detection * self._detection_loss(batch, (first, second)),
        }
        if epoch < self.warmup_epochs:
            return losses

        rampup = sigmoid_rampup(epoch - self.warmup_epochs, self.rampup_epochs)
        first_error = self._error(first_output[labeled:], from_second)
        second_error = self._error(second_output[labeled:], from_first)
        losses["cross_supervision"] = self.lambda_cross * rampup * (first_error + second_error)
        if self.lambda_fc:
            correction = self._correction((first[labeled:], second[labeled:]), (from_second, from_first))
            losses["flaw_correction"] = self.lambda_fc * rampup * correction
        return losses

    @torch.no_grad()
    def _lessons(self, batch: Batch) -> tuple[Lesson, Lesson]:
        """What the first model learns from the second, and what the second learns from the first."""
        weak = self.unlabeled(batch)  # (U, C_in, H, W)
        first_view, second_view = batch.strong_views()[:2]
        first, second = (
            self.task.activate(without_dropout(teacher, weak)) for teacher in self.deployable()
        )  # (U, K, H, W)
        flaws = self._steering(weak, (first, second), batch.unlabeled_shown)  # (U, 1, H, W) twice, or None
        first_learns, second_learns = self._gates((first, second), flaws)  # (U, 1, H, W) bool each
        both_flawed = directions(flaws, self.flaw_threshold)[-1] if flaws else torch.zeros_like(first_learns)
        counted = self.compared_unlabeled(batch)
        first_learns = first_learns & self._sure(1, second, counted)
        second_learns = second_learns & self._sure(0, first, counted)
        if self.error_scale:
            weight = error_weight(self.task.disagreement(first, second), self.error_scale)
            first_learns, second_learns = first_learns * weight, second_learns * weight
        return (
            self._lesson(first_view, second, first_learns, both_flawed, counted),
            self._lesson(second_view, first, second_learns, both_flawed, counted),
        )

    def _sure(self, model: int, prediction: Tensor, counted: Tensor | None) -> Tensor:
        """(U, 1, H, W) bool: where a prediction (U, K, H, W) of a model is sure enough to teach."""
        sure: Tensor = self.sure[model](prediction, self.needed[model], counted)
        return sure

    def _lesson(
        self, view: StrongView, teaching: Tensor, learns: Tensor, both_flawed: Tensor, counted: Tensor | None
    ) -> Lesson:
        """A lesson by the teaching model's prediction (U, K, H, W) of the weak views, with boxes of its own."""
        label = view.label(self.task.sharpen(teaching, self.temperature))
        taught = view.compared(learns)
        box = cutmix_mask(view.image, area=self.area, probability=self.cutmix)
        image, label, taught, both_flawed = (mix(box, maps) for maps in (view.image, label, taught, both_flawed))
        return Lesson(image, label, taught, both_flawed, mix_shown(box, counted))

    def _error(self, output: Tensor, lesson: Lesson) -> Tensor:
        """How far an output (U, K, H, W) of strong views is from the other model's labels, the mean over pixels."""
        return mean_where(lesson.taught * self.task.pixel_loss(output, lesson.label), lesson.counted)

    def _correction(self, predictions: Pair, lessons: tuple[Lesson, Lesson]) -> Tensor:
        """Squared flaws of both predictions of strong views where both of the weak views are flawed (Eq. 6 and 7)."""
        views = torch.cat([lesson.view for lesson in lessons])
        both_flawed = torch.cat([lesson.both_flawed for lesson in lessons])
        # The two models see different views, so that neither is evidence of the other's errors.
        own = torch.cat(predictions)
        raw = frozen(self.detector, views, own.to(views.dtype), own.to(views.dtype), self._features(views))
        flaw = self.detector.flaw(at_least_float32(raw))  # (2U, 1, H, W)
        counted = joined([lesson.counted for lesson in lessons])
        return 2 * mean_where(both_flawed * flaw.square(), counted)  # a sum over the pair, as the other terms

    def _output(self, model: nn.Module, labeled: Tensor, strong: Tensor) -> Tensor:
        """A model's output (L + U, K, H, W) of labeled images and strong views, whose channels are dropped."""
        images = torch.cat([labeled, strong])
        if not self.feature_dropout:
            output: Tensor = model(images)
            return output
        try:
            parts = features_of(model)
            features = parts.features(images)  # (L + U, C_i, h_i, w_i) each
        except SemipixError as error:
            raise SemipixError(f"{error}; or set method.feature_dropout=0, or take method=gct") from None
        dropped = [F.dropout2d(maps[len(labeled) :], self.feature_dropout) for maps in features]
        features = [torch.cat([maps[: len(labeled)], rest]) for maps, rest in zip(features, dropped, strict=True)]
        return self.task.constrain(parts.head(features, images.shape[-2:]), images)

    def _steering(self, weak: Tensor, teachings: Pair, shown: Tensor | None) -> Pair | None:
        """Flaw maps (U, 1, H, W) of both predictions of the weak views; None where no term uses them."""
        if not self._reads_flaws and not self.lambda_fc:
            return None
        return compared(self.detector, self._flaws(weak, teachings), shown)

    def _gates(self, predictions: Pair, flaws: Pair | None) -> Pair:
        """Where the first and where the second model learns from the other, (N, 1, H, W) bool each.

        Args:
            predictions: of the two teachers, (N, K, H, W).
            flaws: their flaw maps (N, 1, H, W), for the gates that read them.
        """
        if self.gate == "open":
            everywhere = torch.ones_like(predictions[0][:, :1], dtype=torch.bool)
            return everywhere, everywhere
        if self.gate == "agreed":
            agreed = self.task.disagreement(*predictions) <= self.flaw_threshold
            return agreed, agreed
        assert flaws is not None
        if self.gate == "lower":
            first_learns, second_learns, _ = directions(flaws, self.flaw_threshold)
            return first_learns, second_learns
        return flaws[1] <= self.flaw_threshold, flaws[0] <= self.flaw_threshold

    def deployable(self) -> nn.ModuleList:
        if self.teachers is None:
            return self.models
        assert isinstance(self.teachers, nn.ModuleList)
        return self.teachers

    def after_step(self) -> None:
        done = self.next_step()
        if self.teachers is not None:
            ema_update(self.teachers, self.models, ema_decay(done, self.decay))
