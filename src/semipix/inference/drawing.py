"""The arrays that are written for one image, made from its network output in slabs of rows."""

import torch
from torch import Tensor

from semipix.data.files.decode import unit_range
from semipix.data.files.sizes import Size
from semipix.functional.rows import RowResizer
from semipix.tasks.base import Task


class Drawing:
    """The arrays of an image's files, at its own size; they are complete when all rows were added.

    Args:
        task: the task.
        image: (C, H, W), bytes or float32 in [0, 1], on the CPU.
        output: height and width of the whole network output.
        flaw: height and width of the whole flaw map, if there is one.

    Attributes:
        picture: (3, H, W) uint8.
        prediction: the array of the task's own files, see `Task.to_file`.
        flaw: (H, W) uint8, or None if no flaw map was added.
    """

    picture: Tensor
    prediction: Tensor
    flaw: Tensor | None

    def __init__(self, task: Task, image: Tensor, output: Size, flaw: Size | None = None) -> None:
        self.task = task
        self.image = image
        self.flaw = None
        self.size: Size = (image.shape[-2], image.shape[-1])
        self._outputs = RowResizer(output, self.size, task.channels)
        self._flaws = RowResizer(flaw or output, self.size, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the image and of the arrays."""
        arrays = [self.image, self.picture, self.prediction, *([] if self.flaw is None else [self.flaw])]
        return sum(array.nbytes for array in arrays)

    def add_output(self, output: Tensor) -> None:
        """Add the next rows (1, K, h, w) of the network output, from the top."""
        for top in range(0, output.shape[-2], self._outputs.rows):
            part = output[..., top : top + self._outputs.rows, :]
            for rows, prediction in self._outputs.push(self.task.activate(part)):
                self._draw(rows, prediction)

    def add_flaw(self, flaw: Tensor) -> None:
        """Add the next rows (1, 1, h, w) of the flaw map, from the top."""
        for rows, part in self._flaws.push(flaw):
            if self.flaw is None:
                self.flaw = torch.empty(self.size, dtype=torch.uint8)
            self.flaw[rows] = (part[0, 0] * 255).round().byte()

    def _draw(self, rows: slice, prediction: Tensor) -> None:
        """Write rows of a prediction (1, K, rows, W) into the arrays."""
        task = self.task
        image = unit_range(self.image[None, :, rows]).to(prediction.device)
        if task.trimap:  # apply the trimap again, since the network saw only a resized one
            prediction = task.activate(task.constrain(task.deactivate(prediction), image))
        picture, to_file = task.render(image[0], prediction[0]), task.to_file(prediction[0])
        if rows.start == 0:
            self.picture, self.prediction = self._canvas(picture), self._canvas(to_file)
        self.picture[..., rows, :] = picture
        self.prediction[..., rows, :] = to_file

    def _canvas(self, part: Tensor) -> Tensor:
        """An empty array of the image's size, with the type and channels of a part; channels last, as in Pillow."""
        if part.ndim == 3:
            return torch.empty((*self.size, len(part)), dtype=part.dtype).movedim(-1, 0)
        return torch.empty(self.size, dtype=part.dtype)
