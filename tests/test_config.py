"""Keys and types that a constructor's signature allows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from semipix.config import arguments, check_keys, check_type, open_overrides, plain, target_of
from semipix.errors import SemipixError


class Leaf:
    def __init__(self, size: int, name: str = "leaf") -> None:
        self.size = size
        self.name = name


class Node:
    def __init__(
        self, rate: float, sides: Sequence[int] = (1,), kind: Literal["a", "b"] = "a", leaf: Any = None
    ) -> None:
        self.leaf = leaf


def open_ended(rate: float, **others: Any) -> None:
    """Takes anything."""


HERE = f"{__name__}."


def test_overrides_reach_every_parameter_of_a_group_and_nothing_else() -> None:
    opened = open_overrides(["method.lambda_dc=10", "method=gct", "seed=1", "second_model=unet", "hydra.sweep.dir=x"])
    assert opened == ["++method.lambda_dc=10", "method=gct", "seed=1", "model@second_model=unet", "hydra.sweep.dir=x"]


def test_null_means_that_a_group_is_left_out() -> None:
    assert open_overrides(["scheduler=null", "second_model=null"]) == ["~scheduler"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (0.5, float),
        (True, bool),
        ("a", str),
        ("a", Path),
        (None, int | None),
        ([1, 2], Sequence[int]),
        ([1, 0.5], tuple[float, float]),
        ([1, 2, 3], tuple[int, ...]),
        ("b", Literal["a", "b"]),
        ({0: 1}, dict[int, int]),
        ({"_target_": "x"}, int),
        ("anything", Any),
        ("anything", Leaf),
    ],
)
def test_values_that_fit(value: Any, hint: Any) -> None:
    check_type("group.key", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("abc", int, "a whole number"),
        (0.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("abc", float | None, "a number or null"),
        (1, bool, "true or false"),
        (3, str, "text"),
        (3, str | Path, "text or a path"),
        (None, int, "a whole number"),
        (3, Sequence[int], "a list"),
        ("ab", Sequence[str], "a list"),
        (["a"], Sequence[int], "a list"),
        ([1.0], tuple[float, float], "a list"),
        ("c", Literal["a", "b"], "a or b"),
    ],
)
def test_values_that_do_not_fit(value: Any, hint: Any, expected: str) -> None:
    with pytest.raises(SemipixError) as caught:
        check_type("group.key", value, hint)
    assert str(caught.value) == f"group.key: {value!r} found, {expected} expected"


def test_misspelt_key_is_told_with_the_nearest() -> None:
    with pytest.raises(SemipixError, match=r"unknown key node\.raet; did you mean rate\?"):
        check_keys("node", {"_target_": HERE + "Node", "raet": 1.0})


def test_unlike_key_is_told_with_all() -> None:
    with pytest.raises(SemipixError, match=r"known keys: kind, leaf, rate, sides"):
        check_keys("node", {"_target_": HERE + "Node", "zzz": 1.0})


def test_keys_of_two_constructors_may_share_a_node() -> None:
    check_keys("node", {"_target_": HERE + "Node", "rate": 1, "size": 2}, Leaf)
    with pytest.raises(SemipixError, match=r"node\.size: 'two' found"):
        check_keys("node", {"_target_": HERE + "Node", "rate": 1, "size": "two"}, Leaf)


def test_open_ended_target_takes_any_key_but_no_wrong_type() -> None:
    check_keys("node", {"_target_": HERE + "open_ended", "whatever": 1})
    with pytest.raises(SemipixError, match="a number expected"):
        check_keys("node", {"_target_": HERE + "open_ended", "rate": "fast"})


@pytest.mark.parametrize("key", ["optimizer.lr", "trainer.devices"])
def test_types_of_other_packages_are_read(key: str) -> None:
    targets = {"optimizer.lr": "torch.optim.AdamW", "trainer.devices": "lightning.pytorch.Trainer"}
    group, _, name = key.partition(".")
    with pytest.raises(SemipixError, match=key):
        check_keys(group, {"_target_": targets[key], name: {"a": 1}})


def test_nested_nodes_are_built() -> None:
    built = arguments({"_target_": HERE + "Node", "rate": 1, "leaf": {"_target_": HERE + "Leaf", "size": 3}})
    assert isinstance(built["leaf"], Leaf)
    assert built["leaf"].size == 3
    with pytest.raises(SemipixError, match=r"Leaf: TypeError: .*size"):
        arguments({"leaf": {"_target_": HERE + "Leaf"}})


@pytest.mark.parametrize("target", ["torch.nn.Nothing", "no_such_package.Model", "torch"])
def test_target_that_is_no_class(target: str) -> None:
    with pytest.raises(SemipixError, match=f"model._target_: '{target}'"):
        target_of("model", {"_target_": target})


def test_missing_key_and_broken_reference_are_told_by_name() -> None:
    with pytest.raises(SemipixError, match=r"data\.root is missing: give data\.root=VALUE"):
        plain(OmegaConf.create({"data": {"root": "???"}}))
    with pytest.raises(SemipixError, match="run"):
        plain(OmegaConf.create({"run": "${nowhere}"}))
