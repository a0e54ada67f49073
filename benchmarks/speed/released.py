"""GCT for segmentation in the order of the released code, which `benchmarks.speed.step` compares with.

Written from the paper and from what is known of the release. First the task models' step with the detector fixed, then
the detector's step with predictions of a second pass without gradients; one pass of the detector for each prediction;
blurs with dense two-dimensional kernels; one-hot labels made on the CPU with NumPy. The networks are semipix's own,
except that the detector runs layer by layer, without semipix's order of operations, which keeps less for the backward
pass.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from semipix.batch import Batch
from semipix.methods.base import MakeModel, MakeOptimizer
from semipix.models.flaw_detector import SLOPE, STRIDES, FlawDetector, pad_same
from semipix.tasks.base import Task

THRESHOLD, LAMBDA_DC, LAMBDA_FC, LAMBDA_DETECTION = 0.6, 100.0, 1.0, 10.0


class PlainFlawDetector(FlawDetector):
    """The detector as a list of layers: padding, convolution, norm, leaky ReLU."""

    def forward(
        self, image: Tensor, prediction: Tensor, other: Tensor | None = None, features: object = None
    ) -> Tensor:
        features = torch.cat([image, prediction], dim=1)
        for convolution, stride, norm in zip(self.convolutions[:-1], STRIDES[:-1], self.norms, strict=True):
            features = F.leaky_relu(norm(convolution(pad_same(features, stride))), SLOPE, inplace=True)
        flaw = self.convolutions[-1](pad_same(features, STRIDES[-1]))
        return F.interpolate(flaw, size=image.shape[-2:], mode="bilinear", align_corners=True)


class ReleasedGCT:
    """Two task models and a detector that are trained in turns.

    Args:
        task: what a pixel means.
        make_model: makes the pair.
        make_optimizer: makes a task model's optimizer.
        device: where all of it is.
        layout: of weights and images; the release knows nothing but torch's own.
    """

    def __init__(
        self,
        task: Task,
        make_model: MakeModel,
        make_optimizer: MakeOptimizer,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.task = task
        self.models = nn.ModuleList([make_model(0), make_model(1)]).to(device=device).to(memory_format=layout)
        self.detector = PlainFlawDetector(task.in_channels, task.channels).to(device=device).to(memory_format=layout)
        self.optimizers: list[Optimizer] = [make_optimizer(model) for model in self.models]
        self.detector_optimizer = Adam(self.detector.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step(self, batch: Batch, precision: str) -> None:
        """Both steps of one iteration."""
        device = batch.image.device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = self._task_loss(batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = self._detection_loss(batch)
        loss.backward()
        self.detector_optimizer.step()
        self.detector_optimizer.zero_grad()

    def _task_loss(self, batch: Batch) -> Tensor:
        self.detector.requires_grad_(False)
        labeled = len(batch.target)
        outputs = [model(batch.image) for model in self.models]
        predictions = [self.task.activate(output) for output in outputs]
        flaws = [self.detector(batch.image, prediction) for prediction in predictions]
        with torch.no_grad():
            steering = [_normalized(flaw.float()) for flaw in flaws]
            merged = torch.where(steering[0] < steering[1], predictions[0], predictions[1])
            both_flawed = ((steering[0] > THRESHOLD) & (steering[1] > THRESHOLD)).float()
        loss = torch.zeros((), device=batch.image.device)
        for index in (0, 1):
            better = (steering[1 - index] < steering[index]) & (steering[1 - index] <= THRESHOLD)
            goal = torch.where(better, merged, predictions[index].detach())
            loss = loss + self.task.loss(outputs[index][:labeled], batch.target)
            loss = loss + LAMBDA_DC * F.mse_loss(predictions[index], goal)
            loss = loss + LAMBDA_FC * (both_flawed * flaws[index].float().square()).mean()
        return loss

    def _detection_loss(self, batch: Batch) -> Tensor:
        self.detector.requires_grad_(True)
        labeled = len(batch.target)
        with torch.no_grad():
            predictions = [self.task.activate(model(batch.image))[:labeled] for model in self.models]
        goals = [self._flaw_target(prediction, batch.target) for prediction in predictions]
        flaws = [self.detector(batch.labeled, prediction) for prediction in predictions]
        losses = [F.mse_loss(flaw.float(), goal) for flaw, goal in zip(flaws, goals, strict=True)]
        return LAMBDA_DETECTION * torch.stack(losses).sum()

    def _flaw_target(self, prediction: Tensor, target: Tensor) -> Tensor:
        labels = target.cpu().numpy()
        dense = np.stack([labels == index for index in range(self.task.channels)], axis=1).astype(np.float32)
        error = np.abs(prediction.float().cpu().numpy() - dense).sum(1, keepdims=True) * self.task.mu
        flaw = _dense_blur(torch.from_numpy(error).to(prediction.device), 8)
        for _ in range(self.task.nu):
            flaw = _dense_blur(F.max_pool2d(flaw, 3, 1, 1), 4)
        return _scaled(flaw)


def _dense_blur(maps: Tensor, share: int) -> Tensor:
    """A Gaussian of height / share by width / share pixels, as one dense kernel."""
    height, width = ((side // share) | 1 for side in maps.shape[-2:])
    kernel = torch.outer(_gaussian(height), _gaussian(width)).to(maps.device)
    padded = F.pad(maps, (width // 2, width // 2, height // 2, height // 2), mode="reflect")
    with torch.autocast(maps.device.type, enabled=False):
        return F.conv2d(padded, kernel[None, None])


def _gaussian(size: int) -> Tensor:
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    weight = torch.exp(-((torch.arange(size) - size // 2).float() ** 2) / (2 * sigma**2))
    return weight / weight.sum()


def _scaled(flaw: Tensor) -> Tensor:
    smallest, largest = flaw.amin((1, 2, 3), keepdim=True), flaw.amax((1, 2, 3), keepdim=True)
    return (flaw - smallest) / (largest - smallest + 1e-9)


def _normalized(flaw: Tensor) -> Tensor:
    smooth = _dense_blur(flaw.clamp(min=0), 16)
    return torch.where(smooth.amax((1, 2, 3), keepdim=True) > 0.1, _scaled(smooth), torch.zeros_like(smooth))
