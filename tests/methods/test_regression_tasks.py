"""Every method that serves regression on every regression task: ignored pixels, trimaps, half precision."""

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semipix.batch import Batch
from semipix.data.batches.strong_views import StrongViews
from semipix.methods.base import Method
from semipix.methods.error_maps import error_maps
from semipix.models import discriminator, flaw_detector
from semipix.models.adapt import make_model
from tests.helpers.labels import TASKS, make_task_batch, silent
from tests.helpers.tiny import TinyModel, make_active, make_method, method_class, options

SERVING = [name for name in options("method") if not method_class(name).classification_only]
"""Methods that serve regression."""

MAPPING = [name for name in SERVING if method_class(name).evidence is not Method.evidence]
"""Methods among them that know more than their prediction."""

DIAGNOSING = [name for name in SERVING if method_class(name).diagnose is not Method.diagnose]
"""Methods among them that have diagnostics."""


class Watched(TinyModel):
    """Keeps the outputs that ask for gradients."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels)
        self.outputs: list[Tensor] = []

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        output = super().head(features, size) + 0.5  # in the middle of the range
        if output.requires_grad:
            self.outputs.append(output)
        return output


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick detector and discriminator."""
    monkeypatch.setattr(flaw_detector, "CHANNELS", (8, 8, 8, 8, 8, 8, 8, 1))
    monkeypatch.setattr(discriminator, "CHANNELS", (8, 8, 8, 8, 1))


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Any:
    return TASKS[request.param]


def method_of(name: str, task: Any) -> tuple[Method, list[Watched]]:
    """A method on watched models, whose teachers differ from their students."""
    watched: list[Watched] = []

    def make(number: int) -> nn.Module:
        adapted = make_model(Watched, task.in_channels, task.channels, task.constrain)
        watched.append(adapted.model)  # type: ignore[arg-type]
        return adapted

    return make_active(name, make, task), watched


@pytest.mark.parametrize("name", SERVING)
def test_an_ignored_pixel_teaches_nothing(name: str, task: Any) -> None:
    method, watched = method_of(name, task)
    batch = make_task_batch(task)
    losses = method.losses(batch, epoch=10.0)
    assert all(loss.isfinite() for loss in losses.values()), losses
    quiet = silent(task, batch.target)
    for model in watched:
        outputs = model.outputs[-1:]
        (gradient,) = torch.autograd.grad(losses["supervised"], outputs, retain_graph=True)
        assert (gradient[: len(quiet)].masked_select(quiet) == 0).all()
        assert (gradient[: len(quiet)].masked_select(~quiet) != 0).float().mean() > 0.9
    sum(losses.values()).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in method.parameters())


@pytest.mark.parametrize("name", SERVING)
def test_a_known_pixel_of_a_trimap_has_no_gradient_at_all(name: str) -> None:
    task = TASKS["matting"]
    method, watched = method_of(name, task)
    batch = make_task_batch(task)
    losses = method.losses(batch, epoch=10.0)
    known = (batch.image[:1, 3:4] != 0.5).squeeze()  # the same in all images
    for model in watched:
        (gradient,) = torch.autograd.grad(sum(losses.values()), model.outputs[-1:], retain_graph=True)
        upright = gradient[: len(batch.image)] if name == "s4l" else gradient
        assert (upright[..., known] == 0).all()
        assert upright.any()
    output = method(batch.image)
    assert torch.equal(output[..., known], batch.image[:, 3:4][..., known])


@pytest.mark.parametrize("name", SERVING)
def test_half_precision_stays_finite(name: str, task: Any) -> None:
    method, _ = method_of(name, task)
    method.to(torch.bfloat16)
    batch = make_task_batch(task)
    half = type(batch)(*(None if part is None else part.bfloat16() for part in batch))
    losses = method.losses(half, epoch=10.0)
    assert all(loss.isfinite() for loss in losses.values()), losses
    sum(losses.values()).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in method.parameters())
    assert task.activate(method(half.image)).dtype == torch.float32


@pytest.mark.parametrize("name", MAPPING)
def test_maps_are_finite_and_of_the_images_size(name: str, task: Any) -> None:
    method, _ = method_of(name, task)
    with torch.no_grad():
        evidence = method.eval().evidence(make_task_batch(task, labeled=1, unlabeled=0).image)
    maps = error_maps(task, evidence)
    assert maps.keys() & {"flaw", "disagreement"}
    assert all(single.shape == (1, 1, 64, 64) and single.isfinite().all() for single in maps.values())


@pytest.mark.parametrize("name", DIAGNOSING)
def test_diagnostics_take_labels_of_another_size(name: str, task: Any) -> None:
    method, _ = method_of(name, task)
    image = make_task_batch(task, labeled=1, unlabeled=0).image
    target = make_task_batch(task, labeled=1, unlabeled=0, side=80).target
    metrics = method.diagnostics()
    with torch.no_grad():
        method.eval().diagnose(Batch(image, target), method.evidences(image), metrics)
    assert metrics
    # Only taught pixels feed the shares of teacher and pupil, and none may be taught.
    figures = {key: float(metric.compute()) for key, metric in metrics.items() if not key.startswith("teacher_")}
    assert all(0 <= figure <= 1 for figure in figures.values()), figures


class Ideal(nn.Module):
    """What is right for every image: each colour by the same curve, half as bright for half the brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.75))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image


@pytest.mark.parametrize("name", [name for name in SERVING if method_class(name).strong_views])
@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({"permute_probability": 1.0, "gain": 0.5}, True),
        ({"mask": 0.5, "patch": 8, "learn_hidden": False}, True),
        ({"mask": 0.5, "patch": 8, "learn_hidden": True}, False),
        ({"grey_probability": 1.0}, False),
    ],
    ids=["recoloured", "visible", "hidden", "another target"],
)
def test_a_network_that_is_right_on_every_view_has_nothing_to_learn(
    name: str, changes: dict[str, Any], follows: bool
) -> None:
    whole = {"feature_dropout": 0.0, "complementary_dropout": False}
    given = {key: whole[key] for key in whole.keys() & inspect.signature(method_class(name)).parameters.keys()}
    method = make_method(name, lambda number: Ideal(), task=TASKS["denoising"], **given)
    batch = make_task_batch(method.task)
    still = {"jitter": 0.0, "grey_probability": 0.0, "blur_probability": 0.0, "permute_probability": 0.5}
    strong = StrongViews(**{**still, **changes})
    images, seeds = batch.unlabeled, [1, 2]
    batch = batch._replace(strong=strong(images, seeds, 2), strong_labels=strong.labels(images, seeds, 2))
    (term,) = {"consistency", "cross_supervision"} & method.trains.keys()
    loss = method.losses(batch, epoch=10.0)[term]
    assert (loss < 1e-6) == follows
