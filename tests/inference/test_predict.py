"""Error maps, scores and accepted pixels that `semipix predict` writes; and that it goes on where it was."""

import csv
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semipix.inference import pipeline
from semipix.inference import predict as predicting
from semipix.interruption import raise_if_interrupted
from semipix.methods import slabs
from semipix.training import calibration
from tests.conftest import Result

Command = Callable[..., Result]


@pytest.fixture
def calibrated(finished: Path, command: Command) -> Path:
    """A run with a calibration, on which pixels are wrong that nothing tells from right ones."""
    assert command("calibrate", finished).code == 0
    return finished


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def remarks(result: Result) -> list[str]:
    return [line for line in result.err.replace("\r", "\n").splitlines() if line.startswith("semipix: ")]


def test_maps_and_scores_of_a_calibrated_run(calibrated: Path, shared_photos: Path, command: Command) -> None:
    images = shared_photos / "images"
    result = command("predict", calibrated, images, "--out", "out", "--risk", "0.9")
    assert result.code == 0
    assert remarks(result) == []
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("accepted", "errors", "masks", "pictures", "scores.csv"),
    ]
    found = rows(Path("out"))
    assert len(found) == 16
    knots = json.loads((calibrated / "calibration.json").read_text())["calibrations"][0]["knot_values"]
    for name, row in found.items():
        errors, accepted = (
            np.asarray(Image.open(Path("out", folder, name).with_suffix(".png"))) for folder in ("errors", "accepted")
        )
        assert errors.dtype == accepted.dtype == np.uint8
        assert errors.shape == accepted.shape == (64, 64)
        assert 255 * knots[0] - 1 <= errors.min() <= errors.max() <= 255 * knots[-1] + 1
        assert float(row["expected_error"]) == pytest.approx(errors.mean() / 255, abs=0.003)
        assert float(row["accepted"]) == pytest.approx((accepted == 255).mean(), abs=1e-5)
        assert 0 <= float(row["expected_miou"]) <= 1
        assert row["risk"] == "0.9"
    assert len({row["expected_error"] for row in found.values()}) > 4


def test_views_and_candidates_have_figures_and_calibrations_of_their_own(
    calibrated: Path, shared_photos: Path, command: Command
) -> None:
    """Nothing of the deployed network's is used for them, or replaced by them."""
    images, plain = shared_photos / "images/test", (calibrated / "calibration.json").read_text()
    assert command("evaluate", calibrated).code == 0
    measured = (calibrated / "evaluation-test.json").read_text()
    deployed = torch.load(calibrated / "checkpoints/best.ckpt", weights_only=True)["state_dict"]["method.deployed"]
    other = ("second", "first")[int(deployed)]
    for options in (("--tta", "flips"), ("--deploy", other)):
        found = command("evaluate", calibrated, *options)
        assert found.code == 0
        file = calibrated / f"evaluation-test-{options[1]}.json"
        assert file.is_file()
        assert file.read_text() != measured
        assert (calibrated / "evaluation-test.json").read_text() == measured

        result = command("predict", calibrated, images, "--out", f"out-{options[1]}", *options)
        (line,) = remarks(result)
        named = " ".join(options)
        assert line.startswith(f"semipix: no calibration of best.ckpt with {named}, so that errors/ is not calibrated")
        assert line.endswith(f" --checkpoint best {named}")
        assert command("calibrate", calibrated, *options).code == 0
        result = command("predict", calibrated, images, "--out", f"out-{options[1]}", *options)
        assert (result.code, remarks(result)) == (0, [])
        assert Path(f"out-{options[1]}/scores.csv").is_file()
    kept = json.loads((calibrated / "calibration.json").read_text())["calibrations"]
    assert [(each["network"], each["views"]) for each in kept[1:]] == [
        *((("first", "second")[int(deployed)], "flips"), (other, "")),
    ]
    assert kept[0] == json.loads(plain)["calibrations"][0]
    assert command("calibrate", calibrated, "--tta", "flips").code == 0
    again = json.loads((calibrated / "calibration.json").read_text())["calibrations"]
    assert sorted(each["checksum"] for each in again) == sorted(each["checksum"] for each in kept)
    result = command("predict", calibrated, images, "--out", "out", "--deploy", "teacher")
    assert "--deploy: teacher found, but GCT has first, second" in result.error


def test_without_a_calibration_the_map_is_the_softmax_and_there_are_no_scores(
    finished: Path, shared_photos: Path, command: Command
) -> None:
    images = shared_photos / "images/test"
    result = command("predict", finished, images, "--out", "out")
    assert result.code == 0
    (line,) = remarks(result)
    assert line == (
        "semipix: no calibration of best.ckpt, so that errors/ is not calibrated (1 - the largest probability) and "
        f"scores.csv gets no line; make it by: semipix calibrate {finished} --checkpoint best"
    )
    assert sorted(path.name for path in Path("out").iterdir()) == ["errors", "masks", "pictures"]
    assert np.asarray(Image.open("out/errors/test0.png")).max() <= 128, "of two classes"


@pytest.mark.parametrize(
    ("risk", "message"),
    [
        ("0", "--risk: 0.0 found, a number above 0 and below 1 expected"),
        ("1", "--risk: 1.0 found, a number above 0 and below 1 expected"),
        ("nan", "--risk: nan found, a number above 0 and below 1 expected"),
        ("0.5", "has no calibration of best.ckpt; make it by: semipix calibrate"),
    ],
)
def test_a_risk_that_cannot_be_had_is_refused(
    risk: str, message: str, finished: Path, shared_photos: Path, command: Command
) -> None:
    result = command("predict", finished, shared_photos / "images/test", "--out", "out", "--risk", risk)
    assert message in result.error
    assert not Path("out").exists()


def test_a_risk_that_few_images_cannot_promise_is_said(calibrated: Path, shared_photos: Path, command: Command) -> None:
    result = command("predict", calibrated, shared_photos / "images/test", "--out", "out", "--risk", "0.01")
    assert result.code == 0
    line, *_ = remarks(result)
    assert re.search(
        r"--risk: 0\.01 cannot be guaranteed by 2 validation images, \d{3} images with as few errors are needed", line
    )


def test_what_an_earlier_call_accepted_and_expected_does_not_stay_beside_other_masks(
    calibrated: Path, shared_photos: Path, command: Command
) -> None:
    images = shared_photos / "images/test"
    given = "predict", calibrated, images, "--out", "out"
    assert command(*given, "--risk", "0.9").code == 0
    assert command(*given[:2], images / "test1.png", *given[3:]).code == 0
    assert [path.name for path in Path("out/accepted").iterdir()] == ["test0.png"]
    assert {name: row["risk"] for name, row in rows(Path("out")).items()} == {"test0.png": "0.9", "test1.png": ""}

    (calibrated / "calibration.json").unlink()
    assert command(*given, "--skip-existing").code == 0
    assert set(rows(Path("out"))) == {"test0.png", "test1.png"}, "nothing was predicted"
    assert command(*given[:2], images / "test0.png", *given[3:]).code == 0
    assert not any(Path("out/accepted").iterdir())
    assert set(rows(Path("out"))) == {"test1.png"}
    assert command(*given).code == 0
    assert not Path("out/scores.csv").exists()


def test_a_calibration_of_other_weights_is_refused(calibrated: Path, shared_photos: Path, command: Command) -> None:
    (calibrated / "checkpoints/last.ckpt").replace(calibrated / "checkpoints/best.ckpt")
    path = calibrated / "calibration.json"
    other = json.loads(path.read_text())
    other["calibrations"][0]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(other))
    result = command("predict", calibrated, shared_photos / "images/test", "--out", "out")
    assert "calibration.json: damaged, or changed since semipix wrote it (the checksum differs)" in result.error
    assert not Path("out").exists()


def test_an_interrupted_prediction_loses_no_score(
    calibrated: Path, shared_photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shared_photos / "images"
    given = ("predict", calibrated, images, "--out", "out", "--risk", "0.9")
    assert command(*given).code == 0
    whole = Path("out/scores.csv").read_text()
    scores = rows(Path("out"))
    maps = {path: np.asarray(Image.open(path)).astype(int) for path in Path("out").rglob("*.png")}

    # what a kill leaves behind: images without a score, and scores without a mask
    lines = whole.splitlines(keepends=True)
    Path("out/scores.csv").write_text("".join(lines[:10]))
    Path("out/masks", lines[3].split(",")[0]).with_suffix(".png").unlink()
    seen: list[str] = []
    read = pipeline.Predictor.read
    monkeypatch.setattr(
        pipeline.Predictor, "read", lambda self, file, name: (seen.append(name.as_posix()), read(self, file, name))[1]
    )
    assert command(*given, "--skip-existing").code == 0
    assert sorted(seen) == sorted(line.split(",")[0] for line in [lines[3], *lines[10:]])
    # Other batches round in another way.
    found = rows(Path("out"))
    assert list(found) == list(scores)
    for name, row in scores.items():
        assert {key: float(value) for key, value in found[name].items() if key != "image"} == pytest.approx(
            {key: float(value) for key, value in row.items() if key != "image"}, abs=1e-4
        )
    assert maps.keys() == set(Path("out").rglob("*.png"))
    for path, values in maps.items():
        assert np.abs(np.asarray(Image.open(path)).astype(int) - values).max() <= (1 if "errors" in path.parts else 0)

    # an interruption writes the scores of what is predicted
    Path("out/scores.csv").unlink()
    monkeypatch.setattr(predicting, "raise_if_interrupted", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    result = command(*given)
    assert result.code == 130
    assert "interrupted after 1 of 16 images; continue with the same command and --skip-existing" in result.err
    assert len(rows(Path("out"))) == 1
    monkeypatch.setattr(predicting, "raise_if_interrupted", raise_if_interrupted)
    del seen[:]

    # at another risk, accepted pixels and scores are others
    assert command(*given[:-1], "0.8", "--skip-existing").code == 0
    assert {row["risk"] for row in rows(Path("out")).values()} == {"0.8"}
    assert len(seen) == 16


def test_large_images_have_the_same_maps_and_scores(
    calibrated: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fitted,) = calibration.saved(calibrated)
    weights = {"softmax": 1.0, "disagreement@17": 2.0, "entropy@image": 1.0}  # of all kinds of features
    knots = {"knot_scores": [-2.0, 4.0], "knot_values": [0.05, 0.9]}
    calibration.save(calibrated, dataclasses.replace(fitted, weights=weights, intercept=0.0, **knots))
    (tmp_path / "large").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large/a.png")
    assert command("predict", calibrated, "large", "--out", "whole", "--risk", "0.9").code == 0
    monkeypatch.setattr(slabs, "HALOS", (128,))
    monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 64 * (64 + 2 * 128))
    result = command("predict", calibrated, "large", "--out", "parts", "--risk", "0.9")
    assert "1 image of more than" in result.err
    whole, parts = (np.asarray(Image.open(Path(out, "errors/a.png"))).astype(int) for out in ("whole", "parts"))
    assert np.abs(whole - parts).max() <= 1
    assert whole.std() > 0
    for column in ("expected_error", "expected_miou", "accepted"):
        first, second = (float(rows(Path(out))["a.png"][column]) for out in ("whole", "parts"))
        assert first == pytest.approx(second, abs=0.01)
