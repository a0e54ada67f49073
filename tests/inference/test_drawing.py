"""Arrays that are made in slabs of rows are equal to those of the whole image, for every kind of task."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.data.files.sizes import Size
from semipix.functional import rows as blocks
from semipix.inference import row_array
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


def drawn(task: Task, image: Tensor, output: Tensor, scores: Tensor, rows: int, folder: Path) -> Drawing:
    drawing = Drawing(task, image, SEEN, folder)
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
def test_slabs_are_drawn_as_the_whole(task: Task, size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = rand(task.in_channels, *size, seed=1)
    if task.trimap:
        image[3] = (3 * image[3]).floor() / 2
    output, scores = rand(1, task.channels, *SEEN, seed=2) * 1.2, rand(1, 1, *SEEN, seed=3)
    picture, made = (maps.movedim(0, -1) if maps.ndim == 3 else maps for maps in directly(task, image, output))
    values = F.interpolate(scores, size, mode="bilinear")[0, 0]
    decided = image[3] == 0.5 if task.trimap else torch.ones(size, dtype=torch.bool)
    errors = values * decided

    whole = drawn(task, image, output, scores, SEEN[0], tmp_path)
    for array, wanted in ((whole.picture, picture), (whole.prediction, made)):
        found = array.whole()
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted), "what is not cut is computed as ever"
    levels = 255 if task.classification else 65535
    assert whole.errors is not None
    found = whole.errors.whole()
    assert found.dtype == (torch.uint8 if task.classification else torch.uint16)
    torch.testing.assert_close(found.double() / levels, errors.double(), rtol=0, atol=0.51 / levels)
    assert whole.accepted is not None
    clear = (errors - 0.4).abs() > 1e-6
    assert (whole.accepted.whole()[clear] == 255).equal((errors <= 0.4)[clear])
    assert whole.error == pytest.approx(float(values[decided].mean()), abs=1e-6)
    assert whole.share == pytest.approx(float((values[decided] <= 0.4).float().mean()), abs=1e-6)

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * size[1] * task.channels * 5)
    parts = drawn(task, image, output, scores, 16, tmp_path)
    assert parts.errors is not None
    assert parts.error == pytest.approx(whole.error, abs=1e-5)
    assert parts.quality == pytest.approx(whole.quality, abs=1e-3 if task.classification else 0.01)
    pairs = ((parts.picture, picture), (parts.prediction, made), (parts.errors, whole.errors.whole()))
    for array, wanted in pairs:
        off = (array.whole().long() - wanted.long()).abs().max()
        assert off <= (0 if size == SEEN or (task.classification and array is parts.prediction) else 1)

    monkeypatch.setattr(row_array, "IN_MEMORY", 0)
    monkeypatch.setattr(row_array, "BLOCK", 100)
    filed = drawn(task, image, output, scores, 16, tmp_path)
    assert filed.errors is not None
    assert filed.accepted is not None
    assert parts.accepted is not None
    assert (filed.error, filed.quality, filed.share) == (parts.error, parts.quality, parts.share)
    for array, wanted in zip(
        (filed.picture, filed.prediction, filed.errors, filed.accepted),
        (parts.picture, parts.prediction, parts.errors, parts.accepted),
        strict=True,
    ):
        assert array.nbytes == 0
        assert torch.equal(array.whole(), wanted.whole())
    assert not list(tmp_path.iterdir()), "temporary files have no names"


def test_an_expected_error_of_more_than_the_range_is_written_as_the_range(tmp_path: Path) -> None:
    class Doubled(Uncalibrated):
        def values(self, scores: Tensor) -> Tensor:
            return 2 * scores

    drawing = Drawing(Regression(), rand(3, 4, 4), (4, 4), tmp_path)
    drawing.add_output(rand(1, 1, 4, 4))
    drawing.add_scores(torch.tensor([0.25, 0.75]).expand(1, 1, 8, 2).reshape(1, 1, 4, 4))
    drawing.finish(Doubled("flaw"))
    assert drawing.errors is not None
    assert drawing.errors.whole().unique().tolist() == [32768, 65535]
    assert drawing.error == 1.0, "the mean is of what is expected"


def test_bytes_are_drawn_as_their_floats(tmp_path: Path) -> None:
    image = (rand(3, *SEEN) * 255).byte()
    output, scores = rand(1, 3, *SEEN, seed=2), rand(1, 1, *SEEN)
    task = Segmentation(3)
    given = image, image.float() / 255
    of_bytes, of_floats = (drawn(task, pixels, output, scores, 40, tmp_path) for pixels in given)
    assert torch.equal(of_bytes.picture.whole(), of_floats.picture.whole())


@pytest.mark.parametrize("task", [Segmentation(5), Regression(2)], ids=lambda task: type(task).__name__)
def test_what_the_image_has_no_value_of_is_marked_and_counts_nowhere(task: Task, tmp_path: Path) -> None:
    image, gone = rand(4, *SEEN, seed=1), torch.zeros(SEEN, dtype=torch.bool)
    gone[:10, 5:] = True
    output, scores = rand(1, task.channels, *SEEN, seed=2) * 1.2, rand(1, 1, *SEEN, seed=3)
    whole = drawn(task, image, output, scores, 40, tmp_path)
    image[2, gone] = torch.nan
    found = drawn(task, image, output, torch.where(gone, 0.9, scores), 16, tmp_path)
    assert (found.nodata, whole.nodata) == (True, False)
    assert found.errors is not None
    assert found.accepted is not None
    assert whole.errors is not None
    largest = 255 if task.classification else 65535
    for array, other in ((found.errors, whole.errors), (found.prediction, whole.prediction)):
        values, before = array.whole().long(), other.whole().long()
        assert bool((values[gone] == largest).all())
        assert torch.equal(values[~gone], before[~gone].clamp(max=largest - 1))
    assert not bool(found.accepted.whole()[gone].any())
    assert not bool(found.picture.whole()[gone].any())
    known = scores[0, 0][~gone]
    assert found.error == pytest.approx(float(known.mean()), abs=1e-6)
    assert found.quality is not None
    assert found.share == pytest.approx(float((known <= 0.4).float().mean()), abs=1e-6)


@pytest.mark.parametrize("task", [Segmentation(5), Regression(2), Matting()], ids=lambda task: type(task).__name__)
def test_of_an_image_in_which_no_pixel_counts_nothing_is_expected(task: Task, tmp_path: Path) -> None:
    """Otherwise it would have no error, and be the best of all."""
    image = rand(4, *SEEN, seed=1)
    if task.trimap:
        image[3] = 1
    else:
        image[0] = torch.nan
    found = drawn(task, image, rand(1, task.channels, *SEEN, seed=2), rand(1, 1, *SEEN, seed=3), 40, tmp_path)
    assert (found.error, found.quality, found.share) == (None, None, None)
    assert found.errors is not None
