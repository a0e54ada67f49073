"""A method that is chosen by pilots. Also tests launch/auto_choice.py."""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import Tensor, nn

import semipix
from semipix.cli import main
from semipix.data.splits import Split
from semipix.errors import SemipixError
from semipix.functional.bootstrap import ImageFigures, Interval, mean_ratio
from semipix.launch import auto, sweep
from semipix.launch.auto import Auto, Settings
from semipix.launch.auto_choice import Pilot, best_method, decide
from semipix.launch.compose import compose
from semipix.launch.runner import Ended
from semipix.launch.sweep import Job
from semipix.training.build import build_task
from semipix.training.configuration import Configuration
from semipix.training.image_figures import MeasuredImages
from semipix.training.run_folder import (
    claimed,
    is_choosing,
    last_line,
    load_split,
    resume_or_start,
    write_config,
)
from tests.conftest import QUICK, Result
from tests.helpers.processes import environment
from tests.helpers.runs import assert_same

Command = Callable[..., Result]

BETTER, WORSE, UNSURE = Interval(0.1, 0.02, 0.2), Interval(-0.1, -0.2, -0.02), Interval(0.3, -0.1, 0.5)
SMALL = Interval(0.05, 0.01, 0.1)
NOTHING = Interval(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("differences", "higher_is_better", "chosen"),
    [
        ({"a": BETTER}, True, "a"),
        ({"a": SMALL, "b": BETTER, "c": WORSE}, True, "b"),
        ({"a": UNSURE}, True, "supervised"),
        ({"a": UNSURE, "b": SMALL}, True, "b"),
        ({"a": WORSE}, True, "supervised"),
        ({"a": NOTHING}, True, "supervised"),
        ({}, True, "supervised"),
        ({"a": BETTER, "b": WORSE}, False, "b"),
        ({"a": BETTER, "b": UNSURE}, False, "supervised"),
    ],
)
def test_a_method_is_chosen_where_its_interval_is_on_the_better_side(
    differences: Mapping[str, Interval], higher_is_better: bool, chosen: str
) -> None:
    assert best_method(differences, higher_is_better) == chosen


def pilots_of(difference: Interval) -> dict[str, Pilot]:
    base = Pilot(Interval(0.5, 0.4, 0.6), None, 10, 1.0)
    return {"supervised": base, "gct": Pilot(Interval(0.6, 0.5, 0.7), difference, 10, 2.0)}


def test_the_reason_has_the_figures(tmp_path: Path) -> None:
    about: dict[str, Any] = {"metric": "miou", "higher_is_better": True, "level": 0.9}
    choice = decide(pilots_of(BETTER), ["x", "y", "z"], left_out={"cct": "no features"}, **about)
    assert choice.reason == (
        "miou 0.6000 against 0.5000 of supervised on 3 held-out images: +0.1000 (+0.0200 to +0.2000), 90 % interval"
    )
    choice.write(tmp_path)
    assert json.loads((tmp_path / "choice.json").read_text()) == {
        "chosen": "gct",
        "reason": choice.reason,
        **about,
        "pilots": {
            "supervised": {"metric": 0.5, "interval": [0.4, 0.6], "steps": 10, "seconds": 1.0},
            "gct": {
                "metric": 0.6,
                "interval": [0.5, 0.7],
                "difference": 0.1,
                "difference_interval": [0.02, 0.2],
                "steps": 10,
                "seconds": 2.0,
            },
        },
        "left_out": {"cct": "no features"},
        "held_out": {"count": 3, "images": ["x", "y", "z"]},
    }
    assert decide(pilots_of(UNSURE), ["x"], **about).reason == (
        "no candidate is better in miou than supervised (0.5000) beyond the 90 % interval on 1 held-out image: "
        "gct +0.3000 (-0.1000 to +0.5000)"
    )


# The keys


def configuration(*overrides: str) -> Configuration:
    quick = [item for item in QUICK if not item.startswith("model.")]
    return Configuration.parse(compose([*quick, "data.root=none", "method=auto", *overrides]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.held_out=0.6", "method.held_out: 0.6 found, a number above 0 and at most 0.5 expected"),
        ("method.pilot_share=0", "method.pilot_share: 0 found, a number above 0"),
        ("method.level=1", "method.level: 1 found"),
        ("method.min_held_out=1", "method.min_held_out: 1 found, 2 or more expected"),
        ("method.min_pilot_steps=0", "method.min_pilot_steps: 0 found, 1 or more expected"),
        ("method.candidates=[]", "at least one method expected"),
        ("method.candidates=[gctt]", "method.candidates: gctt found, some of advssl, cct"),
        ("method.candidates=[auto]", "method.candidates: auto found, some of advssl, cct"),
        ("method.candidates=[gct,gct]", "method.candidates: gct found twice"),
    ],
)
def test_values_out_of_range(override: str, message: str) -> None:
    with pytest.raises(SemipixError) as caught:
        Settings.of(configuration(override).method)
    assert message in str(caught.value)


def test_candidates_are_names_or_classes() -> None:
    found = Settings.of(configuration("method.candidates=[gct,semipix.methods.cps.CPS]").method).nodes()
    assert found == {
        "supervised": {"_target_": "semipix.methods.supervised.Supervised"},
        "gct": {"_target_": "semipix.methods.gct.GCT"},
        "CPS": {"_target_": "semipix.methods.cps.CPS"},
    }


class Plain(nn.Conv2d):
    """A model that gives no feature maps."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 1)


def test_what_a_candidate_needs_is_adapted_to_task_and_model() -> None:
    plain = f"model._target_={Plain.__module__}.Plain"
    every = "method.candidates=[unimatch,gct_strong,cct,gct]"
    here = configuration(plain, every)
    task = build_task(here, ["a", "b"])
    nodes, left_out = auto._trainable(here, task, Settings.of(here.method))
    assert nodes["unimatch"]["complementary_dropout"] is False
    assert nodes["gct_strong"]["feature_dropout"] == 0
    assert nodes["gct"].keys() == nodes["supervised"].keys() == {"_target_"}
    assert "has no method 'features'" in left_out["cct"]
    with_features = configuration("model._target_=tests.helpers.tiny.TinyModel", "method.candidates=[unimatch]")
    nodes, left_out = auto._trainable(with_features, task, Settings.of(with_features.method))
    assert nodes["unimatch"].keys() == {"_target_"}
    regression = configuration(plain, "task=denoising", "method.candidates=[cutmix]")
    nodes, left_out = auto._trainable(regression, build_task(regression), Settings.of(regression.method))
    assert list(nodes) == ["supervised"]
    assert "CutMix serves only classification" in left_out["cutmix"]


def pilots_written(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """The configurations of the pilots that `auto` would train, by method."""
    here = configuration(*overrides)
    nodes = Settings.of(here.method).nodes()
    auto._prepare(here, nodes, 400, Split(["x"], ["y"], ["z"], []), folder, "semipix train")
    return {name: yaml.safe_load((folder / "pilots" / name / "config.yaml").read_text()) for name in nodes}


def test_a_pilot_of_a_pair_measures_one_network_and_the_final_training_chooses(tmp_path: Path) -> None:
    pairs = "method.candidates=[gct_strong,gct,cps,unimatch]"
    found = {name: config["method"] for name, config in pilots_written(tmp_path, pairs).items()}
    assert [found[name]["deploy"] for name in ("gct_strong", "gct", "cps")] == ["first"] * 3
    assert [found[name].get("fusion") for name in ("gct_strong", "gct", "cps")] == [False, False, None]
    assert not {"deploy", "fusion"} & {*found["supervised"], *found["unimatch"]}
    (tmp_path / "choice.json").write_text('{"chosen": "gct_strong"}')
    final = auto._chosen(configuration(pairs), tmp_path, None).method.options
    assert (final["deploy"], final["fusion"]) == ("better", True)


def test_a_pilot_is_validated_once_whatever_the_trainer_says(tmp_path: Path) -> None:
    given = ("val_check_interval=2", "check_val_every_n_epoch=1", "limit_val_batches=1", "gradient_clip_val=0.5")
    for config in pilots_written(tmp_path, *(f"trainer.{item}" for item in given)).values():
        assert config["validations"] == 1
        assert not {"val_check_interval", "check_val_every_n_epoch", "limit_val_batches"} & config["trainer"].keys()
        assert config["trainer"]["gradient_clip_val"] == 0.5


def test_only_the_command_chooses() -> None:
    with pytest.raises(SemipixError, match="semipix train makes"):
        Auto(None, None)  # type: ignore[arg-type]


# The command

ASKED = ("method=auto", "method.candidates=[unimatch]")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train pilots in this process, and note their names."""
    begun: list[str] = []

    def run_here(command: Sequence[str], log: Path, **options: Any) -> Ended:
        begun.append(Path(command[4].removeprefix("resume=")).name)
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            code = main(command[3:])
        return Ended(code, last_line(log, "").removeprefix("semipix: error: "))

    monkeypatch.setattr(auto, "run_command", run_here)
    return begun


@pytest.fixture
def trained(in_process: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same, and `unimatch` is by far the better one on the held-out images."""

    def measured(folder: Path, root: Path | None, trust: bool) -> MeasuredImages:
        names = tuple(load_split(folder).val)
        numerators = np.array([[50 + 40 * (folder.name == "unimatch") + number] for number in range(len(names))], float)
        figures = ImageFigures(names, numerators, np.full_like(numerators, 100))
        return MeasuredImages("miou", "best", ("a",), names, (100,) * len(names), figures, mean_ratio)

    monkeypatch.setattr(auto, "_measured", measured)
    return in_process


def a_pilot(folder: Path, val: Sequence[str] = ("a", "b")) -> Path:
    """A folder with what is read of a pilot after its training."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/best.ckpt").touch()
    Split(["x"], ["y"], val, []).to_json(folder / "split.json")
    return folder


def figures_of(folder: Path, value: float, checkpoint: str = "best", names: Sequence[str] = ("a", "b")) -> None:
    """Write a pilot's accuracy on each image."""
    rows = "".join(f"{name},{checkpoint},{name},100,{value},{100 * value},100\n" for name in names)
    header = "name,checkpoint,scene,pixels,accuracy,sum/accuracy,count/accuracy\n"
    (folder / "evaluation-val.csv").write_text(header + rows)


def test_only_the_figures_of_a_finished_pilot_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot = a_pilot(tmp_path / "pilot")
    monkeypatch.setattr(auto, "evaluate", lambda folder, split, **options: figures_of(folder, 0.75))

    def measured() -> float:
        return auto._measured(pilot, None, trust=True).value

    figures_of(pilot, 0.5)
    assert measured() == 0.5
    for checkpoint in ("best, unfinished", "best, tiled", "last"):
        figures_of(pilot, 0.5, checkpoint)
        assert measured() == 0.75
    figures_of(pilot, 0.5, names=["a"])
    assert measured() == 0.75
    (pilot / "evaluation-val.csv").write_text("damaged")
    assert measured() == 0.75


def test_pilots_that_were_measured_on_different_images_are_not_compared(tmp_path: Path) -> None:
    for name, images in (("supervised", ("a", "b")), ("gct", ("a", "c"))):
        figures_of(a_pilot(tmp_path / "pilots" / name, images), 0.5, names=images)
    here = configuration()
    task, settings = build_task(here, ["a", "b"]), Settings.of(here.method)
    with pytest.raises(SemipixError, match="pilots/gct: measured on other images than supervised"):
        auto._compared(["supervised", "gct"], tmp_path, task, settings, {}, None, trust=True)


def test_pilots_that_were_measured_before_and_after_there_were_scenes_are_compared(tmp_path: Path) -> None:
    for name, value in (("supervised", 0.5), ("gct", 0.9)):
        pilot = a_pilot(tmp_path / "pilots" / name, ("a", "b", "c"))
        figures_of(pilot, value, names=("a", "b", "c"))
        (pilot / "summary.json").write_text('{"steps": 2, "seconds": 1.0}')
    path = tmp_path / "pilots/gct/evaluation-val.csv"
    path.write_text(path.read_text().replace("a,best,a,", "a,best,x,").replace("b,best,b,", "b,best,x,"))
    here = configuration()
    task, settings = build_task(here, ["a", "b"]), Settings.of(here.method)
    choice = auto._compared(["supervised", "gct"], tmp_path, task, settings, {}, None, trust=True)
    assert choice.chosen == "gct"


def test_the_interval_of_a_share_ends_at_one(tmp_path: Path) -> None:
    for name, value in (("supervised", 0.5), ("gct", 0.9)):
        pilot = a_pilot(tmp_path / "pilots" / name)
        figures_of(pilot, value)
        path = pilot / "evaluation-val.csv"
        path.write_text(path.read_text().replace(f"b,best,b,100,{value},{100 * value}", "b,best,b,100,1.0,100.0"))
        (pilot / "summary.json").write_text('{"steps": 2, "seconds": 1.0}')
    here = configuration()
    task, settings = build_task(here, ["a", "b"]), Settings.of(here.method)
    choice = auto._compared(["supervised", "gct"], tmp_path, task, settings, {}, None, trust=True)
    assert [pilot.metric.high for pilot in choice.pilots.values()] == [1.0, 1.0]
    assert all(pilot.metric.low >= 0 for pilot in choice.pilots.values())


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(["x"], ["y"], ["a", "b"], ["more"]), None),
        (
            Split(["z"], ["y"], ["a", "b"], []),
            "labeled: 2 images differ from those that pilots would have now, such as",
        ),
        (Split(["x"], ["w", "y"], ["a", "b"], []), "unlabeled: 1 images differ"),
        (Split(["x"], ["y"], ["a"], []), "val: 1 images differ .* such as b: labels or data have changed"),
        (None, "labeled: 1 images differ"),
    ],
)
def test_pilots_that_were_begun_with_other_images_are_refused(
    split: Split | None, message: str | None, tmp_path: Path
) -> None:
    pilot = a_pilot(tmp_path / "pilots/supervised")
    with contextlib.nullcontext() if message is None else pytest.raises(SemipixError, match=message):
        auto._check_images(tmp_path, split)
    (pilot / "checkpoints/best.ckpt").unlink()
    auto._check_images(tmp_path, split)


def test_labels_that_change_while_a_choice_is_interrupted_are_noticed(
    train: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("00\n01\n02\n03\n")
    interrupt_pilot(2, monkeypatch)
    assert train(*ASKED, f"data.labels={labels}").code == 130
    labels.write_text("00\n01\n02\n03\n04\n05\n")
    assert "supervised/split.json: labeled: " in train(*ASKED, f"data.labels={labels}").error


def chosen_method(folder: str | Path) -> str:
    target: str = yaml.safe_load((Path(folder) / "config.yaml").read_text())["method"]["_target_"]
    return target.rpartition(".")[2]


def test_the_better_method_is_trained_as_if_it_had_been_asked_for(
    train: Command, command: Command, trained: list[str], shared_photos: Path
) -> None:
    result = train(*ASKED)
    assert result.code == 0, result.err
    assert trained == ["supervised", "unimatch"]
    choice = json.loads(Path("run/choice.json").read_text())
    assert choice["chosen"] == "unimatch"
    assert f"method=auto: unimatch is chosen: {choice['reason']}" in result.out
    assert choice["pilots"]["unimatch"]["difference"] == pytest.approx(0.4)
    assert chosen_method("run") == "UniMatch"
    assert not is_choosing(Path("run"))

    whole = load_split(Path("run"))
    for name in trained:
        split = load_split(Path("run/pilots") / name)
        held_out = {*whole.labeled} - {*split.labeled}
        assert len(held_out) == 1, "the data have 2 validation images, and 3 are needed"
        assert {*split.val} == {*whole.val} | held_out == {*choice["held_out"]["images"]}
        assert split.unlabeled == whole.unlabeled
        assert chosen_method(Path("run/pilots") / name).lower() == name

    assert train("method=unimatch", "run=asked").code == 0
    assert_same(Path("run"), Path("asked"))
    assert command("evaluate", "run").code == 0

    kept = Path("run/summary.json").stat().st_mtime_ns
    assert "finished already" in command("train", "resume=run").out
    assert Path("run/summary.json").stat().st_mtime_ns == kept
    assert "run: holds a training already" in train(*ASKED).error
    asked = [*QUICK, f"data.root={shared_photos}", *ASKED]
    sweep._check_same(job_of(asked))
    with pytest.raises(SemipixError, match=r"method\._target_='semipix\.launch\.auto\.Auto' found"):
        sweep._check_same(job_of([*asked[:-2], "method=unimatch"]))


def job_of(overrides: Sequence[str]) -> Job:
    return Job(Path("run"), Path(), "", overrides, lambda: compose(overrides), Path(), [])


def interrupt_pilot(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the interruption come instead of a pilot; returns what undoes it."""
    whole, begun = auto.run_command, []

    def run(*args: Any, **kwargs: Any) -> Ended:
        begun.append(1)
        if len(begun) == number:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(auto, "run_command", run)
    return lambda: monkeypatch.setattr(auto, "run_command", whole)


@pytest.mark.parametrize("by", ["resume", "same command"])
def test_an_interrupted_choice_goes_on(
    by: str, train: Command, command: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = interrupt_pilot(2, monkeypatch)
    result = train(*ASKED)
    assert result.code == 130
    expected = "semipix: interrupted, 1 of 2 pilots are finished; continue with: semipix train resume=run --trust"
    assert result.err.splitlines()[-1] == expected
    assert trained == ["supervised"]
    assert is_choosing(Path("run"))
    assert "its method is not chosen yet; continue it with semipix train resume=run" in command("evaluate", "run").error
    assert "method.min_held_out=3 found" in train(*ASKED, "method.min_held_out=4").error

    undo()
    if by != "resume":
        path = Path("run/pilots/supervised/config.yaml")
        written = path.read_text()
        path.write_text(written.replace("semipix.methods.supervised.Supervised", "other.Method"))
        error = train(*ASKED).error
        assert "method._target_='other.Method' found, 'semipix.methods.supervised.Supervised' expected" in error
        path.write_text(written)
    assert resume_or_start(Path("run"), ["method=auto"]) == ["method=auto"]
    assert (command("train", "resume=run") if by == "resume" else train(*ASKED)).code == 0
    assert trained == ["supervised", "unimatch"], "what was finished is not trained again"
    assert chosen_method("run") == "UniMatch"


def test_an_interruption_before_the_first_step_leaves_nothing_behind(
    train: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_pilot(1, monkeypatch)
    result = train(*ASKED)
    assert result.code == 130
    assert result.err.splitlines()[-1] == "semipix: interrupted before the first step; nothing was trained"
    assert not Path("run").exists()


def written_pilots(*overrides: str) -> list[Path]:
    """The files of a run whose pilots have made no step, as another command may have written them."""
    Path("run/pilots/supervised").mkdir(parents=True)
    write_config(Path("run/pilots"), configuration(*overrides), "semipix train")
    for name in ("pilots/supervised/config.yaml", "choice.json"):
        Path("run", name).write_text("{}")
    return [path for path in sorted(Path("run").rglob("*")) if path.name != ".lock"]


def test_a_second_command_leaves_the_files_of_the_first_one_alone(train: Command) -> None:
    """While the first one writes the folder, and where it has left pilots of another configuration."""
    files = written_pilots()
    with claimed(Path("run")):
        assert "run: another training is writing this folder" in train(*ASKED).error
    assert [path for path in files if path.exists()] == files
    assert "it holds another training" in train(*ASKED).error
    assert [path for path in files if path.exists()] == files


def test_the_folder_stays_locked_between_choice_and_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> None:
        with claimed(tmp_path / "run"):
            pass

    monkeypatch.setattr(auto, "_choose", lambda *given: None)
    monkeypatch.setattr(auto, "_chosen", refused)
    with pytest.raises(SemipixError, match="another training is writing"):
        auto.start(configuration(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_choice_that_is_made_is_kept(train: Command, trained: list[str]) -> None:
    """Also where the final training was killed before its first checkpoint."""
    assert train(*ASKED).code == 0
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    assert resume_or_start(Path("run"), ["method=auto"]) == ["method=auto"]
    assert train(*ASKED).code == 0
    assert trained == ["supervised", "unimatch"]
    assert chosen_method("run") == "UniMatch"


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([143, 0], None, ""),
        ([-9, 0], None, ""),
        ([137, -9], SemipixError, "the pilot of unimatch ended with exit status -9: killed"),
        ([137, 2], SemipixError, "^killed"),
        ([143, 143], KeyboardInterrupt, ""),
        ([-2, -2], KeyboardInterrupt, ""),
        ([1], SemipixError, "ended with exit status 1: killed"),
    ],
)
def test_a_pilot_that_a_signal_ends_is_continued_once(
    codes: list[int],
    error: type[BaseException] | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [*codes]
    pilot = a_pilot(tmp_path / "unimatch")

    def run(*given: Any, **options: Any) -> Ended:
        code = left.pop(0)
        if code == 0:
            (pilot / "summary.json").touch()
        return Ended(code, "killed")

    monkeypatch.setattr(auto, "run_command", run)
    with contextlib.nullcontext() if error is None else pytest.raises(error, match=message or None):
        auto._train_pilot(pilot, None, trust=True)
    assert not left


def test_the_log_of_a_supervised_pilot_that_fails_stays(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(command: Sequence[str], log: Path, **options: Any) -> Ended:
        log.write_text("TypeError: a bug\n")
        return Ended(1, "TypeError: a bug")

    monkeypatch.setattr(auto, "run_command", crash)
    log = Path("run/pilots/supervised.log").absolute()
    error = train(*ASKED).error
    assert error == f"semipix: error: {log}: the pilot of supervised ended with exit status 1: TypeError: a bug"
    assert log.read_text() == "TypeError: a bug\n"


class Failing(auto.Supervised):
    """A method whose first step ends with an error of the user."""

    def losses(self, batch: Any, epoch: float) -> dict[str, Tensor]:
        raise SemipixError("method: it fails; choose another")


def test_a_candidate_that_fails_is_left_out_and_named(train: Command, trained: list[str]) -> None:
    result = train("method=auto", f"method.candidates=[{Failing.__module__}.Failing,unimatch]")
    assert result.code == 0
    assert "semipix: 1 of 2 candidates left out: Failing: method: it fails; choose another" in result.err
    assert json.loads(Path("run/choice.json").read_text())["left_out"] == {
        "Failing": "method: it fails; choose another"
    }
    assert chosen_method("run") == "UniMatch"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.decay=0.9", "unknown key method.decay; method=auto takes candidates, held_out, min_held_out"),
        ("method.heldout=0.1", "unknown key method.heldout; did you mean held_out?"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("data.labels=99", "data.labels=99: only 8 labeled images are there"),
    ],
)
def test_a_refused_choice_leaves_nothing_behind(
    override: str, message: str, train: Command, trained: list[str]
) -> None:
    assert message in train(*ASKED, override).error
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("data.labels=all",), "every image is labeled, so there are no unlabeled images to learn from"),
        (("data.labels=1",), "1 labeled and 2 validation images are too few to tell"),
        (("method.candidates=[cct]", f"model._target_={Plain.__module__}.Plain"), "no candidate can be trained"),
    ],
)
def test_supervised_training_is_chosen_without_pilots(
    overrides: Sequence[str], reason: str, train: Command, trained: list[str], photos: Path
) -> None:
    for path in (photos / "images/train").glob("u*"):
        if "data.labels=all" in overrides:
            path.unlink()
    result = train(*ASKED, f"data.root={photos}", *overrides)
    assert result.code == 0
    assert f"method=auto: supervised is chosen: {reason}" in result.out
    assert trained == []
    assert chosen_method("run") == "Supervised"
    assert json.loads(Path("run/choice.json").read_text())["pilots"] == {}


def test_regression_is_chosen_by_its_own_metric(command: Command, in_process: list[str]) -> None:
    data = ("data=scenes", "data.size=32", "data.train=8", "data.val=3", "data.test=0", "data.labels=4", "data.crop=32")
    quick = ("data.workers=0", "data.batch_size=4", "steps=2", "calibrate=false", *QUICK[-2:])
    asked = ("task=denoising", "method=auto", "method.candidates=[cutmix,mean_teacher]", "run=run")
    result = command("train", *data, *quick, *asked)
    assert result.code == 0, result.err
    assert in_process == ["supervised", "mean_teacher"]
    choice = json.loads(Path("run/choice.json").read_text())
    assert choice["metric"] == "psnr"
    assert choice["held_out"]["count"] == 3, "those of the data suffice"
    assert "CutMix serves only classification" in choice["left_out"]["cutmix"]
    for name in in_process:
        measured = json.loads((Path("run/pilots") / name / "evaluation-val.json").read_text())
        assert choice["pilots"][name]["metric"] == pytest.approx(measured["psnr"])


def test_the_api_chooses_too(photos: Path, trained: list[str], tmp_path: Path) -> None:
    for path in (photos / "images/train").glob("u*"):
        path.unlink()
    given = [item for item in QUICK if not item.startswith(("data=", "data.labels"))]
    run = semipix.train(photos, *given, method="auto", run=tmp_path / "run")
    assert chosen_method(run.folder) == "Supervised"
    with pytest.raises(SemipixError, match=r"unknown key method\.decay; method=auto takes candidates"):
        semipix.train(photos, *given, "method.decay=0.9", method="auto", run=tmp_path / "other")


def test_pilots_in_processes_of_their_own_are_measured_on_the_held_out_images(train: Command) -> None:
    result = train("method=auto", "method.candidates=[mean_teacher]")
    assert result.code == 0, result.err
    assert "method=auto: pilots of supervised, mean_teacher: 2 of 2 steps each, 3 labeled images, 3 held" in result.out
    choice = json.loads(Path("run/choice.json").read_text())
    assert {name: pilot["steps"] for name, pilot in choice["pilots"].items()} == {"supervised": 2, "mean_teacher": 2}
    for name, pilot in choice["pilots"].items():
        measured = json.loads((Path("run/pilots") / name / "evaluation-val.json").read_text())
        assert pilot["metric"] == pytest.approx(measured["miou"])
        assert pilot["interval"][0] <= pilot["metric"] <= pilot["interval"][1]
    base, other = (choice["pilots"][name]["metric"] for name in ("supervised", "mean_teacher"))
    assert choice["pilots"]["mean_teacher"]["difference"] == pytest.approx(other - base)
    assert chosen_method("run") == {"supervised": "Supervised", "mean_teacher": "MeanTeacher"}[choice["chosen"]]


def test_a_further_process_trains_what_the_first_has_chosen(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "images/train").glob("u*"):
        path.unlink()
    devices = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false")
    given = [item for item in QUICK if not item.startswith(("trainer", "data.labels"))]
    asked = (f"data.root={photos}", "data.labels=all", "method=auto", "run=run")
    command = [sys.executable, "-m", "semipix.cli", "train", *given, *devices, *asked]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("method=auto: supervised is chosen") == 1
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 2


def test_processes_of_torchrun_are_refused(train: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert "method=auto: processes that torchrun or SLURM started found" in train(*ASKED).error
    assert not Path("run").exists()
