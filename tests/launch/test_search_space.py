"""The search space: what is parsed, what is refused, and what is drawn."""

from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.launch.search_space import Choice, Interval, Parameter, Space, parse_parameter, split_keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice(gct,unimatch)", Choice(("gct", "unimatch"))),
        ("1,2,2", Choice(("1", "2"))),
        ("[1,2],null,'a b'", Choice(("[1,2]", "null", "'a b'"))),
        ("interval(0.1,0.9)", Interval(0.1, 0.9)),
        ("tag(log,interval(1e-5,1e-2))", Interval(1e-5, 1e-2, log=True)),
        ("int(interval(1,9))", Interval(1, 9, whole=True)),
        ("range(0,10,3)", Interval(0, 9, whole=True, step=3)),
        ("range(0,9,3)", Interval(0, 6, whole=True, step=3)),
        ("range(0.5,2,0.5)", Interval(0.5, 1.5, step=0.5)),
        ("range(0,1,0.3)", Interval(0.0, 0.9, step=0.3)),
        ("range(0.1,0.4,0.1)", Interval(0.1, 0.3, step=0.1)),
        ("range(1,0,-0.25)", Interval(0.25, 1.0, step=0.25)),
    ],
)
def test_forms(text: str, expected: Parameter) -> None:
    found = parse_parameter("search.space.key", text)
    assert found == expected
    if isinstance(found, Interval):
        assert isinstance(found.low, int) == found.whole


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("0.1", "found one value"),
        ("log 1e-5 1e-2", "found one value"),
        ("interval(1,", "not readable"),
        ("interval(2,1)", "holds no value to draw"),
        ("range(3,3)", "holds no value to draw"),
        ("tag(log,interval(0,1))", "holds no value to draw"),
        ("tag(normal,interval(0,1))", "tag normal is not known"),
        ("glob(*)", "found one value"),
    ],
)
def test_what_is_refused(text: str, pattern: str) -> None:
    with pytest.raises(SemipixError, match=rf"^search\.space\.key=.*{pattern}.*(expected|smaller)"):
        parse_parameter("search.space.key", text)


SPACE = Space.parse(
    {"method": "choice(gct,unimatch)", "optimizer": {"lr": "tag(log,interval(1e-4,1e-2))"}, "data.flip": [0.0, 0.5]},
    {"unimatch": {"method.threshold": "interval(0.8,0.95)"}, "gct": {"method.rampup_epochs": "int(interval(1,5))"}},
)


def highest(name: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return parameter.values[-1]
    return int(parameter.high) if parameter.whole else parameter.high


def test_a_choice_brings_its_parameters() -> None:
    names = []

    def draw(name: str, parameter: Parameter) -> Any:
        names.append(name)
        return highest(name, parameter)

    assert SPACE.draw(draw) == ["method=unimatch", "optimizer.lr=0.01", "data.flip=0.5", "method.threshold=0.95"]
    assert names == ["method", "optimizer.lr", "data.flip", "unimatch/method.threshold"]


def test_examples_have_each_value_of_the_choices() -> None:
    first, second = SPACE.examples()
    assert first == ["method=gct", "optimizer.lr=0.0001", "data.flip=0.0", "method.rampup_epochs=1"]
    assert second == ["method=unimatch", "optimizer.lr=0.0001", "data.flip=0.5", "method.threshold=0.8"]


def test_a_study_knows_its_space_by_the_text() -> None:
    assert SPACE.given["search.space.optimizer.lr"] == "tag(log,interval(1e-4,1e-2))"
    assert SPACE.given["search.when.gct.method.rampup_epochs"] == "int(interval(1,5))"


@pytest.mark.parametrize(
    ("space", "when", "pattern"),
    [
        ({}, {}, r"search\.space: no parameter to search"),
        ("lr", {}, r"search\.space: 'lr' found, keys with values expected"),
        ({"a.b": "choice(x,y)"}, {"x": {"c": "choice(1,2)"}}, r"search\.when\.x: no such value .*: there is none"),
        ({"method": "choice(x,y)"}, {"z": {"c": "choice(1,2)"}}, r"search\.when\.z: no such value .*: x, y; "),
        ({"method": "choice(x,y)"}, {"x": {"method": "choice(1,2)"}}, r"search\.when\.x\.method: method is in search"),
        ({"method": "choice(x,y)"}, {"x": "choice(1,2)"}, r"search\.when\.x: 'choice\(1,2\)' found, keys"),
    ],
)
def test_spaces_that_are_refused(space: Any, when: Any, pattern: str) -> None:
    with pytest.raises(SemipixError, match=pattern):
        Space.parse(space, when)


def test_keys_of_the_search_are_separated() -> None:
    given = ["experiment=search", "search.trials=3", "++search.space.optimizer.lr=interval(0,1)", "steps=2"]
    assert split_keys(given) == (
        {"trials": "3", "space.optimizer.lr": "interval(0,1)"},
        ["experiment=search", "steps=2"],
    )
