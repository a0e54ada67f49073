"""What is written into a run folder, and who may write there."""

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.training.run_folder import LOCK, claimed, resume_or_start, write_json


def hold(folder: Path, held: Any) -> None:
    """Claim a folder, say so, and wait to be killed."""
    with claimed(folder):
        held.set()
        time.sleep(60)


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[None]:
    """Another process claims the folder, and is killed at the end. It is forked, which saves what a new one imports."""
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold, args=(folder, held))
    process.start()
    try:
        assert held.wait(30)
        yield
    finally:
        process.kill()
        process.join()


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, {"c": float("-inf")}], "d": "NaN", "e": 3})
    text = (tmp_path / "a.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found == {"a": None, "b": [1.5, {"c": None}], "d": "NaN", "e": 3}


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError) as caught:
        write_json(tmp_path / "a.json", {})
    assert caught.value.filename == str(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    with claimed(tmp_path / "runs/new"):
        assert (tmp_path / "runs/new").is_dir()
    assert not (tmp_path / "runs/new").exists()
    with claimed(tmp_path / "runs/new"):
        (tmp_path / "runs/new/config.yaml").write_text("")
    assert [path.name for path in (tmp_path / "runs/new").iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_a_folder_is_claimed_once_and_free_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0")
    with held_elsewhere(tmp_path):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        for attempt in (lambda: claimed(tmp_path).__enter__(), lambda: resume_or_start(tmp_path, ["steps=2"])):
            with pytest.raises(SemipixError) as caught:
                attempt()
            assert str(caught.value) == (
                f"{tmp_path}: another training is writing this folder; wait for it, or choose another run=PATH"
            )
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert (tmp_path / LOCK).exists(), "killed"
    began = time.monotonic()
    assert resume_or_start(tmp_path, ["steps=2"]) == ["steps=2"]
    assert not tmp_path.exists()
    assert time.monotonic() - began < 5
