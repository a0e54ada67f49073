"""Evidence that is averaged over views of an image."""

import pytest
import torch
from torch import Tensor

from semipix.errors import SemipixError
from semipix.methods.base import Evidence, Method
from semipix.methods.views import AveragedViews
from semipix.tasks.denoising import Denoising
from tests.helpers.tiny import make_method, rand


@pytest.fixture(scope="module")
def pair() -> Method:
    return make_method("gct").eval()


def mirrored(evidence: Evidence, *axes: int) -> Evidence:
    flaw = None if evidence.flaw is None else evidence.flaw.flip(axes)
    return Evidence(evidence.output.flip(axes), tuple(each.flip(axes) for each in evidence.predictions), flaw)


def check_mean(found: Evidence, views: list[Evidence], method: Method) -> None:
    for index in range(2):
        mean = torch.stack([each.predictions[index] for each in views]).mean(0)
        torch.testing.assert_close(found.predictions[index], mean)
    torch.testing.assert_close(method.task.activate(found.output), found.predictions[0])
    assert found.flaw is not None
    flaws: list[Tensor] = [each.flaw for each in views if each.flaw is not None]
    torch.testing.assert_close(found.flaw, torch.stack(flaws).mean(0))


@torch.inference_mode()
@pytest.mark.parametrize("rotated", [0.0, 180.0])
def test_flips_are_those_of_training(pair: Method, rotated: float) -> None:
    image = rand(2, 3, 64, 96)
    axes = [(-1,), *([(-2,), (-2, -1)] if rotated else [])]
    views = [pair.evidence(image), *(mirrored(pair.evidence(image.flip(each)), *each) for each in axes)]
    found = AveragedViews(pair, "flips", rotated)
    check_mean(found.evidence(image), views, pair)
    assert found.in_slabs is not bool(rotated)
    assert not torch.equal(found.evidence(image).predictions[0], views[0].predictions[0])


@torch.inference_mode()
def test_scales_are_resized_back(pair: Method) -> None:
    image = rand(1, 3, 64, 96)
    found = AveragedViews(pair, "scales")
    evidence = found.evidence(image)
    assert evidence.predictions[0].shape == (1, pair.task.channels, 64, 96)
    torch.testing.assert_close(evidence.predictions[0].sum(1), torch.ones(1, 64, 96))
    sizes = []
    whole = pair.evidence
    pair.evidence = lambda given: sizes.append(tuple(given.shape[-2:])) or whole(given)  # type: ignore[func-returns-value, method-assign, assignment]
    try:
        found.evidence(image)
    finally:
        del pair.evidence  # type: ignore[method-assign]
    assert sizes == [(64, 96), (48, 72), (80, 120)]
    assert not found.in_slabs


@torch.inference_mode()
def test_each_candidate_is_averaged(pair: Method) -> None:
    image = rand(1, 3, 64, 64)
    found = AveragedViews(pair, "flips").evidences(image)
    plain, other = pair.evidences(image), pair.evidences(image.flip(-1))
    assert found.keys() == plain.keys() >= {"first", "second"}
    for name in ("first", "second"):
        check_mean(found[name], [plain[name], mirrored(other[name], -1)], pair)


def test_without_a_kind_it_is_the_evidence_of_the_method(pair: Method) -> None:
    image = rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(AveragedViews(pair).evidence(image).output, pair.evidence(image).output)


def test_what_cannot_be_averaged_is_refused() -> None:
    method = make_method("supervised", task=Denoising())
    with pytest.raises(SemipixError, match="--tta: scales found, but resizing changes what Denoising has to return"):
        AveragedViews(method, "scales")
    with pytest.raises(SemipixError, match="--tta: 'turns' found, flips or scales expected"):
        AveragedViews(method, "turns")
