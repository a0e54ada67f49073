"""AdvSSL: predictions that a discriminator cannot tell from labels.

Hung, Tsai, Liou, Lin and Yang, "Adversarial Learning for Semi-Supervised Semantic Segmentation" (BMVC 2018), as GCT
(Ke et al., ECCV 2020, Section 4) compares with it: without the self-taught term, which is for classification only.

term                   | data      | trains        | objective (sg = stop gradient, BCE against real = 1, fake = 0)
---------------------- | --------- | ------------- | ----------------------------------------------------------------
supervised             | labeled   | model         | R(T(x), y), Eq. 1 of GCT
adversarial_labeled    | labeled   | model         | the frozen D(activated T(x)) is real
adversarial_unlabeled  | unlabeled | model         | the same
discrimination         | all       | discriminator | half of: D(y) is real; half of: D(sg of activated T(x)) is fake
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.functional.precision import at_least_float32
from semipix.functional.routing import differentiated_at_once, frozen, masked_mean
from semipix.methods.base import Evidence, MakeModel, MakeOptimizer, Method, Routes, check_weights, helper_optimizer
from semipix.models.discriminator import FCDiscriminator
from semipix.tasks.base import Task


def _is_real(logits: Tensor) -> Tensor:
    """Binary cross entropy (N, 1, H, W) of the discriminator's logits against "this is a label"."""
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")


def _is_fake(logits: Tensor) -> Tensor:
    """Binary cross entropy (N, 1, H, W) of the discriminator's logits against "this is a prediction"."""
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")


class AdvSSL(Method):
    """One task model, and a discriminator of pixels that it learns to mislead.

    Args:
        task: what a pixel means.
        make_model: makes the task model.
        lambda_adv_labeled: weight of the adversarial term on labeled images.
        lambda_adv_unlabeled: weight of the adversarial term on unlabeled images.
        warmup_epochs: epochs of only supervision and discrimination, before the adversarial terms begin.
        discriminator_lr: the discriminator's learning rate, for Adam with betas 0.9 and 0.99.
    """

    trains: ClassVar[Routes] = {
        "supervised": ("model",),
        "adversarial_labeled": ("model",),
        "adversarial_unlabeled": ("model",),
        "discrimination": ("discriminator",),
    }

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        lambda_adv_labeled: float = 0.01,
        lambda_adv_unlabeled: float = 0.001,
        warmup_epochs: float = 0.0,
        discriminator_lr: float = 1e-4,
    ) -> None:
        super().__init__(task)
        check_weights(lambda_adv_labeled=lambda_adv_labeled, lambda_adv_unlabeled=lambda_adv_unlabeled)
        check_weights(warmup_epochs=warmup_epochs, discriminator_lr=discriminator_lr)
        self.model = make_model(0)
        self.discriminator = FCDiscriminator(task.channels)
        self.lambda_adv_labeled = lambda_adv_labeled
        self.lambda_adv_unlabeled = lambda_adv_unlabeled
        self.warmup_epochs = warmup_epochs
        self.discriminator_lr = discriminator_lr

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.model

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        labeled = len(batch.target)
        output = self.model(batch.image)  # (N, K, H, W)
        prediction = self.task.activate(output).to(batch.image.dtype)
        valid = self.compared(batch)  # (N, 1, H, W)
        losses = {
            "supervised": self.task.loss(output[:labeled], batch.target),
            "discrimination": self._discrimination_loss(batch, prediction, valid),
        }
        if epoch < self.warmup_epochs:
            return losses

        error = _is_real(frozen(self.discriminator, prediction))  # (N, 1, H, W), with gradients to the prediction
        of_labeled = masked_mean(error[:labeled], valid[:labeled])
        of_unlabeled = masked_mean(error[labeled:], valid[labeled:])  # 0 where there is no unlabeled image
        losses["adversarial_labeled"] = self.lambda_adv_labeled * of_labeled
        losses["adversarial_unlabeled"] = self.lambda_adv_unlabeled * of_unlabeled
        return losses

    def _discrimination_loss(self, batch: Batch, prediction: Tensor, valid: Tensor) -> Tensor:
        """The discriminator learns to distinguish labels from predictions, at valid pixels."""
        labeled = len(batch.target)
        truth = self.task.encode(batch.target).to(prediction.dtype)  # (L, K, H, W)
        both = torch.cat([truth, prediction.detach()])  # (L + N, K, H, W)

        def loss() -> Tensor:
            logits = self.discriminator(both)  # (L + N, 1, H, W)
            real = masked_mean(_is_real(logits[:labeled]), valid[:labeled])
            fake = masked_mean(_is_fake(logits[labeled:]), valid)
            return (real + fake) / 2

        return differentiated_at_once(self.discriminator, loss)

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        discriminator = helper_optimizer(self.discriminator, self.discriminator_lr)
        return [make_optimizer(self.model), discriminator]

    def evidence(self, image: Tensor) -> Evidence:
        """The flaw map is the discriminator's probability that a pixel of the prediction is not of a label."""
        found = super().evidence(image)
        logits = self.discriminator(found.predictions[0].to(image.dtype))
        return found._replace(flaw=1 - at_least_float32(logits).sigmoid())
