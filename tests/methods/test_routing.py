"""Each term of a method trains exactly the networks that DESIGN.md's table names."""

from typing import Any

import pytest
import torch
from torch.optim import SGD

from semipix.errors import SemipixError
from semipix.methods.base import Method
from tests.tiny import TinyRegression, make_batch, make_method, make_regression_batch, options

TRAINS: dict[str, dict[str, set[str]]] = {
    "supervised": {"supervised": {"model"}},
    "mean_teacher": {"supervised": {"student"}, "consistency": {"student"}},
    "s4l": {"supervised": {"model"}, "rotated_supervised": {"model"}, "rotation": {"model", "classifier"}},
    "advssl": {
        "supervised": {"model"},
        "adversarial_labeled": {"model"},
        "adversarial_unlabeled": {"model"},
        "discrimination": {"discriminator"},
    },
    "flaw_mean_teacher": {
        "supervised": {"student"},
        "consistency": {"student"},
        "flaw_detection": {"detector"},
    },
    "cct": {
        "supervised": {"model.first", "model.norm", "model.last"},
        "consistency": {"model.first", "model.norm", "decoders"},  # the main decoder is the teacher
    },
    "cutmix": {"supervised": {"student"}, "consistency": {"student"}},
    "cps": {
        "supervised": {"models.0", "models.1"},
        "cross_supervision": {"models.0", "models.1"},
    },
    "fixmatch": {"supervised": {"model"}, "consistency": {"model"}},
    "unimatch": {"supervised": {"student"}, "consistency": {"student"}},
    "gct_strong": {
        "supervised": {"models.0", "models.1"},
        "cross_supervision": {"models.0", "models.1"},
        "flaw_detection": {"detector"},
    },
    "gct": {
        "supervised": {"models.0", "models.1"},
        "dynamic_consistency": {"models.0", "models.1"},
        "flaw_correction": {"models.0", "models.1"},
        "flaw_detection": {"detector"},
    },
}
"""The networks each term trains, by the method's name in conf/method."""

NEVER_TRAINED = {
    "mean_teacher": {"teacher"},
    "flaw_mean_teacher": {"teacher"},
    "cutmix": {"teacher"},
    "unimatch": {"teacher"},
    "gct_strong": {"teachers"},
}

GIVEN: dict[str, dict[str, Any]] = {
    "gct": {"flaw_threshold": 0.5, "rampup_epochs": 0},
    "cutmix": {"confidence": 0.3},
    "fixmatch": {"confidence": 0.3},
    "unimatch": {"confidence": 0.3},
    "gct_strong": {"confidence": 0.3},
}
"""What lets every term find pixels with tiny, untrained models."""


def network_of(parameter: str, name: str) -> str:
    """The network that a method's parameter belongs to."""
    networks = set().union(*TRAINS[name].values(), NEVER_TRAINED.get(name, set()))
    (network,) = [network for network in networks if parameter.startswith(network + ".")]
    return network


@pytest.fixture(params=options("method"))
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in TRAINS, f"say in TRAINS which networks the terms of {request.param} train"
    return str(request.param)


@pytest.fixture
def method(name: str) -> Method:
    method = make_method(name, **GIVEN.get(name, {}))
    for parameters in (value for part, value in method.named_parameters() if part.startswith("teacher")):
        parameters.data += 0.1  # a teacher that equals the student would teach nothing
    return method


def test_each_term_trains_the_networks_of_the_table(name: str, method: Method) -> None:
    losses = method.losses(make_batch(side=64), epoch=10.0)  # the detector's own map is 2x2 pixels
    assert losses.keys() == TRAINS[name].keys()
    named = {key: value for key, value in method.named_parameters() if value.requires_grad}
    for term, loss in losses.items():
        assert float(loss.detach()) > 0, term
        gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        reached = {key for key, gradient in zip(named, gradients, strict=True) if gradient is not None}
        moved = {key for key, gradient in zip(named, gradients, strict=True) if gradient is not None and gradient.any()}
        expected = {key for key in named if network_of(key, name) in TRAINS[name][term]}
        assert reached == expected, term
        assert {network_of(key, name) for key in moved} == TRAINS[name][term], term


def test_optimizers_hold_what_is_trained_once(name: str, method: Method) -> None:
    optimizers = method.optimizers(lambda model: SGD(model.parameters(), lr=0.1))
    held = [id(value) for one in optimizers for group in one.param_groups for value in group["params"]]
    trained = set().union(*TRAINS[name].values())
    expected = [id(value) for key, value in method.named_parameters() if network_of(key, name) in trained]
    assert sorted(held) == sorted(expected)


def test_what_is_never_trained_asks_for_no_gradient(name: str, method: Method) -> None:
    asking = {network_of(key, name) for key, value in method.named_parameters() if value.requires_grad}
    assert asking == set().union(*TRAINS[name].values())


@pytest.mark.parametrize("epoch", [0.0, 10.0])
def test_a_batch_is_never_changed(name: str, method: Method, epoch: float) -> None:
    batch = make_batch()
    copies = [part.clone() for part in batch]
    sum(method.losses(batch, epoch).values()).backward()
    method.after_step()
    method.maps(batch)
    method(batch.image)
    for part, copy in zip(batch, copies, strict=True):
        assert torch.equal(part, copy)


@torch.no_grad()
def test_forward_with_flaw_is_the_prediction_and_its_map(name: str, method: Method) -> None:
    method.eval()
    detector = getattr(method, "detector", None)
    if detector is not None:  # before any training, running statistics make all maps flat
        detector.convolutions[-1].weight *= 1e4
    batch = make_batch(side=64)
    for candidate in method.candidates():
        method.deploy(candidate)
        output, flaw = method.forward_with_flaw(batch.image)
        torch.testing.assert_close(output, method(batch.image))
        expected = method.maps(batch._replace(target=batch.target[:0])).get("flaw")
        if expected is None:
            assert flaw is None
        else:
            assert detector is None or expected.std() > 0.01
            torch.testing.assert_close(flaw, expected)


def test_losses_take_a_batch_of_labeled_images_alone(name: str, method: Method) -> None:
    batch = make_batch(unlabeled=0)._replace(strong=None)
    if method.needs_unlabeled:
        with pytest.raises(SemipixError, match="learns from unlabeled images, but the batch holds none"):
            method.losses(batch, epoch=10.0)
        return
    losses = method.losses(batch, epoch=10.0)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())


def test_a_label_that_says_nothing_leaves_losses_finite(name: str, method: Method) -> None:
    batch = make_batch()
    losses = method.losses(batch._replace(target=torch.full_like(batch.target, 255)), epoch=10.0)
    assert losses["supervised"] == 0
    sum(losses.values()).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in method.parameters())


def test_regression_trains_the_same_networks_or_is_refused(name: str, method: Method) -> None:
    given = {"task": TinyRegression(), **GIVEN.get(name, {})}
    if method.classification_only:
        with pytest.raises(SemipixError, match="serves classification of pixels alone"):
            make_method(name, **given)
        return
    method = make_method(name, **given)
    for parameters in (value for part, value in method.named_parameters() if part.startswith("teacher")):
        parameters.data += 0.1
    losses = method.losses(make_regression_batch(side=64), epoch=10.0)
    assert losses.keys() == TRAINS[name].keys()
    assert all(loss.isfinite() and float(loss.detach()) > 0 for loss in losses.values())
    sum(losses.values()).backward()
    moved = {network_of(key, name) for key, value in method.named_parameters() if value.grad is not None}
    assert moved == set().union(*TRAINS[name].values())


def test_strong_views_that_are_missing_are_told(method: Method) -> None:
    batch = make_batch()._replace(strong=None)
    if not method.strong_views:
        assert method.losses(batch, epoch=10.0)
        return
    with pytest.raises(SemipixError, match=f"asks for {method.strong_views} strong views"):
        method.losses(batch, epoch=10.0)
