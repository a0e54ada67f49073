"""UniMatch V2: two strong views with complementary channels learn from an averaged teacher."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semipix.errors import SemipixError
from semipix.methods.unimatch import UniMatch, complementary_dropout
from tests.helpers.tiny import (
    FixedModel,
    TinyRegression,
    make_batch,
    make_method,
    make_regression_batch,
    predict_always,
    rand,
)


def make_unimatch(**given: float) -> UniMatch:
    method = make_method("unimatch", **given)
    assert isinstance(method, UniMatch)
    return method


class TestComplementaryDropout:
    def test_what_one_view_lacks_the_other_has_doubled(self) -> None:
        torch.manual_seed(0)
        single = rand(3, 64, 2, 2) + 0.1
        first, second = complementary_dropout(torch.cat([single, single])).chunk(2)
        torch.testing.assert_close(first + second, 2 * single)
        assert not (first * second).any()
        assert 0.3 < float((first > 0).float().mean()) < 0.7

    def test_channels_go_whole_and_by_image(self) -> None:
        torch.manual_seed(0)
        kept = complementary_dropout(torch.ones(4, 32, 3, 3)) > 0
        assert torch.equal(kept.all((-2, -1)), kept.any((-2, -1)))
        assert not torch.equal(kept[0], kept[1])


def test_both_views_are_learned() -> None:
    batch = make_batch()
    assert batch.strong is not None
    for view in range(2):
        method = make_unimatch(confidence=0.0, cutmix=0.0).eval()
        changed = batch.strong.clone()
        changed[2 * view : 2 * view + 2] = 0.5
        torch.manual_seed(0)
        before = method.losses(batch, 0.0)["consistency"]
        torch.manual_seed(0)
        after = method.losses(batch._replace(strong=changed), 0.0)["consistency"]
        assert before != after, view


def test_labeled_images_keep_all_channels() -> None:
    method, batch = make_unimatch().eval(), make_batch()
    expected = method.task.loss(method.student(batch.labeled), batch.target)
    torch.testing.assert_close(method.losses(batch, 0.0)["supervised"], expected)


def test_the_teacher_labels_and_is_deployed() -> None:
    method, batch = make_unimatch(confidence=0.9).eval(), make_batch()
    predict_always(method.teacher, 2)
    images = make_batch().image
    assert (method(images).argmax(1) == 2).all()
    predict_always(method.student, 2)
    assert method.losses(batch, 0.0)["consistency"] < 1e-6
    predict_always(method.student, 1)
    assert method.losses(batch, 0.0)["consistency"] > 10


def test_unsure_pixels_teach_nothing() -> None:
    method = make_unimatch(confidence=1.0).eval()
    assert method.losses(make_batch(), 0.0)["consistency"] == 0


def test_the_teacher_follows_the_student() -> None:
    method = make_unimatch(decay=0.5)
    method.step.fill_(10)
    with torch.no_grad():
        method.student.first.weight += 1
    before = method.teacher.first.weight.clone()
    method.after_step()
    torch.testing.assert_close(method.teacher.first.weight, before + 0.5)
    assert int(method.step) == 11


def test_a_model_without_features_is_refused() -> None:
    def plain(number: int) -> nn.Module:
        return FixedModel(torch.zeros(1, 3, 32, 32))

    expected = r"FixedModel has no method 'features'.*model=unet.*or set method.complementary_dropout=false$"
    with pytest.raises(SemipixError, match=expected):
        make_method("unimatch", plain).losses(make_batch(), 0.0)


def test_without_complementary_dropout_any_model_is_trained() -> None:
    method = make_unimatch(complementary_dropout=False, cutmix=0.0, confidence=0.0).eval()
    plain = make_method("unimatch", lambda number: nn.Conv2d(3, 3, 1), complementary_dropout=False)
    assert plain.losses(make_batch(), 0.0)["consistency"].isfinite()
    batch = make_batch()
    assert batch.strong is not None
    label = method.teacher(batch.unlabeled).argmax(1).repeat(2, 1, 1)
    expected = nn.functional.cross_entropy(method.student(batch.strong), label)
    torch.testing.assert_close(method.losses(batch, 0.0)["consistency"], expected)


@pytest.mark.parametrize(
    ("key", "value"), [("confidence", -0.1), ("decay", 2), ("rampup_epochs", -1), ("error_scale", -1)]
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: float) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: {value} found, .* expected"):
        make_unimatch(**{key: value})


def test_a_pixel_teaches_less_where_the_mirror_image_has_another_prediction() -> None:
    given = {"cutmix": 0.0, "complementary_dropout": False}
    method = make_method("unimatch", task=TinyRegression(), error_scale=0.02, **given).eval()
    batch = make_regression_batch()
    assert batch.strong is not None
    with torch.no_grad():
        goal = method.teacher(batch.unlabeled).sigmoid()
        mirrored = method.teacher(batch.unlabeled.flip(-1)).sigmoid().flip(-1)
    weight = (-(goal - mirrored).abs().mean(1, keepdim=True) / 0.02).exp().repeat(2, 1, 1, 1)
    assert 0.1 < weight.mean() < 0.9
    errors = F.smooth_l1_loss(
        method.student(batch.strong).sigmoid(), goal.repeat(2, 1, 1, 1), reduction="none", beta=0.1
    )
    torch.testing.assert_close(method.losses(batch, 0.0)["consistency"], (weight * errors).mean())
