"""CutMix: the student learns mixed images from what the teacher predicts for the whole ones."""

import pytest
import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.mixing import cutmix_mask
from semipix.functional.routing import frozen
from semipix.methods.cutmix import CutMix
from tests.helpers.tiny import CLASSES, make_batch, make_method, predict_always, rand


def method_with(**given: object) -> CutMix:
    """A method whose student is unlike its teacher; every pixel is sure."""
    method = make_method("cutmix", **{"confidence": 0.0, **given})
    assert isinstance(method, CutMix)
    with torch.no_grad():
        for value in method.student.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return method


def seen_by(network: nn.Module) -> list[Tensor]:
    """Fills with the images that the network is given."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def consistency(method: CutMix, seed: int = 0, epoch: float = 10.0) -> Tensor:
    torch.manual_seed(seed)
    return method.losses(make_batch(unlabeled=4), epoch)["consistency"]


def test_the_student_sees_labeled_and_mixed_images_at_once() -> None:
    method = method_with(area=0.25)
    seen, batch = seen_by(method.student), make_batch(unlabeled=4)
    method.losses(batch, epoch=0.0)
    (images,) = seen
    assert torch.equal(images[:2], batch.labeled)
    assert len(images) == 6
    neighbours = torch.cat([batch.unlabeled[3:], batch.unlabeled[:3]])
    pasted = (images[2:] == neighbours).all(1)
    assert torch.equal(images[2:], torch.where(pasted[:, None], neighbours, batch.unlabeled))
    share = pasted.float().mean((1, 2))
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.03, rtol=0)


def test_the_teacher_sees_the_whole_images() -> None:
    method = method_with()
    seen, batch = seen_by(method.teacher), make_batch(unlabeled=4)
    method.losses(batch, epoch=0.0)
    (images,) = seen
    assert torch.equal(images, batch.unlabeled)


def test_consistency_is_the_weighted_squared_distance() -> None:
    method = method_with(confidence=0.5, lambda_consistency=2.0)
    batch = make_batch(unlabeled=4)
    images = batch.unlabeled
    torch.manual_seed(3)
    box = cutmix_mask(images, area=(0.5, 0.5))
    mixed = torch.where(box, torch.cat([images[3:], images[:3]]), images)
    student = method.task.activate(frozen(method.student, torch.cat([batch.labeled, mixed]))[2:])
    teacher = method.task.activate(frozen(method.teacher, images))
    goal = torch.where(box, torch.cat([teacher[3:], teacher[:3]]), teacher)
    sure = (teacher.max(1).values > 0.5).sum() / teacher[:, 0].numel()
    assert 0 < sure < 1
    expected = 2 * sure * (student - goal).square().mean()
    torch.testing.assert_close(consistency(method, seed=3), expected)


def test_image_and_goal_are_mixed_alike() -> None:
    """A teacher without neighbouring pixels predicts for a mixed image the mixture of its predictions."""
    method = make_method("cutmix", make_model=lambda number: nn.Conv2d(3, CLASSES, 1), confidence=0.0)
    assert isinstance(method, CutMix)
    assert consistency(method) < 1e-10
    with torch.no_grad():
        method.student.weight.add_(rand(CLASSES, 3, 1, 1))
    assert consistency(method) > 1e-3


@pytest.mark.parametrize(("confidence", "share"), [(0.99, 1.0), (1.0, 0.0)])
def test_the_share_of_sure_pixels_scales_the_term(confidence: float, share: float) -> None:
    everything, some = method_with(), method_with(confidence=confidence)
    for method in (everything, some):
        predict_always(method.teacher, 1)
    torch.testing.assert_close(consistency(some), share * consistency(everything))
    assert consistency(everything) > 0


def test_a_teacher_that_is_never_sure_leaves_every_parameter_with_a_gradient() -> None:
    method = method_with(confidence=1.0)
    sum(method.losses(make_batch(), epoch=0.0).values()).backward()
    assert all(value.grad is not None for value in method.student.parameters())
    assert all(value.grad is None for value in method.teacher.parameters())


def test_the_weight_grows_where_asked() -> None:
    full = consistency(method_with(), epoch=0.0)
    assert consistency(method_with(rampup_epochs=4.0), epoch=0.0) < 0.01 * full
    torch.testing.assert_close(consistency(method_with(rampup_epochs=4.0), epoch=4.0), full)
    torch.testing.assert_close(consistency(method_with(lambda_consistency=5.0), epoch=0.0), full / 4)


def test_a_step_averages_and_the_average_is_deployed() -> None:
    method = method_with(decay=0.9)
    method.step.fill_(100)
    student, teacher = method.student.first.weight.clone(), method.teacher.first.weight.clone()
    method.after_step()
    torch.testing.assert_close(method.teacher.first.weight, 0.9 * teacher + 0.1 * student)
    assert torch.equal(method.student.first.weight, student)
    assert int(method.step) == 101
    image = make_batch().image
    assert torch.equal(method.eval()(image), method.teacher(image))
    assert not torch.allclose(method(image), method.student(image))


def test_bfloat16_autocast_keeps_losses_in_float32() -> None:
    method = method_with()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(make_batch(), epoch=0.0)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in method.student.parameters())


@pytest.mark.parametrize(
    ("key", "value"), [("decay", 1.5), ("confidence", 2.0), ("area", 0), ("area", 1.1), ("lambda_consistency", -1)]
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: float) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: {value} found, .* expected"):
        make_method("cutmix", **{key: value})
