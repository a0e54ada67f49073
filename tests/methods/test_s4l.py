"""S4L: upright and rotated images in one pass, targets rotated alike, and a classifier of the angle."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from semipix.errors import SemipixError
from semipix.methods.s4l import S4L, RotationClassifier, rotate
from tests.helpers.tiny import CLASSES, TinyModel, TinyRegression, make_batch, make_method, make_regression_batch, rand


class Oracle(nn.Module):
    """Sees which way up each prediction is, from the model that sees one pixel at a time; some turns too far."""

    def __init__(self, offset: int = 0) -> None:
        super().__init__()
        self.offset = offset
        self.seen: list[int] = []

    def forward(self, prediction: Tensor) -> Tensor:
        upright = prediction[: len(prediction) // 2]
        pairs = list(zip(torch.cat([upright, upright]), prediction, strict=True))
        self.seen = [
            next(turn for turn in range(4) if torch.allclose(torch.rot90(before, turn, (1, 2)), after, atol=1e-6))
            for before, after in pairs
        ]
        return 50.0 * torch.eye(4)[[(turn + self.offset) % 4 for turn in self.seen]]


def pixel_model(number: int = 0) -> nn.Module:
    """A model that sees no neighbours, so that it predicts a rotated image as it predicts the upright one, rotated."""
    return nn.Conv2d(3, CLASSES, 1)


def make_s4l(pixelwise: bool = False, **given: float) -> S4L:
    method = make_method("s4l", pixel_model if pixelwise else None, **given)
    assert isinstance(method, S4L)
    return method


def test_rotate_turns_images_and_labels_alike() -> None:
    image, label = torch.tensor([[[0, 1], [2, 3]]]), torch.tensor([[0, 1], [2, 3]])
    turned = {1: [[1, 3], [0, 2]], 2: [[3, 2], [1, 0]], 3: [[2, 0], [3, 1]]}
    assert rotate(torch.stack([image] * 3), [1, 2, 3]).tolist() == [[rows] for rows in turned.values()]
    assert rotate(torch.stack([label] * 2), [3, 1]).tolist() == [turned[3], turned[1]]


@pytest.mark.parametrize("unlabeled", [0, 3])
def test_the_classifier_learns_the_angle_of_every_image(unlabeled: int) -> None:
    method, batch = make_s4l(pixelwise=True, lambda_s4l=0.5), make_batch(2, unlabeled)
    method.classifier = Oracle()
    assert method.losses(batch, 0.0)["rotation"] < 1e-6
    assert len(method.classifier.seen) == 2 * len(batch.image)
    assert set(method.classifier.seen[: len(batch.image)]) == {0}
    assert 0 not in method.classifier.seen[len(batch.image) :]
    method.classifier = Oracle(offset=1)
    torch.testing.assert_close(method.losses(batch, 0.0)["rotation"], torch.tensor(0.5 * 50))


def test_an_angle_at_random_costs_the_logarithm_of_four() -> None:
    method = make_s4l(lambda_s4l=0.5)
    nn.init.zeros_(method.classifier.last.weight)
    nn.init.zeros_(method.classifier.last.bias)
    torch.testing.assert_close(method.losses(make_batch(), 0.0)["rotation"], torch.tensor(0.5 * math.log(4)))


def test_turns_are_drawn_from_the_global_generator() -> None:
    method, batch = make_s4l(pixelwise=True), make_batch(4, 4)
    method.classifier = Oracle()
    drawn = {}
    for seed in (0, 1, 2, 0):
        torch.manual_seed(seed)
        method.losses(batch, 0.0)
        turns = tuple(method.classifier.seen[8:])
        assert drawn.setdefault(seed, turns) == turns, "a seed gives the same turns"
    assert len(set(drawn.values())) == 3, "another seed gives others"
    assert set().union(*drawn.values()) == {1, 2, 3}
    assert any(len(set(turns)) > 1 for turns in drawn.values()), "each image has an angle of its own"


@pytest.mark.parametrize("regression", [False, True])
def test_labels_are_rotated_with_their_images(regression: bool) -> None:
    task, batch = (TinyRegression(), make_regression_batch()) if regression else (None, make_batch())
    method = make_method("s4l", pixel_model, task=task, lambda_rotated=0.3)
    losses = method.losses(batch, 0.0)
    torch.testing.assert_close(losses["rotated_supervised"], 0.3 * losses["supervised"])


def test_only_the_labels_of_labeled_images_supervise() -> None:
    batch = make_batch()
    method = make_s4l(pixelwise=True)
    expected = method.task.loss(method.model(batch.labeled), batch.target)
    torch.testing.assert_close(method.losses(batch, 0.0)["supervised"], expected)


def test_a_step_is_one_pass() -> None:
    method = make_s4l().train()
    method.losses(make_batch(), 0.0)
    assert int(method.model.norm.num_batches_tracked) == 1
    norms = [module for module in method.classifier.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 1]


@pytest.mark.parametrize(("key", "term"), [("lambda_rotated", "rotated_supervised"), ("lambda_s4l", "rotation")])
def test_weights(key: str, term: str) -> None:
    batch, losses = make_batch(), []
    for weight in (1.0, 3.0):
        method = make_s4l(**{key: weight})
        torch.manual_seed(0)
        losses.append(method.losses(batch, 0.0))
    once, thrice = losses
    for name in once:
        torch.testing.assert_close(thrice[name], (3 if name == term else 1) * once[name])


def test_a_classifier_learns_which_way_up_a_gradient_is() -> None:
    torch.manual_seed(0)
    classifier = RotationClassifier(CLASSES)
    optimizer = SGD(classifier.parameters(), lr=0.1)
    ramp = torch.linspace(0, 1, 16).expand(1, CLASSES, 16, 16)
    maps, turns = torch.cat([torch.rot90(ramp, turn, (-2, -1)) for turn in range(4)]), torch.arange(4)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(classifier(maps), turns)
        loss.backward()
        optimizer.step()
    assert classifier(maps).shape == (4, 4)
    assert torch.equal(classifier(maps).argmax(1), turns)


def test_images_that_are_not_square_are_refused() -> None:
    batch = make_batch()
    batch = batch._replace(image=batch.image[..., :20], target=batch.target[..., :20], strong=None)
    with pytest.raises(SemipixError, match=r"data.crop: 32x20 .*; set data.crop to one number") as error:
        make_s4l().losses(batch, 0.0)
    assert "\n" not in str(error.value)
    assert make_s4l()(batch.image).shape == (4, CLASSES, 32, 20), "they can be predicted all the same"


def test_model_and_classifier_have_the_configured_optimizer() -> None:
    method = make_s4l()
    made: list[nn.Module] = []

    def make_optimizer(model: nn.Module) -> SGD:
        made.append(model)
        return SGD(model.parameters(), lr=0.1)

    assert [type(optimizer) for optimizer in method.optimizers(make_optimizer)] == [SGD, SGD]
    assert made == [method.model, method.classifier]


def test_trains_under_bfloat16_autocast() -> None:
    method = make_s4l()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(make_batch(), 0.0)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in method.parameters())


def test_losses_are_float32_of_a_bfloat16_model() -> None:
    method, batch = make_s4l().bfloat16(), make_batch()
    losses = method.losses(batch._replace(image=batch.image.bfloat16()), 0.0)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_the_model_is_deployed() -> None:
    method, image = make_s4l().eval(), rand(1, 3, 32, 32)
    assert torch.equal(method(image), copy.deepcopy(method.model)(image))
    assert isinstance(method.model, TinyModel)


@pytest.mark.parametrize("key", ["lambda_rotated", "lambda_s4l"])
def test_a_wrong_value_is_refused_in_one_line(key: str) -> None:
    make = partial(make_s4l, **{key: -1.0})
    with pytest.raises(SemipixError, match=f"method.{key}: -1.0 found, .* expected"):
        make()
