"""Mean Teacher with a flaw detector: no consistency where the teacher is the worse of the two."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import flaw_target, normalize_flaw
from semipix.functional.routing import frozen
from semipix.methods.flaw_mean_teacher import FlawMeanTeacher
from semipix.methods.mean_teacher import MeanTeacher
from semipix.models.detector import Detector
from tests.helpers.tiny import CLASSES, FixedModel, make_batch, make_method, rand


class PixelDetector(Detector):
    """A detector whose map at a pixel is the prediction of class 0 there, plus a map of its own."""

    probabilistic = False

    def __init__(self, side: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, 1, side, side))

    def forward(self, image: Tensor, own: Tensor, other: Tensor, features: object = None) -> Tensor:
        return own[:, :1] + self.map


def make_flaw_mean_teacher(**given: Any) -> FlawMeanTeacher:
    """A method whose teacher is unlike its student."""
    method = make_method("flaw_mean_teacher", **given)
    assert isinstance(method, FlawMeanTeacher)
    for value in method.teacher.parameters():
        value += 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return method


def pixelwise(batch: Batch, **given: Any) -> FlawMeanTeacher:
    """A method on fixed outputs with a detector that sees no neighbours."""
    shape = (len(batch.image), CLASSES, *batch.image.shape[-2:])
    method = make_method("flaw_mean_teacher", lambda number: FixedModel(6 * rand(*shape) - 3), **given)
    assert isinstance(method, FlawMeanTeacher)
    method.teacher.output.copy_(6 * rand(*shape, seed=1) - 3)
    method.detector = PixelDetector(shape[-1])
    return method


def silence(detector: nn.Module) -> None:
    """Make a detector report no flaw at all."""
    nn.init.zeros_(detector.convolutions[-1].weight)
    nn.init.constant_(detector.convolutions[-1].bias, 0.05)


class TestConsistency:
    def test_is_off_where_the_teachers_flaw_is_greater(self) -> None:
        batch = make_batch()
        method = pixelwise(batch, lambda_consistency=2.0, rampup_epochs=0.0)
        student, teacher = method.student.output.detach().softmax(1), method.teacher.output.softmax(1)
        on = normalize_flaw(teacher[:, :1]) <= normalize_flaw(student[:, :1])
        known = F.pad((batch.target != 255).unsqueeze(1), (0, 0, 0, 0, 0, 0, 0, 2), value=True)
        assert 0.2 < on.float().mean() < 0.8
        assert not known.all()
        error = (student - teacher).square().mean(1, keepdim=True)
        loss = method.losses(batch, 0.0)["consistency"]
        torch.testing.assert_close(loss, 2 * error[on & known].sum() / known.sum())
        (gradient,) = torch.autograd.grad(loss, method.student.output)
        assert torch.equal(gradient.any(1, keepdim=True), on & known)

    def test_pulls_towards_the_teacher(self) -> None:
        batch = make_batch()
        method = pixelwise(batch, rampup_epochs=0.0)
        optimizer = SGD([method.student.output], lr=1e4)
        losses = []
        for _ in range(3):
            losses.append(method.losses(batch, 0.0)["consistency"])
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < 0.9 * losses[0]

    def test_a_silent_detector_leaves_mean_teacher(self) -> None:
        batch = make_batch(side=64)
        method, other = make_flaw_mean_teacher(), make_method("mean_teacher")
        assert isinstance(other, MeanTeacher)
        other.student.load_state_dict(method.student.state_dict())
        other.teacher.load_state_dict(method.teacher.state_dict())
        expected = other.losses(batch, 1.0)
        assert method.losses(batch, 1.0)["consistency"] < 0.99 * expected["consistency"], "the detector has a say"
        silence(method.detector)
        losses = method.losses(batch, 1.0)
        for name, loss in expected.items():
            assert loss > 0
            torch.testing.assert_close(losses[name], loss)

    def test_ramps_up(self) -> None:
        batch = make_batch()
        method = pixelwise(batch, rampup_epochs=4.0)
        full = method.losses(batch, 100.0)
        for epoch, factor in ((0.0, math.exp(-5)), (2.0, math.exp(-5 / 4)), (4.0, 1.0)):
            losses = method.losses(batch, epoch)
            torch.testing.assert_close(losses["consistency"], factor * full["consistency"])
            torch.testing.assert_close(losses["flaw_detection"], full["flaw_detection"])


class TestDetection:
    def test_the_detector_learns_the_flaws_of_both(self) -> None:
        batch = make_batch(side=64)
        method = make_flaw_mean_teacher(lambda_detection=3.0)
        pair = [frozen(model, batch.image)[:2].softmax(1) for model in (method.student, method.teacher)]
        known = (batch.target != 255).unsqueeze(1)
        truth = torch.stack([batch.target == label for label in range(CLASSES)], 1).float()
        goals = [flaw_target(one, truth, mu=0.5, nu=1, valid=known) for one in pair]
        flaws = frozen(method.detector, torch.cat([batch.labeled] * 2), torch.cat(pair)).chunk(2)
        expected = sum((flaw - goal).square()[known].mean() for flaw, goal in zip(flaws, goals, strict=True))
        torch.testing.assert_close(method.losses(batch, 0.0)["flaw_detection"], 3 * expected)

    def test_is_that_of_gct(self) -> None:
        batch = make_batch(side=64)
        method, gct = make_flaw_mean_teacher(), make_method("gct", detector="paper")
        for mine, its in zip(
            (method.student, method.teacher, method.detector), (*gct.models, gct.detector), strict=True
        ):
            its.load_state_dict(mine.state_dict())
        expected = gct.losses(batch, 0.0)["flaw_detection"]
        torch.testing.assert_close(method.losses(batch, 0.0)["flaw_detection"], expected)

    def test_the_detector_has_adam_of_its_own(self) -> None:
        method = make_flaw_mean_teacher(detector_lr=0.003)
        optimizers = method.optimizers(lambda model: SGD(model.parameters(), lr=0.1))
        assert [type(optimizer) for optimizer in optimizers] == [SGD, Adam]
        assert optimizers[1].param_groups[0]["lr"] == 0.003
        assert optimizers[1].param_groups[0]["betas"] == (0.9, 0.99)

    @pytest.mark.parametrize("norm", ["batch", "batch_instance"])
    def test_norm(self, norm: str) -> None:
        names = {type(module).__name__ for module in make_flaw_mean_teacher(detector_norm=norm).detector.modules()}
        assert ("InstanceNorm2d" in names) == (norm == "batch_instance")


class TestTeacher:
    def test_is_the_average_of_the_student_after_a_step(self) -> None:
        method = make_flaw_mean_teacher()
        method.step.fill_(3)
        student, teacher = method.student.first.weight.detach().clone(), method.teacher.first.weight.clone()
        detector = method.detector.convolutions[0].weight.detach().clone()
        method.after_step()
        torch.testing.assert_close(method.teacher.first.weight, 0.75 * teacher + 0.25 * student)
        assert torch.equal(method.detector.convolutions[0].weight, detector)
        assert int(method.step) == 4

    def test_is_left_as_it_is_by_the_losses(self) -> None:
        method = make_flaw_mean_teacher().train()
        before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
        sum(method.losses(make_batch(), 1.0).values()).backward()
        for name, value in method.teacher.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert int(method.student.norm.num_batches_tracked) == 1
        assert int(method.detector.norms[0].num_batches_tracked) == 1, "steering leaves its statistics as they are"

    def test_is_deployed(self) -> None:
        method = make_flaw_mean_teacher().eval()
        image = make_batch().image
        assert torch.equal(method(image), method.teacher(image))
        assert not torch.allclose(method(image), method.student(image))


@torch.no_grad()
def test_the_flaw_map_is_the_clamped_one_of_the_teacher() -> None:
    batch = make_batch(side=64)
    method = make_flaw_mean_teacher().eval()
    method.detector.convolutions[-1].weight *= 1e4  # before any training, running statistics make all maps flat
    flaw = method.evidence(batch.image).flaw
    raw = method.detector(batch.image, method.teacher(batch.image).softmax(1))
    assert raw.min() < 0 and raw.max() > 1, "clamping has something to do"
    torch.testing.assert_close(flaw, raw.clamp(0, 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lambda_consistency", -1.0),
        ("lambda_detection", -1.0),
        ("rampup_epochs", -1.0),
        ("decay", 1.5),
        ("detector_norm", "layer"),
        ("detector_lr", -1.0),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: Any) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: .* expected") as error:
        make_method("flaw_mean_teacher", **{key: value})
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
