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
from semipix.training.calibration import Uncalibrated
from tests.helpers.tiny import rand

SEEN: Size = (40, 24)


def directly(task: Task, image: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Picture and file of an output (1, K, h, w), computed whole."""
    prediction = F.interpolate(task.activate(output), image.shape[-2:], mode="bilinear")
    if task.trimap:
        prediction = task.activate(task.constrain(task.deactivate(prediction), image[None]))
    return task.render(image, prediction[0]), task.to_file(prediction[0])


def drawn(task: Task, image: Tensor, output: Tensor, scores: Tensor, rows: int) -> Drawing:
    drawing = Drawing(task, image, SEEN)
    for part in output.split(rows, 2):
        drawing.add_output(part)
    for part in scores.split(rows, 2):
        drawing.add_scores(part - 0.25)
    drawing.finish(Uncalibrated("softmax"), constant=0.25, threshold=0.4)
    return drawing


@pytest.mark.parametrize("size", [SEEN, (67, 31), (17, 24)])
@pytest.mark.parametrize(
    "task", [Segmentation(5), Denoising(), Matting(), Regression(2)], ids=lambda task: type(task).__name__
)
def test_slabs_are_drawn_as_the_whole(task: Task, size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    image = rand(task.in_channels, *size, seed=1)
    if task.trimap:
        image[3] = (3 * image[3]).floor() / 2
    output, scores = rand(1, task.channels, *SEEN, seed=2) * 1.2, rand(1, 1, *SEEN, seed=3)
    picture, made = directly(task, image, output)
    values = F.interpolate(scores, size, mode="bilinear")[0, 0]
    decided = image[3] == 0.5 if task.trimap else torch.ones(size, dtype=torch.bool)
    errors = values * decided

    whole = drawn(task, image, output, scores, SEEN[0])
    for found, wanted in ((whole.picture, picture), (whole.prediction, made)):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted), "what is not cut is computed as ever"
    levels = 255 if task.classification else 65535
    assert whole.errors is not None
    assert whole.errors.dtype == (torch.uint8 if task.classification else torch.uint16)
    torch.testing.assert_close(whole.errors.double() / levels, errors.double(), rtol=0, atol=0.51 / levels)
    assert whole.accepted is not None
    assert (whole.accepted[(errors - 0.4).abs() > 1e-6] == 255).equal((errors <= 0.4)[(errors - 0.4).abs() > 1e-6])
    assert whole.error == pytest.approx(float(values[decided].mean()), abs=1e-6)
    assert whole.share == pytest.approx(float((values[decided] <= 0.4).float().mean()), abs=1e-6)

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * size[1] * task.channels * 5)
    parts = drawn(task, image, output, scores, 16)
    assert parts.errors is not None
    assert parts.error == pytest.approx(whole.error, abs=1e-5)
    assert parts.quality == pytest.approx(whole.quality, abs=1e-3 if task.classification else 0.01)
    for found, wanted in ((parts.picture, picture), (parts.prediction, made), (parts.errors, whole.errors)):
        off = (found.long() - wanted.long()).abs().max()
        assert off <= (0 if size == SEEN or (task.classification and found is parts.prediction) else 1)


def test_bytes_are_drawn_as_their_floats() -> None:
    image = (rand(3, *SEEN) * 255).byte()
    output, scores = rand(1, 3, *SEEN, seed=2), rand(1, 1, *SEEN)
    task = Segmentation(3)
    of_bytes, of_floats = (drawn(task, given, output, scores, 40) for given in (image, image.float() / 255))
    assert torch.equal(of_bytes.picture, of_floats.picture)
