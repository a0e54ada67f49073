"""Cross-consistency training: auxiliary decoders of perturbed features agree with the main decoder.

Ouali, Hudelot and Tami, "Semi-Supervised Semantic Segmentation with Cross-Consistency Training" (CVPR 2020).

term         | data      | trains                          | objective (sg = stop gradient)
------------ | --------- | ------------------------------- | -------------------------------------------------------
supervised   | labeled   | encoder and main decoder        | R(T(x), y), Eq. 1 of GCT
consistency  | unlabeled | encoder and auxiliary decoders  | MSE between activated A_k(perturbed features) and sg of
             |           |                                 | activated T(u), mean over the decoders
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional import perturbation
from semipix.functional.perturbation import Decode
from semipix.functional.rampup import sigmoid_rampup
from semipix.functional.routing import mean_where
from semipix.methods.base import MakeModel, MakeOptimizer, Method, Routes, check_weights
from semipix.models.adapt import features_of
from semipix.tasks.base import Task

PROBE_SIDE = 256
"""Side in pixels of the image by which the channels and the stride of a model's coarsest feature map are found.

A smaller one may be padded to the least size that a model takes, and the map is then too large for its stride.
"""

PERTURBATIONS: dict[str, Callable[[Tensor, Tensor, Decode], Tensor]] = {
    "noise": lambda features, foreground, decode: perturbation.feature_noise(features),
    "drop": lambda features, foreground, decode: perturbation.feature_drop(features),
    "dropout": lambda features, foreground, decode: perturbation.channel_dropout(features),
    "vat": lambda features, foreground, decode: perturbation.adversarial_noise(features, decode),
    "object": lambda features, foreground, decode: perturbation.mask_objects(features, foreground),
    "context": lambda features, foreground, decode: perturbation.mask_context(features, foreground),
}
"""Perturbed features (U, C, h, w) from features, predicted objects (U, 1, H, W) and the decoder that will see them."""


class AuxiliaryDecoder(nn.Module):
    """Coarse features to outputs, by one projection and pixel shuffles that start as nearest-neighbour upsampling.

    Args:
        features: channels of the feature map.
        channels: channels K of the output.
        stride: pixels of the image per pixel of the feature map.
    """

    def __init__(self, features: int, channels: int, stride: float) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv2d(features, channels, kernel_size=1)
        self.upsample = nn.Sequential(*(_doubling(channels) for _ in range(int(math.log2(stride)))))

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Features (U, C, h, w) to outputs (U, K, H, W) of images of this height and width."""
        height, width = size
        # Without autocast the features may be wider than the weights: `adversarial_noise` computes in float32.
        output: Tensor = self.upsample(self.project(features.to(self.project.weight.dtype)))
        seen = [max(each, round(self.stride * side)) for each, side in zip(size, features.shape[-2:], strict=True)]
        if list(output.shape[-2:]) != seen:
            output = F.interpolate(output, seen, mode="bilinear", align_corners=False)
        return output[..., :height, :width]  # the model padded the image below and right


def _doubling(channels: int) -> nn.Sequential:
    """A pixel shuffle to twice the size; its four subpixels start alike, which avoids checkerboards (as ICNR does)."""
    convolution = nn.Conv2d(channels, 4 * channels, kernel_size=1)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(channels).repeat_interleave(4, dim=0)[..., None, None])
        convolution.bias.zero_()  # type: ignore[union-attr]
    return nn.Sequential(convolution, nn.PixelShuffle(2))


class AuxiliaryDecoders(nn.ModuleList):
    """Auxiliary decoders, which have a learning rate of their own because they start untrained."""

    def __init__(self, decoders: Iterable[AuxiliaryDecoder], lr_scale: float) -> None:
        super().__init__(decoders)
        self.lr_scale = lr_scale

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters, with the factor `lr_scale` of their learning rate."""
        return [{"params": list(self.parameters()), "lr_scale": self.lr_scale}]


class CCT(Method):
    """A model whose main decoder teaches auxiliary decoders, and through them its encoder; class 0 is background.

    Args:
        task: what a pixel means.
        make_model: makes the model, which follows the feature protocol.
        perturbations: what happens to the features, one auxiliary decoder for each; a name may occur several times.
        lambda_consistency: weight of the consistency term.
        rampup_epochs: epochs over which that weight grows.
        decoder_lr_scale: learning rate of the auxiliary decoders as a multiple of the configured one.
    """

    needs_unlabeled: ClassVar[bool] = True
    classification_only: ClassVar[bool] = True
    trains: ClassVar[Routes] = {
        "supervised": ("model.features", "model.head"),
        "consistency": ("model.features", "decoders"),  # the main decoder is the teacher
    }
    draws_numbers: ClassVar[bool] = True

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        *,
        perturbations: Sequence[str] = ("noise", "drop", "dropout", "vat", "object", "context"),
        lambda_consistency: float = 30.0,
        rampup_epochs: float = 5.0,
        decoder_lr_scale: float = 10.0,
    ) -> None:
        super().__init__(task)
        if not perturbations or not set(perturbations) <= PERTURBATIONS.keys():
            found, names = list(perturbations), ", ".join(PERTURBATIONS)
            raise SemipixError(f"method.perturbations: {found} found, expected at least one of {names}")
        check_weights(lambda_consistency=lambda_consistency, rampup_epochs=rampup_epochs)
        check_weights(decoder_lr_scale=decoder_lr_scale)
        self.model = make_model(0)
        features, stride = _coarsest(self.model, task.in_channels)
        decoders = (AuxiliaryDecoder(features, task.channels, stride) for _ in perturbations)
        self.decoders = AuxiliaryDecoders(decoders, decoder_lr_scale)
        self.perturbations = tuple(perturbations)
        self.lambda_consistency = lambda_consistency
        self.rampup_epochs = rampup_epochs

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.model

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        labeled, size = len(batch.target), self.unlabeled(batch).shape[-2:]
        model = features_of(self.model)
        features = model.features(batch.image)  # (N, C_i, h_i, w_i) each, finest first
        output = model.head(features, size)  # (N, K, H, W); one pass, so that batch norm sees all images together
        goal = self.task.activate(output[labeled:].detach())  # (U, K, H, W); the main decoder learns only from labels
        foreground = goal.argmax(1, keepdim=True) != 0  # (U, 1, H, W)
        coarsest = features[-1][labeled:]  # (U, C, h, w)
        predictions = (
            self.task.activate(self._auxiliary(number, coarsest, foreground)) for number in range(len(self.decoders))
        )
        compared = self.compared_unlabeled(batch)
        errors = [mean_where(F.mse_loss(each, goal, reduction="none"), compared) for each in predictions]
        weight = self.lambda_consistency * sigmoid_rampup(epoch, self.rampup_epochs)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            "consistency": weight * torch.stack(errors).mean(),
        }

    def _auxiliary(self, number: int, features: Tensor, foreground: Tensor) -> Tensor:
        """Output (U, K, H, W) of an auxiliary decoder that sees the features (U, C, h, w) perturbed in its own way."""
        decode = functools.partial(self.decoders[number], size=foreground.shape[-2:])
        output: Tensor = decode(PERTURBATIONS[self.perturbations[number]](features, foreground, decode))
        return output

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.model), make_optimizer(self.decoders)]


@torch.no_grad()
def _coarsest(model: nn.Module, in_channels: int) -> tuple[int, float]:
    """Channels of a model's coarsest feature map, and pixels of the image per pixel of the map.

    Raises:
        SemipixError: the model does not follow the feature protocol.
    """
    training = model.training
    model.eval()  # the probe must not change running statistics
    coarsest = features_of(model).features(torch.zeros(1, in_channels, PROBE_SIDE, PROBE_SIDE))[-1]
    model.train(training)
    return coarsest.shape[1], max(1.0, PROBE_SIDE / coarsest.shape[-2])
