"""What a parsed configuration holds, and what a run folder keeps of it.

Also tests training/versions.py.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from semipix.config import GROUPS, RESERVED, TOP, Node
from semipix.data.datamodule import RARE_SHARE, SemiSupervisedDataModule
from semipix.errors import SemipixError
from semipix.launch.compose import compose
from semipix.launch.sweep import Job, run_job
from semipix.methods.gct import GCT
from semipix.models.adapt import BAND_NAMES
from semipix.training.build import build_data, data_of_run, trained_method, with_chosen_options
from semipix.training.configuration import LENGTHS, SET_OF_TRAINER, SHARING, Configuration
from semipix.training.run_folder import load_config, read_config
from tests.conftest import QUICK, Result
from tests.helpers.tiny import CLASSES, TinyModel, options

Command = Callable[..., Result]


def parsed(*overrides: str) -> Configuration:
    return Configuration.parse(compose(["data=scenes", *overrides]))


class Sized:
    def __init__(self, place: Path | None = None, sides: tuple[int, ...] = (1, 2), made: object = object()) -> None:
        self.given = place, sides


class TestNode:
    GROUP = {"_target_": f"{__name__}.Sized"}  # noqa: RUF012

    def test_a_default_is_kept_as_yaml_holds_it_and_given_as_it_was(self) -> None:
        node = Node.parse("node", self.GROUP, object).with_defaults()
        assert node.as_mapping() == {**self.GROUP, "place": None, "sides": [1, 2]}
        assert node.build().given == (None, (1, 2))

    def test_extra_arguments_replace_options_and_a_path_is_text(self) -> None:
        node = Node.parse("node", {**self.GROUP, "place": 16, "sides": [3]}, object)
        assert node.options == {"place": "16", "sides": [3]}
        assert node.build(sides=(4,)).given == ("16", (4,))
        assert node.takes("place")
        assert not node.takes("other")

    def test_a_change_is_checked(self) -> None:
        node = Node.parse("node", self.GROUP, object)
        with pytest.raises(SemipixError, match=r"^unknown key node\.side; did you mean sides\?"):
            node.with_options({"side": 1})
        with pytest.raises(SemipixError, match=r"^node\.sides: 1 found, a list expected"):
            node.with_options({"sides": 1})

    def test_what_a_function_makes_is_checked(self) -> None:
        node = Node.parse("model", {"_target_": "hydra.utils.instantiate", "config": None}, torch.nn.Module)
        with pytest.raises(SemipixError, match=r"^model: its _target_ made a NoneType, a Module expected"):
            node.build()


def test_low_memory_switches_checkpointing_on_where_nothing_else_is_said() -> None:
    assert parsed().model.options["checkpointing"] is False
    assert parsed("memory=low").model.options["checkpointing"] is True
    assert parsed("memory=low", "model.checkpointing=false").model.options["checkpointing"] is False


def test_an_optimizer_is_fused_where_nothing_else_is_said() -> None:
    assert parsed().optimizer.options["fused"] is True
    assert parsed("optimizer.foreach=true").optimizer.options["fused"] is None


@pytest.mark.parametrize("name", options("scheduler"))
def test_the_length_of_a_schedule_is_no_default(name: str) -> None:
    node = parsed(f"scheduler={name}").scheduler
    assert node is not None
    assert not {*LENGTHS} & node.options.keys()
    assert "last_epoch" in node.options


def test_a_key_of_both_source_and_data_module_is_open_until_the_split_is_made() -> None:
    configuration = parsed("data.size=32", "data.train=8", "data.test=0")
    assert "val" not in configuration.data.options, "40 images for the source, a tenth for the data module"
    used = with_chosen_options(configuration, build_data(configuration)).data.options
    assert used["val"] == 40
    assert (used["scale"], used["labeled_per_batch"], used["strong_jitter"]) == ([0.75, 1.5], 4, 0.5)
    assert used["rare_share"] == RARE_SHARE
    restored = parsed("data.size=32", "data.kind=denoising", "task=denoising")
    used = with_chosen_options(restored, build_data(restored)).data.options
    assert (used["scale"], used["strong_jitter"], used["strong_grey"]) == ([1.0, 1.0], 0.0, 0.0)
    assert (used["strong_permute"], used["strong_gain"], used["strong_learn_hidden"]) == (0.5, 0.2, False)
    assert (used["strong_mask"], used["strong_drop"]) == (0.0, 0.0)


def test_a_run_folder_holds_every_parameter_in_order(shared_run: Path, shared_photos: Path) -> None:
    config = yaml.safe_load((shared_run / "config.yaml").read_text())
    groups = [name for name in GROUPS if name != "second_model"]
    assert list(config) == [*groups, *TOP, "versions", "command"]
    for name in groups:
        node = Node.parse(name, config[name], object, SHARING.get(name))
        names = {*node.own.names, *node.shared.names}
        semipix_sets = {*LENGTHS, *SET_OF_TRAINER, *RESERVED}
        semipix_sets |= (
            {"in_channels", "channels", *BAND_NAMES} if name == "model" else {"seed"} if name == "data" else set()
        )
        assert config[name].keys() - {"_target_"} == names - semipix_sets, name
    assert config["versions"].keys() >= {"python", "torch", "torchvision", "timm", "lightning"}
    given = ("semipix", "train", *QUICK, f"data.root={shared_photos}", "method=gct", f"run={shared_run}")
    assert config["command"] == " ".join(given)


def test_a_later_change_of_a_default_changes_nothing(
    finished: Path, shared_photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results() -> tuple[str, bytes]:
        evaluated = command("evaluate", finished)
        shutil.rmtree("out", ignore_errors=True)
        predicted = command("predict", finished, shared_photos / "images/test", "--out", "out")
        assert (evaluated.code, predicted.code) == (0, 0), predicted.err
        return evaluated.out, next(Path("out/masks").rglob("*.png")).read_bytes()

    before = results()
    monkeypatch.setitem(GCT.__init__.__kwdefaults__, "lambda_dc", 7.0)
    monkeypatch.setitem(SemiSupervisedDataModule.__init__.__kwdefaults__, "flip", 0.25)
    monkeypatch.setattr(TinyModel.__init__, "__defaults__", (3, CLASSES, 9))
    assert results() == before
    configuration = load_config(finished, trust=True)
    method = trained_method(configuration, finished)
    assert method.lambda_dc == 100.0
    assert data_of_run(configuration, finished, method.task, ["train", "val"]).flip == 0.5
    path = finished / "config.yaml"
    path.write_text(path.read_text().replace("\nsteps: 2\n", "\nsteps: 3\n"))
    assert command("train", f"resume={finished}").code == 0


def test_other_versions_are_reported_in_one_line(finished: Path, shared_photos: Path, command: Command) -> None:
    path = finished / "config.yaml"
    whole = path.read_text()
    config = yaml.safe_load(whole)
    line = f"semipix: {finished}: trained with torch 1.0\\x1b[2J (now {torch.__version__.partition('+')[0]}"
    commands: tuple[tuple[Any, ...], ...] = (
        ("evaluate", finished),
        ("predict", finished, shared_photos / "images/test", "--out", "out"),
        ("train", f"resume={finished}"),
    )
    for arguments in commands:
        config["versions"]["torch"] = "1.0\x1b[2J"
        path.write_text(yaml.safe_dump(config))
        result = command(*arguments)
        assert result.code == 0
        assert result.err.count(line) == 1
        config["versions"]["torch"] = f"{torch.__version__.partition('+')[0]}+another"
        path.write_text(yaml.safe_dump(config))
        assert "trained with" not in command(*arguments).err, "another build"


@pytest.mark.parametrize("key", ["memory", "versions", "command"])
def test_a_run_folder_without_a_key_is_damaged(key: str, finished: Path) -> None:
    path = finished / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config[key]
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SemipixError, match=rf"config\.yaml: without {key}, expected the configuration that semipix"):
        read_config(finished, trust=True)


def test_a_sweep_takes_a_run_of_its_own_command(
    finished: Path, shared_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def popen(given: list[str], **others: Any) -> Any:
        started.append(given)
        raise SemipixError("started")

    monkeypatch.setattr("semipix.launch.runner.subprocess.Popen", popen)
    overrides = [*QUICK, f"data.root={shared_photos}", "method=gct", "data.scale=null"]

    def record(*more: str) -> Any:
        config = compose([*overrides, *more])
        return run_job(Job(finished, finished.parent, "this", [], lambda: config, finished.parent, sys.path))

    assert record().state == "finished before"
    assert record("data.flip=0.25").reason.startswith("data.flip=0.5 found in its config.yaml, 0.25 expected")
    (finished / "summary.json").unlink()
    assert record().reason == "started"
    assert started[0][-2:] == [f"resume={finished}", "--trust"], "its model is named by the command too"
