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
flaw_detection     | labeled                   | detector         | F(x, sg(p)) matches flaw_target(p, y), Eq. 3
"""

import copy
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.ema import ema_decay, ema_update
from semipix.functional.flaw import Pair, directions, normalize_flaw
from semipix.functional.mixing import cutmix_mask, mix
from semipix.functional.precision import at_least_float32
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import frozen
from semipix.methods.base import MakeModel, check_shares, check_weights
from semipix.methods.gct import GCT
from semipix.methods.networks import total
from semipix.models.adapt import features_of
from semipix.models.flaw_detector import Norm
from semipix.tasks.base import Task

Gate = Literal["lower", "trusted", "open"]


class StrongGCT(GCT):
    """Two task models, each taught strong views by the other, and a flaw detector that opens and closes the gate.

    Args:
        task: what a pixel means.
        make_model: makes the pair: model 0, and model 1 of another architecture or another initialisation.
        gate: which pixels a model teaches: `lower`, where its flaw is lower than the other's and small enough (Eq. 4);
            `trusted`, where its flaw is small enough; `open`, everywhere, which is cross pseudo supervision.
        flaw_threshold: flaw above which a pixel teaches nobody, in [0, 1] (the paper's xi).
        confidence: smallest confidence at which a pixel teaches, in [0, 1]; 0 leaves the choice to the flaw maps.
        lambda_cross: weight of cross supervision.
        lambda_fc: weight of flaw correction; 0 for none.
        lambda_detection: weight of the detector's own loss.
        temperature: of the pseudo labels, in [0, 1]: 0 is hard, 1 soft.
        decay: largest decay of the teachers, averages of the models; 0 lets the models themselves teach.
        cutmix: share of the strong views into which a box of another one is pasted.
        area: smallest and largest share of an image that a box covers.
        feature_dropout: share of the feature channels of strong views that are dropped, in [0, 1); above 0 the models
            have to follow the feature protocol.
        rampup_epochs: epochs over which cross supervision and flaw correction grow.
        warmup_epochs: epochs of supervision and detection alone.
        fusion: let validation also consider the flaw-guided fusion of the pair for deployment.
        detector_norm: see `GCT`.
        detector_scale: see `GCT`.
        detector_lr: see `GCT`.
    """

    needs_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2
    step: Tensor

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        gate: Gate = "trusted",
        flaw_threshold: float = 0.6,
        confidence: float = 0.95,
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
        detector_norm: Norm = "batch",
        detector_scale: float = 1.0,
        detector_lr: float = 1e-4,
    ) -> None:
        super().__init__(
            task,
            make_model,
            flaw_threshold=flaw_threshold,
            lambda_fc=lambda_fc,
            lambda_detection=lambda_detection,
            rampup_epochs=rampup_epochs,
            warmup_epochs=warmup_epochs,
            fusion=fusion,
            detector_norm=detector_norm,
            detector_scale=detector_scale,
            detector_lr=detector_lr,
        )
        if gate not in ("lower", "trusted", "open"):
            raise SemipixError(f"method.gate: {gate!r} found, lower, trusted or open expected")
        check_weights(lambda_cross=lambda_cross)
        check_shares(confidence=confidence, temperature=temperature, decay=decay, cutmix=cutmix)
        if not 0 <= feature_dropout < 1:
            raise SemipixError(f"method.feature_dropout: {feature_dropout} found, a number in [0, 1) expected")
        if not 0 < area[0] <= area[1] <= 1:
            found = list(area)
            raise SemipixError(f"method.area: {found} found, [smallest,largest] share expected, above 0 and at most 1")
        self.gate = gate
        self.confidence = confidence
        self.lambda_cross = lambda_cross
        self.temperature = temperature
        self.decay = decay
        self.cutmix = cutmix
        self.area = (area[0], area[1])
        self.feature_dropout = feature_dropout
        self.teachers = copy.deepcopy(self.models).requires_grad_(False) if decay else None
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        weak = self.unlabeled(batch)  # (U, C_in, H, W)
        assert batch.strong is not None
        labeled = len(batch.target)
        with torch.no_grad():
            teachings = [self.task.activate(frozen(teacher, weak)) for teacher in self.deployable()]  # (U, K, H, W)
            flaws = self._steering(weak, cast(Pair, tuple(teachings)))  # (U, 1, H, W) twice
            gates = self._gates(flaws)  # (U, 1, H, W) bool by pupil
            sure = [self.task.confidence(teaching) >= self.confidence for teaching in reversed(teachings)]
            gates = gates[0] & sure[0], gates[1] & sure[1]

        boxes = [cutmix_mask(weak, area=self.area, probability=self.cutmix) for _ in self.models]
        views = [mix(box, view) for box, view in zip(boxes, torch.split(batch.strong, len(weak)), strict=False)]
        pairs = zip(self.models, views, strict=True)
        outputs = [self._output(model, batch.labeled, view) for model, view in pairs]  # (L + U, K, H, W) twice
        predictions = cast(Pair, tuple(self.task.activate(output) for output in outputs))
        losses = {
            "supervised": total(self.task.loss(output[:labeled], batch.target) for output in outputs),
            "flaw_detection": self.lambda_detection * self._detection_loss(batch, predictions),
        }
        if epoch < self.warmup_epochs:
            return losses

        rampup = sigmoid_rampup(epoch - self.warmup_epochs, self.rampup_epochs)
        labels = [self.task.sharpen(teaching, self.temperature) for teaching in reversed(teachings)]
        errors = [
            (mix(box, gate) * self.task.pixel_loss(output[labeled:], mix(box, label))).mean()
            for output, label, gate, box in zip(outputs, labels, gates, boxes, strict=True)
        ]
        losses["cross_supervision"] = self.lambda_cross * rampup * total(errors)
        if self.lambda_fc:
            stacked = torch.cat([prediction[labeled:] for prediction in predictions]).to(batch.image.dtype)
            flaw = at_least_float32(frozen(self.detector, torch.cat(views), stacked))  # (2U, 1, H, W), with gradients
            *_, both_flawed = directions(flaws, self.flaw_threshold)
            wrong = torch.cat([mix(box, both_flawed) for box in boxes])
            losses["flaw_correction"] = 2 * self.lambda_fc * rampup * (wrong * flaw.square()).mean()
        return losses

    def _output(self, model: nn.Module, labeled: Tensor, strong: Tensor) -> Tensor:
        """A model's output (L + U, K, H, W) of labeled images and strong views, whose channels are dropped."""
        images = torch.cat([labeled, strong])
        if not self.feature_dropout:
            output: Tensor = model(images)
            return output
        try:
            shown = features_of(model)
        except SemipixError as error:
            raise SemipixError(f"{error}; or set method.feature_dropout=0") from None
        maps = shown.features(images)  # (L + U, C_i, h_i, w_i) each
        dropped = [F.dropout2d(single[len(labeled) :], self.feature_dropout) for single in maps]
        maps = [torch.cat([single[: len(labeled)], rest]) for single, rest in zip(maps, dropped, strict=True)]
        return self.task.constrain(shown.head(maps, images.shape[-2:]), images)

    def _steering(self, weak: Tensor, teachings: Pair) -> Pair:
        """Normalised flaw maps (U, 1, H, W) of both teachings; all 0 where nothing asks for them."""
        if self.gate == "open" and not self.lambda_fc:
            silent = teachings[0].new_zeros((len(weak), 1, *weak.shape[-2:]))
            return silent, silent
        flaws = self._flaws(weak, teachings)
        return normalize_flaw(flaws[0]), normalize_flaw(flaws[1])

    def _gates(self, flaws: Pair) -> Pair:
        """Where the first and where the second model learns from the other, (U, 1, H, W) bool each."""
        if self.gate == "lower":
            first_learns, second_learns, _ = directions(flaws, self.flaw_threshold)
            return first_learns, second_learns
        limit = self.flaw_threshold if self.gate == "trusted" else 1.0
        return flaws[1] <= limit, flaws[0] <= limit

    def deployable(self) -> nn.ModuleList:
        if self.teachers is None:
            return self.models
        assert isinstance(self.teachers, nn.ModuleList)
        return self.teachers

    def after_step(self) -> None:
        if self.teachers is not None:
            ema_update(self.teachers, self.models, ema_decay(int(self.step), self.decay))
        self.step += 1
