"""GCT on strong views: the flaw maps of weak views decide who teaches which pixel."""

import functools
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.batch import VOID, Batch
from semipix.data.batches.datasets import places_of
from semipix.errors import SemipixError
from semipix.functional.flaw import Pair
from semipix.methods.base import Evidence
from semipix.methods.gct_strong import StrongGCT
from semipix.training.pseudo_label_metric import PseudoLabelMetric, accuracy_and_share, needed_confidence
from tests.helpers.tiny import (
    FixedModel,
    TinyRegression,
    make_batch,
    make_method,
    make_regression_batch,
    predict_always,
    rand,
)

LOW, HIGH = 0.2, 0.9

PLAIN = {"detector": "paper", "cutmix": 0.0, "decay": 0.0, "confidence": 0.0, "feature_dropout": 0.0, "fusion": False}
"""What lets a test compute the terms by hand."""


def make_strong(**given: Any) -> StrongGCT:
    method = make_method("gct_strong", **{**PLAIN, **given})
    assert isinstance(method, StrongGCT)
    return method.eval()


def with_flaws(method: StrongGCT, first: float, second: float) -> StrongGCT:
    """Let the detector report two even maps."""

    def flaws(image: Tensor, predictions: Pair) -> Pair:
        return tuple(torch.full_like(image[:, :1], value) for value in (first, second))  # type: ignore[return-value]

    method._flaws = flaws  # type: ignore[method-assign, assignment]
    return method


@pytest.fixture(autouse=True)
def unscaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the detector's maps as they are: scaling each to [0, 1] is tested with `normalize_flaw`."""
    monkeypatch.setattr("semipix.methods.flaw_detection.normalize_flaw", lambda flaw, shown=None: flaw)


def views_of(method: StrongGCT) -> list[Tensor]:
    """Output of each model for strong views of its own."""
    batch = make_batch()
    assert batch.strong is not None
    return [model(view) for model, view in zip(method.models, batch.strong.chunk(2), strict=True)]


def crossed(method: StrongGCT) -> tuple[Tensor, Tensor]:
    """Cross entropy of each model's strong views against the other's hard labels of the weak ones."""
    batch = make_batch()
    labels = [model(batch.unlabeled).argmax(1) for model in method.deployable()]
    outputs = views_of(method)
    return F.cross_entropy(outputs[0], labels[1]), F.cross_entropy(outputs[1], labels[0])


@pytest.mark.parametrize(
    ("gate", "flaws", "learns"),
    [
        ("open", (HIGH, HIGH), (1, 1)),
        ("trusted", (LOW, LOW), (1, 1)),
        ("trusted", (HIGH, LOW), (1, 0)),
        ("trusted", (LOW, HIGH), (0, 1)),
        ("trusted", (HIGH, HIGH), (0, 0)),
        ("lower", (LOW, LOW), (0, 0)),
        ("lower", (LOW + 0.1, LOW), (1, 0)),
        ("lower", (LOW, LOW + 0.1), (0, 1)),
        ("lower", (HIGH + 0.05, HIGH), (0, 0)),
    ],
)
def test_the_gate_decides_who_learns(gate: str, flaws: tuple[float, float], learns: tuple[int, int]) -> None:
    method = with_flaws(make_strong(gate=gate, lambda_cross=1.0), *flaws)
    first, second = crossed(method)
    found = method.losses(make_batch(), 0.0)["cross_supervision"]
    torch.testing.assert_close(found, learns[0] * first + learns[1] * second)


@pytest.mark.parametrize("gate", ["open", "trusted"])
def test_unsure_pixels_teach_nobody(gate: str) -> None:
    method, batch = with_flaws(make_strong(gate=gate, confidence=0.4, lambda_cross=1.0), LOW, LOW), make_batch()
    weak = [model(batch.unlabeled).softmax(1) for model in method.models]
    outputs = views_of(method)
    expected = 0.0
    for output, teaching in zip(outputs, reversed(weak), strict=True):
        sure, label = teaching.max(1)
        assert 0 < (sure >= 0.4).float().mean() < 1
        expected += (F.cross_entropy(output, label, reduction="none") * (sure >= 0.4)).mean()
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], expected)


def test_where_the_teachers_disagree_nothing_is_learned() -> None:
    """With `gate=agreed`, which asks no detector."""
    method, batch = make_strong(gate="agreed", lambda_cross=1.0), make_batch()
    first, second = (model(batch.unlabeled).softmax(1) for model in method.models)
    disagreement = 1 - (first * second).sum(1)
    method.flaw_threshold = disagreement.median().item()
    agreed = disagreement <= method.flaw_threshold
    assert 0.4 < agreed.float().mean() < 0.6
    outputs = views_of(method)
    expected = sum(
        (F.cross_entropy(output, label.argmax(1), reduction="none") * agreed).mean()
        for output, label in zip(outputs, (second, first), strict=True)
    )
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], expected)
    taught = method.taught(method.evidences(batch.unlabeled))
    assert torch.equal(taught["first"][:, 0], agreed)
    assert torch.equal(taught["second"][:, 0], agreed)


def test_thresholds_can_differ_between_classes() -> None:
    """A class of which a model is less sure teaches at a lower confidence; each model has its own thresholds."""
    method, batch = make_strong(gate="open", confidence=0.9, per_class=True, lambda_cross=1.0), make_batch()
    assert float(method.losses(batch, 0.0)["cross_supervision"].detach()) == 0, "no class is known yet"
    first = method.models[0](batch.unlabeled).softmax(1)
    least_sure = int(first.argmax(1).flatten().mode().values)
    method.sure[0].average.fill_(0.5)[least_sure] = 0.1
    method.sure[1].average.fill_(0.5)
    taught = method.taught(method.evidences(batch.unlabeled))
    expected = (first.argmax(1) == least_sure) & (first.max(1).values >= 0.9 * 0.1 / 0.5)
    assert expected.any()
    assert torch.equal(taught["first"][:, 0], expected)
    assert not taught["second"].any()


def test_a_pixel_teaches_less_where_the_teachers_disagree() -> None:
    """In regression; no gate is closed, and both models learn the same from each other but for their views."""
    given = {**PLAIN, "gate": "open", "lambda_cross": 1.0}
    method = make_method("gct_strong", task=TinyRegression(), error_scale=0.02, **given).eval()
    batch = make_regression_batch()
    assert batch.strong is not None
    with torch.no_grad():
        labels = [model(batch.unlabeled).sigmoid() for model in method.models]
    weight = (-(labels[0] - labels[1]).abs().mean(1, keepdim=True) / 0.02).exp()
    assert 0.05 < weight.mean() < 0.95
    views = batch.strong.chunk(2)
    errors = [
        F.smooth_l1_loss(method.models[number](views[number]).sigmoid(), labels[1 - number], reduction="none", beta=0.1)
        for number in range(2)
    ]
    expected = sum((weight * error).mean() for error in errors)
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], expected)


def test_averaged_teachers_label_and_are_deployed() -> None:
    method = with_flaws(make_strong(gate="open", decay=0.9), LOW, LOW)
    assert method.teachers is not None
    predict_always(method.teachers[0], 1)
    predict_always(method.teachers[1], 2)
    predict_always(method.models[0], 2)
    predict_always(method.models[1], 1)
    assert method.losses(make_batch(), 0.0)["cross_supervision"] < 1e-6, "each model agrees with the other's teacher"
    method.deploy("second")
    assert (method(make_batch().image).argmax(1) == 2).all()


def test_a_step_moves_the_teachers_towards_their_own_models() -> None:
    method = make_strong(decay=0.5)
    assert method.teachers is not None
    method.step.fill_(10)
    with torch.no_grad():
        method.models[0].first.weight += 1
    before = [teacher.first.weight.clone() for teacher in method.teachers]
    method.after_step()
    torch.testing.assert_close(method.teachers[0].first.weight, before[0] + 0.5)
    torch.testing.assert_close(method.teachers[1].first.weight, before[1])


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_labels_are_hard_sharpened_or_soft(temperature: float) -> None:
    method = with_flaws(make_strong(gate="open", temperature=temperature, lambda_cross=1.0), LOW, LOW)
    batch = make_batch()
    goals = [method.task.sharpen(model(batch.unlabeled).softmax(1), temperature) for model in method.models]
    outputs = views_of(method)
    expected = F.cross_entropy(outputs[0], goals[1]) + F.cross_entropy(outputs[1], goals[0])
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], expected)


@pytest.mark.parametrize(("flaws", "corrected"), [((HIGH, HIGH), True), ((HIGH, LOW), False), ((LOW, HIGH), False)])
def test_flaw_correction_pushes_the_flaws_of_strong_views_down(flaws: tuple[float, float], corrected: bool) -> None:
    method, batch = with_flaws(make_strong(lambda_fc=3.0), *flaws), make_batch(side=64)
    assert batch.strong is not None
    expected = torch.zeros(())
    for model, view in zip(method.models, batch.strong.chunk(2), strict=True):
        expected = expected + method.detector(view, model(view).softmax(1)).square().mean()
    assert expected > 0
    torch.testing.assert_close(method.losses(batch, 0.0)["flaw_correction"], 3 * corrected * expected)


class TestFeatureDropout:
    def test_channels_of_strong_views_go_whole_and_of_labeled_images_stay(self) -> None:
        method, batch = make_strong(feature_dropout=0.5), make_batch()
        assert batch.strong is not None
        seen: list[Tensor] = []
        model = method.models[0]
        model.head = types.MethodType(lambda _, maps, size: seen.append(maps[0]) or model.last(maps[0]), model)  # type: ignore[func-returns-value]
        torch.manual_seed(0)
        method._output(model, batch.labeled, batch.strong[:2])
        whole = model.features(torch.cat([batch.labeled, batch.strong[:2]]))[0]
        torch.testing.assert_close(seen[0][:2], whole[:2])
        dropped = (seen[0][2:] == 0).all(-1).all(-1)
        kept = torch.where(dropped[..., None, None], 0.0, 2 * whole[2:])
        torch.testing.assert_close(seen[0][2:], kept)
        assert dropped.any()
        assert not dropped.all()

    def test_a_model_without_features_is_refused(self) -> None:
        def plain(number: int) -> nn.Module:
            return FixedModel(torch.zeros(4, 3, 32, 32))

        method = make_method("gct_strong", plain, feature_dropout=0.5)
        with pytest.raises(SemipixError, match=r"FixedModel has no method 'features'.*model=unet"):
            method._output(method.models[0], make_batch().labeled, make_batch().unlabeled)

    @pytest.mark.parametrize("share", [-0.1, 1.0])
    def test_a_share_out_of_range_is_refused(self, share: float) -> None:
        with pytest.raises(SemipixError, match=rf"feature_dropout: {share} found, a number in \[0, 1\) expected"):
            make_strong(feature_dropout=share)


def test_warmup_is_only_supervision_and_detection() -> None:
    method, batch = make_strong(warmup_epochs=1.0, rampup_epochs=1.0), make_batch()
    assert method.losses(batch, 0.9).keys() == {"supervised", "flaw_detection"}
    after = [method.losses(batch, epoch)["cross_supervision"] for epoch in (1.0, 1.5, 2.0, 5.0)]
    assert after[0] < after[1] < after[2]
    torch.testing.assert_close(after[2], after[3])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gate", "shut"),
        ("flaw_threshold", 2),
        ("temperature", -1),
        ("lambda_cross", -1),
        ("lambda_fc", -1),
        ("rampup_epochs", -1),
        ("warmup_epochs", -1),
        ("decay", 1.5),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: Any) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: '?{value}'? found, .* expected"):
        make_strong(**{key: value})


@pytest.mark.parametrize("area", [(0.0, 0.5), (0.5, 0.2)])
def test_an_area_out_of_order_is_refused_in_one_line(area: tuple[float, float]) -> None:
    with pytest.raises(SemipixError, match=r"method.area: .* found, \[smallest,largest\] share expected, above 0"):
        make_strong(area=area)


class TestFusion:
    def test_validation_may_deploy_the_fused_pair(self) -> None:
        method, image = make_strong(fusion=True), make_batch(side=64).image
        assert list(method.candidates()) == list(method.candidate_outputs(image)) == ["first", "second", "fused"]
        outputs = method.candidate_outputs(image)
        first, second, fused = (method.task.activate(output) for output in outputs.values())
        inside = (fused >= torch.minimum(first, second) - 1e-6) & (fused <= torch.maximum(first, second) + 1e-6)
        assert inside.all()
        assert not torch.allclose(fused, first)
        method.deploy("fused")
        assert method.deployed_name() == "fused"
        torch.testing.assert_close(method(image), outputs["fused"])
        evidence = method.evidence(image)
        torch.testing.assert_close(torch.stack(evidence.predictions), torch.stack([fused, first, second]))

    def test_the_lower_flaw_wins(self) -> None:
        method, image = with_flaws(make_strong(fusion=True), 0.0, 1.0), make_batch().image
        outputs = method.candidate_outputs(image)
        activate = method.task.activate
        torch.testing.assert_close(activate(outputs["fused"]), activate(outputs["first"]), atol=1e-3, rtol=0)

    def test_equal_flaws_give_the_mean(self) -> None:
        method, image = with_flaws(make_strong(fusion=True), 0.4, 0.4), make_batch().image
        first, second, fused = map(method.task.activate, method.candidate_outputs(image).values())
        torch.testing.assert_close(fused, (first + second) / 2)

    def test_without_it_there_are_two_candidates(self) -> None:
        assert list(make_strong().candidates()) == ["first", "second"]


class TestDetectors:
    @pytest.mark.parametrize("kind", ["cues", "features"])
    def test_learn_from_strong_views_of_labeled_images(self, kind: str) -> None:
        method = make_strong(detector=kind, decay=0.9)
        assert method.labeled_views == 1
        batch = make_batch(side=64)
        views = rand(2, 3, 64, 64, seed=9)
        loss = method.losses(batch._replace(labeled_strong=views), 0.0)["flaw_detection"]
        loss.backward()
        assert all(value.grad is not None for value in method.detector.parameters())
        other = method.losses(batch._replace(labeled_strong=1 - views), 0.0)["flaw_detection"]
        assert not torch.equal(loss, other)
        assert method.teachers is not None
        with torch.no_grad():
            teachers = zip(method.teachers, views.chunk(2), strict=True)
            predictions = [method.task.activate(teacher(view)) for teacher, view in teachers]
            target = method.task.encode(batch.target[:1])
            errors = [0.5 * (prediction - target).abs().sum(1, keepdim=True) for prediction in predictions]
            features = method._features(views)
            raw = method.detector(views, torch.cat(predictions), torch.cat(predictions[::-1]), features)
        valid = method.task.valid(batch.target[:1]).repeat(2, 1, 1, 1)
        expected = F.binary_cross_entropy_with_logits(raw[valid], torch.cat(errors)[valid])
        torch.testing.assert_close(loss.detach(), 2 * method.lambda_detection * expected)

    @torch.no_grad()
    def test_may_learn_from_labels_with_errors(self) -> None:
        """Predictions are replaced by them, for each model and image as `corrupted` says; labels stay as they are."""
        batch = make_batch(side=64)._replace(labeled_strong=rand(2, 3, 64, 64, seed=9))
        stripes = (torch.arange(64) // 22).expand(2, 64, 64)  # of a random label, nothing would be right
        batch = batch._replace(target=torch.where(batch.target == VOID, VOID, stripes))
        plain = make_strong(detector="cues")._known(batch, ())  # type: ignore[arg-type]
        method = make_strong(detector="cues", corrupted=1.0)
        wrong = method._known(batch, ())  # type: ignore[arg-type]
        for known in (plain, wrong):
            assert torch.equal(known.targets[0], method.task.encode(batch.target[:1]))
        for prediction, corrupted, label in zip(plain.predictions, wrong.predictions, wrong.targets, strict=True):
            assert not torch.equal(prediction, corrupted)
            assert not torch.equal(corrupted, label)
            before, after = ((each.argmax(1) == label.argmax(1))[wrong.valid[:, 0]] for each in (prediction, corrupted))
            assert before.float().mean() < after.float().mean() < 1
        assert not torch.equal(*wrong.predictions)

    @torch.no_grad()
    def test_errors_of_labels_come_from_known_pixels(self) -> None:
        """Where a label came from a void pixel, which has no class, the model's own prediction stays."""
        batch = make_batch(side=64)._replace(labeled_strong=rand(2, 3, 64, 64, seed=9))
        plain = make_strong(detector="cues")._known(batch, ())  # type: ignore[arg-type]
        method = make_strong(detector="cues", corrupted=1.0)
        kept = 0
        for seed in range(10):
            torch.manual_seed(seed)
            wrong = method._known(batch, ())  # type: ignore[arg-type]
            for prediction, corrupted in zip(plain.predictions, wrong.predictions, strict=True):
                torch.testing.assert_close(corrupted.sum(1), torch.ones(1, 64, 64))
                kept += int((corrupted == prediction).all(1, keepdim=True)[wrong.valid].sum())
        assert 0.01 < kept / (20 * int(plain.valid.sum())) < 0.5

    def test_features_need_a_model_with_feature_maps(self) -> None:
        fixed = FixedModel(torch.zeros(4, 3, 64, 64))
        with pytest.raises(SemipixError, match=r"has no method 'features'.*; or set method.detector=cues"):
            make_method("gct_strong", lambda number: fixed, detector="features")

    def test_an_unknown_detector_is_refused_in_one_line(self) -> None:
        with pytest.raises(SemipixError, match=r"method\.detector: 'best' found, paper, cues or features expected"):
            make_strong(detector="best")


class TestWithhold:
    def test_each_model_goes_without_other_labels(self) -> None:
        method = make_strong(withhold=0.25)
        batch = make_batch(labeled=4)._replace(place=torch.tensor([0.125, 0.375, 0.625, 0.875]))
        outputs = [
            model(torch.cat([batch.labeled, view])) for model, view in zip(method.models, strong(batch), strict=True)
        ]
        learned = [1, 2, 3], [0, 1, 2]
        expected = sum(
            method.task.loss(output[:4][kept], batch.target[kept])
            for output, kept in zip(outputs, learned, strict=True)
        )
        torch.testing.assert_close(method.losses(batch, 0.0)["supervised"], expected)

    def test_a_batch_of_withheld_labels_only_trains_the_other_model(self) -> None:
        method, batch = make_strong(withhold=0.5), make_batch()._replace(place=torch.tensor([0.2, 0.4]))
        method.losses(batch, 0.0)["supervised"].backward()
        assert all(not value.grad.any() for value in method.models[0].parameters() if value.grad is not None)
        assert any(value.grad.any() for value in method.models[1].parameters())

    def test_it_is_known_which_model_went_without_an_image(self) -> None:
        places = [0.125, 0.375, 0.625, 0.875]
        found = [make_strong(withhold=0.25).withheld_from(place) for place in places]
        assert found == ["first", None, None, "second"]
        assert [make_strong().withheld_from(place) for place in places] == [None] * 4

    @pytest.mark.parametrize(("share", "count", "each"), [(0.25, 2, 1), (0.25, 10, 3), (0.3, 5, 2), (0.15, 10, 2)])
    def test_both_models_go_without_equally_many_labels(self, share: float, count: int, each: int) -> None:
        found = [make_strong(withhold=share).withheld_from(place) for place in places_of(count, seed=0)]
        assert [found.count(name) for name in ("first", "second")] == [each, each]

    def test_the_loss_goes_without_exactly_the_images_that_are_known_as_withheld(self) -> None:
        """Also where a place is the share itself, which single and double precision round to different sides."""
        for withhold, places in ((0.35, [0.35]), (0.3, [0.7])):
            method, batch = make_strong(withhold=withhold), make_batch(labeled=1)
            place = torch.tensor(places)
            for name, model in zip(("first", "second"), method.models, strict=True):
                method.zero_grad()
                method.losses(batch._replace(place=place), 0.0)["supervised"].backward()
                learned = any(value.grad is not None and bool(value.grad.any()) for value in model.parameters())
                assert learned == (method.withheld_from(place.tolist()[0]) != name)

    def test_more_than_half_is_refused(self) -> None:
        with pytest.raises(SemipixError, match=r"method.withhold: 0.6 found, a share in \[0, 0.5\] expected"):
            make_strong(withhold=0.6)


def strong(batch: Batch) -> tuple[Tensor, ...]:
    assert batch.strong is not None
    return batch.strong.chunk(2)


class TestLabelAccuracy:
    def test_a_gate_closes_where_pseudo_labels_are_wrong_too_often(self) -> None:
        method, batch = make_strong(gate="open", lambda_cross=1.0, label_accuracy=0.9), make_batch()
        first, second = crossed(method)
        asked = []

        def needed(name: str, accuracy: float) -> float:
            asked.append((name, accuracy))
            return {"first": 0.0, "second": float("inf")}[name]

        method.after_validation(needed)
        assert asked == [("first", 0.9), ("second", 0.9)]
        torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], second)
        other = make_strong(gate="open", lambda_cross=1.0, label_accuracy=0.9)
        other.load_state_dict(method.state_dict())
        assert torch.equal(other.needed, method.needed), "a resumed training keeps its gate"
        method.after_validation(lambda name, accuracy: 0.0)
        torch.testing.assert_close(method.losses(batch, 0.0)["cross_supervision"], first + second)

    def test_by_default_confidence_stays(self) -> None:
        method = make_strong(confidence=0.4)
        method.after_validation(lambda name, accuracy: 0.9)
        assert method.needed.tolist() == pytest.approx([0.4, 0.4])

    def test_a_confidence_of_whole_numbers_may_be_raised(self) -> None:
        method = make_strong(confidence=0, label_accuracy=0.9)
        method.after_validation(lambda name, accuracy: 0.25)
        assert method.needed.tolist() == [0.25, 0.25]

    @torch.no_grad()
    @pytest.mark.parametrize("per_class", [False, True])
    def test_what_is_taught_afterwards_is_right_often_enough_and_reported(self, per_class: bool) -> None:
        """Class 1 is less sure, and often wrong: a threshold scaled by class must not let it in again."""
        method = make_strong(gate="open", confidence=0.7, label_accuracy=0.95, per_class=per_class)
        generator = torch.Generator().manual_seed(0)
        second = torch.rand(10_000, generator=generator) < 0.3
        share = torch.rand(10_000, generator=generator)
        sure = torch.where(second, 0.55 + 0.3 * share, 0.985 + 0.01 * share)
        right = torch.rand(10_000, generator=generator) < torch.where(second, 0.6, 0.995)
        prediction = torch.stack([torch.where(second, 1 - sure, sure), torch.where(second, sure, 1 - sure), 0 * sure])
        prediction, target = prediction.view(1, 3, 100, 100), (second ^ ~right).long().view(1, 100, 100)
        for _ in range(60):
            method._sure(0, prediction, None)  # fills the mean confidences
        method.eval()
        evidences = {name: Evidence(prediction, (prediction, prediction)) for name in ("first", "second")}
        metric = PseudoLabelMetric(method.task)
        confidence = functools.partial(method.confidence_of, "first")
        metric.update(prediction, method.taught(evidences)["first"], target, confidence)
        found = metric.compute()
        method.after_validation(lambda name, accuracy: needed_confidence(found["counts"], accuracy))
        taught = method._sure(0, prediction, None).flatten()
        accuracy = float(right[taught].float().mean())
        assert 0.95 <= accuracy < 1
        assert float(taught.float().mean()) > 0.6
        reported = accuracy_and_share(found["counts"], found["pixels"], method.least_confidence("first"))
        assert [float(value) for value in reported] == pytest.approx([accuracy, float(taught.float().mean())], abs=1e-3)

    @torch.no_grad()
    def test_taught_are_the_pixels_whose_labels_are_learned(self) -> None:
        method, batch = make_strong(gate="open", confidence=0.4, lambda_cross=1.0), make_batch()
        taught = method.taught(method.evidences(batch.unlabeled))
        lessons = method._lessons(batch)
        assert 0 < taught["first"].float().mean() < 1
        assert torch.equal(taught["second"], lessons[0].taught)
        assert torch.equal(taught["first"], lessons[1].taught)
