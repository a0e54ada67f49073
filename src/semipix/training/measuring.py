"""Parts of validation and tests: metrics that take predictions in parts, and a count of what was measured."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.functional.rows import RowResizer
from semipix.tasks.base import Task
from semipix.training.calibration import ErrorMap
from semipix.training.error_metrics import ErrorMapMetric


class MetricUpdater:
    """Updates metrics with the predictions of one batch, whose rows may come in parts, at the labels' size.

    Metrics that add up are updated with each part. Others are updated once, with the complete predictions. Error maps
    are resized as predictions are, and the scores of the written error map before they become its values.

    Args:
        metrics: the metrics of `task`.
        error_metric: the metric of error maps.
        task: its `metrics_add_up` decides.
        target: labels (B, ...) of one size.
        shape: shape (B, K, h, w) of the complete predictions.
        maps: names of the error maps. `map` is the written one, for which `add` gets scores.
        error_map: makes values of these scores; None without `map`.
        waits: whether the scores lack a constant, so that they are kept until `finish`.
        record: is called with the predictions (B, K, rows, W) and labels that the metrics are updated with.
    """

    def __init__(
        self,
        metrics: MetricCollection,
        error_metric: ErrorMapMetric,
        task: Task,
        target: Tensor,
        shape: Sequence[int],
        maps: Sequence[str] = (),
        error_map: ErrorMap | None = None,
        waits: bool = False,
        record: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self.metrics = metrics
        self.error_metric = error_metric
        self.task = task
        self.target = target
        self.maps = maps
        self.error_map = error_map
        self.waits = waits
        self.record = record
        self._channels = shape[1]
        height, width = target.shape[-2:]
        self._resizer = RowResizer((shape[-2], shape[-1]), (height, width), shape[1] + len(maps))
        self._complete: Tensor | None = None
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []  # of some rows: errors, pixels that count, scores

    def add(self, prediction: Tensor, maps: Sequence[Tensor] = ()) -> None:
        """Add the next rows of the predictions (B, K, h, w), from the top, and of the maps (B, 1, h', w')."""
        height, width = self.target.shape[-2:]
        size = prediction.shape[-2:]
        maps = [part if part.shape[-2:] == size else F.interpolate(part, size, mode="bilinear") for part in maps]
        for rows, resized in self._resizer.push(torch.cat([prediction, *maps], 1) if maps else prediction):
            part = resized[:, : self._channels]
            if maps:
                self._measure_maps(rows, part, resized[:, self._channels :])
            if self.task.metrics_add_up:
                self._update(part, self.target[..., rows, :])
            elif part.shape[-2] == height:
                self._update(part, self.target)
            else:
                if self._complete is None:
                    self._complete = part.new_empty((*part.shape[:2], height, width))
                self._complete[..., rows, :] = part
                if rows.stop == height:
                    self._update(self._complete, self.target)

    def _update(self, prediction: Tensor, target: Tensor) -> None:
        self.metrics.update(prediction, target)
        if self.record is not None:
            self.record(prediction, target)

    def _measure_maps(self, rows: slice, prediction: Tensor, maps: Tensor) -> None:
        """Measure rows of the maps (B, M, rows, W) at the errors of these rows of the predictions."""
        target = self.target[..., rows, :]
        error = (self.task.wrong if self.task.classification else self.task.error)(prediction, target)
        counted = self.task.counted(target)
        named = {name: maps[:, number : number + 1] for number, name in enumerate(self.maps)}
        if self.error_map is not None and "map" in named:
            if self.waits:
                self._kept.append((error, counted, named.pop("map")))
            else:
                named["map"] = self.error_map.values(named["map"])
        self.error_metric.update(error, counted, named, begins=rows.start == 0)

    def finish(self, constant: Tensor) -> None:
        """Measure the written error map, with the constant (B,) of the images, when all rows were added."""
        assert self.error_map is not None
        for error, counted, scores in self._kept:
            values = self.error_map.values(scores + constant.view(-1, 1, 1, 1))
            self.error_metric.update(error, counted, {"map": values}, begins=False, again=True)
        self._kept = []


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
