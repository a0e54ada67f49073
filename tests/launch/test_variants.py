"""Variants side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.launch import runner, variants
from semipix.launch.runner import Ended
from semipix.launch.variants import run_variant


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run; each leaves behind what the real one does."""
    run: list[list[str]] = []

    def pretend(command: list[str], log: Path, **options: Any) -> Ended:
        arguments = command[3:]
        run.append(arguments)
        if arguments[0] == "train":
            folder = Path(next(item for item in arguments if item.startswith("run=")).removeprefix("run=").strip("'"))
            folder.mkdir()
            (folder / "summary.json").write_text(json.dumps({"steps": 1}))
        else:
            (Path(arguments[1]) / f"evaluation-{arguments[3]}.json").write_text(json.dumps({"psnr": 30.0}))
        return Ended(0, "")

    monkeypatch.setattr(runner, "run", pretend)
    monkeypatch.setattr(variants, "run", pretend)
    return run


def test_what_is_there_is_only_read(commands: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        found = run_variant(folder, ["steps=1"], split="val")
        assert found == {"test": {"psnr": 30.0}, "trained": {"steps": 1}, "overrides": ["steps=1"]}
    assert [arguments[0] for arguments in commands] == ["train", "evaluate"]
    assert commands[1][2:] == ["--split", "val"]


def test_a_link_is_not_written_through(commands: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "run.json").symlink_to(tmp_path / "nothing")
    run_variant(tmp_path / "run", ["steps=1"])
    assert not (tmp_path / "nothing").exists()
    assert json.loads((tmp_path / "run.json").read_text()) == ["steps=1"]


def test_a_run_of_other_settings_is_not_taken_for_this_one(commands: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_variant(folder, ["steps=1", "seed=0"])
    with pytest.raises(SemipixError) as error:
        run_variant(folder, ["steps=2", "seed=0"])
    assert str(error.value) == (
        f"{folder}: holds a run of other settings (steps=1, steps=2); remove it or choose another folder"
    )
