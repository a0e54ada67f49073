"""The arrays that are written for one image, made from its network output a few rows at a time."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semipix.data.files.bands import missing_pixels
from semipix.data.files.decode import unit_range
from semipix.data.files.sizes import Size
from semipix.functional.rows import RowResizer, block_rows
from semipix.inference.row_array import RowArray
from semipix.inference.scores import class_sums, expected_miou, expected_psnr
from semipix.tasks.base import Task
from semipix.training.calibration import ErrorMap


def largest_number(array: RowArray) -> int:
    """The largest number that an array can hold: 255, or 65535."""
    return int(np.iinfo(array.dtype).max)


def decided_pixels(task: Task, image: Tensor) -> Tensor:
    """The pixels that the network decides: those that the image has a value of and, of a trimap, the unknown ones.

    Args:
        task: the task.
        image: rows of an image at its own size, (C, h, W), bytes or float32 in [0, 1]; NaN where a band has no value.

    Returns:
        (h, W) bool.
    """
    missing = missing_pixels(image)
    if missing is not None:
        return ~missing
    if not task.trimap:
        return torch.ones(image.shape[-2:], dtype=torch.bool)
    return task.decided(unit_range(image[None]))[0, 0]


class Drawing:
    """The arrays of an image's files, at its own size; they are complete when all rows were added.

    Args:
        task: the task.
        image: (C, H, W), bytes or float32 in [0, 1], on the CPU; NaN where a band has no value.
        output: height and width of the whole network output.
        folder: gets temporary files for the arrays of huge images, see `RowArray`. None is for prediction in memory:
            all arrays are there, and the exact predictions and error map are kept too.

    Attributes:
        picture: (H, W, 3) uint8.
        prediction: the array of the task's own files, see `Task.to_file`: (H, W) or, with channels, (H, W, C).
        errors: (H, W), the error map as it is written, see `finish`; None if no scores were added.
        accepted: (H, W) uint8, 255 at accepted pixels; None unless `finish` got a threshold.
        error: mean of the error map over the pixels that the network decides, all but the known ones of a trimap and
            those that the image has no value of; None without such pixels, or if no scores were added.
        quality: expected mean IoU, or expected PSNR; None where `error` is.
        share: share of these pixels that are accepted; None where `error` is, or without a threshold.
        maps: (K, H, W) float32 predictions in [0, 1], NaN where the image has no value; None with a folder.
        error_values: (H, W) float32, the error map, NaN there too; None with a folder, or if no scores were added.
        nodata: whether the largest number of `prediction` and `errors` marks pixels that the image has no value of, see
            `largest_number`. Otherwise it is a value like others, but never a class.
    """

    picture: RowArray
    prediction: RowArray
    errors: RowArray | None = None
    accepted: RowArray | None = None
    error: float | None = None
    quality: float | None = None
    share: float | None = None
    maps: Tensor | None = None
    error_values: Tensor | None = None

    def __init__(self, task: Task, image: Tensor, output: Size, folder: Path | None) -> None:
        self.task = task
        self.image = image
        self.folder = folder
        self.size: Size = (image.shape[-2], image.shape[-1])
        self._missing = missing_pixels(image)  # (H, W) bool, or None
        self.nodata = self._missing is not None
        self._outputs = RowResizer(output, self.size, task.channels)
        self._score_rows = RowResizer(output, self.size, 1)
        self._scores: RowArray | None = None  # (H, W) float32
        self._confusion = torch.zeros(task.channels, task.channels, dtype=torch.float64)

    @property
    def nbytes(self) -> int:
        """Bytes of the image and of the arrays."""
        arrays = [self.picture, self.prediction, self.errors, self.accepted, self._scores, self.maps, self.error_values]
        return self.image.nbytes + sum(array.nbytes for array in arrays if array is not None)

    def add_output(self, output: Tensor) -> None:
        """Add the next rows (1, K, h, w) of the network output, from the top."""
        for top in range(0, output.shape[-2], self._outputs.rows):
            part = output[..., top : top + self._outputs.rows, :]
            for rows, prediction in self._outputs.push(self.task.activate(part)):
                self._draw(rows, prediction)

    def add_scores(self, scores: Tensor) -> None:
        """Add the next rows (1, 1, h, w) of the error map's scores, from the top; of the size of the output."""
        for _, part in self._score_rows.push(scores.float()):
            if self._scores is None:
                self._scores = RowArray(self.size, np.float32, self.folder)
            self._scores.add(part[0, 0])

    def finish(self, error_map: ErrorMap, constant: float = 0.0, threshold: float | None = None) -> None:
        """Make the error map of the scores, when all rows were added.

        The array has 255 for an error that is certain. In regression, where errors are small shares of the range, it
        has 16 bits, and 65535 for an error of the whole range or more.

        Args:
            error_map: makes values of scores.
            constant: what is added to all scores.
            threshold: largest value that is accepted.
        """
        if self._scores is None:
            return
        self.errors = RowArray(self.size, np.uint8 if self.task.classification else np.uint16, self.folder)
        levels = largest_number(self.errors)
        if self.folder is None:
            self.error_values = torch.empty(self.size)
        if threshold is not None:
            self.accepted = RowArray(self.size, np.uint8, self.folder)
        pixels = accepted = 0
        total = squares = 0.0
        by_class = torch.zeros(self.task.channels, dtype=torch.float64)
        step = block_rows(self.size[1], 2)
        for top in range(0, self.size[0], step):
            rows = slice(top, min(top + step, self.size[0]))
            values = error_map.values(self._scores.read(rows) + constant)
            decided = decided_pixels(self.task, self.image[:, rows])
            values = values * decided
            written = (values.clamp(max=1) * levels).round().to(torch.int32)
            self.errors.add(self._marked(rows, written, self.errors))
            if self.error_values is not None:
                self.error_values[rows] = values if self._missing is None else values.where(decided, math.nan)
            pixels += int(decided.sum())
            total += float(values.sum(dtype=torch.float64))
            squares += float(values.square().sum(dtype=torch.float64))
            if self.task.classification:
                labels = self.prediction.read(rows)[decided].long()
                by_class += torch.bincount(labels, values[decided].double(), len(by_class))
            if self.accepted is not None and threshold is not None:
                taken = values <= threshold * (1 + 1e-6) + 1e-9  # values that are equal up to rounding are equal
                taken = taken if self._missing is None else taken & ~self._missing[rows]
                self.accepted.add(taken * 255)
                accepted += int((taken & decided).sum())
        self._scores.close()
        self._scores = None
        if not pixels:
            return
        self.error, self.share = total / pixels, None if threshold is None else accepted / pixels
        factor = getattr(error_map, "squares", 1.0)
        self.quality = (
            expected_miou(self._confusion, by_class)
            if self.task.classification
            else expected_psnr(factor * squares / pixels)
        )

    def _draw(self, rows: slice, prediction: Tensor) -> None:
        """Write rows of a prediction (1, K, rows, W) into the arrays."""
        task = self.task
        image = unit_range(self.image[None, :, rows]).to(prediction.device)
        image = image if self._missing is None else image.nan_to_num(0.0)
        if task.trimap:  # apply the trimap again, since the network saw only a resized one
            prediction = task.activate(task.constrain(task.deactivate(prediction), image))
        picture, to_file = task.render(image[0], prediction[0]), task.to_file(prediction[0])
        if rows.start == 0:
            self.picture, self.prediction = self._rows(picture), self._rows(to_file)
        if self._missing is not None:
            picture = picture.masked_fill(self._missing[rows].to(picture.device), 0)
            to_file = self._marked(rows, to_file, self.prediction)
        self.picture.add(picture.movedim(0, -1))
        self.prediction.add(to_file.movedim(0, -1) if to_file.ndim == 3 else to_file)
        if self.folder is None:
            if self.maps is None:
                self.maps = torch.empty(task.channels, *self.size)
            shown = prediction[0].cpu()
            self.maps[:, rows] = shown if self._missing is None else shown.masked_fill(self._missing[rows], math.nan)
        if task.classification:
            known = prediction[0].flatten(1)
            if self._missing is not None:
                known = known[:, ~self._missing[rows].flatten().to(known.device)]
            class_sums(known, self._confusion)

    def _marked(self, rows: slice, values: Tensor, array: RowArray) -> Tensor:
        """Values (..., rows, W) for an array, whose largest number marks the pixels that the image has no value of."""
        if self._missing is None:
            return values
        largest = largest_number(array)
        wide = values.to(torch.int32).clamp(max=largest - 1)  # torch computes little with uint16
        return wide.masked_fill(self._missing[rows].to(values.device), largest).to(values.dtype)

    def _rows(self, part: Tensor) -> RowArray:
        """An empty array of the image's size, with the type and channels of a part; channels last, as in Pillow."""
        channels = (len(part),) if part.ndim == 3 else ()
        return RowArray((*self.size, *channels), part.cpu().numpy().dtype, self.folder)

    def close(self) -> None:
        """Remove temporary files."""
        for rows in (self.picture, self.prediction, self.errors, self.accepted, self._scores):
            if rows is not None:
                rows.close()
