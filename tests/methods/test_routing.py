"""What a method declares about its terms is what they do.

Also tests methods/base.py, methods/pair.py and methods/supervised.py.
"""

import pytest
import torch
from torch.optim import SGD

from semipix.errors import SemipixError
from semipix.methods.base import Method
from tests.helpers.tiny import TinyRegression, make_active, make_batch, make_method, make_regression_batch, options

PARTS = {"features": ("first", "norm"), "head": ("last",)}
"""The modules of the tiny model behind each half of the feature protocol."""


def parameters_of(method: Method, *networks: str) -> set[str]:
    """Names of the parameters of networks, each as `Method.trains` names it."""
    found: set[str] = set()
    for network in networks:
        owner, _, part = network.rpartition(".")
        modules = [f"{owner}.{module}" for module in PARTS[part]] if part in PARTS else [network]
        of_network = {
            key for key, _ in method.named_parameters() if key.startswith(tuple(f"{module}." for module in modules))
        }
        assert of_network, f"{type(method).__name__} has no network {network}"
        found |= of_network
    return found


def trained_by(method: Method) -> set[str]:
    """Names of the parameters that some term trains."""
    assert method.trains, f"declare in {type(method).__name__}.trains which networks each term trains"
    return parameters_of(method, *(network for networks in method.trains.values() for network in networks))


@pytest.fixture(params=options("method"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def method(name: str) -> Method:
    return make_active(name)


def test_each_term_trains_the_networks_that_are_declared(method: Method) -> None:
    check_routes(method)


@pytest.mark.parametrize(
    ("name", "detector", "threshold"),
    [("gct", "paper", 0.5), ("gct_strong", "paper", 0.05), ("gct", "features", 0.1), ("gct_strong", "features", 0.1)],
)
def test_each_term_trains_the_same_networks_with_other_detectors(name: str, detector: str, threshold: float) -> None:
    check_routes(make_active(name, detector=detector, flaw_threshold=threshold))


def check_routes(method: Method) -> None:
    losses = method.losses(make_batch(side=64), epoch=10.0)  # the detector's own map is 2x2 pixels
    assert losses.keys() == method.trains.keys()
    named = {key: value for key, value in method.named_parameters() if value.requires_grad}
    for term, loss in losses.items():
        assert float(loss.detach()) > 0, term
        gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        reached = {key for key, gradient in zip(named, gradients, strict=True) if gradient is not None}
        moved = {key for key, gradient in zip(named, gradients, strict=True) if gradient is not None and gradient.any()}
        assert reached == parameters_of(method, *method.trains[term]), term
        for network in method.trains[term]:
            assert moved & parameters_of(method, network), f"{term} leaves {network} as it is"


def test_optimizers_hold_what_is_trained_once(method: Method) -> None:
    optimizers = method.optimizers(lambda model: SGD(model.parameters(), lr=0.1))
    held = [id(value) for one in optimizers for group in one.param_groups for value in group["params"]]
    trained = trained_by(method)
    expected = [id(value) for key, value in method.named_parameters() if key in trained]
    assert sorted(held) == sorted(expected)


def test_what_is_never_trained_asks_for_no_gradient(method: Method) -> None:
    assert {key for key, value in method.named_parameters() if value.requires_grad} == trained_by(method)
    others = {key for key, value in method.named_parameters() if not value.requires_grad}
    assert others == parameters_of(method, *method.never_trained)


def test_terms_are_off_by_default_where_they_are_declared_so(name: str) -> None:
    method = make_method(name)
    assert method.losses(make_batch(side=64), epoch=10.0).keys() == method.trains.keys() - set(method.off_by_default)
    assert set(method.off_by_default) <= method.trains.keys()


def test_random_numbers_are_drawn_where_it_is_declared(method: Method) -> None:
    generator = torch.get_rng_state()
    method.losses(make_batch(side=64), epoch=10.0)
    assert torch.equal(torch.get_rng_state(), generator) == (not method.draws_numbers)


@pytest.mark.parametrize("epoch", [0.0, 10.0])
def test_a_batch_is_never_changed(method: Method, epoch: float) -> None:
    batch = make_batch()
    parts = [part for part in batch if part is not None]
    copies = [part.clone() for part in parts]
    sum(method.losses(batch, epoch).values()).backward()
    method.after_step()
    method.evidence(batch.image)
    method(batch.image)
    for part, copy in zip(parts, copies, strict=True):
        assert torch.equal(part, copy)


@torch.no_grad()
def test_evidence_is_of_what_is_deployed(method: Method) -> None:
    method.eval()
    detector = getattr(method, "detector", None)
    if detector is not None:  # before any training, running statistics make all maps flat
        (detector.convolutions[-1] if hasattr(detector, "convolutions") else detector.last).weight *= 1e4
    batch = make_batch(side=64)
    for candidate in method.candidates():
        method.deploy(candidate)
        output, predictions, flaw = method.evidence(batch.image)
        torch.testing.assert_close(output, method(batch.image))
        torch.testing.assert_close(predictions[0], method.task.activate(output))
        assert len({str(prediction) for prediction in predictions}) == len(predictions), "each is another network's"
        assert (flaw is None) == (detector is None and not hasattr(method, "discriminator"))
        if flaw is not None:
            assert flaw.min() >= 0 and flaw.max() <= 1 and flaw.shape[:2] == (len(batch.image), 1)
            assert detector is None or flaw.std() > 0.01


def test_losses_take_a_batch_of_only_labeled_images(method: Method) -> None:
    batch = make_batch(unlabeled=0)._replace(strong=None)
    if method.needs_unlabeled:
        with pytest.raises(SemipixError, match="learns from unlabeled images, but the batch holds none"):
            method.losses(batch, epoch=10.0)
        return
    losses = method.losses(batch, epoch=10.0)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())


def test_a_label_of_only_ignored_pixels_leaves_losses_finite(method: Method) -> None:
    batch = make_batch()
    losses = method.losses(batch._replace(target=torch.full_like(batch.target, 255)), epoch=10.0)
    assert losses["supervised"] == 0
    sum(losses.values()).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in method.parameters())


def test_regression_trains_the_same_networks_or_is_refused(name: str, method: Method) -> None:
    if method.classification_only:
        with pytest.raises(SemipixError, match="serves only classification of pixels"):
            make_method(name, task=TinyRegression())
        return
    method = make_active(name, task=TinyRegression())
    losses = method.losses(make_regression_batch(side=64), epoch=10.0)
    assert losses.keys() == method.trains.keys()
    assert all(loss.isfinite() and float(loss.detach()) > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert {key for key, value in method.named_parameters() if value.grad is not None} == trained_by(method)


def test_missing_strong_views_are_refused(method: Method) -> None:
    batch = make_batch()._replace(strong=None)
    if not method.strong_views:
        assert method.losses(batch, epoch=10.0)
        return
    with pytest.raises(SemipixError, match=f"asks for {method.strong_views} strong views"):
        method.losses(batch, epoch=10.0)
