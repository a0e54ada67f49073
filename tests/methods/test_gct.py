"""Guided Collaborative Training: one backward is the paper's two steps, and each term is what the paper says.

Also tests methods/flaw_detection.py.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.flaw import exchange, flaw_target, normalize_flaw
from semipix.methods.gct import GCT
from semipix.models import flaw_detector
from semipix.models.detector import Detector
from tests.helpers.tiny import CLASSES, FixedModel, TinyModel, make_batch, make_method, rand

TERMS = {"supervised", "flaw_detection"}
THRESHOLD = 0.5


def make_gct(make_model: Callable[[int], nn.Module] | None = None, **given: Any) -> GCT:
    """A method with the paper's detector whose two constraints both find pixels in `make_batch(side=64)`."""
    method = make_method(
        "gct", make_model, **{"detector": "paper", "flaw_threshold": THRESHOLD, "rampup_epochs": 0, **given}
    )
    assert isinstance(method, GCT)
    return method


class PixelDetector(Detector):
    """A detector whose map at a pixel is the prediction of class 0 there, plus a map of its own."""

    probabilistic = False

    def __init__(self, side: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, 1, side, side))

    def forward(self, image: Tensor, own: Tensor, other: Tensor, features: object = None) -> Tensor:
        return own[:, :1] + self.map


def pixelwise(batch: Batch, **given: Any) -> GCT:
    """A method on fixed outputs with a detector that sees no neighbours, so that every gradient has one pixel."""
    shape = (len(batch.image), CLASSES, *batch.image.shape[-2:])
    method = make_gct(lambda number: FixedModel(6 * rand(*shape, seed=number) - 3), **given)
    method.detector = PixelDetector(shape[-1])
    return method


class TestJointBackward:
    """One backward of the sum, every term routed by detach, is the alternating update of the paper."""

    STEPS = 3

    def alternate(self, method: GCT, batch: Batch, optimizers: list[Optimizer]) -> dict[str, Tensor]:
        """One step as the paper writes it, for labels without void."""
        *for_models, for_detector = optimizers
        labeled = len(batch.target)
        truth = F.one_hot(batch.target, CLASSES).movedim(-1, 1).double()

        fixed = copy.deepcopy(method.detector).requires_grad_(False)  # step 1: the detector is fixed
        outputs = [model(batch.image) for model in method.models]
        predictions = [output.softmax(1) for output in outputs]
        flaws = fixed(torch.cat([batch.image] * 2), torch.cat(predictions)).chunk(2)
        goals, both_flawed = exchange(tuple(predictions), tuple(normalize_flaw(flaw) for flaw in flaws), THRESHOLD)
        supervised = sum(F.cross_entropy(output[:labeled], batch.target) for output in outputs)
        consistency = sum(F.mse_loss(*pair) for pair in zip(predictions, goals, strict=True))
        correction = sum((both_flawed * flaw**2).mean() for flaw in flaws)
        for optimizer in for_models:
            optimizer.zero_grad()
        (supervised + 100 * consistency + correction).backward()
        for optimizer in for_models:
            optimizer.step()

        seen = torch.cat([prediction[:labeled].detach() for prediction in predictions])  # step 2: the models are fixed
        goal = flaw_target(seen, torch.cat([truth] * 2), mu=0.5, nu=1)
        flaw = method.detector(torch.cat([batch.image[:labeled]] * 2), seen)
        first, second = ((flaw - goal) ** 2).chunk(2)
        detection = 10 * (first.mean() + second.mean())
        for_detector.zero_grad()
        detection.backward()
        for_detector.step()
        return {
            "supervised": supervised.detach(),
            "flaw_detection": detection.detach(),
            "dynamic_consistency": 100 * consistency.detach(),
            "flaw_correction": correction.detach(),
        }

    def jointly(self, method: GCT, batch: Batch, optimizers: list[Optimizer]) -> dict[str, Tensor]:
        losses = method.losses(batch, epoch=0.0)
        for optimizer in optimizers:
            optimizer.zero_grad()
        sum(losses.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    @pytest.mark.parametrize(
        "make_optimizer", [functools.partial(SGD, lr=0.05, momentum=0.9), functools.partial(Adam, lr=0.01)]
    )
    def test_equals_the_alternating_update(
        self, make_optimizer: Callable[..., Optimizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flaw_detector, "CHANNELS", (8, 8, 8, 8, 8, 8, 8, 1))  # float64 is slow
        batch = make_batch(void=False, side=64)
        batch = batch._replace(image=batch.image.double())
        method = make_gct().double().train()
        other = copy.deepcopy(method)
        start = copy.deepcopy(method.state_dict())
        optimizers, others = (
            one.optimizers(lambda model: make_optimizer(model.parameters())) for one in (method, other)
        )
        for _ in range(self.STEPS):
            expected = self.alternate(other, batch, others)
            losses = self.jointly(method, batch, optimizers)
            assert losses.keys() == expected.keys()
            for name, loss in losses.items():
                assert loss > 0, f"{name} is not active"
                torch.testing.assert_close(loss, expected[name], rtol=0, atol=1e-10)
        for name, value in other.state_dict().items():
            assert value.dtype in (torch.float64, torch.int64)
            torch.testing.assert_close(method.state_dict()[name], value, rtol=0, atol=1e-10)
            if value.is_floating_point():
                assert not torch.equal(value, start[name]), f"{name} was not trained"


class TestTerms:
    @pytest.mark.parametrize(
        ("constraints", "extra"),
        [
            ("both", {"dynamic_consistency", "flaw_correction"}),
            ("consistency", {"dynamic_consistency"}),
            ("correction", {"flaw_correction"}),
        ],
    )
    def test_constraints(self, constraints: str, extra: set[str]) -> None:
        batch = make_batch()
        losses = make_gct(constraints=constraints).losses(batch, 0.0)
        assert losses.keys() == TERMS | extra
        everything = make_gct().losses(batch, 0.0)
        for name, loss in losses.items():
            torch.testing.assert_close(loss, everything[name])

    def test_warmup_is_only_supervision_and_detection(self) -> None:
        method, batch = make_gct(warmup_epochs=2.0), make_batch()
        assert method.losses(batch, 1.99).keys() == TERMS
        assert method.losses(batch, 2.0).keys() == TERMS | {"dynamic_consistency", "flaw_correction"}

    @pytest.mark.parametrize("warmup_epochs", [0.0, 2.0])
    def test_consistency_ramps_up_after_the_warmup(self, warmup_epochs: float) -> None:
        batch = make_batch()
        method = pixelwise(batch, rampup_epochs=4.0, warmup_epochs=warmup_epochs)
        full = method.losses(batch, 100.0)
        assert full["dynamic_consistency"] > 0 < full["flaw_correction"]
        for epoch, factor in ((0.0, math.exp(-5)), (2.0, math.exp(-5 / 4)), (4.0, 1.0)):
            losses = method.losses(batch, warmup_epochs + epoch)
            torch.testing.assert_close(losses["dynamic_consistency"], factor * full["dynamic_consistency"])
            torch.testing.assert_close(losses["flaw_correction"], full["flaw_correction"])

    @pytest.mark.parametrize(
        ("key", "term"),
        [("dc", "dynamic_consistency"), ("fc", "flaw_correction"), ("detection", "flaw_detection")],
    )
    def test_weights(self, key: str, term: str) -> None:
        batch = make_batch()
        once, thrice = (pixelwise(batch, **{f"lambda_{key}": weight}).losses(batch, 0.0) for weight in (1.0, 3.0))
        for name in once:
            torch.testing.assert_close(thrice[name], (3 if name == term else 1) * once[name])

    def test_a_silent_detector_exchanges_nothing(self) -> None:
        method, batch = make_gct(), make_batch(side=64)
        nn.init.zeros_(method.detector.convolutions[-1].weight)
        nn.init.constant_(method.detector.convolutions[-1].bias, 0.05)
        losses = method.losses(batch, 0.0)
        assert losses["dynamic_consistency"] == 0
        assert losses["flaw_correction"] == 0


class TestVoid:
    """Void pixels of labeled images take part in no term; the same pixels of unlabeled images do."""

    def test_no_term_has_a_gradient_there(self) -> None:
        batch = make_batch()
        method = pixelwise(batch)
        void = (batch.target == 255).unsqueeze(1)
        losses = method.losses(batch, 0.0)
        for term in ("supervised", "dynamic_consistency", "flaw_correction"):
            outputs = [model.output for model in method.models]
            for gradient in torch.autograd.grad(losses[term], outputs, retain_graph=True):
                of_labeled, of_unlabeled = gradient[: len(void)], gradient[len(void) :]
                assert not of_labeled.masked_select(void).any(), term
                assert of_labeled.masked_select(~void).any(), term
                assert of_unlabeled.masked_select(void).any() == (term != "supervised"), term
        (gradient,) = torch.autograd.grad(losses["flaw_detection"], method.detector.map)
        everywhere = void.all(0, keepdim=True)
        assert not gradient.masked_select(everywhere).any()
        assert (gradient.masked_select(~everywhere) != 0).all()

    def test_what_is_predicted_there_changes_neither_supervision_nor_detection(self) -> None:
        batch = make_batch()
        method = pixelwise(batch)
        before = method.losses(batch, 0.0)
        void = F.pad((batch.target == 255).unsqueeze(1), (0, 0, 0, 0, 0, 0, 0, 2))
        for model in method.models:
            model.output.data += 5 * void * rand(*model.output.shape, seed=7)
        after = method.losses(batch, 0.0)
        for term in TERMS:
            assert torch.equal(before[term], after[term]), term


class TestWithhold:
    @pytest.mark.parametrize("detector", ["paper", "cues"])
    @pytest.mark.parametrize(("threshold", "term"), [(1.0, "dynamic_consistency"), (0.0, "flaw_correction")])
    def test_no_term_has_a_gradient_of_an_image_to_the_model_that_goes_without_it(
        self, detector: str, threshold: float, term: str
    ) -> None:
        outputs = [6 * rand(4, CLASSES, 64, 64, seed=seed) - 3 for seed in (1, 2)]
        options: dict[str, Any] = {"detector": detector, "flaw_threshold": threshold, "rampup_epochs": 0}
        method = make_method("gct", lambda number: FixedModel(outputs[number].clone()), withhold=0.25, **options)
        batch = make_batch(side=64, void=False)._replace(place=torch.tensor([0.1, 0.9]))
        losses = method.losses(batch, 0.0)
        for index, model in enumerate(method.models):
            taught = torch.autograd.grad(losses[term], model.output, retain_graph=True)[0].flatten(1).any(1)
            assert taught.any()
            assert not taught[index], "the first image is withheld from the first model, the second from the second"

    def test_the_constraints_are_means_over_the_other_images(self) -> None:
        """Where every image is alike, they are what they are without withheld ones."""
        outputs = [(6 * rand(1, CLASSES, 64, 64, seed=seed) - 3).expand(4, -1, -1, -1) for seed in (1, 2)]
        method = make_gct(lambda number: FixedModel(outputs[number].clone()), withhold=0.5, flaw_threshold=1.0)
        method.detector = PixelDetector(64)
        batch = make_batch(side=64, void=False)
        without, withheld = (
            method.losses(batch._replace(place=place), 0.0)["dynamic_consistency"]
            for place in (None, torch.tensor([0.1, 0.2]))
        )
        assert without > 0
        torch.testing.assert_close(withheld, without)


class TestPair:
    def test_models_may_differ(self) -> None:
        method = make_gct(lambda number: TinyModel() if number == 0 else nn.Conv2d(3, CLASSES, 1))
        sum(method.losses(make_batch(), 0.0).values()).backward()
        assert [type(model) for model in method.models] == [TinyModel, nn.Conv2d]
        assert all(value.grad is not None for value in method.parameters())

    def test_one_architecture_starts_twice(self) -> None:
        first, second = make_gct().models
        assert not torch.equal(first.first.weight, second.first.weight)

    def test_the_deployed_one_answers(self) -> None:
        method, image = make_gct().eval(), rand(1, 3, 32, 32)
        assert list(method.candidates()) == ["first", "second"]
        for name, model in method.candidates().items():
            method.deploy(name)
            assert method.deployed_name() == name
            assert torch.equal(method(image), model(image))
        assert not torch.equal(method.models[0](image), method.models[1](image))

    @pytest.mark.parametrize("always", ["first", "second"])
    def test_one_may_be_deployed_from_the_start(self, always: str) -> None:
        assert make_gct(deploy=always).deployed_name() == always  # also where nothing validates
        assert make_gct(deploy=always, fusion=True).choices() == [always]
        assert make_gct(fusion=True).choices() == ["first", "second", "fused"]

    def test_another_place_is_refused(self) -> None:
        with pytest.raises(SemipixError, match=r"^method\.deploy: 'third' found, better, first or second expected$"):
            make_gct(deploy="third")

    def test_which_is_deployed_is_in_the_checkpoint(self) -> None:
        method, other = make_gct(), make_gct()
        method.deploy("second")
        other.load_state_dict(method.state_dict())
        assert other.deployed_name() == "second"

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ValueError):
            make_gct().deploy("third")


class TestEvidence:
    @torch.no_grad()
    def test_is_both_predictions_and_the_frozen_detectors_clamped_map(self) -> None:
        batch = make_batch(side=64)
        method = make_gct().eval()
        method.detector.convolutions[-1].weight *= 1e4  # before any training, running statistics make all maps flat
        found = method.evidence(batch.image)
        raw = method.detector(batch.image, method.task.activate(method.models[0](batch.image)))
        assert raw.min() < 0 and raw.max() > 1, "clamping has something to do"
        torch.testing.assert_close(found.flaw, raw.clamp(0, 1))
        method.deploy("second")
        swapped = method.evidence(batch.image)
        first, second = found.predictions
        assert torch.equal(torch.stack(swapped.predictions), torch.stack([second, first]))
        assert not torch.equal(first, second)
        torch.testing.assert_close(swapped.flaw, method.detector(batch.image, second).clamp(0, 1))

    def test_diagnose_feeds_every_metric(self) -> None:
        method = make_gct().eval()
        metrics = method.diagnostics()
        batch = make_batch(unlabeled=0, side=64)
        large = batch._replace(target=batch.target.repeat_interleave(2, 1).repeat_interleave(2, 2))
        method.diagnose(large, method.evidences(batch.image), metrics)
        measured = {name: float(metric.compute()) for name, metric in metrics.items()}
        assert all(0 <= value <= 1 for value in measured.values())
        assert measured["first_learns"] + measured["second_learns"] > 0


@pytest.mark.parametrize("norm", ["batch", "batch_instance"])
def test_detector_norm(norm: str) -> None:
    names = {type(module).__name__ for module in make_gct(detector_norm=norm).detector.modules()}
    assert ("InstanceNorm2d" in names) == (norm == "batch_instance")


def test_the_detector_has_adam_of_its_own() -> None:
    optimizers = make_gct(detector_lr=0.003).optimizers(lambda model: SGD(model.parameters(), lr=0.1))
    assert [type(optimizer) for optimizer in optimizers] == [SGD, SGD, Adam]
    assert optimizers[-1].param_groups[0]["lr"] == 0.003
    assert optimizers[-1].param_groups[0]["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("constraints", "all"),
        ("flaw_threshold", 1.5),
        ("flaw_threshold", -0.1),
        ("detector_norm", "layer"),
        ("lambda_dc", -1.0),
        ("lambda_fc", -1.0),
        ("lambda_detection", -1.0),
        ("detector_lr", -1.0),
        ("rampup_epochs", -1.0),
        ("warmup_epochs", -1.0),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: Any) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: .* expected") as error:
        make_gct(**{key: value})
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
