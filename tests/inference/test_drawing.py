"""Arrays that are made in slabs of rows are equal to those of the whole image, for every kind of task."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.data.files.sizes import Size
from semipix.functional import rows as blocks
from semipix.inference.drawing import Drawing
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from tests.helpers.tiny import rand

SEEN: Size = (40, 24)


def directly(task: Task, image: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Picture and file of an output (1, K, h, w), computed whole."""
    prediction = F.interpolate(task.activate(output), image.shape[-2:], mode="bilinear")
    if task.trimap:
        prediction = task.activate(task.constrain(task.deactivate(prediction), image[None]))
    return task.render(image, prediction[0]), task.to_file(prediction[0])


def drawn(task: Task, image: Tensor, output: Tensor, flaw: Tensor, rows: int) -> Drawing:
    drawing = Drawing(task, image, SEEN, SEEN)
    for part in output.split(rows, 2):
        drawing.add_output(part)
    for part in flaw.split(rows, 2):
        drawing.add_flaw(part)
    return drawing


@pytest.mark.parametrize("size", [SEEN, (67, 31), (17, 24)])
@pytest.mark.parametrize(
    "task", [Segmentation(5), Denoising(), Matting(), Regression(2)], ids=lambda task: type(task).__name__
)
def test_slabs_are_drawn_as_the_whole(task: Task, size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    image = rand(task.in_channels, *size, seed=1)
    if task.trimap:
        image[3] = (3 * image[3]).floor() / 2
    output, flaw = rand(1, task.channels, *SEEN, seed=2) * 1.2, rand(1, 1, *SEEN, seed=3)
    picture, made = directly(task, image, output)
    flaw_map = (F.interpolate(flaw, size, mode="bilinear")[0, 0] * 255).round().byte()

    whole = drawn(task, image, output, flaw, SEEN[0])
    for found, wanted in ((whole.picture, picture), (whole.prediction, made), (whole.flaw, flaw_map)):
        assert found is not None
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted), "what is not cut is computed as ever"

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * size[1] * task.channels * 5)
    parts = drawn(task, image, output, flaw, 16)
    for found, wanted in ((parts.picture, picture), (parts.prediction, made), (parts.flaw, flaw_map)):
        assert found is not None
        off = (found.long() - wanted.long()).abs().max()
        assert off <= (0 if size == SEEN or (task.classification and found is parts.prediction) else 1)


def test_bytes_are_drawn_as_their_floats() -> None:
    image = (rand(3, *SEEN) * 255).byte()
    output, flaw = rand(1, 3, *SEEN, seed=2), rand(1, 1, *SEEN)
    task = Segmentation(3)
    of_bytes, of_floats = (drawn(task, given, output, flaw, 40) for given in (image, image.float() / 255))
    assert torch.equal(of_bytes.picture, of_floats.picture)
