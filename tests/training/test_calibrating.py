"""The calibration of a run, at the end of its training and afterwards."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from semipix.cli import main
from semipix.errors import SemipixError
from semipix.training import calibrating
from semipix.training.build import load_method
from semipix.training.calibration import Calibration, load
from tests.conftest import QUICK, Result

Command = Callable[..., Result]


def entries(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "calibration.json").read_text())["calibrations"]
    return found


def lines_of(result: Result) -> list[str]:
    """The lines about error maps."""
    lines = result.err.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("semipix: ") and "error map" in line]


def test_a_training_ends_with_a_calibration_of_the_checkpoint_that_is_used(train: Command, command: Command) -> None:
    result = train("calibrate=true", "method=cps")
    assert result.code == 0
    (line,) = lines_of(result)
    assert line.startswith(
        "semipix: error map: calibrated on 2 validation images for best.ckpt, each measured by a map of the"
    )
    (entry,) = entries(Path("run"))
    assert (entry["checkpoint"], entry["split"], entry["images"], entry["pixels"]) == ("best", "val", 2, 8000)
    assert entry["networks"] == 2
    method = load_method(Path("run"), trust=True)
    assert isinstance(load(Path("run"), method, "best"), Calibration)

    Path("run/calibration.json").unlink()
    again = command("calibrate", "run")
    assert again.code == 0
    assert again.out.strip() == line.removeprefix("semipix: ")
    assert entries(Path("run")) == [entry], "the same images, pixels and numbers"

    assert command("calibrate", "run", "--checkpoint", "last").code == 0
    assert [each["checkpoint"] for each in entries(Path("run"))] == ["best", "last"]
    assert entries(Path("run"))[0] == entry


def test_without_validation_images_withheld_labels_calibrate(train: Command, photos: Path) -> None:
    """Each image is measured by what the model alone says that trained without it: the other one knows the label."""
    for folder in ("images", "masks"):
        shutil.rmtree(photos / folder / "val")
    given = "method=gct", "method.withhold=0.5", "data.val=0", f"data.root={photos}"
    result = train("calibrate=true", *given)
    assert result.code == 0, result.err
    (entry,) = entries(Path("run"))
    count = len(json.loads(Path("run/split.json").read_text())["labeled"])
    assert (entry["split"], entry["images"], entry["networks"]) == ("withheld", count, 1)
    assert {name.partition("@")[0] for name in entry["weights"]} <= {"softmax", "doubt", "margin", "entropy"}
    assert "auroc/disagreement" not in entry["figures"]
    assert "error map: of what a model says alone, since the other one of the pair learned these labels" in result.err


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["data.val=0", "data.root=ROOT"], "the run has no validation images; train with data.val=0.2, with"),
        (["data.val=1", "data.root=ROOT"], "calibrate: 1 val images with labels found, 2 or more expected"),
    ],
)
def test_a_training_without_images_for_it_says_so_and_succeeds(
    overrides: list[str], reason: str, train: Command, command: Command, photos: Path
) -> None:
    for folder in ("images", "masks"):
        shutil.rmtree(photos / folder / "val")
    result = train("calibrate=true", *(each.replace("ROOT", str(photos)) for each in overrides))
    assert result.code == 0
    (line,) = lines_of(result)
    assert line.startswith("semipix: no error map was calibrated: ")
    assert reason in line
    assert not Path("run/calibration.json").exists()
    assert reason in command("calibrate", "run").error


def test_older_run_folders_lack_the_key(finished: Path, command: Command) -> None:
    path = finished / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["calibrate"]
    path.write_text(yaml.safe_dump(config))
    assert command("calibrate", finished).code == 0
    assert len(entries(finished)) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device; do it later: semipix calibrate"),
        (MemoryError(), "out of memory; do it later: semipix calibrate"),
        (RuntimeError("size 70 is refused"), "size 70 is refused; do it later: semipix calibrate"),
        (SemipixError("val/a.png: corrupt"), "val/a.png: corrupt"),
    ],
)
def test_what_hinders_the_calibration_does_not_fail_the_training(
    error: Exception, line: str, train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(calibrating, "calibrate", fail)
    result = train("calibrate=true")
    assert result.code == 0
    assert lines_of(result)[-1].startswith(f"semipix: no error map was calibrated: {line}")
    assert Path("run/summary.json").exists()


def test_an_interrupted_calibration_leaves_a_finished_training(
    train: Command, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrating.calibrate

    def interrupt(*arguments: Any, **given: Any) -> Calibration:
        os.kill(os.getpid(), signal.SIGINT)
        return whole(*arguments, **given)

    monkeypatch.setattr(calibrating, "calibrate", interrupt)
    result = train("calibrate=true")
    assert result.code == 130
    assert "the training is finished, continue with: semipix calibrate run" in result.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2
    monkeypatch.setattr(calibrating, "calibrate", whole)
    assert command("calibrate", "run").code == 0


def test_moved_data_and_a_foreign_run_folder(finished: Path, photos: Path, command: Command) -> None:
    moved = photos.rename(photos.with_name("moved"))
    config = yaml.safe_load((finished / "config.yaml").read_text())
    config["data"]["root"] = str(photos)
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    assert "give its new place by --data ROOT" in command("calibrate", finished).error
    assert command("calibrate", finished, "--data", moved).code == 0
    assert main(["calibrate", str(finished)]) == 2, "it names a model of the tests, and is not trusted"


def test_quick_trainings_leave_it_out() -> None:
    assert "calibrate=false" in QUICK
