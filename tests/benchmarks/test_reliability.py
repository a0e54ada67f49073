"""A small part of each section of benchmarks/reliability, by a fixed seed: nothing in it may end badly."""

import importlib
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.reliability import commands, images, mutations
from benchmarks.reliability.outcomes import BAD, Ended, judged
from benchmarks.reliability.sections import ALL

PARTS = {
    "images": range(0, 920, 70),
    "overrides": range(0, 500, 72),
    "kills": (2, 3),  # a training with reading processes; a prediction
    "interrupts": (5,),  # SIGHUP, before the first step
    "company": (2,),
    "full_disk": (0, 32),
    "tampered": (0, 38, 77, 101),
    "shards": (3, 25),
}


@pytest.mark.parametrize("name", PARTS)
def test_section(name: str, tmp_path: Path) -> None:
    section = ALL[name]
    cases = section.cases(0, list(PARTS[name]))
    results = list(section.run(cases, tmp_path))
    assert [each.case for each in results] == cases
    assert not [each for each in results if each.outcome.kind in BAD]


def test_what_commands_are_forked_from_is_imported_before() -> None:
    """A module that is missing would be passed over in silence, and each command would import everything itself."""
    for name in commands.PRELOADED:
        importlib.import_module(name)


def ended(code: int | None = 2, err: str = "semipix: error: a: b", left: int = 0) -> Ended:
    return Ended(code, "", err, 1.0, left)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (ended(), "one line"),
        (ended(0, ""), "right"),
        (ended(err="semipix: warning: a\nsemipix: error: b\ntrain:  50%|# | 1/2 [00:00<00:00, 2it/s]"), "one line"),
        (ended(err="Some library speaks\nsemipix: error: b"), "unclear"),
        (ended(err="semipix: error: a\nsemipix: error: b"), "unclear"),
        (ended(err="semipix: error: " + "x" * 300), "unclear"),
        (ended(3), "unclear"),
        (ended(1, "Traceback (most recent call last):\nKeyError: 1"), "traceback"),
        (ended(-9, ""), "crash"),
        (ended(None, ""), "hang"),
        (ended(0, "", left=1), "left behind"),
    ],
)
def test_how_a_command_ended(end: Ended, kind: str) -> None:
    assert judged(end).kind == kind


def test_values_that_are_wrong_are_found(tmp_path: Path) -> None:
    base = next(each for each in mutations.bases() if each.name == "png turned")
    right = images.expected(base)
    assert right is not None
    intact = mutations.Mutant(base.content, "png", "none")
    assert images.judged_file(base, intact, tmp_path, right, None).kind == "right"
    assert images.judged_file(base, intact, tmp_path, 1 - right, None).kind == "wrong"
    assert images.judged_file(base, intact, tmp_path, np.rot90(right, 1, (-2, -1)), None).kind == "wrong"
    refused = mutations.Mutant(b"", "png", "refused")
    assert images.judged_file(base, refused, tmp_path, right, None).kind == "wrong"


def test_what_outlives_a_command_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_LINGERING", 0.2)
    command = commands.Command(["--help"], tmp_path, prepare=start_sleeper)
    end = command.wait()
    assert (end.code, end.left) == (0, 1)
    until = time.monotonic() + 20  # the system may take a while to end what was killed
    while commands.session(command.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert commands.session(command.pid) == []


def start_sleeper() -> None:
    import subprocess

    subprocess.Popen(["sleep", "100"])


def test_a_hang_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "patient", lambda seconds: seconds)
    end = commands.run(["--help"], tmp_path, limit=0.5, prepare=sleep_long)
    assert judged(end).kind == "hang"


def sleep_long() -> None:
    import time

    time.sleep(100)
