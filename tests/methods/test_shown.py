"""Nothing is learned from pixels that show nothing, padding and pixels without a value, or that a trimap knows."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semipix.batch import VOID, Batch
from semipix.functional.thresholds import class_confidence
from semipix.tasks.matting import Matting
from tests.helpers.tiny import CLASSES, SIDE, make_active, method_class, options, rand, randint

HALF = SIDE // 2

POINTWISE: dict[str, dict[str, Any]] = {
    "mean_teacher": {},
    "fixmatch": {},
    "unimatch": {"complementary_dropout": False},
    "cutmix": {},
    "cps": {"cutmix": False},
    "cct": {"perturbations": ["dropout"]},
    "gct_strong": {"feature_dropout": 0.0, "gate": "open", "lambda_fc": 0.0},
}
"""Methods, and options with which a pixel's terms depend on no other pixel."""

TERMS = {
    name: term
    for name in options("method")
    for term in method_class(name).trains
    if term.endswith(("consistency", "cross_supervision"))
}
"""The term by which each method learns from unlabeled pixels, where it has one of these names."""


class PointwiseModel(nn.Module):
    """Two convolutions of one pixel."""

    def __init__(self, in_channels: int = 3, channels: int = CLASSES) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 8, 1)
        self.last = nn.Conv2d(8, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.first(image).relu()]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        output: Tensor = self.last(features[0])
        return output


def half_shown() -> Batch:
    """Two labeled images and two equal unlabeled ones, of which only the right half shows something."""
    image = torch.cat([rand(2, 3, SIDE, SIDE), rand(1, 3, SIDE, SIDE, seed=1).repeat(2, 1, 1, 1)])
    target = randint(CLASSES, 2, SIDE, SIDE)
    target[..., :HALF] = VOID
    shown = torch.ones(4, 1, SIDE, SIDE, dtype=torch.bool)
    shown[..., :HALF] = False
    views = rand(2, 3, SIDE, SIDE, seed=2).repeat_interleave(2, 0)  # equal, so that CutMix changes nothing
    image[..., :HALF], views[..., :HALF] = 0, 0
    return Batch(image, target, views, shown=shown)


def right_half(batch: Batch) -> Batch:
    """The part of the images that shows something, as images of their own."""
    assert batch.strong is not None
    image, target, strong = (maps[..., HALF:].contiguous() for maps in (batch.image, batch.target, batch.strong))
    return Batch(image, target, strong)


@pytest.mark.parametrize("name", POINTWISE)
def test_terms_are_those_of_the_part_that_shows_something(name: str) -> None:
    method = make_active(name, lambda number: PointwiseModel(), **POINTWISE[name])
    batch, losses = half_shown(), []
    for each in (batch, right_half(batch), batch._replace(shown=None)):
        torch.manual_seed(0)
        losses.append({term: loss.item() for term, loss in method.losses(each, epoch=10.0).items()})
    part, expected, all_pixels = losses
    for term in ("supervised", TERMS[name]):
        assert part[term] == pytest.approx(expected[term], rel=1e-5), term
    assert all_pixels[TERMS[name]] != pytest.approx(expected[TERMS[name]], rel=1e-3)


@pytest.mark.parametrize("name", sorted(TERMS.keys() - {"gct_strong"}))  # its views are made without gradients
def test_no_gradient_comes_from_pixels_that_show_nothing(name: str) -> None:
    method = make_active(name, lambda number: PointwiseModel(), **POINTWISE.get(name, {}))
    batch = half_shown()
    assert batch.strong is not None
    images = batch.image.requires_grad_(), batch.strong.requires_grad_()
    loss = method.losses(batch._replace(image=images[0], strong=images[1]), epoch=10.0)[TERMS[name]]
    found = [gradient for gradient in torch.autograd.grad(loss, images, allow_unused=True) if gradient is not None]
    assert any(gradient[..., HALF:].any() for gradient in found)
    assert not any(gradient[-2:, :, :, :HALF].any() for gradient in found)


@pytest.mark.parametrize("name", TERMS)
def test_all_pixels_that_show_something_are_as_without_the_mask(name: str) -> None:
    batch, losses = half_shown(), []
    assert batch.shown is not None
    for shown in (None, torch.ones_like(batch.shown)):
        method = make_active(name, lambda number: PointwiseModel(), **POINTWISE.get(name, {}))
        torch.manual_seed(0)
        losses.append({term: loss.item() for term, loss in method.losses(batch._replace(shown=shown), 10.0).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_images_that_show_nothing_at_all_teach_nothing(name: str) -> None:
    method = make_active(name, lambda number: PointwiseModel(), **POINTWISE.get(name, {}))
    batch = half_shown()
    assert batch.shown is not None
    loss = method.losses(batch._replace(shown=torch.zeros_like(batch.shown)), epoch=10.0)[TERMS[name]]
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gct", {"detector": "paper"}),
        ("flaw_mean_teacher", {}),
        ("gct_strong", {"detector": "paper", "gate": "lower", "feature_dropout": 0.0, "lambda_fc": 0.0}),
    ],
)
def test_what_a_detector_says_of_pixels_that_show_nothing_decides_nothing(
    name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, batch, losses = make_active(name, lambda number: PointwiseModel(), **given), half_shown(), []
    assert batch.shown is not None
    for value in (0.0, 9.0):

        def flaws(detector: nn.Module, image: Tensor, *given: Any, value: float = value) -> tuple[Tensor, Tensor]:
            shown = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
            shown[..., :HALF] = False
            first, second = (rand(1, 1, SIDE, SIDE, seed=seed).masked_fill(~shown, value) for seed in (3, 4))
            return first.expand(len(image), -1, -1, -1), second.expand(len(image), -1, -1, -1)

        for module in ("flaw_guided", "flaw_mean_teacher"):
            monkeypatch.setattr(f"semipix.methods.{module}.flaw_maps", flaws)
        torch.manual_seed(0)
        terms = method.losses(batch, epoch=10.0)
        losses.append({term: loss.item() for term, loss in terms.items() if term != "flaw_detection"})
    assert losses[0] == losses[1]
    assert len(losses[0]) > 1
    assert min(losses[0].values()) > 0


def test_thresholds_of_classes_leave_out_what_shows_nothing() -> None:
    prediction = torch.tensor([[0.9, 0.6], [0.1, 0.4]]).view(1, 2, 1, 2)
    counted = torch.tensor([True, False]).view(1, 1, 1, 2)
    assert class_confidence(torch.zeros(2), prediction)[0] == pytest.approx(0.75)
    assert class_confidence(torch.zeros(2), prediction, counted=counted)[0] == pytest.approx(0.9)


class PointwiseMatting(PointwiseModel):
    """`PointwiseModel` of images with a trimap, which it copies into its output."""

    def __init__(self) -> None:
        super().__init__(4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return Matting().constrain(super().forward(image), image)


def half_unknown() -> Batch:
    """Images with trimaps, of which only the right half is unknown; two equal unlabeled ones, as in `half_shown`."""
    image = torch.cat([rand(2, 4, SIDE, SIDE), rand(1, 4, SIDE, SIDE, seed=1).repeat(2, 1, 1, 1)])
    views = rand(2, 4, SIDE, SIDE, seed=2).repeat_interleave(2, 0)
    for each in (image, views):
        each[:, 3, :, :HALF], each[:, 3, :, HALF:] = 0, 0.5
    target = torch.full((2, 8, SIDE, SIDE), torch.nan)
    target[:, 0], target[:, 1] = rand(2, SIDE, SIDE, seed=3), image[:2, 3] == 0.5
    return Batch(image, target, views)


@pytest.mark.parametrize(
    ("name", "given"),
    [*((name, POINTWISE[name]) for name in ("mean_teacher", "fixmatch", "unimatch", "cps", "gct_strong")), ("cps", {})],
)
@pytest.mark.parametrize("padded", [False, True])
def test_terms_of_mattes_are_those_of_the_unknown_part(name: str, given: dict[str, Any], padded: bool) -> None:
    method = make_active(name, lambda number: PointwiseMatting(), task=Matting(), **given)
    batch, losses = half_unknown(), []
    part = right_half(batch)
    if padded:  # a quarter of the unknown part shows nothing; labels say so themselves
        shown = torch.ones(4, 1, SIDE, SIDE, dtype=torch.bool)
        shown[..., : SIDE // 4, :] = False
        batch.target[:, 1, : SIDE // 4] = 0
        batch = batch._replace(shown=shown)
        rows = slice(SIDE // 4, None)
        assert part.strong is not None
        part = Batch(part.image[..., rows, :], part.target[..., rows, :], part.strong[..., rows, :])
    for each in (batch, part):
        torch.manual_seed(0)
        losses.append({term: loss.item() for term, loss in method.losses(each, epoch=10.0).items()})
    for term in ("supervised", TERMS[name]):
        assert losses[0][term] == pytest.approx(losses[1][term], rel=1e-5), term
    assert losses[1][TERMS[name]] > 0


def test_cps_without_boxes_learns_pixels_without_a_label() -> None:
    method = make_active("cps", lambda number: PointwiseModel(), cutmix=False)
    batch = half_shown()._replace(shown=None)
    void = batch._replace(target=torch.full_like(batch.target, VOID))
    terms = [method.losses(each, epoch=10.0)["cross_supervision"].item() for each in (batch, void)]
    assert terms[0] == pytest.approx(terms[1])
