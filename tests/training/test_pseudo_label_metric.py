import math

import pytest
import torch
from torch import Tensor

from semipix.batch import VOID
from semipix.tasks.matting import Matting
from semipix.tasks.segmentation import Segmentation
from semipix.training.pseudo_label_metric import PseudoLabelMetric, needed_confidence

CONFIDENCE = torch.tensor([0.999, 0.99, 0.97, 0.96, 0.90, 0.98])
TARGET = torch.tensor([0, 0, 1, 0, 0, VOID])  # the third is wrong; the last is ignored
TAUGHT = torch.tensor([True, True, True, True, False, True])


def measured(parts: int = 1) -> dict[str, Tensor]:
    metric = PseudoLabelMetric(Segmentation(2))
    prediction = torch.stack([CONFIDENCE, 1 - CONFIDENCE]).view(1, 2, 1, 6)
    for pixels in torch.arange(6).chunk(parts):
        metric.update(prediction[..., pixels], TAUGHT[pixels].view(1, 1, 1, -1), TARGET[pixels].view(1, 1, -1))
    return metric.compute()


@pytest.mark.parametrize("parts", [1, 3])
def test_accuracy_is_of_what_is_taught_and_share_of_all_labeled_pixels(parts: int) -> None:
    found = measured(parts)
    assert found["accuracy"] == 3 / 4
    assert found["share"] == 4 / 5


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
    assert found["accuracy"].isnan() and found["share"] == 0
    assert needed_confidence(found["counts"], 0.9) == 0


def test_labels_may_have_another_size() -> None:
    metric = PseudoLabelMetric(Segmentation(2))
    prediction = torch.stack([torch.full((2, 2), 0.9), torch.full((2, 2), 0.1)])[None]
    taught = torch.tensor([[True, False], [True, False]])[None, None]
    metric.update(prediction, taught, torch.zeros(1, 4, 4, dtype=torch.long))
    assert metric.compute()["share"] == 0.5


def test_of_mattes_the_unknown_pixels_count() -> None:
    metric = PseudoLabelMetric(Matting())
    target = torch.ones(1, 2, 4, 8)
    target[:, 1, :, 4:] = 0.0  # known
    prediction = target[:, :1].clone()
    prediction[..., :4] = 0.0  # all unknown pixels are wrong
    metric.update(prediction, torch.ones(1, 1, 4, 8, dtype=torch.bool), target)
    found = metric.compute()
    assert (float(found["accuracy"]), float(found["share"])) == (0.0, 1.0)
