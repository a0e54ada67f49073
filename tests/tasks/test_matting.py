"""Matting: alpha in the unknown region of a trimap."""

import pytest
import torch

from semipix.functional import matting_errors as matting
from semipix.models.adapt import Adapter
from semipix.tasks.matting import Matting
from tests.helpers.labels import make_task_batch, matting_target, trimap_of
from tests.helpers.tiny import TinyModel, rand

TASK = Matting()
TARGET = matting_target(2, 24, 40)
UNKNOWN = TARGET[:, 1:2] == 1


def test_takes_a_trimap_as_fourth_channel() -> None:
    assert (TASK.in_channels, TASK.channels, TASK.trimap) == (4, 1, True)
    assert (TASK.primary, TASK.higher_is_better) == ("mse", False)


def test_a_label_is_its_alpha() -> None:
    assert torch.equal(TASK.encode(TARGET), TARGET[:, :1])
    assert TASK.valid(TARGET).all(), "the known region is known, and right"
    gap = TARGET.clone()
    gap[0, 0, 3, 20] = torch.nan
    assert not TASK.valid(gap)[0, 0, 3, 20]
    assert not TASK.unknown(gap)[0, 0, 3, 20]
    assert TASK.encode(gap).isfinite().all()


def test_predictions_are_compared_in_the_unknown_region_of_all_images() -> None:
    batch = make_task_batch(TASK)
    valid = TASK.valid_of_all(batch.target, batch.image)
    assert torch.equal(valid, batch.image[:, 3:4] == 0.5)


class TestLoss:
    def test_without_colours_is_alpha_s_error(self) -> None:
        target = TARGET.clone()
        target[:, 2:] = torch.nan
        output = rand(2, 1, 24, 40, seed=5)
        expected = (output - TARGET[:, :1]).abs()[UNKNOWN].mean()
        torch.testing.assert_close(TASK.loss(output, target), expected)

    @pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
    def test_with_colours_composes_both(self, weight: float) -> None:
        target = TARGET[..., :12, :]  # where colours are known
        output = rand(2, 1, 12, 40, seed=5)
        alpha, front, back = target[:, :1], target[:, 2:5], target[:, 5:8]
        composed = (output * front + (1 - output) * back) - (alpha * front + (1 - alpha) * back)
        pixels = (1 - weight) * (output - alpha).abs() + weight * composed.abs().mean(1, keepdim=True)
        expected = pixels[UNKNOWN[..., :12, :]].mean()
        torch.testing.assert_close(Matting(composition=weight).loss(output, target), expected)

    def test_where_colours_are_known_alone_they_count(self) -> None:
        output = rand(2, 1, 24, 40, seed=5).requires_grad_()
        (mixed,) = torch.autograd.grad(TASK.loss(output, TARGET), output)
        (plain,) = torch.autograd.grad(Matting(composition=0.0).loss(output, TARGET), output)
        changed = (mixed - plain).abs() > 1e-9
        assert changed[..., :12, :][UNKNOWN[..., :12, :]].float().mean() > 0.99
        assert not changed[..., 12:, :].any()

    def test_a_foreground_like_its_background_has_a_finite_gradient(self) -> None:
        target = TARGET[..., :12, :].clone()
        target[:, 2:5] = target[:, 5:8]
        output = target[:, :1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(TASK.loss(output, target), output)
        assert gradient.isfinite().all()


class TestConstrain:
    def test_copies_what_is_known(self) -> None:
        image = torch.cat([rand(2, 3, 24, 40), trimap_of(2, 24, 40)], dim=1)
        output = rand(2, 1, 24, 40, seed=5)
        made = TASK.constrain(output, image)
        assert torch.equal(made, torch.where(image[:, 3:4] == 0.5, output, image[:, 3:4]))
        assert TASK.constrain(output.bfloat16(), image).dtype == torch.bfloat16

    def test_says_within_which_distance_a_trimap_is_sure(self) -> None:
        image = torch.zeros(1, 4, 1, 6)
        image[0, 3, 0] = torch.tensor([0.0, 1 / 255, 0.02, 0.98, 254 / 255, 1.0])
        assert TASK.constrain(torch.full((1, 1, 1, 6), 0.4), image)[0, 0, 0].tolist() == pytest.approx(
            [0.0, 0.0, 0.4, 0.4, 1.0, 1.0]
        )

    def test_is_the_last_thing_that_a_task_model_does(self) -> None:
        torch.manual_seed(0)
        model = Adapter(TinyModel(4, 1), 1, TASK.constrain)
        image = make_task_batch(TASK).image
        known = image[:, 3:4] != 0.5
        output = model(image)
        assert torch.equal(output[known], image[:, 3:4][known])
        free = model.head(model.features(image), image.shape[-2:])
        assert not torch.equal(free[known], output[known])
        assert torch.equal(free[~known], output[~known])
        assert model.state_dict().keys() == Adapter(TinyModel(4, 1), 1).state_dict().keys()


def test_metrics_are_means_over_images_of_errors_in_the_unknown_region() -> None:
    metrics = TASK.metrics()
    prediction = rand(2, 1, 24, 40, seed=6)
    metrics.update(prediction, TARGET)
    found = {name: float(value) for name, value in metrics.compute().items()}
    errors = {
        "sad": matting.sum_of_absolute_differences,
        "mse": matting.mean_squared_error,
        "gradient": matting.gradient_error,
        "connectivity": matting.connectivity_error,
    }
    expected = {
        name: sum(float(error(prediction[i, 0], TARGET[i, 0], UNKNOWN[i, 0])) for i in range(2)) / 2
        for name, error in errors.items()
    }
    mse = [(prediction - TARGET[:, :1])[i][UNKNOWN[i]].square().mean() for i in range(2)]
    expected["psnr"] = sum(float(-10 * value.log10()) for value in mse) / 2
    assert found == pytest.approx(expected, rel=1e-5)
    known = metrics.clone()
    known.update(torch.where(UNKNOWN, prediction, 1 - TARGET[:, :1]), TARGET)
    for name in ("sad", "mse", "psnr"):
        assert float(known.compute()[name]) == pytest.approx(expected[name]), "the known region does not count"


def test_a_picture_shows_the_foreground_alone() -> None:
    image = torch.full((4, 1, 2), 0.6)
    picture = TASK.render(image, torch.tensor([[[1.0, 0.0]]]))
    assert picture[:, 0, 0].tolist() == [153, 153, 153]
    assert picture[1, 0, 1] > picture[0, 0, 1] + 50, "green"
