"""Fitted error maps are calibrated on images that they were not fitted on, and what cannot be fitted is refused."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from torch import Tensor

from semipix.batch import VOID, EvalSample
from semipix.errors import SemipixError
from semipix.functional.conformal import accept
from semipix.functional.cues import feature_names, is_ascending, probability_cues
from semipix.methods import slabs
from semipix.methods.base import Evidence, Method
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from semipix.training.calibrating import lines_of
from semipix.training.calibration import Calibration, apply
from semipix.training.calibration_fit import (
    PENALTY,
    Drawn,
    _folds,
    _Grid,
    _order,
    _rank,
    calibrate,
    draw,
    fit,
    fit_linear,
    isotonic_knots,
)
from tests.helpers.tiny import CLASSES, ColourModel, make_method, rand

SIDE = 48


def noisy(seed: int, task: Task) -> tuple[EvalSample, Evidence]:
    """An image, and evidence that is made of it: predictions that are wrong where they are unsure, unlike in degree."""
    coarse = F.interpolate(rand(1, CLASSES, 6, 6, seed=seed), (SIDE, SIDE), mode="bilinear")
    if task.classification:
        output = 12 * (coarse - 0.5)
        overconfident = output * 2
        label = torch.multinomial(output.softmax(1)[0].flatten(1).T, 1, generator=torch.Generator().manual_seed(seed))
        other = (output + 2 * (rand(1, CLASSES, SIDE, SIDE, seed=seed + 99) - 0.5)).softmax(1)
        sample = EvalSample(coarse[0], label.view(SIDE, SIDE), str(seed))
        return sample, Evidence(overconfident, (overconfident.softmax(1), other), coarse[:, :1])
    spread = 0.02 + 0.2 * F.interpolate(rand(1, 1, 4, 4, seed=seed + 50), (SIDE, SIDE), mode="bilinear")
    draw_normal = torch.Generator().manual_seed(seed)
    first, second = (coarse + spread * torch.randn(coarse.shape, generator=draw_normal) for _ in range(2))
    sample = EvalSample(coarse[0], coarse[0].clamp(0, 1), str(seed))
    return sample, Evidence(first, (first.clamp(0, 1), second.clamp(0, 1)))


def fitted(task: Task, images: int = 8) -> Calibration:
    method = make_method("supervised", task=task).eval()
    known = {sample.name: (sample, evidence) for sample, evidence in (noisy(seed, task) for seed in range(images))}
    samples = [sample for sample, _ in known.values()]
    return calibrate(
        method, samples, split="val", checkpoint="best", evidence=lambda sample, image: known[sample.name][1]
    )


def off(estimates: Tensor, errors: Tensor) -> float:
    """Expected calibration error, by bins of equal size."""
    order = estimates.argsort()
    parts = zip(estimates[order].chunk(10), errors[order].chunk(10), strict=True)
    return float(torch.stack([(first.mean() - second.mean()).abs() for first, second in parts]).mean())


def test_probabilities_of_new_images_are_right() -> None:
    task = Segmentation(CLASSES)
    calibration = fitted(task)
    assert (calibration.kind, calibration.images, calibration.networks) == ("probability", 8, 2)
    maps, softmax, errors = [], [], []
    for seed in range(20, 30):
        sample, evidence = noisy(seed, task)
        maps.append(apply(calibration, task, evidence, sample.image[None]).flatten())
        softmax.append(1 - evidence.predictions[0].amax(1).flatten())
        errors.append((evidence.output.argmax(1)[0] != sample.target).flatten().float())
    found, plain, wrong = (torch.cat(each) for each in (maps, softmax, errors))
    assert off(found, wrong) < 0.03 < 0.08 < off(plain, wrong), "the prediction is too sure, the map is not"
    figures = calibration.figures
    assert figures["calibration_error"] is not None
    assert figures["auroc"] is not None
    assert figures["auroc/softmax"] is not None
    assert figures["calibration_error"] < 0.03
    assert figures["auroc"] > figures["auroc/softmax"] - 0.005 > 0.6


def test_errors_of_new_images_are_right_in_regression() -> None:
    task = Denoising()
    calibration = fitted(task)
    assert calibration.kind == "absolute error"
    maps, errors, squares = [], [], []
    for seed in range(20, 30):
        sample, evidence = noisy(seed, task)
        maps.append(apply(calibration, task, evidence, sample.image[None]).flatten())
        difference = evidence.predictions[0][0] - sample.target
        errors.append(difference.abs().mean(0).flatten())
        squares.append(difference.square().mean(0).flatten())
    found, actual = torch.cat(maps), torch.cat(errors)
    assert off(found, actual) < 0.1 * float(actual.mean())
    assert float(found.max()) > 2 * float(found.min()), "it knows where"
    expected = calibration.squares * float(found.square().mean())
    assert expected == pytest.approx(float(torch.cat(squares).mean()), rel=0.1)


def test_the_split_of_a_fit_is_by_image() -> None:
    """Features that say only which image a pixel is of are worth nothing on another image, and are not chosen."""
    drawn = []
    names = ["softmax"]
    pixel, image = feature_names(names)
    for number in range(6):
        generate = np.random.default_rng(number)
        cue = generate.normal(size=500)
        level = 2 + generate.normal()  # an image is easy or hard
        errors = (generate.random(500) < 1 / (1 + np.exp(level - cue))).astype(float)
        features = np.repeat(cue[:, None], len(pixel), 1).astype(np.float32)
        drawn.append(make_drawn(features, np.full(len(image), generate.normal()), errors))
    found = fit(drawn, names, classification=True)
    assert found["features"] != "image"
    assert sum(found["weights"].values()) == pytest.approx(1, abs=0.3)
    assert len(found["losses"]) == 6
    assert all(len(each) == len(found["thresholds"]) for each in found["losses"])


def images_of(levels: Sequence[float], slope: float, pixels: int = 500) -> list[Drawn]:
    """Images of one cue with a rate of errors of their own each, whose logit rises by `slope` with the cue."""
    pixel, image = feature_names(["softmax"])
    found = []
    for number, level in enumerate(levels):
        generate = np.random.default_rng(number)
        cue = generate.normal(size=pixels)
        errors = (generate.random(pixels) < 1 / (1 + np.exp(-level - slope * cue))).astype(float)
        features = np.repeat(cue[:, None], len(pixel), 1).astype(np.float32)
        found.append(make_drawn(features, np.zeros(len(image)), errors))
    return found


def test_images_of_one_scene_count_as_one() -> None:
    """Copies of an image, as frames of a video nearly are, say no more than the image."""
    images = images_of([-1.0, 0.0, 0.5, -2.0], slope=1.0)
    alone = fit(images, ["softmax"], classification=True)
    copies = [image for image in images for _ in range(10)]
    found = fit(copies, ["softmax"], classification=True, scenes=[f"{number // 10}" for number in range(40)])
    assert len(found["losses"]) == 4
    means = [np.mean(each["losses"], axis=0)[-1] for each in (found, alone)]
    assert means[0] == pytest.approx(means[1], abs=0.02)
    assert not accept(found["thresholds"], found["losses"], 0.15).guaranteed, "four images are too few for it"
    assert len(fit(copies, ["softmax"], classification=True)["losses"]) == 40
    assert len(fit(copies[:10], ["softmax"], classification=True, scenes=["one"] * 10)["losses"]) == 1


@pytest.mark.parametrize("levels", [(-4.0, 1.0), (1.0, -4.0), (0.0, -3.0, 2.0)])
@pytest.mark.parametrize("slope", [1.0, -0.1])
def test_a_map_of_few_unlike_images_keeps_the_order_of_its_cue(levels: tuple[float, ...], slope: float) -> None:
    """With the level of the other images, the pixels of the worst image got the lowest scores, and the map lost all
    order; and so it did where the cue happened to speak against errors in these images."""
    found = fit(images_of(levels, slope), ["softmax"], classification=True)
    assert len(found["weights"]) == 1, "so few images do not say more than the cue"
    cue = np.linspace(-2, 2, 101)
    scores = cue * next(iter(found["weights"].values())) + found["intercept"]
    values = np.interp(scores, found["knot_scores"], found["knot_values"])
    assert (np.diff(values) > 0).all()
    assert found["figures"]["auroc"] == pytest.approx(found["figures"]["auroc/softmax"], abs=1e-6)


@pytest.mark.parametrize("count", [2, 20])
def test_few_images_move_the_level_of_softmax_as_far_as_their_number(count: int) -> None:
    """Two images in which more is wrong than softmax expects may be two hard ones; twenty are not."""
    drawn = images_of([1.0] * count, slope=1.0)
    found = fit(drawn, ["softmax"], classification=True)
    cue = np.concatenate([each.pixel[:, 0] for each in drawn])
    errors = np.concatenate([each.errors for each in drawn])
    (weight,) = found["weights"].values()
    mapped = np.interp(weight * cue + found["intercept"], found["knot_scores"], found["knot_values"])
    expected = float(np.mean(1 / (1 + np.exp(-cue))))
    level = (count * errors.mean() + expected) / (count + 1)
    assert abs(expected - errors.mean()) > 0.15
    assert mapped.mean() == pytest.approx(level, abs=0.01)


def test_a_choice_that_ranks_worse_than_a_cue_alone_is_not_used() -> None:
    """Beside a cue that finds errors, one whose sense differs from image to image, and only means of both are lower."""
    drawn = []
    pixel, image = feature_names(["softmax", "gradient"])
    for number in range(4):
        generate = np.random.default_rng(number)
        cue, changing = generate.normal(size=(2, 500))
        sense = 3 if number % 2 else -3
        errors = (generate.random(500) < 1 / (1 + np.exp(2 - cue - sense * changing))).astype(float)
        columns = [cue if name.startswith("softmax") else changing for name in pixel]
        drawn.append(make_drawn(np.stack(columns, 1).astype(np.float32), np.zeros(len(image)), errors))
    found = fit(drawn, ["softmax", "gradient"], classification=True)
    assert found["features"] == "softmax"
    assert found["figures"]["auroc"] == pytest.approx(found["figures"]["auroc/softmax"], abs=0.02)


def test_labels_outside_of_the_range_count_as_in_metrics() -> None:
    """Predictions end at the range; where labels are beyond it, errors are expected and measured in full."""
    task = Regression(low=-1, high=1)

    def beyond(seed: int) -> tuple[EvalSample, Evidence]:
        truth = 8 * F.interpolate(rand(1, 1, 5, 5, seed=seed), (SIDE, SIDE), mode="bilinear") - 3  # from -3 to 5
        shares = (truth + 1) / 2 + 0.01 * rand(1, 1, SIDE, SIDE, seed=seed + 99)
        return EvalSample(rand(3, SIDE, SIDE, seed=seed), truth[0], str(seed)), Evidence(shares, (shares.clamp(0, 1),))

    known = {sample.name: (sample, evidence) for sample, evidence in (beyond(seed) for seed in range(8))}
    found = calibrate(
        make_method("supervised", task=task).eval(),
        [sample for sample, _ in known.values()],
        split="val",
        checkpoint="best",
        evidence=lambda sample, image: known[sample.name][1],
    )
    assert found.outside == sum(int((sample.target.abs() > 1).sum()) for sample, _ in known.values())
    maps = torch.stack([apply(found, task, evidence, sample.image[None]) for sample, evidence in known.values()])
    errors = torch.stack(
        [task.error(evidence.predictions[0], sample.target[None]) for sample, evidence in known.values()]
    )
    assert errors.max() > 1, "more than the whole range"
    assert float(maps.mean()) == pytest.approx(float(errors.mean()), rel=0.1)
    assert found.squares * float(maps.square().mean()) == pytest.approx(float(errors.square().mean()), rel=0.3)
    assert max(map(max, found.losses)) <= 1, "the promise of --risk needs a bound"
    assert f": {found.outside} of {8 * SIDE**2} labels are outside of the range" in lines_of(found)[-1]


def test_in_regression_the_order_counts_the_size_of_errors() -> None:
    """Of two scores, one finds the few large errors, the other orders the many small ones."""
    errors = np.append(np.linspace(0, 0.01, 97), np.full(3, 1.0))
    large, small = (errors == 1).astype(float), np.where(errors == 1, -1.0, errors)
    assert _order(large, errors, False) > _order(small, errors, False)
    assert _rank(large, errors, False) < _rank(small, errors, False)
    assert _order(errors, errors, False) == -np.mean(np.cumsum(errors) / np.arange(1, 101))


@pytest.mark.parametrize(("images", "expected"), [(9, False), (10, True)])
def test_means_over_the_image_are_weighted_from_ten_images_on(images: int, expected: bool) -> None:
    drawn = []
    pixel, image = feature_names(["softmax"])
    for number in range(images):
        generate = np.random.default_rng(number)
        cue = generate.normal(size=500)
        level = generate.normal() * 2
        errors = (generate.random(500) < 1 / (1 + np.exp(2 - cue - level))).astype(float)
        features = np.repeat(cue[:, None], len(pixel), 1).astype(np.float32)
        drawn.append(make_drawn(features, np.full(len(image), level), errors))
    assert (fit(drawn, ["softmax"], classification=True)["features"] == "image") is expected


def make_drawn(pixel: np.ndarray, image: np.ndarray, errors: np.ndarray) -> Drawn:
    return Drawn(pixel, image, errors, errors, frozenset())


@pytest.mark.parametrize("scores", [np.linspace(-4, 4, 5000), np.repeat([-1.0, 0.0, 2.0], 400), np.zeros(50)])
def test_knots_ascend_and_are_never_certain(scores: np.ndarray) -> None:
    errors = (np.random.default_rng(0).random(len(scores)) < 1 / (1 + np.exp(3 - scores))).astype(float)
    places, values = isotonic_knots(scores, errors)
    assert 2 <= len(places) == len(values) <= 64
    assert (np.diff(places) > 0).all()
    assert (np.diff(values) > 0).all() or len(np.unique(scores)) == 1, "no order is lost"
    assert values[0] > 0
    assert values[-1] < 1
    assert np.interp(scores, places, values).mean() == pytest.approx(errors.mean(), abs=0.01)


def test_errors_above_1_have_values_above_1() -> None:
    places, values = isotonic_knots(np.linspace(0, 1, 3000), np.linspace(0, 3, 3000), highest=np.inf)
    assert values[:-1] == pytest.approx(3 * places[:-1], abs=0.1)
    assert 3 < values[-1] < 3.3
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("end", [-1, 1])
def test_scores_that_are_saturated_have_one_knot(end: int) -> None:
    """The mean of equal scores is not exactly their value, which is no reason for another knot."""
    draw_normal = np.random.default_rng(0)
    cue = np.clip(4 * draw_normal.normal(size=8000), -6.9067547, 6.9067547).astype(np.float32)
    scores = cue.astype(np.float64) - cue.mean(dtype=np.float64)
    errors = (draw_normal.random(8000) < 1 / (1 + np.exp(2 - scores))).astype(float)
    places, values = isotonic_knots(scores, errors)
    assert (np.diff(places.astype(np.float32)) > 1e-6).all()
    assert (np.diff(values) > 0).all()
    outermost = scores.max() if end > 0 else scores.min()
    assert places[-1 if end > 0 else 0] == pytest.approx(outermost)


def test_close_steps_are_one_knot() -> None:
    scores = np.repeat([0.0, 1.0, 1.0 + 1e-7, 2.0], 500)
    errors = np.tile([0.0, 1.0], 1000)
    errors[:400] = errors[500:600] = 0
    errors[1500:] = 1
    places, values = isotonic_knots(scores, errors)
    assert places == pytest.approx([0, 1, 2], abs=1e-6)
    assert values[1] == pytest.approx(0.45, abs=0.01), "that of both steps"


def test_a_part_without_errors_is_fitted_by_a_constant() -> None:
    features = np.random.default_rng(0).normal(size=(99, 2)).astype(np.float32)
    model = fit_linear(features, np.zeros(99), np.array([0, 1]), np.array([False, True]), classification=True)
    assert model.scores(features) == pytest.approx(np.log(0.005 / 0.995))


@pytest.mark.parametrize("classification", [True, False])
def test_without_bounds_the_fit_is_that_of_scikit_learn(classification: bool) -> None:
    draw_normal = np.random.default_rng(0)
    features = draw_normal.normal([1, -2, 0], [1, 3, 0.1], (2000, 3)).astype(np.float32)
    scores = features @ np.array([1.0, -0.3, 5.0]) - 2
    if classification:
        errors = (draw_normal.random(2000) < 1 / (1 + np.exp(-scores))).astype(float)
        other = LogisticRegression(C=1 / (PENALTY * 2000), tol=1e-8)
    else:
        errors = np.exp(scores / 4) * draw_normal.random(2000)
        other = PoissonRegressor(alpha=PENALTY, tol=1e-8)
    standard = (features - features.mean(0)) / features.std(0)
    other.fit(standard, errors if classification else errors / errors.mean())
    wanted = other.decision_function(standard) if classification else np.log(other.predict(standard) * errors.mean())
    model = fit_linear(features, errors, np.arange(3), np.zeros(3, bool), classification)
    assert model.scores(features) == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("classification", [True, False])
def test_a_cue_of_errors_never_speaks_against_them(classification: bool) -> None:
    """Of two cues of which one is the other with noise, free weights take their difference."""
    draw_normal = np.random.default_rng(0)
    truth = draw_normal.normal(size=4000)
    features = np.stack([truth + 1, truth + draw_normal.normal(size=4000) + 1, draw_normal.normal(size=4000)], 1)
    scores = 2 * features[:, 0] - features[:, 1] - features[:, 2] - 1
    errors = (draw_normal.random(4000) < 1 / (1 + np.exp(-scores))).astype(float)
    columns, none = np.arange(3), np.zeros(3, bool)
    free = fit_linear(features.astype(np.float32), errors, columns, none, classification).weights
    assert free[1] < -0.2
    assert free[2] < -0.2
    bound = fit_linear(features.astype(np.float32), errors, columns, np.array([True, True, False]), classification)
    assert bound.weights[1] == 0
    assert bound.weights[0] > 0
    assert bound.weights[2] < -0.2, "a feature of which the direction is not known is free"


def test_all_cues_of_classification_speak_for_errors() -> None:
    method = make_method("gct").eval()
    cues = probability_cues(method.evidence(rand(1, 3, 32, 32)).predictions, torch.full((1, 1, 32, 32), 0.1))
    assert all(is_ascending(feature) for names in feature_names(list(cues)) for feature in names)
    assert not is_ascending("brightness@17")
    assert is_ascending("difference@image")


def test_neighbours_in_name_are_left_out_together() -> None:
    assert _folds(12).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert _folds(2).tolist() == [0, 1]


def test_drawn_pixels_are_read_as_if_maps_were_resized() -> None:
    maps = rand(1, 3, 9, 14)
    places = torch.randperm(20 * 30)[:50]
    wanted = F.interpolate(maps, (20, 30), mode="bilinear")[0].flatten(1)[:, places]
    torch.testing.assert_close(_Grid(places, (20, 30)).values(maps), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        _Grid(places[places < 126], (9, 14)).values(maps), maps[0].flatten(1)[:, places[places < 126]]
    )


def colours(task: Task | None = None) -> Method:
    return make_method("supervised", lambda number: ColourModel(), task=task or Segmentation(CLASSES)).eval()


def coloured(seed: int, wrong: float) -> EvalSample:
    """An image with the label that `ColourModel` gives it, but for a share of wrong pixels."""
    image = rand(3, 40, 32, seed=seed)
    label = ColourModel()(image[None]).argmax(1)[0]
    flipped = rand(40, 32, seed=seed + 1) < wrong
    return EvalSample(image, torch.where(flipped, (label + 1) % CLASSES, label), str(seed))


def test_pixels_without_a_label_are_not_drawn() -> None:
    sample = coloured(0, 0.0)
    target = torch.full_like(sample.target, VOID)
    target[:3, :3] = (sample.target[:3, :3] + 1) % CLASSES
    drawn, _ = draw(colours(), sample._replace(target=target), 0, 4000)
    assert drawn is not None
    assert drawn.errors.tolist() == [1.0] * 9
    assert VOID not in drawn.classes
    assert draw(colours(), sample._replace(target=torch.full_like(target, VOID)), 0, 4000)[0] is None


def test_only_the_unknown_region_of_a_trimap_is_drawn() -> None:
    method = make_method("supervised", task=Matting(), make_model=lambda number: ColourModel(4, 1)).eval()
    image, target = rand(4, 16, 16), torch.full((8, 16, 16), torch.nan)
    target[0], target[1] = 0.5, 0.0
    target[1, 4:6] = 1.0
    drawn, _ = draw(method, EvalSample(image, target, "a"), 0, 4000)
    assert drawn is not None
    assert len(drawn.errors) == 32


def test_of_a_large_image_some_rows_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 10 * 32)
    drawn, _ = draw(colours(), coloured(0, 0.3), 0, 4000)
    assert drawn is not None
    assert len(drawn.errors) == 10 * 32
    assert drawn.errors.mean() == pytest.approx(0.3, abs=0.1), "image and label are cut alike"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "0 val images with labels found, 2 or more expected"),
        ([coloured(0, 0.3)], "1 val images with labels found, 2 or more expected"),
        ([coloured(0, 0.0), coloured(2, 0.0)], "none of the 2560 pixels drawn from 2 val images is wrong"),
    ],
)
def test_what_cannot_be_fitted_is_refused(samples: list[EvalSample], message: str) -> None:
    with pytest.raises(SemipixError, match=message):
        calibrate(colours(), samples, split="val", checkpoint="best")


def test_classes_without_a_label_are_named() -> None:
    task = Segmentation(["sky", "road", "car"])
    samples = [sample._replace(target=sample.target.clamp(max=1)) for sample in (coloured(0, 0.2), coloured(2, 0.2))]
    found = calibrate(colours(task), samples, split="val", checkpoint="last")
    assert list(found.absent) == ["car"]
    assert (found.images, found.pixels, found.networks, found.checkpoint) == (2, 2560, 1, "last")


def test_outputs_that_are_not_finite_are_named() -> None:
    method = colours()
    with torch.no_grad():
        next(method.parameters()).fill_(float("inf"))
    with pytest.raises(SemipixError, match="calibrate: 2: the network's output has values that are not finite"):
        calibrate(method, [coloured(2, 0.3)], split="val", checkpoint="best")
