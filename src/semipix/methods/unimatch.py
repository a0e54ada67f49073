"""UniMatch V2: an averaged teacher labels weak views for two strong views with complementary feature channels.

Yang, Zhao and Zhao, "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation" (PAMI 2025).

term         | data                          | trains  | objective (sg = stop gradient)
------------ | ----------------------------- | ------- | -----------------------------------------------------------
supervised   | labeled                       | student | R(S(x), y), Eq. 1 of GCT
consistency  | two strong views of unlabeled | student | where T(weak) is sure: S(strong) matches sg(hard(T(weak)))

What a strong view changes in the label as well, such as the order of the colours, is changed in T(weak).
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.error_weight import error_weight
from semipix.functional.mixing import cutmix_mask, joined, mix, mix_shown
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import mean_where, without_dropout
from semipix.methods.base import Evidence, MakeModel, Options, Routes, check_shares, check_weights
from semipix.methods.pseudo_labels import SurePixels
from semipix.methods.teacher import AveragedTeacher
from semipix.models.adapt import ModelShapeError, features_of
from semipix.tasks.base import Task


def complementary_dropout(features: Tensor) -> Tensor:
    """Give each of two views half of the channels, doubled: the channels that one view lacks, the other has.

    Args:
        features: maps (2 U, C, h, w), the first view of all images before the second.

    Returns:
        Maps of the same shape.
    """
    kept = torch.rand(len(features) // 2, features.shape[1], 1, 1).to(features.device, non_blocking=True) < 0.5
    return features * 2 * torch.cat([kept, ~kept])


class UniMatch(AveragedTeacher):
    """A student that learns from its own average, the teacher, which is deployed.

    In regression the label is the prediction itself, and every pixel counts as sure: `confidence` has no effect, and
    `error_scale` takes its place.

    Args:
        task: what a pixel means.
        make_model: makes the student; the teacher starts as its copy.
        lambda_consistency: weight of the consistency term, a mean over both views.
        confidence: smallest confidence of a pseudo label, in [0, 1].
        error_scale: disagreement of the teacher's predictions of a weak view and its mirror image at which a pseudo
            label has weight 1/e; 0 gives all of them weight 1.
        per_class: whether the smallest confidence is lower for classes that are predicted with less confidence.
        cutmix: share of the strong views into which a box of another one is pasted.
        complementary_dropout: whether each view has half of the feature channels, for which the model has to follow the
            feature protocol.
        rampup_epochs: epochs over which the weight of the consistency term grows.
        decay: largest decay of the average of parameters and buffers.
    """

    needs_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2
    labelers: ClassVar[tuple[str, ...]] = ("model",)
    trains: ClassVar[Routes] = {"supervised": ("student",), "consistency": ("student",)}
    draws_numbers: ClassVar[bool] = True
    test_options: ClassVar[Options] = {"confidence": 0.3}

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_consistency: float = 1.0,
        confidence: float = 0.95,
        error_scale: float = 0.0,
        per_class: bool = False,
        cutmix: float = 0.5,
        complementary_dropout: bool = True,
        rampup_epochs: float = 0.0,
        decay: float = 0.996,
    ) -> None:
        super().__init__(task, make_model, decay)
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        check_weights(error_scale=error_scale)
        check_shares(confidence=confidence, cutmix=cutmix)
        self.lambda_consistency = lambda_consistency
        self.sure = SurePixels(task, confidence, per_class)
        self.error_scale = error_scale
        self.cutmix = cutmix
        self.complementary_dropout = complementary_dropout
        self.rampup_epochs = rampup_epochs

    def taught(self, evidences: Mapping[str, Evidence]) -> dict[str, Tensor]:
        return {name: self.sure(evidence.predictions[0]) for name, evidence in evidences.items()}

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        weak = self.unlabeled(batch)  # (U, C_in, H, W)
        labeled, compared = len(batch.target), self.compared_unlabeled(batch)
        with torch.no_grad():
            prediction = self.task.activate(without_dropout(self.teacher, weak))  # (U, K, H, W)
            sure = self.sure(prediction, shown=compared)  # (U, 1, H, W)
            if self.error_scale:
                mirrored = self.task.activate(without_dropout(self.teacher, weak.flip(-1))).flip(-1)
                sure = sure * error_weight(self.task.disagreement(prediction, mirrored), self.error_scale)
            goal = self.task.sharpen(prediction, temperature=0)

        views, goals, known, counted = [], [], [], []
        for strong in batch.strong_views()[:2]:
            box = cutmix_mask(weak, area=(0.02, 0.4), probability=self.cutmix)
            views.append(mix(box, strong.image))
            goals.append(mix(box, strong.label(goal)))
            known.append(mix(box, strong.compared(sure)))
            counted.append(mix_shown(box, compared))
        output = self._output(batch.labeled, torch.cat(views))  # (L + 2U, K, H, W)
        errors = self.task.pixel_loss(output[labeled:], torch.cat(goals))
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            # The mean is not over the sure pixels alone, so the loss is small where few are sure.
            "consistency": weight * mean_where(torch.cat(known) * errors, joined(counted)),
        }

    def _output(self, labeled: Tensor, strong: Tensor) -> Tensor:
        """The student's output (L + 2U, K, H, W) of labeled images and of strong views with half of their channels."""
        images = torch.cat([labeled, strong])
        if not self.complementary_dropout:
            output: Tensor = self.student(images)
            return output
        try:
            model = features_of(self.student)
            features = model.features(images)  # (L + 2U, C_i, h_i, w_i) each
        except ModelShapeError:  # a matter of the image
            raise
        except SemipixError as error:
            raise SemipixError(f"{error}; or set method.complementary_dropout=false") from None
        parts = [torch.cat([maps[: len(labeled)], complementary_dropout(maps[len(labeled) :])]) for maps in features]
        return self.task.constrain(model.head(parts, images.shape[-2:]), images)
