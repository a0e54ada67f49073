"""A small folder of PNG and JPEG files, and fixtures that run commands in this process."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semipix.cli import main

SIDE = 64
QUICK = (
    *("data=folder", "data.labels=4", "data.batch_size=4", "data.crop=64", "data.workers=0", "steps=2"),
    "calibrate=false",
    *("model._target_=tests.helpers.tiny.TinyModel", "trainer.accelerator=cpu"),
)
"""Overrides of a training that takes about a second."""


TRAINING = {"command", "train", "shared_run", "finished"}
"""Fixtures of tests that run commands and trainings."""

SLOW = (
    *(
        "benchmarks",
        "inference/test_on_ray.py",
        "methods/test_memory_and_compile.py",
        "models/test_deeplab_v2.py",
        "models/test_loading.py",
        "models/test_smp.py",
        "report/test_demo.py",
        "training/test_ddp.py",
        "training/test_learner.py",
        "training/test_ranks.py",
    ),
    *("test_bad_input.py", "test_interruption.py", "test_matrix.py", "test_regression_commands.py", "test_tutorial.py"),
)
"""Folders and files whose tests start processes, train, or compute with large networks."""


def pytest_configure() -> None:
    """Let SIGINT work: in what a shell runs in the background it is ignored, which semipix leaves so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts commands, processes and trainings as slow, so that `make quick` leaves it out."""
    folder = Path(__file__).parent
    for item in items:
        in_slow = any(item.path.is_relative_to(folder / name) for name in SLOW)
        if in_slow or TRAINING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@dataclass
class Result:
    """Exit status and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line of an error; fails if the command printed more lines, or if its exit status is not 2."""
        lines = [line for line in self.err.replace("\r", "\n").splitlines() if line and "%|" not in line]
        assert len(lines) == 1, f"one line expected: {self.err}"
        assert self.code == 2
        return lines[0]


def write_pair(root: Path, split: str, name: str, seed: int, masked: bool = True) -> None:
    """Write an image of noise with a brighter square, and the square's mask."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    y, x = draw.integers(0, SIDE // 2, 2)
    mask[y : y + SIDE // 2, x : x + SIDE // 2] = 1
    image = (draw.integers(0, 100, (SIDE, SIDE, 3)) + 120 * mask[..., None]).astype(np.uint8)
    (root / f"images/{split}").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / f"images/{split}/{name}")
    if masked:
        path = root / f"masks/{split}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path.with_suffix(".png"))


@pytest.fixture(scope="session")
def shared_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 labeled, 4 unlabeled, 2 validation and 2 test images with two classes; tests must not change them."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(8):
        write_pair(root, "train", f"{number:02d}.{'png' if number % 2 else 'jpg'}", number)
    for number in range(4):
        write_pair(root, "train", f"u{number}.jpg", 20 + number, masked=False)
    for split in ("val", "test"):
        for number in range(2):
            write_pair(root, split, f"{split}{number}.png", 40 + number)
    return root


@pytest.fixture
def photos(shared_photos: Path, tmp_path: Path) -> Path:
    """A copy of the same folder, which a test may change."""
    return Path(shutil.copytree(shared_photos, tmp_path / "photos"))


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Result]]:
    """Run a command in this process and in an empty folder.

    Commands that read a run folder get --trust, since the tests' runs name models of the tests.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["semipix"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*arguments: str | Path) -> Result:
        capfd.readouterr()
        given = [str(argument) for argument in arguments]
        if {"evaluate", "predict", "calibrate", "export"} & set(given[:1]) or any(
            argument.startswith("resume=") for argument in given
        ):
            given.append("--trust")
        code = main(given)
        return Result(code, *capfd.readouterr())

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def train(command: Callable[..., Result], shared_photos: Path) -> Callable[..., Result]:
    """Run a short training on the folder; overrides replace the usual ones."""

    def run(*overrides: str) -> Result:
        given = {override.partition("=")[0] for override in overrides}
        usual = [*QUICK, f"data.root={shared_photos}", "method=supervised", "run=run"]
        return command("train", *(item for item in usual if item.partition("=")[0] not in given), *overrides)

    return run


@pytest.fixture(scope="session")
def shared_run(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of gct; tests must not change them."""
    folder = tmp_path_factory.mktemp("runs") / "gct"
    assert main(["train", *QUICK, f"data.root={shared_photos}", "method=gct", f"run={folder}"]) == 0
    return folder


@pytest.fixture
def finished(shared_run: Path, tmp_path: Path) -> Path:
    """A copy of the same run, which a test may change."""
    return Path(shutil.copytree(shared_run, tmp_path / "finished"))
