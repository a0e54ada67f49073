"""Keys and types that a constructor's signature allows.

Also tests launch/compose.py, launch/overrides.py and signatures.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from omegaconf import OmegaConf
from torch import nn

from semipix.config import Node, plain, target_of
from semipix.errors import SemipixError
from semipix.launch.overrides import open_overrides
from semipix.launch.paper import paper_table
from semipix.signatures import check_type
from tests.conftest import Result


class Leaf:
    def __init__(self, size: int, name: str = "leaf") -> None:
        self.size = size
        self.name = name


class Branch:
    def __init__(
        self, rate: float, sides: Sequence[int] = (1,), kind: Literal["a", "b"] = "a", leaf: Any = None
    ) -> None:
        self.leaf = leaf


def open_ended(rate: float, **others: Any) -> None:
    """Takes anything."""


HERE = f"{__name__}."


def check_keys(name: str, group: dict[str, Any], sharing: Callable[..., Any] | None = None) -> None:
    """Check the keys of a group that may make anything."""
    Node.parse(name, group, object, sharing)


def test_overrides_reach_every_parameter_of_a_group_and_nothing_else() -> None:
    opened = open_overrides(["method.lambda_dc=10", "method=gct", "seed=1", "second_model=unet", "hydra.sweep.dir=x"])
    assert opened == ["++method.lambda_dc=10", "method=gct", "seed=1", "model@second_model=unet", "hydra.sweep.dir=x"]


def test_null_means_that_a_group_is_left_out() -> None:
    assert open_overrides(["scheduler=null", "second_model=null"]) == ["~scheduler", "++second_model=null"]
    assert open_overrides(["second_model=null", "second_model=unet"]) == ["model@second_model=unet"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (0.5, float),
        (True, bool),
        ("a", str),
        ("a", Path),
        (16, Path),
        (16, str | Path | None),
        (None, int | None),
        ([1, 2], Sequence[int]),
        ([1, 0.5], tuple[float, float]),
        ([1, 2, 3], tuple[int, ...]),
        ("b", Literal["a", "b"]),
        ({0: 1}, dict[int, int]),
        ({"_target_": "x"}, nn.Module),
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
        ({"_target_": "x"}, int, "a whole number"),
        ({"_target_": "x"}, str | None, "text or null"),
        (0.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("abc", float | None, "a number or null"),
        (1, bool, "true or false"),
        (3, str, "text"),
        (1.5, str | Path, "text or a path"),
        (True, Path, "a path"),
        (float("nan"), float, "a finite number"),
        (float("inf"), Any, "a finite number"),
        ([1.0, float("inf")], Sequence[float], "finite numbers"),
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


def test_misspelt_key_is_reported_with_the_nearest() -> None:
    with pytest.raises(SemipixError, match=r"unknown key node\.raet; did you mean rate\?"):
        check_keys("node", {"_target_": HERE + "Branch", "raet": 1.0})


def test_unlike_key_is_reported_with_all() -> None:
    with pytest.raises(SemipixError, match=r"known keys: kind, leaf, rate, sides"):
        check_keys("node", {"_target_": HERE + "Branch", "zzz": 1.0})


def test_keys_of_two_constructors_may_share_a_node() -> None:
    check_keys("node", {"_target_": HERE + "Branch", "rate": 1, "size": 2}, Leaf)
    with pytest.raises(SemipixError, match=r"node\.size: 'two' found"):
        check_keys("node", {"_target_": HERE + "Branch", "rate": 1, "size": "two"}, Leaf)


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


def clipped(rate: float, most: float = float("inf")) -> None:
    """Has no largest value by default."""


def test_only_what_is_infinite_by_default_may_be() -> None:
    check_keys("node", {"_target_": HERE + "clipped", "rate": 1, "most": float("inf")})
    with pytest.raises(SemipixError, match=r"node\.rate: inf found, a finite number expected"):
        check_keys("node", {"_target_": HERE + "clipped", "rate": float("inf")})


class Maker:
    @classmethod
    def make(cls) -> "nn.Conv2d | None":
        return nn.Conv2d(3, 2, 1)


class Abstract(nn.Module, ABC):
    @abstractmethod
    def forward(self) -> None: ...


def unannotated(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    "target", ["torch.nn.Conv2d", HERE + "Maker.make", HERE + "unannotated", "hydra.utils.instantiate"]
)
def test_targets_of_a_kind(target: str) -> None:
    Node.parse("model", {"_target_": target}, nn.Module)


@pytest.mark.parametrize(
    "target", ["builtins.dict", "builtins.exit", "os.abort", "torch.optim.SGD", HERE + "Leaf", HERE + "open_ended"]
)
def test_targets_of_another_kind(target: str) -> None:
    with pytest.raises(SemipixError, match=f"model._target_: '{target}' found, a subclass of torch.nn.Module, or"):
        Node.parse("model", {"_target_": target}, nn.Module)


@pytest.mark.parametrize("target", ["torch.nn.Module", HERE + "Abstract"])
def test_targets_that_are_base_classes(target: str) -> None:
    with pytest.raises(SemipixError, match=f"'{target}' is a base class; a subclass of torch.nn.Module, or"):
        Node.parse("model", {"_target_": target}, nn.Module)


def test_nested_nodes_are_built() -> None:
    group = {"_target_": HERE + "Branch", "rate": 1, "leaf": {"_target_": HERE + "Leaf", "size": 3}}
    built = Node.parse("node", group, object).build()
    assert isinstance(built.leaf, Leaf)
    assert built.leaf.size == 3
    with pytest.raises(SemipixError, match=r"Leaf: TypeError: .*size"):
        Node.parse("node", {**group, "leaf": {"_target_": HERE + "Leaf"}}, object).build()


@pytest.mark.parametrize("target", ["torch.nn.Nothing", "no_such_package.Model", "torch"])
def test_target_that_is_no_class(target: str) -> None:
    with pytest.raises(SemipixError, match=f"model._target_: '{target}'"):
        target_of("model", {"_target_": target})


def test_missing_key_and_broken_reference_are_reported_by_name() -> None:
    with pytest.raises(SemipixError, match=r"data\.root is missing: give data\.root=VALUE"):
        plain(OmegaConf.create({"data": {"root": "???"}}))
    with pytest.raises(SemipixError, match=r"^run: Interpolation key 'nowhere' not found"):
        plain(OmegaConf.create({"run": "${nowhere}"}))


def test_an_experiment_that_does_not_exist_is_reported(train: Callable[..., Result]) -> None:
    message = train("experiment=paper/nothing").error
    assert "experiment=paper/nothing: no such option; known: compare, search, paper/TASK" in message


@pytest.mark.parametrize("override", ["experiment=null,paper/segmentation", "scheduler=cosine,null"])
def test_a_sweep_over_no_option_is_reported(override: str, train: Callable[..., Result]) -> None:
    message = train(override, "-m").error
    assert f"{override}: the name of an option expected, null found" in message


def test_a_sweep_by_pattern_is_no_error(train: Callable[..., Result]) -> None:
    message = train("method=glob(s4*)", "steps=-1", "-m", "run=sweep").error
    assert "sweep/method_s4l: steps: -1 found" in message


@pytest.mark.parametrize("asked", [("--cfg", "job"), ("--cfg", "hydra"), ("--help", "KEYS")])
def test_what_training_refuses_is_not_shown(asked: tuple[str, str], command: Callable[..., Result]) -> None:
    assert command("train", *asked, "data.nope=1").error == command("train", "data.nope=1").error


def test_a_shown_configuration_may_have_missing_values(command: Callable[..., Result]) -> None:
    shown = command("train", "--cfg", "job", "-p", "data", "data=folder")
    assert (shown.code, yaml.safe_load(shown.out)["root"]) == (0, "???")


def test_the_shown_configuration_has_the_papers_values(command: Callable[..., Result]) -> None:
    given = ("experiment=paper/segmentation", "method=mean_teacher", "method.decay=0.5")
    shown = yaml.safe_load(command("train", "--cfg", "job", "-p", "method", *given).out)
    assert shown.pop("_target_").endswith("MeanTeacher")
    assert shown == {**paper_table("segmentation")["mean_teacher"], "decay": 0.5}


def test_a_sweep_has_no_one_configuration_to_show(command: Callable[..., Result]) -> None:
    assert "--cfg: shows one configuration; leave -m out" in command("train", "-m", "--cfg", "job", "seed=0,1").error
