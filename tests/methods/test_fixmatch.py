"""FixMatch: sure labels of weak views teach strong, mixed views."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.errors import SemipixError
from semipix.functional.mixing import cutmix_mask
from semipix.functional.routing import frozen
from semipix.methods.fixmatch import FixMatch
from tests.helpers.tiny import TinyRegression, make_batch, make_method, make_regression_batch, predict_always


def make_fixmatch(**given: float) -> FixMatch:
    method = make_method("fixmatch", **given)
    assert isinstance(method, FixMatch)
    return method.eval()  # batch norm by its running statistics: each image by itself


def weak_predictions(method: FixMatch) -> Tensor:
    with torch.no_grad():
        return method.task.activate(method.model(make_batch().unlabeled))


@pytest.mark.parametrize("confidence", [0.0, 0.36, 0.4])
def test_only_sure_pixels_teach_and_the_mean_is_over_all(confidence: float) -> None:
    method, batch = make_fixmatch(confidence=confidence, cutmix=0.0), make_batch()
    assert batch.strong is not None
    weak = weak_predictions(method)
    sure, label = weak.amax(1) >= confidence, weak.argmax(1)
    errors = torch.nn.functional.cross_entropy(method.model(batch.strong[:2]), label, reduction="none")
    found = method.losses(batch, 0.0)["consistency"]
    torch.testing.assert_close(found, (errors * sure).mean())
    assert 0 < sure.float().mean() <= 1
    assert (confidence == 0) == bool(sure.all())


def test_a_box_carries_its_label_along() -> None:
    method, batch = make_fixmatch(confidence=0.0, cutmix=1.0), make_batch()
    assert batch.strong is not None
    torch.manual_seed(3)
    box = cutmix_mask(batch.unlabeled, area=(0.02, 0.4))
    mixed = torch.where(box, batch.strong[:2].flip(0), batch.strong[:2])
    label = weak_predictions(method).argmax(1)
    label = torch.where(box[:, 0], label.flip(0), label)
    torch.manual_seed(3)
    found = method.losses(batch, 0.0)["consistency"]
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(method.model(mixed), label))


def test_no_gradient_goes_through_the_labels() -> None:
    """In regression, where the label is the prediction itself: a hard label has no gradient in any case."""
    method, batch = make_method("fixmatch", task=TinyRegression()), make_regression_batch()
    images = batch.image.requires_grad_()
    gradients = torch.autograd.grad(method.losses(batch, 0.0)["consistency"], [images, method.model.last.weight])
    assert not gradients[0][2:].any(), "weak views"
    assert gradients[1].any(), "strong views teach"


def test_a_sure_model_that_agrees_with_itself_learns_nothing() -> None:
    method = make_fixmatch()
    predict_always(method.model, 1)
    assert method.losses(make_batch(), 0.0)["consistency"] < 1e-6


def test_rampup_scales_the_consistency() -> None:
    method, batch = make_fixmatch(confidence=0.0, cutmix=0.0, rampup_epochs=2.0, lambda_consistency=3.0), make_batch()
    plain = make_fixmatch(confidence=0.0, cutmix=0.0).losses(batch, 0.0)["consistency"]
    torch.testing.assert_close(method.losses(batch, 2.0)["consistency"], 3 * plain)
    assert method.losses(batch, 0.5)["consistency"] < plain


def test_labeling_leaves_running_statistics_as_they_are() -> None:
    method = make_fixmatch().train()
    frozen(method.model, make_batch().image)
    method.losses(make_batch(), 0.0)
    assert int(method.model.norm.num_batches_tracked) == 1


@pytest.mark.parametrize(("key", "value"), [("confidence", 1.1), ("cutmix", -0.1), ("lambda_consistency", -1)])
def test_a_wrong_value_is_refused_in_one_line(key: str, value: float) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: {value} found, .* expected"):
        make_fixmatch(**{key: value})


def test_a_pixel_teaches_less_where_the_mirror_image_has_another_prediction() -> None:
    given = {"cutmix": 0.0}
    method = make_method("fixmatch", task=TinyRegression(), error_scale=0.02, **given).eval()
    batch = make_regression_batch()
    assert batch.strong is not None
    with torch.no_grad():
        goal = method.model(batch.unlabeled).sigmoid()
        mirrored = method.model(batch.unlabeled.flip(-1)).sigmoid().flip(-1)
    weight = (-(goal - mirrored).abs().mean(1, keepdim=True) / 0.02).exp()
    assert 0.1 < weight.mean() < 0.9
    errors = F.smooth_l1_loss(method.model(batch.strong[:2]).sigmoid(), goal, reduction="none", beta=0.1)
    torch.testing.assert_close(method.losses(batch, 0.0)["consistency"], (weight * errors).mean())
