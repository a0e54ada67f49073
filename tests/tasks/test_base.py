"""The defaults of a task, which are those of regression."""

import pytest
import torch
from lightning.pytorch.plugins import HalfPrecision

from semipix.tasks.base import Task
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from tests.helpers.tiny import TinyRegression, rand

TASK = TinyRegression()
OUTPUT = 4 * rand(2, 3, 4, 5) - 2
GOAL = rand(2, 3, 4, 5, seed=1)


def test_is_no_classification() -> None:
    assert not TASK.classification


def test_the_helper_undoes_its_activation() -> None:
    torch.testing.assert_close(TASK.activate(TASK.deactivate(GOAL)), GOAL)


def test_pixel_loss_is_the_smooth_error_of_the_prediction() -> None:
    loss = TASK.pixel_loss(OUTPUT, GOAL)
    assert loss.shape == (2, 1, 4, 5)
    off = (OUTPUT.sigmoid() - GOAL)[1, :, 2, 3].abs()
    by_hand = torch.where(off < 0.1, off.square() / 0.2, off - 0.05)
    assert float(loss[1, 0, 2, 3]) == pytest.approx(float(by_hand.sum()) / 3)
    assert (TASK.pixel_loss(GOAL.logit(), GOAL) < 1e-6).all()


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_a_pseudo_label_is_the_prediction(temperature: float) -> None:
    assert torch.equal(TASK.sharpen(GOAL, temperature), GOAL)


def test_confidence_is_always_1() -> None:
    assert torch.equal(TASK.confidence(GOAL), torch.ones(2, 1, 4, 5))


def test_wrong_is_off_by_more_than_a_tenth() -> None:
    off = torch.tensor([0.0, 0.05, -0.2, 0.2]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    target = torch.full((1, 3, 1, 4), 0.5)
    assert TASK.wrong(target + off, target).tolist() == [[[[False, False, True, True]]]]
    assert TASK.wrong(target + off * torch.tensor([1, 0, 0]).view(3, 1, 1), target).sum() == 0, "a mean over channels"


def test_nothing_is_settled_by_an_image() -> None:
    assert TASK.constrain(OUTPUT, GOAL) is OUTPUT


def test_a_file_holds_16_bit_of_each_channel() -> None:
    levels = TASK.to_file(torch.tensor([0.0, 0.5, 2.0]).view(3, 1, 1))
    assert levels.dtype == torch.uint16
    assert levels.tolist() == [[[0]], [[32768]], [[65535]]]
    assert TASK.to_file(GOAL[0, :1]).shape == (4, 5)


@pytest.mark.parametrize("task", [Segmentation(21), Matting(), Regression()])
def test_pictures_are_the_same_in_a_training_of_bfloat16(task: Task) -> None:
    image, prediction = rand(task.in_channels, 4, 5), rand(task.channels, 4, 5, seed=1)
    picture = task.render(image, prediction)
    with HalfPrecision("bf16-true").forward_context():
        assert torch.equal(task.render(image, prediction), picture)
