"""Parts of validation and tests: metrics that take predictions in parts, and a count of what was measured."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.functional.rows import RowResizer
from semipix.tasks.base import Task


class MetricUpdater:
    """Updates metrics with the predictions of one batch, whose rows may come in parts, at the labels' size.

    Metrics that add up are updated with each part. Others are updated once, with the complete predictions.

    Args:
        metrics: the metrics of `task`.
        task: its `metrics_add_up` decides.
        target: labels (B, ...) of one size.
        shape: shape (B, K, h, w) of the complete predictions.
    """

    def __init__(self, metrics: MetricCollection, task: Task, target: Tensor, shape: Sequence[int]) -> None:
        self.metrics = metrics
        self.task = task
        self.target = target
        height, width = target.shape[-2:]
        self._resizer = RowResizer((shape[-2], shape[-1]), (height, width), shape[1])
        self._complete: Tensor | None = None

    def add(self, prediction: Tensor) -> None:
        """Add the next rows (B, K, h, w) of the predictions, from the top."""
        height, width = self.target.shape[-2:]
        for rows, part in self._resizer.push(prediction):
            if self.task.metrics_add_up:
                self.metrics.update(part, self.target[..., rows, :])
            elif part.shape[-2] == height:
                self.metrics.update(part, self.target)
            else:
                if self._complete is None:
                    self._complete = part.new_empty((*part.shape[:2], height, width))
                self._complete[..., rows, :] = part
                if rows.stop == height:
                    self.metrics.update(self._complete, self.target)


class MeasuredPixels:
    """Counts images, and the pixels that metrics count, in a pass over validation or test images.

    Args:
        task: the task, which determines the counted pixels.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.images = 0
        self.pixels = torch.tensor(0)

    def add(self, target: Tensor) -> None:
        """Add labels (B, ...)."""
        self.images += len(target)
        self.pixels = self.task.counted(target).sum() + self.pixels.to(target.device)

    def why_unmeasured(self, purpose: str, sum_of_processes: Callable[[Tensor], Tensor]) -> str:
        """One line that explains why the primary metric is NaN.

        Args:
            purpose: what the metric is for, such as `measure`.
            sum_of_processes: the sum of a tensor over all processes, each of which has to call this.
        """
        counts = torch.stack([torch.tensor(self.images), self.pixels.cpu()])
        images, pixels = sum_of_processes(counts).tolist()
        if pixels:
            return (
                f"{self.task.primary} of the {images} images is not a number though {pixels} pixels count, so there is "
                f"nothing to {purpose}; check that the network's outputs are finite"
            )
        does, check = self.task.uncounted
        return f"no pixel of the {images} images {does}, so there is nothing to {purpose}; {check}"


def best_candidate(results: Mapping[str, Mapping[str, Tensor]], task: Task) -> str | None:
    """The candidate with the best primary metric; None if it is NaN for all of them.

    Args:
        results: for each candidate its metrics by name.
        task: the task of the metrics.
    """
    sign = 1 if task.higher_is_better else -1
    values = {name: sign * float(metrics[task.primary]) for name, metrics in results.items()}
    measured = [name for name, value in values.items() if not math.isnan(value)]
    return max(measured, key=values.__getitem__, default=None)
