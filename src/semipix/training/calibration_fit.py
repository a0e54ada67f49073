"""Fit a calibrated error map on images that trained nothing.

1. Some pixels of each image are drawn, with their cues and their errors.
2. A generalised linear model maps the cues to a score: a logistic regression of wrong pixels or, in regression, a
   Poisson regression (a log link, and no assumption but the mean) of the absolute error. Weights of cues that can only
   speak for an error are never negative. Free weights fit differences of such cues, which hold on images like the
   fitted ones and may reverse the map on others. Choices of features are compared on images that a model was not fitted
   on: each cue alone, all cues, their means around the pixel too, and those over the image too. A choice that ranks the
   pixels of such images worse than a cue alone is not used.
3. An isotonic regression maps scores to probabilities, or to errors. It is fitted on the scores of images that the
   linear model was not fitted on, since those of its own images are too good. Its steps become one knot each, so that
   scores between two steps keep their order. In classification the errors are mixed with those that the softmax
   expects, as if one more image had shown these: two images do not say how many pixels are wrong in others.

Images are left out in groups of neighbours in the order of their names, since frames of a video are too much alike to
say something of new images.

All figures, and the losses from which `--risk` is answered, are measured on images that neither was fitted on.

In regression errors are those of the metrics: a label outside of the range is not clamped, so that an error can be more
than 1. Only the losses for `--risk`, which need a bound, count such an error as 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from semipix import interruption
from semipix.batch import EvalSample
from semipix.data.files.decode import unit_range
from semipix.errors import SemipixError
from semipix.functional.conformal import monotone_losses
from semipix.functional.cues import VERSION, WINDOWS, feature_names, is_ascending, local_mean
from semipix.methods.base import Evidence, Method
from semipix.methods.slabs import PIXELS_AT_ONCE
from semipix.training.calibration import Calibration, cues_of, fingerprint

PIXELS_OF_IMAGE = 4000
"""Most pixels that are drawn from an image."""

PIXELS = 1_000_000
"""Most pixels of all images together."""

FIT_PIXELS = 100_000
"""Most of them that the linear model is fitted on; neighbours say almost the same, so that more add little."""

FOLDS = 5
"""Parts of the images, of which one at a time is left out of a fit."""

PENALTY = 0.1
"""Weight of half the squared norm of the coefficients of standardised features, beside the mean loss of a pixel. With a
hundredth of it, means over wide windows got weights that held in the validation images' scenes alone."""

GAIN = 0.001
"""Decrease of the loss, as a share of that of the best cue alone, for which more features are used."""

FEWEST_IMAGES = 10
"""Fewest images from which means over the image are weighted: each image is one sample of them."""

EXPECTED_IMAGES = 1
"""Images whose weight the errors have that the softmax expects."""

KNOTS = 62
"""Most steps of the isotonic regression."""

BEYOND = 0.1
"""How far the value goes on from the outermost step of the regression to the outermost score, as a share of it."""

CLOSEST = 1e-5
"""Least distance of two knots, also as a share of their scores: maps are float32, in which closer ones may be equal."""

THRESHOLDS = 100
"""Thresholds at which the losses are kept."""

BINS = 15
"""Bins of the calibration error."""

BAR_AFTER = 10
"""Seconds after which a progress bar is shown."""

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]

MakeEvidence = Callable[[EvalSample, Tensor], Evidence]
"""Evidence of one image: the sample, and its image (1, C, h, w) on the method's device."""


class Drawn(NamedTuple):
    """Pixels that were drawn from one image.

    Attributes:
        pixel: features of the pixels (P, F), those of `feature_names`.
        image: features of the image (D,).
        errors: (P,): 1 where the pixel is wrong or, in regression, the absolute error as a share of the range.
        squares: (P,): squares of the errors, in regression their mean over channels.
        classes: the classes in its label; empty in regression.
        outside: in regression, how many of the pixels have a label outside of the task's range.
    """

    pixel: Matrix
    image: Vector
    errors: Vector
    squares: Vector
    classes: frozenset[int]
    outside: int = 0


class Linear(NamedTuple):
    """A generalised linear model of features that are not standardised.

    Attributes:
        columns: the features that it uses.
        weights: of these features.
        intercept: added to the weighted sum.
    """

    columns: NDArray[np.intp]
    weights: Vector
    intercept: float

    def scores(self, features: Matrix) -> Vector:
        """The scores (P,) of features (P, F)."""
        return np.asarray(features[:, self.columns] @ self.weights + self.intercept, np.float64)


def calibrate(
    method: Method,
    samples: Sequence[EvalSample],
    *,
    split: str,
    checkpoint: str,
    evidence: MakeEvidence | None = None,
    views: str = "",
    scene: Callable[[str], str] = str,
) -> Calibration:
    """Fit the error map of a method.

    Args:
        method: trained, in evaluation mode, on its device.
        samples: images with labels that trained nothing.
        split: what they are, for the record.
        checkpoint: whose weights the method has, `best` or `last`.
        evidence: evidence of a sample, where it is not what `method.evidence` says.
        views: over which that evidence is averaged, for the record.
        scene: names the scene that an image shows. Images of one scene are no independent ones.

    Raises:
        SemipixError: the images do not suffice: fewer than two have a label, or no pixel is wrong, or all are; or the
            network's output is not finite.
    """
    task = method.task
    names: list[str] = []
    by_name: list[tuple[str, int, Drawn]] = []
    pixels = min(PIXELS_OF_IMAGE, max(1, PIXELS // max(1, len(samples))))
    # With `delay`, a calibration of a few seconds shows no progress bar.
    for number in tqdm(range(len(samples)), desc="calibrate", unit="image", delay=BAR_AFTER):
        interruption.raise_if_interrupted()
        sample = samples[number]
        found, names_of_sample = draw(method, sample, number, pixels, evidence)
        if found is not None:
            by_name.append((sample.name, number, found))
            names = names_of_sample
    by_name.sort(key=lambda each: (scene(each[0]), *each[:2]))
    drawn, scenes = [found for *_, found in by_name], [scene(name) for name, *_ in by_name]
    if len(drawn) < 2:
        raise SemipixError(
            f"calibrate: {len(drawn)} {split} images with labels found, 2 or more expected, since each is measured by "
            "a map that was fitted on others"
        )
    errors = np.concatenate([each.errors for each in drawn])
    if task.classification and not 0 < errors.sum() < len(errors):
        which = "none" if errors.sum() == 0 else "every one"
        raise SemipixError(
            f"calibrate: {which} of the {len(errors)} pixels drawn from {len(drawn)} {split} images is wrong, so that "
            "nothing distinguishes wrong pixels; give more validation images"
        )
    if not errors.any():
        raise SemipixError(f"calibrate: the predictions of all {len(drawn)} {split} images are exact; nothing to fit")
    fitted = fit(drawn, names, task.classification, scenes)
    seen = frozenset[int]().union(*(each.classes for each in drawn))
    classes: Sequence[str] = getattr(task, "classes", ()) if task.classification else ()
    return Calibration(
        checkpoint=checkpoint,
        fingerprint=fingerprint(method),
        network=method.deployed_name(),
        views=views,
        kind="probability" if task.classification else "absolute error",
        cues=VERSION,
        split=split,
        images=len(drawn),
        pixels=len(errors),
        absent=[name for index, name in enumerate(classes) if index not in seen],
        outside=sum(each.outside for each in drawn),
        **fitted,
    )


# pixels and their features


@torch.inference_mode()
def draw(
    method: Method, sample: EvalSample, number: int, pixels: int, evidence: MakeEvidence | None = None
) -> tuple[Drawn | None, list[str]]:
    """Draw pixels of an image that count, and compute their cues and errors.

    Of an image that is too large for one pass, a random part of all columns is taken as the image.

    Args:
        method: in evaluation mode, on its device.
        sample: an image with its label.
        number: seed of what is drawn.
        pixels: most pixels that are drawn.
        evidence: see `calibrate`.

    Returns:
        The pixels, None if none counts; and the names of the cues.

    Raises:
        SemipixError: the network's output is not finite.
    """
    task = method.task
    device = next(method.parameters()).device
    generator = torch.Generator().manual_seed(number)
    sample = _part(sample, PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cuda"]), generator)
    target = sample.target[None]
    counted = task.counted(target)[0, 0]
    places = counted.flatten().nonzero().squeeze(1)
    if not len(places):
        return None, []
    places = places[torch.randperm(len(places), generator=generator)[:pixels]]
    size = (counted.shape[0], counted.shape[1])
    image = unit_range(sample.image[None]).to(device)
    found = method.evidence(image) if evidence is None else evidence(sample, image)
    grid = _Grid(places.to(device), size)
    labels = target.flatten(-2)[..., places].unsqueeze(-2).to(device)  # (1, ..., 1, P), an image of one row
    prediction = grid.values(found.predictions[0])[None, :, None]  # (1, K, 1, P)
    outside, classes = 0, frozenset[int]()
    if task.classification:
        errors = squares = task.wrong(prediction, labels)[0, 0, 0].double()
        classes = frozenset(torch.unique(sample.target[counted]).tolist())
    else:
        difference = task.difference(prediction, labels)
        outside = int((difference != prediction - task.encode(labels)).any(1).sum())  # what is encoded is clamped
        difference = difference.double()
        errors, squares = difference.abs().mean(1)[0, 0], difference.square().mean(1)[0, 0]
    cues = cues_of(task, found, image)
    names = list(cues)
    maps = torch.cat(list(cues.values()), 1)
    if not bool(maps.isfinite().all()) or not bool(errors.isfinite().all()):
        raise SemipixError(f"calibrate: {sample.name}: the network's output has values that are not finite")
    parts = [grid.values(maps), *(grid.values(local_mean(maps, window)) for window in WINDOWS)]
    means = dict(zip(names, maps.double().mean((0, 2, 3)).tolist(), strict=True))
    of_image = [means[name.removesuffix("@image")] for name in feature_names(names)[1]]
    return (
        Drawn(
            torch.cat(parts).T.float().cpu().numpy(),
            np.array(of_image, np.float64),
            errors.cpu().numpy(),
            squares.cpu().numpy(),
            classes,
            outside,
        ),
        names,
    )


def _part(sample: EvalSample, pixels: int, generator: torch.Generator) -> EvalSample:
    """A sample of at most so many pixels: all columns of some rows, and the same share of the label's rows."""
    height, width = sample.image.shape[-2:]
    rows = max(1, pixels // width)
    if rows >= height:
        return sample
    top = int(torch.randint(height - rows + 1, (1,), generator=generator))
    scale = sample.target.shape[-2] / height
    of_target = slice(round(top * scale), max(round(top * scale) + 1, round((top + rows) * scale)))
    return sample._replace(image=sample.image[:, top : top + rows], target=sample.target[..., of_target, :])


class _Grid:
    """Pixels of a map of some size, at which maps of another size are read as if they were resized bilinearly.

    Args:
        places: positions (P,) in the flattened map.
        size: its height and width.
    """

    def __init__(self, places: Tensor, size: tuple[int, int]) -> None:
        self.places = places
        self.size = size
        rows, columns = places // size[1], places % size[1]
        self._grid = torch.stack([2 * (columns + 0.5) / size[1] - 1, 2 * (rows + 0.5) / size[0] - 1], -1)[None, None]

    def values(self, maps: Tensor) -> Tensor:
        """Values (C, P) of maps (1, C, h, w)."""
        if maps.shape[-2:] == self.size:
            return maps[0].flatten(1)[:, self.places]
        return F.grid_sample(maps, self._grid.to(maps), padding_mode="border", align_corners=False)[0, :, 0]


# fit


def fit(
    drawn: Sequence[Drawn], cues: Sequence[str], classification: bool, scenes: Sequence[str] = ()
) -> dict[str, Any]:
    """Fit the score, the knots and the losses.

    Args:
        drawn: pixels of at least two images; of a classification, some are wrong and some are not.
        cues: names of the cues.
        classification: whether errors are 0 or 1.
        scenes: the scene of each image; those of one scene follow one another. By default each has its own.

    Returns:
        The fields of `Calibration` that depend on the fit.
    """
    pixel_names, image_names = feature_names(cues)
    names = [*pixel_names, *image_names]
    rising = np.array([is_ascending(name) for name in names])
    features = np.concatenate([np.hstack([each.pixel, _repeated(each)]) for each in drawn])
    errors = np.concatenate([each.errors for each in drawn])
    image_of = np.repeat(np.arange(len(drawn)), [len(each.errors) for each in drawn])
    scene_of = np.unique(scenes, return_inverse=True)[1] if len(scenes) else np.arange(len(drawn))
    count = int(scene_of.max()) + 1  # of independent images
    # A single scene can only be measured by its own other images.
    fold_of = (_folds(count)[scene_of] if count > 1 else _folds(len(drawn)))[image_of]
    larger = {"all cues": list(cues), "surroundings": pixel_names}
    if count >= FEWEST_IMAGES:
        larger["image"] = names
    choices = {**{name: [name] for name in cues}, **larger}
    tried: dict[str, tuple[NDArray[np.intp], Vector, float]] = {}
    for choice, chosen in choices.items():
        interruption.raise_if_interrupted()
        columns = np.array([names.index(name) for name in chosen])
        scores = _scores_of_others(features, errors, fold_of, columns, rising[columns], classification)
        tried[choice] = columns, scores, _loss(_leveled(scores, errors, classification), errors, classification)
    best = single = min(cues, key=lambda name: tried[name][2])
    for choice in larger:
        if tried[choice][2] < tried[best][2] - GAIN * abs(tried[single][2]):
            best = choice
    found = {name: _order(tried[name][1], errors, classification) for name in {*cues, best}}
    if found[best] < max(found.values()):
        best = max(cues, key=lambda name: found[name])
    columns, scores, _ = tried[best]
    model = _centred(features, errors, columns, rising[columns], classification)
    wanted = errors
    if classification:
        from scipy.special import expit

        expected = expit(features[:, names.index("softmax")].astype(np.float64))  # the cue is a logit
        wanted = (count * errors + EXPECTED_IMAGES * expected) / (count + EXPECTED_IMAGES)
    highest = 1.0 if classification else math.inf
    knots = isotonic_knots(scores, wanted, highest)
    estimates = np.empty(len(errors))  # by knots of other images too
    for fold in np.unique(fold_of):
        out = fold_of == fold
        estimates[out] = np.interp(scores[out], *isotonic_knots(scores[~out], wanted[~out], highest))
    thresholds = np.unique(np.append(np.quantile(estimates, np.linspace(0, 1, THRESHOLDS)), 1.0))
    bounded = np.minimum(errors, 1)
    of_image = [
        monotone_losses(estimates[image_of == i], bounded[image_of == i], thresholds) for i in range(len(drawn))
    ]
    losses = [np.mean([of_image[i] for i in np.flatnonzero(scene_of == number)], axis=0) for number in range(count)]
    squares = np.concatenate([each.squares for each in drawn])
    mean_square = float(np.mean(estimates**2))
    return {
        "networks": 2 if {"other", "difference"} & {*cues} else 1,
        "weights": {names[column]: float(weight) for column, weight in zip(columns, model.weights, strict=True)},
        "intercept": model.intercept,
        "knot_scores": knots[0].tolist(),
        "knot_values": knots[1].tolist(),
        "features": best,
        "figures": _figures(scores, estimates, errors, features, names, classification),
        "squares": float(np.mean(squares)) / mean_square if mean_square and not classification else 1.0,
        "thresholds": thresholds.tolist(),
        "losses": [np.round(each, 6).tolist() for each in losses],
    }


def _scores_of_others(
    features: Matrix,
    errors: Vector,
    fold_of: NDArray[np.intp],
    columns: NDArray[np.intp],
    rising: NDArray[np.bool_],
    classification: bool,
) -> Vector:
    """Scores (P,) of pixels by linear models of the other folds.

    Each model's scores have a mean of 0 over all pixels. By its own level, fitted on images without the worst one, the
    pixels of the worst image would get the lowest scores, and with few images that reverses the order of all pixels.
    """
    scores = np.empty(len(errors))
    for fold in np.unique(fold_of):
        out = fold_of == fold
        model = _centred(features, errors, columns, rising, classification, ~out)
        scores[out] = model.scores(features[out])
    return scores


def _centred(
    features: Matrix,
    errors: Vector,
    columns: NDArray[np.intp],
    rising: NDArray[np.bool_],
    classification: bool,
    fitted: NDArray[np.bool_] | slice = slice(None),
) -> Linear:
    """A linear model of some of the pixels, whose scores have a mean of 0 over all pixels.

    A cue alone that can only speak for an error is taken as it is: it needs no fit, and a few images in which it
    happens to speak against one would leave a constant map.
    """
    if len(columns) == 1 and rising[0]:
        weights = np.ones(1)
    else:
        weights = fit_linear(features[fitted], errors[fitted], columns, rising, classification).weights
    return Linear(columns, weights, -float(np.mean(features[:, columns] @ weights, dtype=np.float64)))


def _leveled(scores: Vector, errors: Vector, classification: bool) -> Vector:
    """Scores with the scale (not below 0) and the level for which they fit the errors best."""
    as_feature = scores[:, None].astype(np.float32)
    model = fit_linear(as_feature, errors, np.array([0]), np.array([True]), classification)
    return model.scores(as_feature)


def fit_linear(
    features: Matrix, errors: Vector, columns: NDArray[np.intp], rising: NDArray[np.bool_], classification: bool
) -> Linear:
    """Fit a logistic or a Poisson regression of standardised features.

    scikit-learn's have no bounds for single weights, so SciPy's L-BFGS-B minimises their loss.

    Args:
        features: (P, F).
        errors: (P,), 0 or 1 in classification, otherwise at least 0.
        columns: the C features that are used.
        rising: (C,), those whose weight must not be negative.
        classification: whether errors are 0 or 1.
    """
    from scipy.optimize import minimize

    step = max(1, math.ceil(len(errors) / FIT_PIXELS))
    chosen, wanted = features[::step][:, columns].astype(np.float64), errors[::step]
    mean, scale = chosen.mean(0), chosen.std(0)
    scale[scale < 1e-6] = np.inf  # a feature that does not vary says nothing
    count, level = len(wanted), wanted.mean()
    if not level or (classification and level == 1):  # nothing to distinguish in these images
        level = (wanted.sum() + 0.5) / (count + 1)
        return Linear(columns, np.zeros(len(columns)), math.log(level / (1 - level)))  # 1 - level is about 1, if small
    standard = (chosen - mean) / scale
    if not classification:
        wanted = wanted / level  # the size of errors then has no effect on that of the penalty

    def loss(parameters: Vector) -> tuple[float, Vector]:
        """The mean loss of a pixel with half the penalty, and its gradient."""
        weights, scores = parameters[:-1], standard @ parameters[:-1] + parameters[-1]
        if classification:
            value, estimates = np.logaddexp(0, scores) - wanted * scores, 1 / (1 + np.exp(-scores))
        else:
            estimates = np.exp(np.clip(scores, -50, 50))
            value = estimates - wanted * scores
        slopes = (estimates - wanted) / count
        gradient = np.append(standard.T @ slopes + PENALTY * weights, slopes.sum())
        return float(value.mean() + PENALTY / 2 * weights @ weights), gradient

    start = np.zeros(len(columns) + 1)
    start[-1] = math.log(level / (1 - level)) if classification else 0.0
    bounds = [*((0, None) if only else (None, None) for only in rising), (None, None)]
    with np.errstate(over="ignore"):  # the exponential of a far score in an early step is infinite, and its slope 1
        found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 300}).x
    weights = found[:-1] / scale
    intercept = float(found[-1] - mean @ weights) + (0.0 if classification else math.log(level))
    return Linear(columns, weights, intercept)


def isotonic_knots(scores: Vector, errors: Vector, highest: float = 1.0) -> tuple[Vector, Vector]:
    """Knots of the ascending function of the score that is closest to the errors: scores and values.

    There are at most `KNOTS` and two. Both ascend strictly, also where these errors do not, so that no order of these
    scores is lost but that of scores closer than `CLOSEST`.

    Scores are put into bins first, half of them with equal numbers of pixels and half with equal sums of errors, so
    that both the many right and the few wrong pixels are resolved.

    Args:
        scores: (P,).
        errors: (P,), 0 or more.
        highest: what no value reaches.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(scores, kind="stable")
    scores, errors = scores[order], errors[order]
    shares = np.linspace(0, 1, KNOTS // 2 + 1)[1:-1]
    sums = np.cumsum(errors)
    edges = np.concatenate([shares * len(scores), np.searchsorted(sums, shares * sums[-1])]).astype(int)
    edges = np.searchsorted(scores, np.unique(scores[np.clip(edges, 0, len(scores) - 1)]))  # equal scores together
    starts = np.unique(np.append(0, edges))
    counts = np.diff(np.append(starts, len(scores)))
    level = errors.mean()
    means = np.add.reduceat(scores, starts) / counts
    values = (np.add.reduceat(errors, starts) + level) / (counts + 1)  # no bin is ever certain
    means, first = np.unique(means, return_index=True)
    values, counts = values[first], counts[first]
    values = IsotonicRegression().fit_transform(means, values, sample_weight=counts)
    # One knot in the middle of each step (centred isotonic regression, Oron and Flournoy 2017), and two at the ends.
    values, step_of = np.unique(values, return_inverse=True)
    weights, means = np.bincount(step_of, counts), np.bincount(step_of, counts * means) / np.bincount(step_of, counts)
    knot_of = np.append(0, np.cumsum(_apart(means[:-1], means[1:])))
    values, means = (np.bincount(knot_of, weights * each) / np.bincount(knot_of, weights) for each in (values, means))
    if _apart(scores[0], means[0]):
        means, values = np.append(scores[0], means), np.append((1 - BEYOND) * values[0], values)
    if _apart(means[-1], scores[-1]):
        beyond = min((1 + BEYOND) * values[-1], (highest + values[-1]) / 2)
        means, values = np.append(means, scores[-1]), np.append(values, beyond)
    if len(means) == 1:
        return np.array([means[0], means[0] + 1]), np.array([values[0], values[0]])
    return means, np.asarray(values, np.float64)


def _apart(lower: Any, higher: Any) -> Any:
    """Whether scores are far enough from lower ones for two knots; numbers, or arrays of them."""
    return higher - lower > CLOSEST * np.maximum(1, np.abs(higher))


def _repeated(drawn: Drawn) -> Matrix:
    """The features of the image for each of its pixels, (P, D)."""
    return np.repeat(drawn.image[None].astype(np.float32), len(drawn.errors), 0)


def _folds(images: int) -> NDArray[np.intp]:
    """The fold of each image: neighbours share one."""
    folds = min(FOLDS, images)
    return np.arange(images) * folds // images


def _loss(scores: Vector, errors: Vector, classification: bool) -> float:
    """Mean loss of the linear model: the log loss, or the Poisson deviance up to a constant."""
    if classification:
        return float(np.mean(np.logaddexp(0, scores) - errors * scores))
    return float(np.mean(np.exp(np.clip(scores, -50, 50)) - errors * scores))


def _order(scores: Vector, errors: Vector, classification: bool) -> float:
    """How well scores order pixels, higher is better.

    The AUROC or, in regression, minus the mean error of the pixels with the lowest scores, over all shares of pixels:
    the AUSE up to its sign and a constant.
    """
    if classification:
        return _rank(scores, errors, classification)
    accepted = np.cumsum(errors[np.argsort(scores, kind="stable")])
    return -float(np.mean(accepted / np.arange(1, len(errors) + 1)))


def _rank(values: Vector | Matrix, errors: Vector, classification: bool) -> float:
    """How well values find errors: the AUROC or, in regression, Spearman's rank correlation, 0 of a constant."""
    if classification:
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(errors, values))
    from scipy.stats import spearmanr

    return float(spearmanr(errors, values).statistic) if np.ptp(values) else 0.0


def _figures(
    scores: Vector,
    estimates: Vector,
    errors: Vector,
    features: Matrix,
    names: Sequence[str],
    classification: bool,
) -> dict[str, float | None]:
    """How well the map and single cues find errors, and how far the map is from what happened.

    Pixels are ranked by their scores: estimates of different folds have knots, and so levels, of their own.
    """
    if classification:
        single = {"softmax": "softmax", "disagreement": "disagreement", "flaw": "flaw"}
        rank = "auroc"
        edges = np.linspace(0, 1, BINS + 1)[1:-1]
    else:
        single = {"disagreement": "difference", "flaw": "flaw"}
        rank = "rank_correlation"
        edges = np.quantile(estimates, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.digitize(estimates, edges)
    off = np.abs(np.bincount(bins, estimates - errors, BINS)).sum() / len(errors)
    found = {
        rank: _rank(scores, errors, classification),
        "calibration_error": float(off),
        "mean": float(errors.mean()),
    }
    for name, cue in single.items():
        if cue in names:
            found[f"{rank}/{name}"] = _rank(features[:, names.index(cue)], errors, classification)
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
