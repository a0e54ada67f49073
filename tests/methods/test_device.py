"""No training step mixes devices or waits for a GPU.

The device `meta` stands for the GPU: its tensors have no values, so that reading one is an error, as is mixing them
with tensors of the CPU. On a GPU, a copy that does not say `non_blocking` waits for all that was started before.
"""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from semipix.data.batches.strong_views import StrongViews
from semipix.functional.thresholds import class_thresholds
from semipix.methods.teacher import CountsSteps
from semipix.tasks.segmentation import Segmentation
from tests.helpers.tiny import CLASSES, SIDE, make_active, make_batch, options, rand

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in options("method")),
    ("gct", {"detector": "cues", "corrupted": 1.0, "withhold": 0.3}),
    ("gct_strong", {"detector": "features", "corrupted": 1.0, "withhold": 0.3, "per_class": True}),
    ("fixmatch", {"per_class": True}),
]


class NoWaiting(TorchDispatchMode):
    """Refuses copies to the device for which the CPU would wait, also those of indices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            assert kwargs.get("device", torch.device("cpu")).type == "cpu" or kwargs.get("non_blocking"), "waits"
        if func is torch.ops.aten.index.Tensor and args[0].device.type == "meta":
            assert all(index is None or index.device.type == "meta" for index in args[1]), "waits for indices"
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def meta_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let autocast be asked for and switched off on the device `meta`, for which torch has none."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{name}-{'-'.join(given)}" for name, given in CASES])
def test_a_step_waits_for_nothing(name: str, given: dict[str, Any]) -> None:
    method = make_active(name, task=Segmentation(CLASSES, class_weights=[1.0, 2.0, 3.0]), **given).train()
    method.after_step()  # the first one reads how many there were
    method.to("meta")
    shown = torch.ones(4, 1, SIDE, SIDE, dtype=torch.bool)
    batch = make_batch()._replace(shown=shown, labeled_strong=rand(4, 3, SIDE, SIDE))
    moved = {key: value.to("meta") for key, value in batch._asdict().items() if isinstance(value, Tensor)}
    with NoWaiting():
        losses = method.losses(batch._replace(**moved, place=torch.tensor([0.1, 0.5])), 10.0)
        torch.stack(list(losses.values())).sum().backward()
        method.after_step()


def test_strong_views_wait_for_nothing() -> None:
    views = StrongViews(mask=0.5, drop_probability=0.5, permute_probability=0.5, gain=0.5, learn_hidden=False)
    image = rand(2, 3, SIDE, SIDE).to("meta")
    with NoWaiting():
        assert views(image, [1, 2], 2).shape == (4, 3, SIDE, SIDE)
        assert views.labels(image, [1, 2], 2) is not None


def test_class_thresholds_wait_for_nothing() -> None:
    average = rand(CLASSES).to("meta")
    with NoWaiting():
        assert class_thresholds(average, 0.9).shape == (CLASSES,)


class Counted(CountsSteps):
    """Nothing but a count of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.long))


def test_steps_go_on_from_a_checkpoint() -> None:
    trained, resumed = Counted(), nn.ModuleList([Counted()])
    assert [trained.next_step() for _ in range(3)] == [0, 1, 2]
    assert int(trained.step) == 3
    assert resumed[0].next_step() == 0  # type: ignore[operator]
    resumed.load_state_dict({"0.step": trained.step})
    assert resumed[0].next_step() == 3  # type: ignore[operator]
