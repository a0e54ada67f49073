"""Tests are where their modules are."""

import ast
import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import semipix
from tests.conftest import SLOW, pytest_collection_modifyitems

SOURCE = Path(semipix.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@functools.cache
def named() -> dict[str, list[str]]:
    """The modules that docstrings of test files name, as `data/files/resize.py`, with the files that do."""
    found: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        also = docstring(path).partition("Also tests ")[2]
        for name in re.findall(r"[\w/]+\.py", also):
            found.setdefault(name, []).append(str(path.relative_to(TESTS)))
    return found


def test_each_module_has_its_test_file_or_is_named_by_another() -> None:
    own = {module for module in MODULES if (TESTS / module.with_name(f"test_{module.name}")).exists()}
    assert [str(module) for module in MODULES if module not in own and str(module) not in named()] == []
    assert [name for name in named() if Path(name) in own] == [], "they have files of their own"


def test_what_is_named_is_there() -> None:
    assert [name for name in named() if not (SOURCE / name).exists()] == []


def test_what_tests_share_is_in_helpers() -> None:
    """Importing another test file runs its tests' set-up, and breaks where that file changes."""
    importing = re.compile(r"^(?:from|import) tests\.(?:\w+\.)*test_\w+", re.MULTILINE)
    assert [path.name for path in TESTS.rglob("*.py") if importing.search(path.read_text())] == []


@pytest.mark.parametrize(
    ("file", "fixtures", "slow"),
    [
        ("test_atomic.py", ["tmp_path"], False),
        ("test_atomic.py", ["tmp_path", "train"], True),
        *((name, [], True) for name in SLOW),
    ],
)
def test_what_is_left_out_of_quick(file: str, fixtures: list[str], slow: bool) -> None:
    marks: list[Any] = []
    item: Any = SimpleNamespace(path=TESTS / file, fixturenames=fixtures, add_marker=marks.append)
    pytest_collection_modifyitems([item])
    assert [mark.name for mark in marks] == ["slow"] * slow
    assert item.path.exists()


@pytest.mark.parametrize("folder", ["launch", "report"])
def test_processes_are_started_by_the_runner_alone(folder: str) -> None:
    starting = [path.name for path in (SOURCE / folder).rglob("*.py") if "import subprocess" in path.read_text()]
    assert starting == (["runner.py"] if folder == "launch" else [])
