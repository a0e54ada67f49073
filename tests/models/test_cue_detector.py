"""Detectors of cues and of feature maps. Also tests models/detector.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.routing import frozen
from semipix.methods.flaw_detection import Known, detection_loss, make_detector
from semipix.models.cue_detector import (
    COARSE,
    FIRST_PROBABILITY,
    WINDOWS,
    CueDetector,
    FeatureDetector,
    RunningNorm,
    _local_means,
)
from semipix.models.detector import Detector
from semipix.models.flaw_detector import FlawDetector
from semipix.tasks.denoising import Denoising
from semipix.tasks.segmentation import Segmentation
from tests.helpers.tiny import CLASSES, rand

SIDE = 24


def detector_of(kind: str) -> Detector:
    torch.manual_seed(0)
    if kind == "features":
        return FeatureDetector(3, CLASSES, True, [4, 6])
    return CueDetector(3, 3, kind == "cues")


def inputs_of(kind: str, seed: int = 0) -> tuple[Tensor, ...]:
    own, other = (rand(2, CLASSES, SIDE, SIDE, seed=seed + part) for part in (1, 2))
    if kind != "regression":
        own, other = own.softmax(1), other.softmax(1)
    image = rand(2, 3, SIDE, SIDE, seed=seed)
    if kind != "features":
        return image, own, other
    return image, own, other, [rand(2, 4, SIDE, SIDE), rand(2, 6, SIDE // 4, SIDE // 4)]  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["cues", "features", "regression"])
class TestDetector:
    def test_maps_are_probabilities_near_the_first_one(self, kind: str) -> None:
        detector = detector_of(kind)
        raw = detector(*inputs_of(kind))
        assert raw.shape == (2, 1, SIDE, SIDE)
        flaw = detector.flaw(raw)
        assert flaw.min() > 0 and flaw.max() < 1
        assert abs(flaw.mean() - FIRST_PROBABILITY) < 0.15

    def test_gradients_reach_both_predictions_and_no_frozen_parameter(self, kind: str) -> None:
        detector, (image, own, other, *rest) = detector_of(kind), inputs_of(kind)
        before = detector.norm.count.clone()
        own, other = own.requires_grad_(), other.requires_grad_()
        frozen(detector, image, own, other, *rest).sum().backward()
        assert own.grad is not None and own.grad.abs().sum() > 0
        assert other.grad is not None and other.grad.abs().sum() > 0
        assert all(value.grad is None for value in detector.parameters())
        assert torch.equal(detector.norm.count, before), "a frozen pass leaves the running statistics"

    def test_an_image_does_not_depend_on_its_batch(self, kind: str) -> None:
        detector, (image, own, other, *rest) = detector_of(kind).eval(), inputs_of(kind)
        both = detector(image, own, other, *rest)
        features = [[maps[:1] for maps in rest[0]]] if rest else []
        torch.testing.assert_close(detector(image[:1], own[:1], other[:1], *features), both[:1])


def test_it_learns_that_the_less_sure_of_two_that_disagree_is_wrong() -> None:
    """The first prediction has errors, with less confidence; its less sure pixels are often right where both agree."""
    torch.manual_seed(0)
    task = Segmentation(CLASSES)
    detector = make_detector(task, "cues")
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.02)

    def known(seed: int) -> Known:
        target = F.one_hot((rand(2, SIDE, SIDE, seed=seed) * CLASSES).long(), CLASSES).movedim(-1, 1).float()
        unsure = rand(2, 1, SIDE, SIDE, seed=seed + 1) < 0.6
        wrong = unsure & (rand(2, 1, SIDE, SIDE, seed=seed + 2) < 0.5)
        share = torch.where(unsure, 0.6, 0.9)
        own = torch.where(wrong, target.roll(1, 1), target) * share + (1 - share) / CLASSES
        other = target * 0.9 + 0.1 / CLASSES
        image = rand(2, 3, SIDE, SIDE, seed=seed)
        return Known((image, image), (own, other), (target, target), torch.ones_like(wrong))

    for step in range(40):
        optimizer.zero_grad()
        detection_loss(detector, task, known(step)).backward()
        optimizer.step()
    detector.eval()
    test = known(1000)
    with torch.no_grad():
        flaw = detector.flaw(detector(test.images[0], *test.predictions))
    wrong = test.predictions[0].argmax(1, keepdim=True) != test.targets[0].argmax(1, keepdim=True)
    assert flaw[wrong].mean() > 0.5 > flaw[~wrong].mean() + 0.15
    assert flaw[wrong].min() > flaw[~wrong].quantile(0.9)


def test_ignored_pixels_teach_a_detector_nothing() -> None:
    task, detector = Denoising(), make_detector(Denoising(), "cues").eval()
    image, own, other = inputs_of("regression")
    valid = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool)
    valid[:, :, : SIDE // 2] = False
    losses = []
    for ignored in (0.0, 1.0):
        target = own.clone()
        target[..., : SIDE // 2, :] = ignored
        known = Known((image, image), (own, other), (target, target), valid)
        losses.append(float(detection_loss(detector, task, known).detach()))
    assert losses[0] == losses[1]


def test_the_goal_is_the_scaled_error_itself() -> None:
    """Not a map that is scaled to 1 for each image, as the paper's detector has it."""
    task, detector = Segmentation(2), make_detector(Segmentation(2), "cues").eval()
    own = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE)
    image, valid = rand(1, 3, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
    raw = detector(image, own, own)
    expected = 2 * F.binary_cross_entropy_with_logits(raw, torch.full_like(raw, 0.2))
    found = detection_loss(detector, task, Known((image, image), (own, own), (target, target), valid))
    torch.testing.assert_close(found, expected)


def test_feature_maps_have_to_fit_the_detector() -> None:
    image, own, other = inputs_of("cues")
    with pytest.raises(ValueError, match="CueDetector reads no feature maps, 1 found"):
        detector_of("cues")(image, own, other, [image])
    with pytest.raises(ValueError, match="no feature maps found, those of a task model expected"):
        detector_of("features")(image, own, other)


def test_only_the_papers_maps_have_no_fixed_range() -> None:
    raw = torch.tensor([[[[-1.0, 3.0]]]])
    assert torch.equal(FlawDetector(3, 3).flaw(raw), raw)
    torch.testing.assert_close(detector_of("cues").flaw(raw), raw.sigmoid())


def test_running_statistics_standardise_channels() -> None:
    norm, features = RunningNorm(2), rand(4, 2, 16, 16) * torch.tensor([2.0, 0.1]).view(1, 2, 1, 1) + 5
    (seen,) = norm(features)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(2), atol=0.02, rtol=0)
    norm.eval()
    state = norm.mean.clone()
    norm(features + 1)
    assert torch.equal(norm.mean, state)


def test_maps_of_several_sizes_share_a_norm() -> None:
    norm, fine, coarse = RunningNorm(3), rand(2, 1, 16, 16) + 5, rand(2, 2, 4, 4, seed=1) * 3
    seen = norm(fine, coarse)
    assert [part.shape for part in seen] == [fine.shape, coarse.shape]
    alone = RunningNorm(1)(fine), RunningNorm(2)(coarse)
    for part, (expected,) in zip(seen, alone, strict=True):
        torch.testing.assert_close(part, expected)


def test_means_over_windows_reach_the_pixels_as_means_of_squares() -> None:
    """The mean over the part of a window inside of the maps, by its definition, at the squares of any image size."""
    cues = rand(1, 2, 22, 37)
    found = _local_means(cues)
    tops, lefts = range(0, 22, COARSE), range(0, 37, COARSE)
    means = [[cues[..., top : top + COARSE, left : left + COARSE].mean((-2, -1)) for left in lefts] for top in tops]
    squares = torch.stack([torch.stack(row, -1) for row in means], -2)
    for place, window in enumerate(WINDOWS):
        reach, (height, width) = window // 2, squares.shape[-2:]
        for row, column in [(0, 0), (2, 5), (height - 1, width - 1)]:
            inside = squares[..., max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            torch.testing.assert_close(found[:, 2 * place : 2 * place + 2, row, column], inside.mean((-2, -1)))


def test_an_images_size_need_not_fit_the_squares() -> None:
    detector = detector_of("cues").eval()
    image, own, other = (maps[..., :21, :23] for maps in inputs_of("cues"))
    assert detector(image, own, other).shape == (2, 1, 21, 23)
