"""Which pseudo labels count."""

import pytest
import torch

from semipix.errors import SemipixError
from semipix.methods.pseudo_labels import SurePixels
from semipix.tasks.segmentation import Segmentation
from tests.helpers.tiny import CLASSES, TinyRegression, make_batch, make_method, rand


def test_one_threshold_for_all_classes() -> None:
    sure = SurePixels(Segmentation(2), 0.6)
    prediction = torch.tensor([[0.7, 0.3], [0.59, 0.41], [0.4, 0.6]]).T[None, :, None]
    assert sure(prediction).tolist() == [[[[True, False, True]]]]
    assert not sure.state_dict()


def test_a_class_that_is_seldom_sure_gets_labels_too() -> None:
    pixels = torch.tensor([[0.98, 0.02], [0.96, 0.04], [0.3, 0.7], [0.48, 0.52]]).T[None, :, None]
    same, by_class = SurePixels(Segmentation(2), 0.95), SurePixels(Segmentation(2), 0.95, per_class=True)
    assert same(pixels).flatten().tolist() == [True, True, False, False]
    assert by_class(pixels).flatten().tolist() == [True, True, True, False]


def test_means_are_updated_in_training_alone_and_kept() -> None:
    sure = SurePixels(Segmentation(CLASSES), 0.9, per_class=True)
    prediction = rand(2, CLASSES, 4, 4).softmax(1)
    sure.eval()(prediction)
    assert not sure.average.any()
    sure.train()(prediction)
    assert sure.average.any()
    assert torch.equal(sure.state_dict()["average"], sure.average)


@pytest.mark.parametrize("name", ["unimatch", "fixmatch"])
def test_methods_take_it(name: str) -> None:
    batch = make_batch()
    losses = {}
    for per_class in (False, True):
        method = make_method(name, confidence=0.5, per_class=per_class)
        torch.manual_seed(0)
        losses[per_class] = method.losses(batch, 0.0)["consistency"]
        assert ("sure.average" in method.state_dict()) == per_class
    assert losses[True] > losses[False], "more pixels teach"


@pytest.mark.parametrize("name", ["unimatch", "fixmatch"])
def test_regression_has_no_classes(name: str) -> None:
    with pytest.raises(SemipixError, match=r"method\.per_class: true found, but TinyRegression has no classes"):
        make_method(name, task=TinyRegression(), per_class=True)
