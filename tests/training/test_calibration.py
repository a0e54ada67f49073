"""Calibrations of a run folder: kept, found again, refused where they belong to something else."""

import dataclasses
import functools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from semipix.errors import SemipixError
from semipix.inference.evaluate import written_map
from semipix.methods import slabs
from semipix.methods.base import Evidence, Method
from semipix.methods.slabs import Slabs
from semipix.tasks.denoising import Denoising
from semipix.tasks.segmentation import Segmentation
from semipix.training import calibration as module
from semipix.training.calibration import Uncalibrated, apply, fingerprint, load, save, uncalibrated
from tests.helpers.calibrations import make_calibration
from tests.helpers.tiny import make_method, rand


@pytest.fixture
def method() -> Method:
    return make_method("gct").eval()


def test_what_is_saved_is_loaded_for_the_same_weights(method: Method, tmp_path: Path) -> None:
    assert load(tmp_path, method, "best") is None
    made = make_calibration(method)
    save(tmp_path, made)
    assert load(tmp_path, method, "best") == made
    assert load(tmp_path, method, "last") == made, "the weights decide"
    assert load(tmp_path, make_method("gct", seed=1).eval(), "last") is None, "nothing is said of last.ckpt"


def test_a_file_that_names_neither_network_nor_views_is_of_the_image_alone(method: Method, tmp_path: Path) -> None:
    """As those of earlier versions."""
    save(tmp_path, make_calibration(method))
    path = tmp_path / "calibration.json"
    (entry,) = json.loads(path.read_text())["calibrations"]
    for key in ("network", "views", "checksum"):
        del entry[key]
    path.write_text(json.dumps({"calibrations": [{**entry, "checksum": module._checksum(entry)}]}))
    assert load(tmp_path, method, "best") == make_calibration(method)
    assert load(tmp_path, method, "best", "flips") is None
    save(tmp_path, dataclasses.replace(make_calibration(method), network=method.deployed_name()))
    assert len(json.loads(path.read_text())["calibrations"]) == 1, "it is replaced"


def test_a_checkpoint_of_a_run_keeps_its_calibration_when_another_is_calibrated(method: Method, tmp_path: Path) -> None:
    last = make_method("gct", seed=1).eval()
    for each, name in ((method, "best"), (last, "last"), (last, "last")):
        save(tmp_path, make_calibration(each, name))
    assert len(json.loads((tmp_path / "calibration.json").read_text())["calibrations"]) == 2
    assert load(tmp_path, method, "best") == make_calibration(method)
    assert load(tmp_path, last, "last") == make_calibration(last, "last")


def test_the_fingerprint_is_that_of_weights_and_deployed_network(method: Method) -> None:
    before = fingerprint(method)
    assert fingerprint(method.to(memory_format=torch.channels_last)) == before
    method.deploy("second")
    second = fingerprint(method)
    with torch.no_grad():
        next(method.parameters())[0, 0, 0, 0] += 1e-6
    assert len({before, second, fingerprint(method)}) == 3


def test_a_calibration_of_other_weights_is_refused(method: Method, tmp_path: Path) -> None:
    save(tmp_path, make_calibration(method))
    with pytest.raises(
        SemipixError, match=r"calibration.json: belongs to other weights than those of best.ckpt; calib"
    ):
        load(tmp_path, make_method("gct", seed=1).eval(), "best")


def test_a_calibration_of_other_cues_is_refused(method: Method, tmp_path: Path) -> None:
    save(tmp_path, dataclasses.replace(make_calibration(method), cues=module.VERSION + 1))
    with pytest.raises(SemipixError, match=r"calibration.json: made with version \d+ of the cues, \d+ expected; calib"):
        load(tmp_path, method, "best")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"intercept": -0.2', '"intercept": -0.3'),
        ("-0.2", "NaN"),
        (
            "{",
            "[",
        ),
        ('"calibrations"', '"others"'),
        ("", "\0"),
    ],
)
def test_a_changed_file_is_refused_and_can_be_replaced(method: Method, tmp_path: Path, before: str, after: str) -> None:
    save(tmp_path, make_calibration(method))
    path = tmp_path / "calibration.json"
    path.write_text(path.read_text().replace(before, after, 1) if before else after)
    with pytest.raises(SemipixError, match=r"calibration.json: damaged, or changed since .*; calibrate this run again"):
        load(tmp_path, method, "best")
    save(tmp_path, make_calibration(method))
    assert load(tmp_path, method, "best") is not None


def test_knots_that_are_equal_in_float32_are_fitted_again(method: Method, tmp_path: Path) -> None:
    made = dataclasses.replace(make_calibration(method), knot_scores=[-2.0, 1.0, 1.0 + 1e-9])
    scores = torch.tensor([-3.0, -2.0, -0.5, 1.0, 2.0])
    assert torch.allclose(made.values(scores), torch.tensor([0.1, 0.1, 0.2, 0.3, 0.8])), "never NaN"
    save(tmp_path, made)
    with pytest.raises(SemipixError, match=r"knots that do not ascend in float32.*; calibrate this run again"):
        load(tmp_path, method, "best")


def test_a_map_is_the_knots_at_the_sum_of_features(method: Method) -> None:
    calibration, image = make_calibration(method), rand(2, 3, 40, 36)
    evidence = method.evidence(image)
    cues = module.cues_of(method.task, evidence, image)
    pooled = functools.partial(F.avg_pool2d, stride=1, count_include_pad=False)
    scores = (
        0.5 * cues["softmax"]
        + 2 * pooled(cues["doubt"], 5, padding=2)
        - pooled(cues["disagreement"], 49, padding=24)
        + 0.3 * cues["softmax"].mean((2, 3), keepdim=True)
        - 0.7 * cues["flaw"].mean((2, 3), keepdim=True)
        - 0.2
    )
    wanted = torch.where(scores < 0, 0.3 + 0.1 * scores, 0.3 + 0.5 * scores).clamp(0.1, 0.8)
    found = apply(calibration, method.task, evidence, image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert found.std() > 0.01
    assert apply(calibration, method.task, evidence, image, (20, 21)).shape == (2, 1, 20, 21)


def test_slabs_and_a_constant_make_the_map_of_the_whole(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "HALOS", (128,))
    monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 64 * (64 + 2 * 128))
    calibration, image = make_calibration(method), rand(3, 397, 64)
    with torch.inference_mode():
        whole = apply(calibration, method.task, method.evidence(image[None]), image[None])
        parts = list(
            Slabs(method).compute(image, lambda images: calibration.parts(method.task, method.evidence(images), images))
        )
    assert len(parts) == 7
    scores, maps = (torch.cat([part[index] for part in parts], 2) for index in (0, 1))  # type: ignore[misc]
    found = calibration.values(scores + calibration.constant(maps.mean((2, 3))))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)


def test_without_a_calibration_the_best_other_map_is_taken(tmp_path: Path) -> None:
    prediction, flaw = rand(1, 3, 8, 8), rand(1, 1, 4, 4)
    pair = prediction, rand(1, 3, 8, 8, seed=1)
    classes, values = (make_method("supervised", task=task) for task in (Segmentation(3), Denoising()))
    both, single = Evidence(prediction, pair, flaw), Evidence(prediction, (prediction,), flaw)
    assert uncalibrated(classes, both) == Uncalibrated("softmax")
    assert uncalibrated(values, both) == Uncalibrated("disagreement")
    assert uncalibrated(values, single) == Uncalibrated("flaw")
    assert uncalibrated(values, Evidence(prediction, (prediction,))) is None
    classes.flaw_is_error = values.flaw_is_error = True
    assert uncalibrated(values, both) == Uncalibrated("flaw")
    assert uncalibrated(values, Evidence(prediction, pair)) == Uncalibrated("disagreement")
    assert uncalibrated(classes, both) == Uncalibrated("softmax")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/best.ckpt").touch()
    assert written_map(tmp_path, values, "best")(both) == Uncalibrated("flaw"), "evaluation measures what is written"
    found = apply(Uncalibrated("flaw"), Denoising(), both, prediction)
    torch.testing.assert_close(found, F.interpolate(flaw, (8, 8), mode="bilinear"))


def test_pixels_are_accepted_by_the_losses(method: Method) -> None:
    found = make_calibration(method).accepted(0.1)
    assert (found.threshold, found.guaranteed, found.needed) == (0.1, False, 9)
