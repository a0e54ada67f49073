"""`semipix train --help keys` and shell completion.

Also tests launch/completion.py.
"""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object
from omegaconf import OmegaConf

from semipix.config import TOP
from semipix.launch import completion
from semipix.launch.keys import ABOUT, describe
from semipix.launch.overrides import open_overrides


def lines(*overrides: str) -> list[str]:
    with initialize_config_module("semipix.conf", version_base="1.3"):
        config = compose("train", open_overrides([*overrides, "run=runs/x"]))
    found = OmegaConf.to_container(config, resolve=False)
    assert isinstance(found, dict)
    return list(describe({str(key): value for key, value in found.items()}))


class TestKeys:
    def test_every_key_of_no_group_is_explained(self) -> None:
        assert ABOUT.keys() == TOP.keys()

    def test_effective_values_types_and_docstrings(self) -> None:
        message = lines("data=folder", "method=gct", "method.lambda_fc=2")
        assert "  method.lambda_fc=2   (a number)" in message
        assert message[message.index("  method.lambda_fc=2   (a number)") + 1].strip() == "weight of flaw correction."
        assert "  data.root=   (text or a path, no default)" in message
        assert any(line.startswith("  data.crop=") for line in message)
        assert not any("in_channels" in line or "needed_splits" in line or "make_model" in line for line in message)
        assert max(len(line) for line in message if line.startswith(" " * 8)) <= 110

    def test_classes_of_other_packages(self) -> None:
        message = "\n".join(lines())
        assert "  trainer.gradient_clip_val=null" in message
        assert "  optimizer.weight_decay=0.0001   (a number)" in message


class TestCompletion:
    def test_groups_options_and_keys(self) -> None:
        assert {"data=", "method=", "steps=", "data."} <= set(completion.overrides("d"))
        assert {"data=folder", "data=camvid"} <= set(completion.overrides("data="))
        assert "experiment=paper/segmentation" in completion.overrides("experiment=")
        assert completion.overrides("seed=") == []

    def test_keys_are_those_of_the_constructors(self) -> None:
        for name, key in (("gct", "method.lambda_dc="), ("unimatch", "method.decay=")):
            found = completion.overrides("method.", SimpleNamespace(overrides=[f"method={name}"]))
            assert key in found
            assert "method.task=" not in found

    @pytest.mark.parametrize("name", ["camvid", "folder", "pairs", "scenes"])
    def test_keys_of_data_are_its_source_s_and_the_data_module_s(self, name: str) -> None:
        path = Path(str(completion._folder("data", f"{name}.yaml")))
        source = get_object(path.read_text().partition("_target_: ")[2].split()[0])
        own = set(inspect.signature(source).parameters) - completion._FILLED_IN
        given = SimpleNamespace(overrides=[f"data={name}"])
        assert {f"data.{key}=" for key in {*own, "crop", "batch_size"}} <= set(completion.overrides("data.", given))

    def test_installing_twice_adds_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        for shell in ("/bin/bash", "zsh"):
            first = completion.install(shell)
            text = first.read_text()
            assert completion.install(shell) == first
            assert first.read_text() == text
            assert text.count("completion of semipix") == 1
        with pytest.raises(ValueError, match="fish found, bash or zsh expected"):
            completion.install("fish")
