"""Mean Teacher: the teacher is the student's average and nothing else.

Also tests methods/teacher.py.
"""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from semipix.errors import SemipixError
from semipix.functional.routing import frozen
from semipix.methods.mean_teacher import MeanTeacher
from tests.helpers.tiny import make_batch, make_method


def method_at(step: int = 0, **given: float) -> MeanTeacher:
    """A method after so many steps, with a student unlike its teacher."""
    method = make_method("mean_teacher", **given)
    assert isinstance(method, MeanTeacher)
    method.step.fill_(step)
    with torch.no_grad():
        for value in method.student.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return method


def states(method: MeanTeacher) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return copy.deepcopy(method.student.state_dict()), copy.deepcopy(method.teacher.state_dict())


def test_the_teacher_starts_as_the_student() -> None:
    method = make_method("mean_teacher")
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, method.student.state_dict()[name]), name
    losses = method.losses(make_batch(), epoch=10.0)
    assert losses["consistency"] == 0
    assert losses["supervised"] > 0


def test_a_step_averages_parameters_and_statistics() -> None:
    method = method_at(step=3)
    optimizer = SGD(method.student.parameters(), lr=0.1)
    sum(method.losses(make_batch(), epoch=1.0).values()).backward()
    optimizer.step()
    student, teacher = states(method)
    assert not torch.equal(student["norm.running_mean"], teacher["norm.running_mean"])
    method.after_step()
    for name, value in method.teacher.state_dict().items():
        expected = student[name] if name.endswith("tracked") else 0.75 * teacher[name] + 0.25 * student[name]
        torch.testing.assert_close(value, expected)
        assert torch.equal(method.student.state_dict()[name], student[name]), "the student stays as it is"


@pytest.mark.parametrize(("step", "decay"), [(0, 0.0), (1, 0.5), (8, 8 / 9), (9, 0.9), (1000, 0.9)])
def test_decay_grows_with_the_steps(step: int, decay: float) -> None:
    method = method_at(step, decay=0.9)
    student, teacher = states(method)
    method.after_step()
    expected = decay * teacher["first.weight"] + (1 - decay) * student["first.weight"]
    torch.testing.assert_close(method.teacher.first.weight, expected)
    assert int(method.step) == step + 1


def test_the_count_of_steps_is_in_the_checkpoint() -> None:
    assert int(method_at(step=7).state_dict()["step"]) == 7


def test_losses_leave_the_teacher_as_it_is() -> None:
    method = method_at().train()
    _, before = states(method)
    sum(method.losses(make_batch(), epoch=1.0).values()).backward()
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(value.grad is None for value in method.teacher.parameters())
    assert int(method.student.norm.num_batches_tracked) == 1


def test_consistency_is_the_squared_distance_over_all_known_pixels() -> None:
    method = method_at(lambda_consistency=2.0, rampup_epochs=4.0)
    batch = make_batch()
    student = method.task.activate(frozen(method.student, batch.image))
    teacher = method.task.activate(frozen(method.teacher, batch.image))
    error = (student - teacher).square().mean(1)
    known = torch.cat([batch.target != 255, torch.ones_like(batch.target, dtype=torch.bool)])
    for epoch, factor in ((0.0, math.exp(-5)), (2.0, math.exp(-5 / 4)), (4.0, 1.0), (9.0, 1.0)):
        torch.testing.assert_close(method.losses(batch, epoch)["consistency"], 2 * factor * error[known].mean())
    assert not known.all()


def test_the_teacher_is_deployed() -> None:
    method = method_at().eval()
    image = make_batch().image
    assert torch.equal(method(image), method.teacher(image))
    assert not torch.allclose(method(image), method.student(image))


@pytest.mark.parametrize(("key", "value"), [("decay", 1.5), ("decay", -0.1), ("lambda_consistency", -1)])
def test_a_wrong_value_is_refused_in_one_line(key: str, value: float) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: {value} found, .* expected"):
        make_method("mean_teacher", **{key: value})
