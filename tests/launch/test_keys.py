"""`semipix train --help keys` and shell completion.

Also tests launch/completion.py.
"""

import inspect
import os
import pty
import select
import shutil
import subprocess
import time
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
from tests.helpers.processes import SCRIPT, environment


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
        assert {"method=gct,cct", "method=gct,cps"} <= set(completion.overrides("method=gct,c"))

    def test_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for path in (tmp_path / "runs/first", tmp_path / "runs/second", tmp_path / ".cache"):
            path.mkdir(parents=True)
        (tmp_path / "notes.txt").touch()
        assert completion.overrides("resume=") == ["resume=runs/"]
        assert completion.overrides("data.root=runs/f") == ["data.root=runs/first/", "data.root=runs/second/"]
        assert completion.overrides(f"run={tmp_path}/r") == [f"run={tmp_path}/runs/"]
        assert completion.overrides("run=nowhere/") == []

    def test_what_semipix_fills_in_is_no_key(self) -> None:
        assert "model.encoder=" in completion.overrides("model.")
        assert not {"model.channels=", "model.in_channels="} & set(completion.overrides("model."))
        assert "data.seed=" not in completion.overrides("data.")

    def test_keys_are_those_of_the_constructors(self) -> None:
        for name, key in (("gct", "method.lambda_dc="), ("unimatch", "method.decay=")):
            found = completion.overrides("method.", SimpleNamespace(overrides=[f"method={name}"]))
            assert key in found
            assert "method.task=" not in found

    @pytest.mark.parametrize("name", ["camvid", "folder", "pairs", "scenes"])
    def test_keys_of_data_are_its_source_s_and_the_data_module_s(self, name: str) -> None:
        path = Path(str(completion._folder("data", f"{name}.yaml")))
        source = get_object(path.read_text().partition("_target_: ")[2].split()[0])
        own = set(inspect.signature(source).parameters) - completion._FILLED_IN - {"seed"}
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

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
    def test_in_zsh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with completion.install("zsh").open("a") as start:  # Ctrl-T prints the line as the tab key has left it
            start.write("zle-line-init() { print -n ready }; zle -N zle-line-init\n")  # keys before would be echoed
            start.write("shown() { print -r -- \"<$BUFFER>\" }; zle -N shown; bindkey '^T' shown\n")
        with Zsh(tmp_path) as zsh:
            assert zsh.after("semipix tr\t") == "semipix train "
            assert zsh.after("semipix train method=unim\t") == "semipix train method=unimatch "
            assert zsh.after("semipix train mem\t") == "semipix train memory="
            assert zsh.after("semipix train me\t") == "semipix train me"
            assert {"method=", "memory=", "method."} <= set(zsh.printed.split()), zsh.printed
            assert "--" not in zsh.printed, "descriptions that are not there"


class Zsh:
    """An interactive zsh in a terminal.

    Args:
        home: folder of its start file.
    """

    def __init__(self, home: Path) -> None:
        self.printed = ""
        self.terminal, terminal = pty.openpty()
        path = os.pathsep.join([str(Path(SCRIPT).parent), os.environ["PATH"]])
        self.process = subprocess.Popen(
            ["zsh", "-d", "-i"],
            env={**environment(), "HOME": str(home), "ZDOTDIR": str(home), "PATH": path, "TERM": "dumb", "LANG": "C"},
            **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
            start_new_session=True,
        )
        os.close(terminal)
        self.read_until("ready")

    def after(self, keys: str) -> str:
        """The command line after some keys, which is then emptied. `printed` is all that the terminal has shown."""
        os.write(self.terminal, f"{keys}\x14\x15".encode())
        return self.read_until(">").rpartition("<")[2].rpartition(">")[0]

    def read_until(self, end: str) -> str:
        self.printed, deadline = "", time.monotonic() + 60
        while end not in self.printed:
            assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], self.printed
            self.printed += os.read(self.terminal, 65536).decode()
        return self.printed

    def __enter__(self) -> "Zsh":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
