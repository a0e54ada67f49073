import math

import pytest
import torch
from torch import Tensor

from semipix.batch import VOID
from semipix.tasks.matting import Matting
from semipix.tasks.segmentation import Segmentation
from semipix.training.pseudo_label_metric import (
    PseudoLabelMetric,
    PseudoLabelRows,
    accuracy_and_share,
    needed_confidence,
)

CONFIDENCE = torch.tensor([0.999, 0.99, 0.97, 0.96, 0.90, 0.98])
TARGET = torch.tensor([0, 0, 1, 0, 0, VOID])  # the third is wrong; the last is ignored
TAUGHT = torch.tensor([True, True, True, True, False, True])


def measured(parts: int = 1) -> dict[str, Tensor]:
    metric = PseudoLabelMetric(Segmentation(2))
    prediction = torch.stack([CONFIDENCE, 1 - CONFIDENCE]).view(1, 2, 1, 6)
    for pixels in torch.arange(6).chunk(parts):
        metric.update(prediction[..., pixels], TAUGHT[pixels].view(1, 1, 1, -1), TARGET[pixels].view(1, 1, -1))
    return metric.compute()


def figures(found: dict[str, Tensor], confidence: float = 0.0) -> tuple[float, ...]:
    """Accuracy and share."""
    return tuple(float(value) for value in accuracy_and_share(found["counts"], found["pixels"], confidence))


@pytest.mark.parametrize("parts", [1, 3])
def test_accuracy_is_of_what_is_taught_and_share_of_all_labeled_pixels(parts: int) -> None:
    assert figures(measured(parts)) == pytest.approx((3 / 4, 4 / 5))


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.965, (2 / 3, 3 / 5)), (0.99, (1.0, 2 / 5)), (1.0, (math.nan, 0.0)), (math.inf, (math.nan, 0.0))],
)
def test_only_labels_that_are_sure_enough_count(confidence: float, expected: tuple[float, float]) -> None:
    assert figures(measured(), confidence) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("size", [(12, 8), (24, 16)])
def test_rows_of_an_image_count_as_the_whole(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    prediction = torch.rand(1, 2, 12, 8).softmax(1)
    taught, target = torch.ones(1, 1, 12, 8, dtype=torch.bool), torch.randint(0, 2, (1, *size))
    taught[..., :5, :] = False
    whole, parts = PseudoLabelMetric(Segmentation(2)), PseudoLabelMetric(Segmentation(2))
    whole.update(prediction, taught, target)
    updater = PseudoLabelRows(parts, target, prediction.shape, Segmentation(2).confidence)
    for rows in torch.arange(12).split(5):
        updater.add(prediction[..., rows, :], taught[..., rows, :])
    assert figures(parts.compute()) == pytest.approx(figures(whole.compute()), abs=1e-6)


@pytest.mark.parametrize("accuracy", [0.7, 0.75])
def test_no_confidence_is_needed_where_enough_are_right(accuracy: float) -> None:
    assert needed_confidence(measured()["counts"], accuracy) == 0


@pytest.mark.parametrize("accuracy", [0.8, 1.0])
def test_needed_confidence_leaves_the_wrong_ones_out(accuracy: float) -> None:
    assert 0.97 < needed_confidence(measured()["counts"], accuracy) < 0.975


def test_no_confidence_suffices_where_the_surest_are_wrong() -> None:
    metric = PseudoLabelMetric(Segmentation(2))
    prediction = torch.tensor([[0.99, 0.9], [0.01, 0.1]]).view(1, 2, 1, 2)
    metric.update(prediction, torch.ones(1, 1, 1, 2, dtype=torch.bool), torch.tensor([[[1, 0]]]))
    assert needed_confidence(metric.compute()["counts"], 0.9) == math.inf


def test_nothing_taught_is_no_reason_to_close() -> None:
    metric = PseudoLabelMetric(Segmentation(2))
    metric.update(torch.full((1, 2, 1, 2), 0.5), torch.zeros(1, 1, 1, 2, dtype=torch.bool), torch.zeros(1, 1, 2).long())
    found = metric.compute()
    assert figures(found) == pytest.approx((math.nan, 0.0), nan_ok=True)
    assert needed_confidence(found["counts"], 0.9) == 0


def test_labels_may_have_another_size() -> None:
    metric = PseudoLabelMetric(Segmentation(2))
    prediction = torch.stack([torch.full((2, 2), 0.9), torch.full((2, 2), 0.1)])[None]
    taught = torch.tensor([[True, False], [True, False]])[None, None]
    metric.update(prediction, taught, torch.zeros(1, 4, 4, dtype=torch.long))
    assert figures(metric.compute())[1] == 0.5


def test_of_mattes_the_unknown_pixels_count() -> None:
    metric = PseudoLabelMetric(Matting())
    target = torch.ones(1, 2, 4, 8)
    target[:, 1, :, 4:] = 0.0  # known
    prediction = target[:, :1].clone()
    prediction[..., :4] = 0.0  # all unknown pixels are wrong
    metric.update(prediction, torch.ones(1, 1, 4, 8, dtype=torch.bool), target)
    assert figures(metric.compute()) == (0.0, 1.0)
