"""The pages of docs/methods say what the code does."""

import inspect
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

import semipix.conf
from semipix.config import RESERVED
from semipix.launch.auto import Auto
from semipix.launch.paper import paper_table
from semipix.methods.base import Method
from tests.helpers.pages import table_of
from tests.helpers.tiny import method_class, options, works_on_features

PAGES = Path(__file__).parents[1] / "docs" / "methods"

SECTIONS = [
    *("Idea", "Terms and gradient routes", "Hyper-parameters", "Cost", "When to prefer it", "Serves", "Reference"),
]

METHODS = options("method")


def sections_of(path: Path) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = path.read_text().split("\n## ")[1:]
    return {heading: text.strip() for heading, _, text in (part.partition("\n") for part in parts)}


def terms_of(method: type[Method]) -> list[list[str]]:
    """The rows of the table in a method's module docstring, continuation lines joined."""
    module = inspect.getmodule(method)
    assert module is not None
    rows: list[list[str]] = []
    for line in (module.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 4 or cells[0] == "term" or cells[0].startswith("--"):
            continue
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{first} {second}".strip() for first, second in zip(rows[-1], cells, strict=True)]
    return rows


def hyper_parameters(name: str) -> dict[str, list[str]]:
    """Default, published value and meaning by key, as the page has them."""
    rows = table_of(sections_of(PAGES / f"{name}.md")["Hyper-parameters"])
    return {row[0].strip("`"): row[1:] for row in rows}


def test_each_method_has_a_page_and_a_row_of_the_index() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README", "auto"}
    assert pages == set(METHODS)
    index = (PAGES / "README.md").read_text()
    rows = {row[0]: row[1:] for row in table_of(index.partition("\n## ")[0])}
    assert rows.keys() == {f"[{name}]({name}.md)" for name in METHODS}
    for name in METHODS:
        _, serves, _, strong = rows[f"[{name}]({name}.md)"]
        assert serves == (
            "classification" if method_class(name).classification_only else "classification and regression"
        )
        assert strong == str(method_class(name).strong_views)


@pytest.mark.parametrize("name", METHODS)
def test_a_page_has_all_sections(name: str) -> None:
    sections = sections_of(PAGES / f"{name}.md")
    assert list(sections) == SECTIONS
    assert all(sections.values())
    assert f"`method={name}`" in (PAGES / f"{name}.md").read_text()
    assert sections["Cost"].startswith("<!-- cost -->\n")
    assert sections["Cost"].endswith("\n<!-- /cost -->")


@pytest.mark.parametrize("name", METHODS)
def test_a_page_has_the_terms_of_the_code(name: str) -> None:
    rows = table_of(sections_of(PAGES / f"{name}.md")["Terms and gradient routes"])
    rows = [[row[0].strip("`"), *row[1:]] for row in rows]
    assert {row[0] for row in rows} == method_class(name).trains.keys()
    assert rows == terms_of(method_class(name)), "the module's docstring has another table"


@pytest.mark.parametrize("name", METHODS)
def test_a_page_has_every_hyper_parameter_with_its_default(name: str) -> None:
    parameters = inspect.signature(method_class(name)).parameters
    expected: dict[str, Any] = {key: p.default for key, p in parameters.items() if key not in RESERVED}
    documented = {key: yaml.safe_load(row[0].strip("`")) for key, row in hyper_parameters(name).items()}
    assert list(documented) == list(expected)
    for key, default in expected.items():
        default = list(default) if isinstance(default, tuple) else default
        assert documented[key] == default, key
        assert isinstance(documented[key], bool) == isinstance(default, bool), key


def test_the_page_of_auto_has_every_key_with_its_default() -> None:
    rows = table_of(sections_of(PAGES / "auto.md")["Keys"])
    documented = {row[0].strip("`"): yaml.safe_load(row[1].strip("`")) for row in rows}
    parameters = inspect.signature(Auto).parameters
    expected = {key: p.default for key, p in parameters.items() if key not in RESERVED}
    assert documented == {**expected, "candidates": list(expected["candidates"])}
    assert "[`method=auto`](auto.md)" in (PAGES / "README.md").read_text()


@pytest.mark.parametrize("name", paper_table("segmentation"))
def test_a_page_has_the_values_of_the_papers_table(name: str) -> None:
    rows = hyper_parameters(name)
    for key, value in paper_table("segmentation")[name].items():
        published = rows[key][1].split()[0].rstrip(",;")
        assert (published if isinstance(value, str) else float(published)) == value, key


@pytest.mark.parametrize("name", METHODS)
def test_a_page_says_what_its_method_serves(name: str) -> None:
    method = method_class(name)
    lines = sections_of(PAGES / f"{name}.md")["Serves"].splitlines()
    documented = dict(line.removeprefix("- ").split(": ") for line in lines)
    images = "needed" if method.needs_unlabeled else "used where there are any"
    assert documented == {
        "Tasks": "classification" if method.classification_only else "classification and regression",
        "Feature protocol": "yes" if works_on_features(name) else "no",
        "Unlabeled images in each batch": images if method.uses_unlabeled else "none used",
        "Strong views of each": str(method.strong_views),
    }


def test_the_page_of_tasks_has_each_task_with_its_constants() -> None:
    table = table_of((PAGES.parent / "tasks.md").read_text().partition("\n## ")[0])
    rows = {row[0].strip("`"): row for row in table}
    assert rows.keys() == set(options("task"))
    for name, row in rows.items():
        path = Path(semipix.conf.__file__).parent / "task" / f"{name}.yaml"
        task_class = get_object(yaml.safe_load(path.read_text())["_target_"])
        task = task_class(classes=2) if name == "segmentation" else task_class()
        assert f"`{task.primary}`" == row[4].split(",")[0]
        mu, nu = row[5].split(", ")
        expected = 1 / task.channels if "channels" in mu else float(Fraction(mu))
        assert (task.mu, task.nu) == (pytest.approx(expected), int(nu))


@pytest.mark.slow
def test_figures_are_those_of_the_results() -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    index = sections_of(PAGES / "README.md")
    assert "not measured" not in index["Results"] + index["Cost of a step"]
