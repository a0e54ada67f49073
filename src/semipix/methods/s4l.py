"""S4L: tell by which angle an image was rotated, from the prediction of its pixels.

Zhai, Oliver, Kolesnikov and Beyer, "S4L: Self-Supervised Semi-Supervised Learning" (ICCV 2019), for pixels as GCT (Ke
et al., ECCV 2020, Section 4) compares with it: a classifier of four angles at the end of the task model. As in GCT's
released code each image comes upright and once rotated; the paper of S4L rotates it by all four angles.

term                | data                 | trains            | objective
------------------- | -------------------- | ----------------- | -----------------------------------------------
supervised          | labeled              | model             | R(T(x), y), Eq. 1 of GCT
rotated_supervised  | labeled, rotated     | model             | R(T(rotated x), y rotated alike)
rotation            | all, upright and     | model, classifier | cross entropy between C(activated T(x)) and the
                    | rotated              |                   | quarter turns of x
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.precision import at_least_float32
from semipix.methods.base import MakeModel, MakeOptimizer, Method, Routes, check_weights
from semipix.tasks.base import Task

ANGLES = 4
CHANNELS = (32, 64, 128)


class RotationClassifier(nn.Module):
    """Three 4x4 convolutions of stride 2 with batch norm and leaky ReLU, average pooling and a linear layer.

    Args:
        channels: channels of the prediction.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((channels, *CHANNELS[:-1]), CHANNELS, strict=True):
            convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(CHANNELS[-1], ANGLES)

    def forward(self, prediction: Tensor) -> Tensor:
        """Activated prediction (N, K, H, W) to logits (N, 4) of its quarter turns."""
        logits: Tensor = self.last(self.layers(prediction).mean((-2, -1)))
        return logits


def rotate(maps: Tensor, turns: Sequence[int]) -> Tensor:
    """Rotate each of a batch of square maps (N, ..., S, S) counterclockwise by its own number of quarter turns."""
    return torch.stack([torch.rot90(single, turn, (-2, -1)) for single, turn in zip(maps, turns, strict=True)])


class S4L(Method):
    """One task model, and a classifier that finds the angle by which its predictions are rotated.

    Args:
        task: what a pixel means.
        make_model: makes the task model.
        lambda_rotated: weight of supervision on the rotated labeled images.
        lambda_s4l: weight of the classification of rotations.
    """

    trains: ClassVar[Routes] = {
        "supervised": ("model",),
        "rotated_supervised": ("model",),
        "rotation": ("model", "classifier"),
    }
    draws_numbers: ClassVar[bool] = True

    def __init__(
        self, task: Task, make_model: MakeModel, *, lambda_rotated: float = 0.1, lambda_s4l: float = 0.1
    ) -> None:
        super().__init__(task)
        check_weights(lambda_rotated=lambda_rotated, lambda_s4l=lambda_s4l)
        self.model = make_model(0)
        self.classifier = RotationClassifier(task.channels)
        self.lambda_rotated = lambda_rotated
        self.lambda_s4l = lambda_s4l

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)
        return output

    def deployed_network(self) -> nn.Module:
        return self.model

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        labeled, number = len(batch.target), len(batch.image)
        turns = self._draw_turns(batch.image)
        images = torch.cat([batch.image, rotate(batch.image, turns)])  # (2N, C_in, H, W)
        output = self.model(images)  # (2N, K, H, W)
        logits = self.classifier(self.task.activate(output).to(images.dtype))  # (2N, 4)
        drawn = torch.tensor([0] * number + turns).to(logits.device, non_blocking=True)
        rotation = F.cross_entropy(at_least_float32(logits), drawn)
        rotated_target = rotate(batch.target, turns[:labeled])
        rotated = self.task.loss(output[number : number + labeled], rotated_target)
        return {
            "supervised": self.task.loss(output[:labeled], batch.target),
            "rotated_supervised": self.lambda_rotated * rotated,
            "rotation": self.lambda_s4l * rotation,
        }

    def _draw_turns(self, image: Tensor) -> list[int]:
        """One, two or three quarter turns for each image, by torch's global generator on the CPU.

        Raises:
            SemipixError: the images are not square, so that rotated ones have another size.
        """
        height, width = image.shape[-2:]
        if height != width:
            raise SemipixError(
                f"data.crop: {height}x{width} (height x width) found, but S4L rotates images by quarter turns and "
                "expects squares; set data.crop to one number"
            )
        turns: list[int] = torch.randint(1, ANGLES, (len(image),)).tolist()
        return turns

    def optimizers(self, make_optimizer: MakeOptimizer) -> list[Optimizer]:
        return [make_optimizer(self.model), make_optimizer(self.classifier)]  # the classifier is the model's end
