"""Regression: values of any unit, with ignored pixels.

Also tests tasks/measures.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.errors import SemipixError
from semipix.tasks.denoising import Denoising
from semipix.tasks.enhancement import Enhancement
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from tests.helpers.labels import TASKS, make_target, silent
from tests.helpers.tiny import rand

DEPTH = Regression(low=2.0, high=12.0)
LOSSES = ["l1", "l2", "charbonnier", "smooth_l1"]


def single(*values: float) -> Tensor:
    """A label or output (1, 1, 1, n)."""
    return torch.tensor([[[list(values)]]])


class TestPredictionSpace:
    def test_a_prediction_is_the_output_clamped(self) -> None:
        assert DEPTH.activate(single(-0.5, 0.25, 1.5)).tolist() == single(0.0, 0.25, 1.0).tolist()
        assert DEPTH.activate(single(0.5).bfloat16()).dtype == torch.float32

    def test_a_label_becomes_a_share_of_the_range(self) -> None:
        target = single(2.0, 4.5, 12.0, 15.0, torch.nan, torch.inf)
        assert DEPTH.encode(target).tolist() == single(0.0, 0.25, 1.0, 1.0, 0.0, 0.0).tolist()
        assert DEPTH.valid(target).tolist() == [[[[True, True, True, True, False, False]]]]
        torch.testing.assert_close(DEPTH.in_units(single(0.0, 0.25, 1.0)), single(2.0, 4.5, 12.0))

    def test_one_unknown_channel_leaves_a_pixel_out(self) -> None:
        target = torch.zeros(1, 2, 1, 2)
        target[0, 1, 0, 1] = torch.nan
        assert Regression(channels=2).valid(target).tolist() == [[[[True, False]]]]

    def test_deactivate_undoes_activate(self) -> None:
        prediction = rand(2, 1, 4, 5)
        assert torch.equal(DEPTH.activate(DEPTH.deactivate(prediction)), prediction)


class TestLoss:
    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_a_pixel_that_says_nothing_contributes_nothing(self, task: Any) -> None:
        target = make_target(task, 2, 8, 12)
        quiet = silent(task, target)
        output = (1.5 * rand(2, task.channels, 8, 12, seed=7) - 0.25).requires_grad_()
        loss = task.loss(output, target)
        (gradient,) = torch.autograd.grad(loss, output)
        assert loss.isfinite()
        assert (gradient.masked_select(quiet) == 0).all()
        assert (gradient.masked_select(~quiet) != 0).all(), "out of range too"
        assert torch.equal(task.loss(torch.where(quiet, 9.0, output), target), loss)

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_a_label_that_says_nothing_at_all_is_0(self, task: Any) -> None:
        target = make_target(task, 2, 8, 12)
        target[:] = torch.nan
        output = rand(2, task.channels, 8, 12).requires_grad_()
        loss = task.loss(output, target)
        (gradient,) = torch.autograd.grad(loss, output)
        assert loss == 0
        assert (gradient == 0).all()

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [("l1", 0.275), ("l2", 0.12625), ("charbonnier", 0.275), ("smooth_l1", (0.05**2 / 0.2 + 0.5 - 0.05) / 2)],
    )
    def test_by_hand(self, loss: Any, expected: float) -> None:
        task = Regression(low=2.0, high=12.0, loss=loss)
        target = single(4.5, torch.nan, 12.0)
        assert float(task.loss(single(0.3, 9.0, 1.5), target)) == pytest.approx(expected, abs=2e-5)
        pixels = task.pixel_loss(single(0.3, 0.0, 1.5), single(0.25, 0.0, 1.0))
        smooth = (0.05**2 / 0.2 + 0.5 - 0.05) / 2
        assert float(pixels[..., [0, 2]].mean()) == pytest.approx(expected if loss == "l2" else smooth, abs=2e-5)

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_a_teacher_does_not_hold_a_model_at_what_it_says(self, task: Any) -> None:
        """A denoiser and its average both begin as the identity. By L1, the smallest step away from it was pulled back
        as strongly as the labels pulled, and `gct_strong` never learned."""
        goal = 0.25 + 0.5 * rand(2, task.channels, 8, 12)

        def pull(distance: float) -> float:
            output = (goal + distance).requires_grad_()
            (gradient,) = torch.autograd.grad(task.pixel_loss(output, goal).sum(), output)
            return float(gradient.abs().mean())

        assert pull(1e-4) < 0.05 * pull(0.09)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_gradient_is_finite_at_the_label(self, loss: Any) -> None:
        output = single(0.25).requires_grad_()
        (gradient,) = torch.autograd.grad(Regression(loss=loss).loss(output, single(0.25)), output)
        assert gradient.abs().max() == 0


class TestMetrics:
    def test_are_in_units_over_known_pixels(self) -> None:
        metrics = DEPTH.metrics()
        metrics.update(single(0.0, 0.5), single(3.0, torch.nan))  # off by 1
        metrics.update(single(0.5, 1.0, 0.1), single(4.0, 12.0, 15.0))  # off by 3, 0 and 12
        found = metrics.compute()
        assert float(found["mae"]) == pytest.approx((1 + 3 + 0 + 12) / 4)
        assert float(found["rmse"]) == pytest.approx(((1 + 9 + 144) / 4) ** 0.5)
        assert DEPTH.primary in found
        assert not DEPTH.higher_is_better

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_add_up_over_batches(self, task: Any) -> None:
        target = make_target(task, 4, 24, 30)
        prediction = rand(4, task.channels, 24, 30, seed=8)
        whole, parts = task.metrics(), task.metrics()
        whole.update(prediction, target)
        for part in (slice(0, 1), slice(1, 4)):
            parts.update(prediction[part], target[part])
        expected, found = whole.compute(), parts.compute()
        assert task.primary in expected
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
            assert expected[name].isfinite()

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_add_up_over_processes(self, task: Any) -> None:
        target = make_target(task, 3, 24, 30)
        prediction = rand(3, task.channels, 24, 30, seed=8)
        whole, first, second = task.metrics(), task.metrics(), task.metrics()
        whole.update(prediction, target)
        first.update(prediction[:1], target[:1])
        second.update(prediction[1:], target[1:])
        for name, expected in whole.compute().items():
            ours, theirs = (getattr(each[name], "wrapped_metric", each[name]) for each in (first, second))
            ours.merge_state(theirs)
            assert float(ours.compute()) == pytest.approx(float(expected), rel=1e-5), name

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_a_first_image_without_error_hides_none_of_the_second(self, task: Any) -> None:
        target = make_target(task, 2, 24, 30)
        prediction = torch.cat([task.encode(target[:1]), rand(1, task.channels, 24, 30, seed=8)])
        metrics, reverse = task.metrics(), task.metrics()
        for number in (0, 1):
            metrics.update(prediction[number : number + 1], target[number : number + 1])
            reverse.update(prediction[1 - number : 2 - number], target[1 - number : 2 - number])
        expected = {name: pytest.approx(float(value), rel=1e-5) for name, value in reverse.compute().items()}
        assert {name: float(value) for name, value in metrics.compute().items()} == expected

    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_an_image_that_says_nothing_is_left_out(self, task: Any) -> None:
        target = make_target(task, 2, 24, 30)
        prediction = rand(2, task.channels, 24, 30, seed=8)
        alone, both = task.metrics(), task.metrics()
        alone.update(prediction[:1], target[:1])
        both.update(prediction, torch.cat([target[:1], torch.full_like(target[1:], torch.nan)]))
        assert {name: float(value) for name, value in both.compute().items()} == pytest.approx(
            {name: float(value) for name, value in alone.compute().items()}
        )

    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_without_any_label_there_is_no_figure(self) -> None:
        for task in TASKS.values():
            metrics: MetricCollection = task.metrics()
            metrics.update(rand(1, task.channels, 8, 12), torch.full_like(make_target(task, 1, 8, 12), torch.nan))
            assert all(value.isnan() for value in metrics.compute().values())


class TestPictures:
    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_a_label_with_gaps_can_be_drawn(self, task: Any) -> None:
        picture = task.render(rand(4, 8, 12), task.encode(make_target(task, 1, 8, 12))[0])
        assert picture.shape == (3, 8, 12)
        assert picture.dtype == torch.uint8
        assert picture.float().std() > 0

    def test_one_channel_gets_brighter_with_its_value(self) -> None:
        ramp = torch.linspace(0, 1, 64).view(1, 1, 64)
        light = DEPTH.render(rand(3, 1, 64), ramp).float().mean(0)[0]
        assert (light.diff() > -1).all()
        assert light[-1] > light[0] + 100
        assert torch.equal(
            Regression(3).render(rand(3, 1, 64), ramp.expand(3, -1, -1))[0], (ramp[0] * 255).round().byte()
        )

    def test_a_file_holds_16_bit_of_the_range(self) -> None:
        levels = DEPTH.to_file(single(0.0, 0.5, 1.0)[0])
        assert levels.dtype == torch.uint16
        assert levels.tolist() == [[0, 32768, 65535]]
        assert Regression(2).to_file(rand(2, 3, 4)).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Regression(channels=0), "task.channels: 0 found"),
        (lambda: Regression(low=1.0, high=1.0), "task.low: 1.0 found with task.high=1.0"),
        (lambda: Regression(low=float("-inf")), "task.low: -inf found"),
        (lambda: Regression(high=float("nan")), "task.low: 0.0 found with task.high=nan"),
        (lambda: Regression(loss="huber"), "task.loss: 'huber' found, l1 or l2"),  # type: ignore[arg-type]
        (lambda: Regression(mu=0.0), "task.mu: 0.0 found"),
        (lambda: Regression(nu=-1), "task.nu: -1 found"),
        (lambda: Denoising("l2"), "task.loss: 'l2' found, l1 or charbonnier"),  # type: ignore[arg-type]
        (lambda: Enhancement("charbonnier"), "task.loss: 'charbonnier' found, l1 or l2"),  # type: ignore[arg-type]
        (lambda: Matting(composition=1.5), "task.composition: 1.5 found"),
    ],
)
def test_an_error_is_one_line(make: Any, key: str) -> None:
    with pytest.raises(SemipixError) as error:
        make()
    assert key in str(error.value)
    assert "expected" in str(error.value)
    assert "\n" not in str(error.value)


def test_mu_and_nu_are_those_of_the_paper() -> None:
    constants = {name: (task.mu, task.nu) for name, task in TASKS.items()}
    assert constants == {"regression": (0.5, 5), "denoising": (1 / 3, 10), "enhancement": (1 / 3, 5), "matting": (1, 1)}
