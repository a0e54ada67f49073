"""memory=low and compile=true change what a step costs, not what it computes.

Also tests models/memory_format.py.
"""

import functools

import pytest
import torch
from torch import Tensor, nn

from semipix.models import flaw_detector
from semipix.models.adapt import adapt
from semipix.models.memory_format import compile_networks, set_memory_format
from tests.helpers.tiny import CLASSES, TinyModel, make_batch, make_method, method_class, options

METHODS = options("method")


def step(name: str, *, recompute: bool = False, compiled: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses of a step, then gradients and buffers by name."""

    def make(number: int) -> nn.Module:
        model = adapt(TinyModel(), CLASSES)
        model.recompute = recompute
        return model

    method = make_method(name, make, **method_class(name).test_options)
    if compiled:
        compile_networks(method)
    torch.manual_seed(1)
    batch = make_batch(side=64)
    losses = method.losses(batch if method.uses_unlabeled else batch._replace(image=batch.labeled), epoch=10.0)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {key: value.grad for key, value in method.named_parameters() if value.grad is not None}
    return losses, gradients | dict(method.named_buffers())


@pytest.mark.parametrize("name", METHODS)
def test_recomputing_changes_nothing(name: str) -> None:
    torch.testing.assert_close(step(name, recompute=True), step(name))


def test_recomputing_runs_each_task_model_twice() -> None:
    passes: list[int] = []
    model = adapt(TinyModel(), CLASSES)
    model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    model.recompute = True
    image = make_batch().image
    model(image).sum().backward()
    assert len(passes) == 2
    model.eval()(image).sum().backward()
    assert len(passes) == 3


@pytest.mark.parametrize("name", METHODS)
def test_compiling_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo traces every network; its graphs are run as they are, since a compiler takes minutes."""
    monkeypatch.setattr(flaw_detector, "CHANNELS", (8, 8, 8, 8, 8, 8, 8, 1))
    expected = step(name)
    torch._dynamo.reset()
    traced: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        traced.append(len(inputs))
        return graph

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(original, backend=count))
    torch.testing.assert_close(step(name, compiled=True), expected)
    in_parts = any("model.features" in networks for networks in method_class(name).trains.values())
    assert traced or in_parts  # a method that calls the parts of its model never calls the whole


def test_only_on_a_cpu_a_detector_is_contiguous() -> None:
    for device, channels_last in (("cpu", True), ("cuda", True), ("cpu", False)):
        method = make_method("gct", detector="paper")
        assert set_memory_format(method, device, channels_last) == (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        weight, own = method.models[0].last.weight, method.detector.convolutions[1].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert own.is_contiguous() == (device == "cpu")


def test_parts_without_weights_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self)))
    compile_networks(make_method("fixmatch", per_class=True))
    assert compiled == [TinyModel]
