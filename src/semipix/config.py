"""Constructor signatures are the configuration: what a key may be called and hold, and building what a node names."""

import difflib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.utils import get_object
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from torch import Tensor

from semipix.errors import SemipixError

Config = Mapping[str, Any]

GROUPS = ("task", "method", "model", "second_model", "data", "optimizer", "scheduler", "trainer")

TOP: dict[str, Any] = {
    "seed": int,
    "epochs": float,
    "steps": int | None,
    "length": Literal["full", "labeled"],
    "validations": int,
    "checkpoint_every": int,
    "channels_last": bool,
    "freeze_batch_norm": bool,
    "memory": Literal["full", "low"],
    "compile": bool,
}
"""Types of the keys that belong to no group."""

OUTSIDE = ("run", "resume")
"""Keys that say where, not what, is trained."""

RESERVED = {
    *("self", "task", "make_model", "params", "optimizer", "source", "split", "use_unlabeled"),
    *("run_classes", "needed_splits"),
}
"""Parameters that semipix fills in itself."""

NEEDED = {*TOP, *GROUPS} - {"second_model", "scheduler"}
"""Keys without which nothing can be trained."""

MOST = 2**63 - 1
"""Largest whole number that a tensor, an array or a file holds."""

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def unknown_key(key: str, known: Collection[str]) -> str:
    """What to tell about a key that is none of the known ones."""
    close = difflib.get_close_matches(key.rpartition(".")[2], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {key}; {hint}"


def signature_of(target: Callable[..., Any]) -> inspect.Signature:
    """A callable's signature, even if its annotations name what is imported for type checkers alone.

    Raises:
        ValueError, TypeError: it is written in C, and silent about what it takes.
    """
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are asked for
        import annotationlib

        return inspect.signature(target, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(target)


def parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names of a callable's parameters, and whether it takes any other keyword."""
    try:
        signature = signature_of(target).parameters.values()
    except (ValueError, TypeError):  # written in C, and silent about what it takes
        return set(), True
    named = {p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in signature)


def target_of(name: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a node's `_target_` names.

    Raises:
        SemipixError: the node has no `_target_`, or it cannot be imported.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise SemipixError(f"{name}: no _target_ found; name an option of the group or any importable class")
    try:
        target: Callable[..., Any] = get_object(str(node["_target_"]))
    except Exception as error:  # whatever the import of a module raises
        reason = " ".join(str(error).split())
        raise SemipixError(f"{name}._target_: {node['_target_']!r} cannot be imported: {reason}") from error
    if not callable(target):
        raise SemipixError(f"{name}._target_: {node['_target_']!r} is a {type(target).__name__}, a class expected")
    return target


def check_needed(config: Mapping[str, Any]) -> None:
    """Refuse a configuration without one of the keys that training needs.

    Raises:
        SemipixError: a key was taken away.
    """
    for key in (*GROUPS, *TOP):
        if key in NEEDED and key not in config:
            choose = f"{key}=NAME" if key in GROUPS else f"{key}=VALUE"
            raise SemipixError(f"{key}: nothing found, but training needs it; leave ~{key} out, or give {choose}")


def check_kind(name: str, node: Mapping[str, Any], kind: type) -> None:
    """Refuse a `_target_` that makes something else than its place holds, before it is called.

    A function may leave out what it returns; one that says so, or that is written in C, has to name the kind.

    Args:
        name: the node's name in the configuration.
        node: holds `_target_`.
        kind: class that has to come out.

    Raises:
        SemipixError: it is no class of this kind, an abstract one, or a function that returns something else.
    """
    target = target_of(name, node)
    expected = f"a subclass of {public_name(kind)}, or a function that returns one, expected"
    if inspect.isclass(target) and _is_subclass(target, kind):
        if inspect.isabstract(target) or (target is kind and name != "trainer"):
            raise SemipixError(f"{name}._target_: {node['_target_']!r} is a base class; {expected}")
        return
    function = inspect.unwrap(target.func if isinstance(target, functools.partial) else target)
    python = inspect.isfunction(function) or inspect.ismethod(function)
    if inspect.isclass(target) or not _may_return(function, kind, unsaid=python):
        raise SemipixError(f"{name}._target_: {node['_target_']!r} found, {expected}")


def public_name(kind: type) -> str:
    """A class's name in the shortest of the packages around it that offers it, such as torch.nn.Module."""
    parts = kind.__module__.split(".")
    places = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    offers = (place for place in places if getattr(sys.modules.get(place), kind.__name__, None) is kind)
    return f"{next(offers, kind.__module__)}.{kind.__name__}"


def _is_subclass(target: Any, kind: type) -> bool:
    try:
        return issubclass(target, kind)
    except TypeError:  # a generic alias, such as list[int]
        return False


def _may_return(function: Callable[..., Any], kind: type, *, unsaid: bool) -> bool:
    """Whether a function's annotation lets it return an instance of a class; `unsaid` where it has none."""
    try:
        returned = typing.get_type_hints(function).get("return", inspect.Signature.empty)
    except Exception:  # names that are imported for type checkers alone
        return unsaid
    if returned is inspect.Signature.empty:
        return unsaid
    options = (
        typing.get_args(returned) if typing.get_origin(returned) in (typing.Union, types.UnionType) else [returned]
    )
    classes = [typing.get_origin(option) or option for option in options]
    return any(
        found is Any or not inspect.isclass(found) or _is_subclass(found, kind) or issubclass(kind, found)
        for found in classes
    )


def made(name: str, value: Any, kind: type) -> Any:
    """What a node's target returned, where it is of the kind that the node's place holds.

    Raises:
        SemipixError: it is not.
    """
    if not isinstance(value, kind):
        raise SemipixError(f"{name}: its _target_ made a {type(value).__name__}, a {kind.__name__} expected")
    return value


def check_keys(name: str, node: Mapping[str, Any], *extra: Callable[..., Any]) -> None:
    """Refuse keys that no constructor of this node knows, and values of another type than it asks for.

    Args:
        name: the node's name in the configuration.
        node: holds `_target_` and keyword arguments.
        *extra: further callables whose parameters may stand in the same node.

    Raises:
        SemipixError: a key is unknown, or its value is of a wrong type.
    """
    known: set[str] = set()
    hints: dict[str, Any] = {}
    endless: set[str] = set()
    anything = False
    for target in (target_of(name, node), *extra):
        named, open_ended = parameters(target)
        known |= named - RESERVED
        anything |= open_ended
        hints = {**_hints(target), **hints}  # the class itself before what shares its node
        endless |= _endless(target)
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known and not anything:
            raise SemipixError(unknown_key(f"{name}.{key}", known))
        if not (key in endless and isinstance(value, float) and math.isinf(value)):
            check_type(f"{name}.{key}", value, hints.get(str(key), Any))


def check_type(key: str, value: Any, hint: Any) -> None:
    """Refuse a value that cannot be what a type annotation asks for, or that holds a number without an end.

    Raises:
        SemipixError: it cannot, or does.
    """
    if not _is_finite(value):
        raise SemipixError(
            f"{key}: {value!r} found, {'finite numbers' if _is_nested(value) else 'a finite number'} expected"
        )
    if isinstance(value, int) and abs(value) > MOST:
        raise SemipixError(
            f"{key}: {value:.1e} found, a number up to {MOST:.1e} expected"
            if abs(value) < 10**300
            else f"{key}: a number of hundreds of digits found, one up to {MOST:.1e} expected"
        )
    if not _fits(value, hint):
        raise SemipixError(f"{key}: {value!r} found, {type_words(hint)} expected")


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list)


def _is_finite(value: Any) -> bool:
    """Whether no number in a YAML value is nan or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _endless(target: Callable[..., Any]) -> set[str]:
    """Names of a callable's parameters that are infinite by default, and so may be."""
    try:
        signature = signature_of(target).parameters
    except (ValueError, TypeError):
        return set()
    return {name for name, each in signature.items() if isinstance(each.default, float) and math.isinf(each.default)}


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a callable's parameters, those that can be read; a default of None makes None fit."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}
    try:
        signature = signature_of(target).parameters
    except (ValueError, TypeError):
        return hints
    return {
        name: hint | None if name in signature and signature[name].default is None else hint
        for name, hint in hints.items()
    }


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value may stand for an annotated parameter; where that cannot be told, it may."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return value in options
    if hint is type(None):
        return value is None
    if hint is Path:  # a folder may be named 16, which YAML reads as a number
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint is Tensor:  # no YAML value is one
        return False
    container = origin or hint
    if inspect.isclass(container) and issubclass(container, Iterable):
        return _fits_container(value, container, options)
    return True


def _fits_container(value: Any, container: type, options: tuple[Any, ...]) -> bool:
    if issubclass(container, Mapping):
        return isinstance(value, Mapping)
    if container not in (list, tuple, set, Sequence, Iterable, Collection):
        return True  # a class that happens to be iterable, such as an enumeration
    if not isinstance(value, list):
        return False
    if container is tuple and Ellipsis not in options and options:
        return len(value) == len(options) and all(map(_fits, value, options))
    return all(_fits(item, options[0]) for item in value) if options else True


def with_path_text(name: str, node: Mapping[str, Any], *extra: Callable[..., Any]) -> dict[str, Any]:
    """A checked node, in which a whole number given for a path is the text of it."""
    hints: dict[str, Any] = {}
    for target in (target_of(name, node), *extra):
        hints = {**_hints(target), **hints}
    return {
        key: str(value) if type(value) is int and _takes_path(hints.get(str(key))) else value
        for key, value in node.items()
    }


def _takes_path(hint: Any) -> bool:
    """Whether an annotation names a path, and no number."""
    options = typing.get_args(hint) or (hint,)
    return Path in options and not {int, float} & set(options)


def type_words(hint: Any) -> str:
    """A type annotation in plain words, such as "a number or null"."""
    return " or ".join(dict.fromkeys(_words(hint)))


def _words(hint: Any) -> list[str]:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [word for option in options if option is not Tensor for word in _words(option)]
    if origin is Literal:
        return list(map(str, options))
    container = origin or hint
    if container in (list, tuple, set, Sequence, Iterable, Collection):
        return ["a list"]
    if inspect.isclass(container) and issubclass(container, Mapping):
        return ["a mapping"]
    return [WORDS.get(hint) or f"a {getattr(container, '__name__', container)}"]


def arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node's keyword arguments, with nested `_target_` nodes built."""
    return {str(key): _build(value) for key, value in node.items() if key != "_target_"}


def _build(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            name = str(value["_target_"])
            return call(name, target_of(name, value), **arguments(value))
        return {key: _build(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_build(item) for item in value]
    return value


REFUSALS = (
    *(TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError, ImportError, MemoryError),
    MisconfigurationException,
)
"""How constructors refuse their arguments; other errors are bugs, and keep their trace."""

FOREIGN = ("optimizer", "scheduler", "trainer")
"""Groups of other packages' classes, which refuse options by whatever error their code runs into."""


def call(name: str, constructor: Callable[..., Any], /, *positional: Any, **options: Any) -> Any:
    """Call a constructor; a wrong or missing argument is a one-line error that names the node.

    Raises:
        SemipixError: the constructor refused its arguments.
    """
    refusals = (Exception,) if name in FOREIGN else REFUSALS
    try:
        return constructor(*positional, **options)
    except SemipixError:
        raise
    except refusals as error:
        plain_refusal = isinstance(error, ValueError | MisconfigurationException)
        kind = "" if plain_refusal else f"{type(error).__name__}: "
        raise SemipixError(f"{name}: {kind}{' '.join(str(error).split())}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration with all references resolved, as plain dicts and lists.

    Raises:
        SemipixError: a key that must be given is missing, or a reference leads nowhere.
    """
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise SemipixError(f"{error.full_key} is missing: give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise SemipixError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items() if key != "hydra"}
