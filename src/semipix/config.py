"""Constructor signatures are the configuration: what a key may be called, and building what a node names."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from semipix.errors import SemipixError

GROUPS = ("task", "method", "model", "second_model", "data", "optimizer", "scheduler", "trainer")


def open_overrides(overrides: Sequence[str]) -> list[str]:
    """Let overrides reach every constructor parameter, though the YAML files hold only what deviates.

    `method.lambda_dc=10` becomes `++method.lambda_dc=10` (misspelt keys are found later, by `check_keys`), and
    `second_model=NAME` becomes Hydra's `model@second_model=NAME`.
    """
    opened = []
    for override in overrides:
        key = override.partition("=")[0]
        if key == "second_model":
            override = "model@" + override
        elif "." in key and key.partition(".")[0] in GROUPS:
            override = "++" + override
        opened.append(override)
    return opened


def parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names of a callable's parameters, and whether it takes any other keyword."""
    signature = inspect.signature(target).parameters.values()
    named = {p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in signature)


def target_of(name: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a node's `_target_` names.

    Raises:
        SemipixError: the node has no `_target_`, or it cannot be imported.
    """
    if "_target_" not in node:
        raise SemipixError(f"{name}: no _target_ found; name an option of the group or any importable class")
    try:
        target: Callable[..., Any] = get_object(node["_target_"])
    except (ImportError, ValueError, AttributeError, HydraException) as error:
        reason = str(error).splitlines()[0]
        raise SemipixError(f"{name}._target_: {node['_target_']!r} cannot be imported: {reason}") from error
    return target


def check_keys(name: str, node: Mapping[str, Any], *extra: Callable[..., Any]) -> None:
    """Refuse keys that no constructor of this node knows.

    Args:
        name: the node's name in the configuration.
        node: holds `_target_` and keyword arguments.
        *extra: further callables whose parameters may stand in the same node.

    Raises:
        SemipixError: a key is unknown.
    """
    known: set[str] = set()
    for target in (target_of(name, node), *extra):
        named, anything = parameters(target)
        if anything:
            return
        known |= named
    for key in node:
        if key != "_target_" and key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(known - {'self'}))}"
            raise SemipixError(f"unknown key {name}.{key}: {node['_target_']} takes none of that name; {hint}")


def arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node's keyword arguments, with nested `_target_` nodes built."""
    return {str(key): _build(value) for key, value in node.items() if key != "_target_"}


def _build(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return target_of(str(value["_target_"]), value)(**arguments(value))
        return {key: _build(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_build(item) for item in value]
    return value


def call(name: str, constructor: Callable[..., Any], /, **options: Any) -> Any:
    """Call a constructor; a wrong or missing argument is a one-line error that names the node.

    Raises:
        SemipixError: the constructor refused its arguments.
    """
    try:
        return constructor(**options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise SemipixError(f"{name}: {' '.join(str(error).split())}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration with all references resolved, as plain dicts and lists."""
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items() if key != "hydra"}
