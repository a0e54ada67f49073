"""Segmentation: activation, losses, metrics and pictures of class maps.

Also tests tasks/label_losses.py.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch import losses
from torch import Tensor

from semipix.batch import VOID
from semipix.errors import SemipixError
from semipix.tasks.segmentation import Segmentation, palette
from tests.helpers.tiny import rand, randint

TASK = Segmentation(3)
OUTPUT = 4 * rand(2, 3, 4, 5) - 2
TARGET = randint(3, 2, 4, 5)
TARGET[0, 0], TARGET[1, 2, 3] = VOID, VOID
ALL_VOID = torch.full((2, 4, 5), VOID)


def loss_and_gradient(task: Segmentation, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output = output.clone().requires_grad_()
    loss = task.loss(output, target)
    (gradient,) = torch.autograd.grad(loss, output)
    return loss.detach(), gradient


def one_hot(labels: Tensor) -> Tensor:
    """Predictions (B, 3, H, W) that are sure of the labels."""
    return F.one_hot(labels, 3).movedim(-1, 1).float()


class TestPredictionSpace:
    def test_activate_is_a_softmax_over_classes(self) -> None:
        prediction = TASK.activate(OUTPUT)
        torch.testing.assert_close(prediction, OUTPUT.exp() / OUTPUT.exp().sum(1, keepdim=True))

    @pytest.mark.parametrize(
        ("given", "expected"), [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2]
    )
    def test_precision_is_at_least_float32(self, given: torch.dtype, expected: torch.dtype) -> None:
        assert TASK.activate(OUTPUT.to(given)).dtype == expected
        assert TASK.loss(OUTPUT.to(given), TARGET).dtype == expected

    def test_encode_is_one_hot_and_0_at_void(self) -> None:
        encoded = TASK.encode(torch.tensor([[[0, 2, VOID]]]))
        assert encoded.tolist() == [[[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 0]]]]
        assert encoded.dtype == torch.float32

    def test_valid_is_false_at_void(self) -> None:
        assert TASK.valid(torch.tensor([[[0, VOID], [VOID, 2]]])).tolist() == [[[[True, False], [False, True]]]]

    def test_unlabeled_images_are_valid_everywhere(self) -> None:
        valid = TASK.valid_of_all(ALL_VOID, rand(5, 3, 4, 5))
        assert valid.shape == (5, 1, 4, 5)
        assert not valid[:2].any()
        assert valid[2:].all()

    def test_wrong_is_another_class_than_the_label(self) -> None:
        target = torch.tensor([[[0, 1, 2, VOID]]])
        assert TASK.wrong(one_hot(torch.tensor([[[0, 2, 2, 1]]])), target).tolist() == [[[[False, True, False, False]]]]


class TestLoss:
    def test_is_the_mean_cross_entropy_of_known_pixels(self) -> None:
        known = TARGET != VOID
        expected = F.cross_entropy(OUTPUT.movedim(1, -1)[known], TARGET[known])
        torch.testing.assert_close(TASK.loss(OUTPUT, TARGET), expected)

    def test_class_weights_are_those_of_torch(self) -> None:
        weights = [0.2, 1.0, 3.0]
        loss, gradient = loss_and_gradient(Segmentation(3, weights), OUTPUT, TARGET)
        output = OUTPUT.clone().requires_grad_()
        expected = F.cross_entropy(output, TARGET, torch.tensor(weights), ignore_index=VOID)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, output)[0])
        assert not torch.isclose(loss, TASK.loss(OUTPUT, TARGET))

    @pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
    def test_void_contributes_nothing(self, weights: list[float] | None) -> None:
        task = Segmentation(3, weights)
        loss, gradient = loss_and_gradient(task, OUTPUT, TARGET)
        void = (TARGET == VOID).unsqueeze(1)
        assert (gradient.masked_select(void) == 0).all()
        assert (gradient.masked_select(~void) != 0).all()
        assert task.loss(OUTPUT + 9 * rand(*OUTPUT.shape, seed=3) * void, TARGET) == loss

    @pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
    def test_all_void_is_0_with_gradient_0(self, weights: list[float] | None) -> None:
        loss, gradient = loss_and_gradient(Segmentation(3, weights), OUTPUT, ALL_VOID)
        assert loss == 0
        assert (gradient == 0).all()

    def test_classes_of_weight_0_alone_are_0(self) -> None:
        loss, gradient = loss_and_gradient(Segmentation(3, [0, 1, 1]), OUTPUT, torch.zeros_like(TARGET))
        assert loss == 0
        assert (gradient == 0).all()


SUMS = [["cross_entropy", "dice"], {"cross_entropy": 1, "lovasz": 0.5}]


class TestOtherLosses:
    @pytest.mark.parametrize("loss", ["dice", "focal", "jaccard", "lovasz"])
    def test_is_the_library_s_loss_of_the_known_pixels(self, loss: str) -> None:
        known = TARGET != VOID
        theirs = {"dice": losses.DiceLoss, "focal": losses.FocalLoss, "jaccard": losses.JaccardLoss}
        made = theirs.get(loss, losses.LovaszLoss)("multiclass", ignore_index=VOID)
        torch.testing.assert_close(Segmentation(3, loss=loss).loss(OUTPUT, TARGET), made(OUTPUT, TARGET))
        perfect = torch.where(one_hot(TARGET.masked_fill(~known, 0)) > 0, 40.0, -40.0)
        assert Segmentation(3, loss=loss).loss(perfect, TARGET) < 1e-6

    @pytest.mark.parametrize("loss", ["dice", "focal", "jaccard", "lovasz", *SUMS], ids=str)
    def test_void_contributes_nothing(self, loss: Any) -> None:
        task = Segmentation(3, loss=loss)
        value, gradient = loss_and_gradient(task, OUTPUT, TARGET)
        void = (TARGET == VOID).unsqueeze(1)
        assert (gradient.masked_select(void) == 0).all()
        assert gradient.masked_select(~void).any()
        changed = OUTPUT + 9 * rand(*OUTPUT.shape, seed=3) * void
        again, same = loss_and_gradient(task, changed, TARGET)
        assert again == value
        assert torch.equal(same, gradient)
        assert torch.equal(task.loss(torch.cat([OUTPUT, OUTPUT]), torch.cat([TARGET, ALL_VOID])), value)

    @pytest.mark.parametrize("loss", ["dice", "focal", "jaccard", "lovasz", *SUMS], ids=str)
    def test_all_void_is_0_with_gradient_0(self, loss: Any) -> None:
        value, gradient = loss_and_gradient(Segmentation(3, loss=loss), OUTPUT, ALL_VOID)
        assert value == 0
        assert (gradient == 0).all()

    def test_a_sum_has_its_weights(self) -> None:
        alone = {name: Segmentation(3, loss=name).loss(OUTPUT, TARGET) for name in ("cross_entropy", "dice")}
        both = Segmentation(3, loss=["cross_entropy", "dice"]).loss(OUTPUT, TARGET)
        torch.testing.assert_close(both, alone["cross_entropy"] + alone["dice"])
        weighted = Segmentation(3, loss={"cross_entropy": 2, "dice": 0.5}).loss(OUTPUT, TARGET)
        torch.testing.assert_close(weighted, 2 * alone["cross_entropy"] + 0.5 * alone["dice"])

    @pytest.mark.parametrize("loss", ["dice", "focal", "jaccard"])
    def test_class_weights_count_classes(self, loss: str) -> None:
        only_last = Segmentation(3, [0, 0, 1], loss).loss(OUTPUT, TARGET)
        of_each = [Segmentation(3, [float(index == number) for index in range(3)], loss) for number in range(3)]
        mean = torch.stack([task.loss(OUTPUT, TARGET) for task in of_each]).mean()
        torch.testing.assert_close(mean, Segmentation(3, loss=loss).loss(OUTPUT, TARGET))
        assert not torch.isclose(only_last, mean)

    def test_pseudo_labels_keep_cross_entropy(self) -> None:
        goal = (4 * rand(2, 3, 4, 5, seed=5)).softmax(1)
        assert torch.equal(Segmentation(3, loss="dice").pixel_loss(OUTPUT, goal), TASK.pixel_loss(OUTPUT, goal))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"loss": "dise"}, r"task.loss: 'dise' found, which is not a loss of segmentation; did you mean dice\?"),
            ({"loss": "l1"}, "task.loss: 'l1' found, .*; known: cross_entropy, dice, focal, jaccard, lovasz"),
            ({"loss": []}, "task.loss: none found, at least one loss expected"),
            ({"loss": ["dice", "dice"]}, "task.loss: dice, dice found, .* each of them once"),
            ({"loss": {"dice": 0}}, "task.loss.dice: 0 found, a positive number expected"),
            ({"loss": {"dice": True}}, "task.loss.dice: True found, a positive number expected"),
            (
                {"loss": ["dice", "lovasz"], "class_weights": [1, 1, 2]},
                "task.class_weights: found with task.loss=lovasz, which takes no class weights",
            ),
            ({"class_weights": [0, 0, 0]}, r"task.class_weights: \[0, 0, 0\] found, numbers of at least 0 expected"),
            (
                {"class_weights": "balanced"},
                "balanced found, which only a training turns into numbers; give a number for",
            ),
            ({"class_weights": [1, -1, 0]}, "numbers of at least 0 expected, one of them positive"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_one_line(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(SemipixError, match=message) as caught:
            Segmentation(3, **given)
        assert "\n" not in str(caught.value)


class TestPseudoLabels:
    """Predictions as goals of other predictions."""

    SURE = one_hot(TARGET.masked_fill(TARGET == VOID, 1))
    PREDICTION = OUTPUT.softmax(1)

    def test_deactivate_undoes_activate(self) -> None:
        for prediction in (self.PREDICTION, self.SURE):
            output = TASK.deactivate(prediction)
            assert output.isfinite().all()
            torch.testing.assert_close(TASK.activate(output), prediction)

    def test_pixel_loss_is_the_cross_entropy_of_a_sure_goal(self) -> None:
        labels = self.SURE.argmax(1)
        expected = F.cross_entropy(OUTPUT, labels, reduction="none").unsqueeze(1)
        loss = TASK.pixel_loss(OUTPUT, self.SURE)
        assert loss.shape == (2, 1, 4, 5)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(loss.mean(), TASK.loss(OUTPUT, labels))

    def test_pixel_loss_is_least_at_the_goal(self) -> None:
        goal = (4 * rand(2, 3, 4, 5, seed=5)).softmax(1)
        output = TASK.deactivate(goal).requires_grad_()
        least = TASK.pixel_loss(output, goal)
        (gradient,) = torch.autograd.grad(least.sum(), output)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)
        torch.testing.assert_close(least, -(goal * goal.log()).sum(1, keepdim=True))
        assert (TASK.pixel_loss(OUTPUT, goal) > least).all()

    def test_pixel_loss_of_a_goal_that_says_nothing_is_0(self) -> None:
        loss = TASK.pixel_loss(OUTPUT, TASK.encode(TARGET))
        assert torch.equal(loss == 0, (TARGET == VOID).unsqueeze(1))

    def test_precision_is_at_least_float32(self) -> None:
        half = OUTPUT.bfloat16()
        assert TASK.pixel_loss(half, self.SURE).dtype == torch.float32
        assert TASK.deactivate(half.softmax(1)).dtype == torch.float32

    def test_sharpen_at_temperature_1_is_the_prediction(self) -> None:
        assert torch.equal(TASK.sharpen(self.PREDICTION, 1), self.PREDICTION)

    def test_sharpen_at_temperature_0_is_the_most_probable_class(self) -> None:
        sharp = TASK.sharpen(self.PREDICTION, 0)
        assert torch.equal(sharp, one_hot(self.PREDICTION.argmax(1)))
        assert sharp.dtype == self.PREDICTION.dtype

    def test_sharpen_between_is_a_power_of_the_prediction(self) -> None:
        sharp = TASK.sharpen(self.PREDICTION, 0.5)
        square = self.PREDICTION.square()
        torch.testing.assert_close(sharp, square / square.sum(1, keepdim=True))
        torch.testing.assert_close(sharp.sum(1), torch.ones(2, 4, 5))
        soft, hard = self.PREDICTION.amax(1), TASK.sharpen(self.PREDICTION, 0).amax(1)
        assert ((soft < sharp.amax(1)) & (sharp.amax(1) < hard)).all()
        assert torch.equal(sharp.argmax(1), self.PREDICTION.argmax(1))

    @pytest.mark.parametrize("temperature", [0, 0.01, 0.5, 1])
    def test_sharpen_keeps_what_is_sure(self, temperature: float) -> None:
        torch.testing.assert_close(TASK.sharpen(self.SURE, temperature), self.SURE)

    def test_confidence_is_the_probability_of_the_predicted_class(self) -> None:
        prediction = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]]).T.reshape(1, 3, 1, 3)
        assert TASK.confidence(prediction).tolist() == [[[pytest.approx([0.5, 1.0, 0.8])]]]

    def test_is_classification(self) -> None:
        assert TASK.classification


class TestMetrics:
    def test_by_hand(self) -> None:
        task = Segmentation(["sky", "road", "tree"])
        metrics = task.metrics()
        label = torch.tensor([[[0, 0, 0, 1, 1, 2, VOID, VOID]]])
        seen = torch.tensor([[[0, 0, 1, 1, 2, 2, 0, 2]]])
        metrics.update(one_hot(seen[..., :3]), label[..., :3])  # in two parts, as two images of a validation
        metrics.update(one_hot(seen[..., 3:]), label[..., 3:])
        values = {name: float(value) for name, value in metrics.compute().items()}
        ious = {"iou/sky": 2 / 3, "iou/road": 1 / 3, "iou/tree": 1 / 2}
        assert values == pytest.approx({**ious, "miou": sum(ious.values()) / 3, "accuracy": 4 / 6})
        assert task.primary in values
        assert task.higher_is_better

    def test_a_class_that_never_occurs_is_left_out_of_the_mean(self) -> None:
        metrics = TASK.metrics()
        metrics.update(one_hot(torch.tensor([[[0, 0, 1, 1]]])), torch.tensor([[[0, 1, 1, 1]]]))
        assert float(metrics.compute()["miou"]) == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_absent_classes_are_those_of_plain_counting(self) -> None:
        """Class 2 is nowhere, 3 only predicted, 4 only labeled."""
        label, seen = (
            np.array(classes)[randint(3, 40, 50, seed=seed)] for seed, classes in ((7, (0, 1, 4)), (8, (0, 1, 3)))
        )
        label[:5] = VOID
        seen[0, 0] = 2  # at a pixel without a label nothing is counted
        expected = []
        for index in range(5):
            first, second = (label == index)[label != VOID], (seen == index)[label != VOID]
            expected.append((first & second).sum() / (first | second).sum() if (first | second).any() else np.nan)
        metrics = Segmentation(5).metrics()
        for rows in (slice(0, 20), slice(20, 40)):
            sure = F.one_hot(torch.from_numpy(seen[rows]), 5).movedim(-1, 0).float()
            metrics.update(sure[None], torch.from_numpy(label[rows])[None])
        values = {name: float(value) for name, value in metrics.compute().items()}
        found = [values[f"iou/{index}"] for index in range(5)]
        assert found == pytest.approx(expected, nan_ok=True)
        assert [math.isnan(value) for value in found] == [False, False, True, False, False]
        assert found[3] == found[4] == 0
        assert values["miou"] == pytest.approx(np.nanmean(expected))

    def test_without_a_label_there_is_no_figure(self) -> None:
        metrics = TASK.metrics()
        metrics.update(one_hot(randint(3, 2, 4, 5)), ALL_VOID)
        assert all(value.isnan() for value in metrics.compute().values())

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("channel", [0, 2])
    def test_a_prediction_that_is_not_finite_leaves_no_figure(self, value: float, channel: int) -> None:
        metrics, others = TASK.metrics(), TASK.metrics()
        label = randint(3, 2, 4, 5)
        broken = one_hot(label)
        broken[1, channel, 2, 3] = value
        for each in (metrics, others):
            each.update(one_hot(label), label)
        metrics.update(broken, label)
        assert all(measured.isnan() for measured in metrics.compute().values())
        figures = TASK.image_figures(broken, label)
        assert all(measured.isnan().tolist() == [False, True] for measured in figures.values())
        right = TASK.image_figures(one_hot(label), label)
        assert [float(measured[0]) for measured in figures.values()] == [float(each[0]) for each in right.values()]
        for name, metric in others.items():  # the sums of another process
            metric.merge_state(metrics[name])
        assert all(measured.isnan() for measured in others.compute().values())
        metrics.reset()
        metrics.update(one_hot(label), label)
        assert float(metrics.compute()["miou"]) == 1

    def test_a_prediction_that_is_not_finite_counts_only_at_a_label(self) -> None:
        metrics = TASK.metrics()
        label = randint(3, 2, 4, 5)
        broken = one_hot(label)
        broken[1, :, 2, 3], label[1, 2, 3] = math.nan, VOID
        metrics.update(broken, label)
        assert float(metrics.compute()["miou"]) == 1
        assert all(measured.isfinite().all() for measured in TASK.image_figures(broken, label).values())

    def test_instances_are_independent(self) -> None:
        first, second = TASK.metrics(), TASK.metrics()
        first.update(one_hot(TARGET[1:, :2]), TARGET[1:, :2])
        second.update(one_hot((TARGET[1:, :2] + 1) % 3), TARGET[1:, :2])
        assert (float(first.compute()["accuracy"]), float(second.compute()["accuracy"])) == (1, 0)


class TestRender:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_is_an_rgb_picture_of_the_image(self, channels: int) -> None:
        picture = TASK.render(rand(channels, 4, 5), TASK.activate(OUTPUT)[0])
        assert picture.shape == (3, 4, 5)
        assert picture.dtype == torch.uint8

    def test_shows_class_and_image(self) -> None:
        prediction = one_hot(torch.tensor([[[0, 1, 2, 2]]]))[0]
        picture = TASK.render(torch.tensor([0.5, 0.5, 0.5, 1.0]).expand(3, 1, 4), prediction)
        seen = [tuple(pixel) for pixel in picture[:, 0].T.tolist()]
        assert len(set(seen)) == 4
        expected = 0.4 * 127.5 + 0.6 * palette(3)[1]
        torch.testing.assert_close(picture[:, 0, 1].float(), expected, atol=0.51, rtol=0)

    def test_a_file_holds_indices(self) -> None:
        made = TASK.to_file(one_hot(torch.tensor([[[0, 1, 2, 2]]]))[0])
        assert made.dtype == torch.uint8
        assert made.tolist() == [[0, 1, 2, 2]]

    def test_colours_differ(self) -> None:
        colours = [tuple(colour) for colour in palette(21).tolist()]
        assert len(set(colours)) == 21
        assert colours[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [((1,), "task.classes"), ((256,), "task.classes"), ((["only"],), "task.classes"), ((3, [1, 2]), "class_weights")],
)
def test_an_error_is_one_line(arguments: tuple, key: str) -> None:
    with pytest.raises(SemipixError, match=key) as error:
        Segmentation(*arguments)
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


def test_the_first_of_equal_classes_is_taken() -> None:
    prediction = torch.tensor([0.2, 0.4, 0.4, 0.0]).view(4, 1, 1).expand(4, 3, 5)
    assert torch.equal(Segmentation(4).to_file(prediction), torch.ones(3, 5, dtype=torch.uint8))


def test_without_a_training_classes_count_alike() -> None:
    assert Segmentation(2).class_weights is None
    assert Segmentation(2, "auto", loss="lovasz").class_weights is None
