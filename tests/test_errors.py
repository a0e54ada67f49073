"""Messages are one line of at most 300 characters that keeps what is wrong and how to fix it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from semipix.data.check import check_folder
from semipix.errors import MOST_CHARACTERS, PREFIX, one_line, reason_of
from tests.conftest import Result

Command = Callable[..., Result]
LONG = "x" * 10_000


def test_a_short_message_stays_as_it_is() -> None:
    message = f"data.root={'r' * (MOST_CHARACTERS - 19)}: fix it"
    assert len(message) == MOST_CHARACTERS - 1
    assert one_line(f"  {message}\n") == message


def test_what_is_quoted_loses_its_middle() -> None:
    path = "/".join(["folder", *(f"sub{number}" for number in range(500)), "image.png"])
    shortened = one_line(f"{path}: mask is 3x4 pixels, its image {LONG}.png is 4x3; expected the same size")
    assert len(shortened) <= MOST_CHARACTERS
    assert shortened.startswith("folder/sub0/")
    assert "/image.png: mask is 3x4 pixels, its image xxx" in shortened
    assert shortened.endswith("xxx.png is 4x3; expected the same size")


def test_a_long_list_loses_its_middle() -> None:
    names = ", ".join(f"class {number}" for number in range(500))
    shortened = one_line(f"data: 500 classes ({names}), but the task has 3 (a, b, c); give the run's data")
    assert len(shortened) == MOST_CHARACTERS
    assert shortened.startswith("data: 500 classes (class 0, class 1, ")
    assert shortened.endswith("class 499), but the task has 3 (a, b, c); give the run's data")


@pytest.mark.parametrize(
    "override",
    [
        f"{LONG}=1",
        f"model.{LONG}=1",
        f"data.labels={LONG}",
        f"data.root={LONG}",
        f"data.root={'deep/' * 900}",
        f"run={LONG}",
        f"method={LONG}",
        f"data.{LONG}",
        f"~{LONG}",
        f"{LONG}@model=unet",
        f"optimizer._target_={LONG}",
        f"seed={'9' * 4000}",
        f"task.classes=[{','.join(f'class{number}' for number in range(500))}]",
        f"data.mask_values={{{','.join(f'{number}:999' for number in range(500))}}}",
        f"trainer.precision={LONG}",
        f"trainer.strategy={LONG}",
    ],
)
def test_hostile_overrides(override: str, train: Command) -> None:
    assert len(train(override).error) <= 300
    assert not any(Path().iterdir())


@pytest.mark.parametrize("name", ["evaluate", "predict", "data"])
def test_hostile_paths(name: str, command: Command) -> None:
    arguments = {"evaluate": (LONG,), "predict": (LONG, LONG, "--out", LONG), "data": ("check", "d/" * 5000, "a=1")}
    assert len(command(name, *arguments[name]).error) <= 300


def test_check_and_training_print_the_same_line(photos: Path, train: Command) -> None:
    folder = photos / "masks/train" / "/".join(["deep folder " * 10] * 5)
    folder.mkdir(parents=True)
    Image.new("L", (3, 3)).save(folder / "last.png")
    (line,) = [line for line in check_folder(photos).lines() if "last.png: mask without an image;" in line]
    assert 250 < len(line) <= 300
    assert train(f"data.root={photos}").error == f"{PREFIX}{line.strip()}"


def test_what_an_exception_says_is_quoted_in_one_line() -> None:
    assert reason_of(ValueError("size mismatch:\n\tone  two")) == "size mismatch: one two"
    assert reason_of(ValueError("0123456789"), 4) == "0123"
    assert reason_of(AssertionError()) == "AssertionError"
