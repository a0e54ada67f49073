"""Labels of regression tasks, with ignored pixels."""

import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.batch import Batch
from semipix.data.targets import ImageTarget, Matte
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.enhancement import Enhancement
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from tests.helpers.tiny import TinySource, rand

TASKS: dict[str, Task] = {
    "regression": Regression(channels=2, low=-1.0, high=3.0, loss="smooth_l1"),
    "denoising": Denoising(),
    "enhancement": Enhancement(),
    "matting": Matting(),
}


def trimap_of(number: int, height: int, width: int) -> Tensor:
    """Trimaps (N, 1, H, W): background on the left quarter, foreground on the right one, unknown between."""
    trimap = torch.full((number, 1, height, width), 0.5)
    trimap[..., : width // 4] = 0.0
    trimap[..., width - width // 4 :] = 1.0
    return trimap


def matting_target(number: int, height: int, width: int, seed: int = 3) -> Tensor:
    """Labels (N, 8, H, W) of these trimaps; colours are known only in the upper half."""
    trimap = trimap_of(number, height, width)
    unknown = trimap == 0.5
    alpha = torch.where(unknown, rand(number, 1, height, width, seed=seed), trimap)
    colours = rand(number, 6, height, width, seed=seed + 1)
    colours[..., height // 2 :, :] = torch.nan
    return torch.cat([alpha, unknown.float(), colours], dim=1)


def make_target(task: Task, number: int, height: int, width: int, seed: int = 3) -> Tensor:
    """Random labels; the lower right quarter is ignored (in matting: the known region)."""
    if isinstance(task, Matting):
        return matting_target(number, height, width, seed)
    assert isinstance(task, Regression)
    target = task.in_units(rand(number, task.channels, height, width, seed=seed))
    target[..., height // 2 :, width // 2 :] = torch.nan
    return target


def silent(task: Task, target: Tensor) -> Tensor:
    """Pixels (L, 1, H, W) bool that must not reach the loss."""
    return ~task.unknown(target) if isinstance(task, Matting) else ~task.valid(target)


def make_task_batch(task: Task, labeled: int = 2, unlabeled: int = 2, side: int = 64) -> Batch:
    """Random images, with trimaps where the task has them, labels and two strong views of the unlabeled images."""
    image, strong = rand(labeled + unlabeled, 3, side, side), rand(2 * unlabeled, 3, side, side, seed=2)
    if task.trimap:
        image = torch.cat([image, trimap_of(len(image), side, side)], dim=1)
        strong = torch.cat([strong, trimap_of(len(strong), side, side)], dim=1)
    return Batch(image, make_target(task, labeled, side, side), strong)


class LabelSource(TinySource):
    """Random images of 64 to 70 pixels in memory with labels of one task.

    Args:
        kind: a name in `TASKS`.
        labeled, unlabeled, val, test: how many images.
    """

    def __init__(self, kind: str, labeled: int = 4, unlabeled: int = 4, val: int = 2, test: int = 2) -> None:
        super().__init__(labeled, unlabeled, val, test)
        self.classes = None
        self.kind = kind
        self.task = TASKS[kind]

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        image = super().image(name)
        if self.task.trimap:
            image = torch.cat([image, trimap_of(1, *self._size(name))[0]])
        return tv_tensors.Image(image)

    def target(self, name: str) -> tv_tensors.Image:
        target = make_target(self.task, 1, *self._size(name), seed=self._number(name))[0]
        return target.as_subclass(Matte if self.task.trimap else ImageTarget)

    def _size(self, name: str) -> tuple[int, int]:
        return 64 + self._number(name) % 4, 64 + 2 * (self._number(name) % 3)
