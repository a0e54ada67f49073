import math

import pytest
import torch

from semipix.methods.base import Evidence
from semipix.methods.error_maps import error_maps
from semipix.tasks.denoising import Denoising
from semipix.tasks.segmentation import Segmentation

OWN = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)  # two pixels of three classes
OTHER = torch.tensor([[0.1, 0.8, 0.1], [1.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)


def test_of_a_single_model_are_its_uncertainties() -> None:
    maps = error_maps(Segmentation(3), Evidence(OWN.log(), (OWN,)))
    assert maps.keys() == {"softmax", "entropy"}
    torch.testing.assert_close(maps["softmax"], torch.tensor([[[[0.3, 0.0]]]]))
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)) / math.log(3)
    torch.testing.assert_close(maps["entropy"], torch.tensor([[[[entropy, 0.0]]]]))


def test_of_a_pair_is_also_its_disagreement() -> None:
    maps = error_maps(Segmentation(3), Evidence(OWN.log(), (OWN, OTHER)))
    torch.testing.assert_close(maps["disagreement"], torch.tensor([[[[1 - (0.07 + 0.16 + 0.01), 0.0]]]]))


def test_of_a_fused_pair_disagreement_is_between_its_models() -> None:
    fused = (OWN + OTHER) / 2
    maps = error_maps(Segmentation(3), Evidence(fused.log(), (fused, OWN, OTHER)))
    torch.testing.assert_close(maps["disagreement"], torch.tensor([[[[0.76, 0.0]]]]))
    torch.testing.assert_close(maps["softmax"], torch.tensor([[[[0.5, 0.0]]]]))


def test_of_regression_is_the_distance_of_the_pair() -> None:
    first, second = torch.full((1, 3, 2, 2), 0.25), torch.full((1, 3, 2, 2), 0.5)
    assert error_maps(Denoising(), Evidence(first, (first,))) == {}
    maps = error_maps(Denoising(), Evidence(first, (first, second), torch.ones(1, 1, 1, 1)))
    assert maps.keys() == {"flaw", "disagreement"}
    torch.testing.assert_close(maps["disagreement"], torch.full((1, 1, 2, 2), 0.25))


@pytest.mark.parametrize("classes", [2, 11])
def test_entropy_of_equal_probabilities_is_one(classes: int) -> None:
    equal = torch.full((1, classes, 1, 1), 1 / classes)
    maps = error_maps(Segmentation(classes), Evidence(equal.log(), (equal, equal)))
    torch.testing.assert_close(maps["entropy"], torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(maps["disagreement"], torch.full((1, 1, 1, 1), 1 - 1 / classes))
