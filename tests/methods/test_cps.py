"""Cross pseudo supervision: each model learns the other's hard labels."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semipix.errors import SemipixError
from semipix.functional.mixing import cutmix_mask
from semipix.methods.cps import CPS
from tests.helpers.tiny import make_batch, make_method, predict_always


def make_cps(**given: Any) -> CPS:
    """The models differ, as two initialisations do."""
    method = make_method("cps", **given)
    assert isinstance(method, CPS)
    return method.eval()


def test_the_models_differ() -> None:
    first, second = make_cps().models
    assert not torch.equal(first.first.weight, second.first.weight)


def test_without_cutmix_all_images_are_crossed() -> None:
    method, batch = make_cps(cutmix=False, lambda_cps=2.0), make_batch()
    first, second = (model(batch.image) for model in method.models)
    expected = F.cross_entropy(first, second.argmax(1)) + F.cross_entropy(second, first.argmax(1))
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], 2 * expected)


def test_with_cutmix_labels_of_whole_images_are_mixed() -> None:
    method, batch = make_cps(lambda_cps=1.0), make_batch()
    torch.manual_seed(1)
    box = cutmix_mask(batch.unlabeled, area=(0.5, 0.5))
    mixed = torch.where(box, batch.unlabeled.flip(0), batch.unlabeled)
    labels = [model(batch.unlabeled).argmax(1) for model in method.models]
    labels = [torch.where(box[:, 0], label.flip(0), label) for label in labels]
    first, second = (model(mixed) for model in method.models)
    expected = F.cross_entropy(first, labels[1]) + F.cross_entropy(second, labels[0])
    torch.manual_seed(1)
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], expected)


@pytest.mark.parametrize("cutmix", [True, False])
def test_each_is_pulled_to_the_other(cutmix: bool) -> None:
    method = make_cps(cutmix=cutmix)
    predict_always(method.models[0], 1)
    predict_always(method.models[1], 2)
    assert method.losses(make_batch(), 0.0)["cross_supervision"] > 10
    predict_always(method.models[1], 1)
    assert method.losses(make_batch(), 0.0)["cross_supervision"] < 1e-6


def test_the_chosen_model_is_deployed() -> None:
    method, image = make_cps(), make_batch().image
    for name, model in zip(("first", "second"), method.models, strict=True):
        method.deploy(name)
        assert method.deployed_name() == name
        assert torch.equal(method(image), model(image))


@pytest.mark.parametrize(("key", "value"), [("lambda_cps", -1), ("area", 1.5), ("area", 0), ("rampup_epochs", -2)])
def test_a_wrong_value_is_refused_in_one_line(key: str, value: float) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: {value} found, .* expected"):
        make_cps(**{key: value})


def test_without_boxes_their_area_is_not_read() -> None:
    assert make_cps(cutmix=False, area=0).losses(make_batch(), 0.0)["cross_supervision"].isfinite()
