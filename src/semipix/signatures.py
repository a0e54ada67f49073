"""Read constructor signatures: names, types and defaults of parameters, and whether a YAML value fits one."""

import enum
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from semipix.errors import SemipixError

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


@dataclass(frozen=True)
class Signature:
    """What a callable takes.

    Attributes:
        names: parameters that can be given by keyword, in their order.
        open_ended: whether any other keyword is taken too.
        hints: type annotations by name, those that can be read.
        defaults: default values by name.
    """

    names: tuple[str, ...] = ()
    open_ended: bool = False
    hints: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def stored_defaults(self) -> dict[str, Any]:
        """The defaults that YAML can hold, as it gives them back."""
        found = {name: as_yaml(value) for name, value in self.defaults.items()}
        return {name: value for name, value in found.items() if value is not NOT_YAML}

    def check(self, key: str, name: str, value: Any) -> None:
        """Refuse a value that the parameter cannot take. A default, and infinity where it is one, always fits.

        Args:
            key: dotted, for the message.
            name: the parameter.
            value: as YAML gives it.

        Raises:
            SemipixError: it is of a wrong type, or not finite.
        """
        default = self.defaults.get(name)
        if isinstance(value, float) and math.isinf(value) and isinstance(default, float) and math.isinf(default):
            return
        if name not in self.defaults or not _is_same(value, as_yaml(default)):
            check_type(key, value, self.hints.get(name, Any))

    def path_text(self, name: str, value: Any) -> Any:
        """The value, or the text of a whole number that was given for a path."""
        return str(value) if type(value) is int and _takes_path(self.hints.get(name)) else value

    def native(self, name: str, value: Any) -> Any:
        """The value, or a list as a tuple where the parameter's default is a tuple, which YAML does not have."""
        return tuple(value) if isinstance(value, list) and isinstance(self.defaults.get(name), tuple) else value


def inspected(target: Callable[..., Any]) -> inspect.Signature:
    """A callable's signature, also if its annotations name what is imported only for type checkers.

    Raises:
        ValueError, TypeError: the callable is written in C and has none.
    """
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are read
        import annotationlib

        return inspect.signature(target, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(target)


def signature_of(target: Callable[..., Any]) -> Signature:
    """The signature of a callable; one that is written in C and says nothing of what it takes is open-ended."""
    try:
        found = inspected(target).parameters.values()
    except (ValueError, TypeError):
        return Signature(open_ended=True, hints=_hints(target))
    named = [each for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    defaults = {each.name: each.default for each in named if each.default is not each.empty}
    hints = {
        name: hint | None if name in defaults and defaults[name] is None else hint  # None fits where it is the default
        for name, hint in _hints(target).items()
    }
    open_ended = any(each.kind is each.VAR_KEYWORD for each in found)
    return Signature(tuple(each.name for each in named), open_ended, hints, defaults)


def parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names of a callable's parameters, and whether it takes any other keyword."""
    found = signature_of(target)
    return set(found.names), found.open_ended


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a callable's parameters, those that can be read."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


NOT_YAML = object()
"""Marks a value that YAML cannot hold, such as an object."""


def as_yaml(value: Any) -> Any:
    """A default as YAML holds it: tuples as lists and paths as text; `NOT_YAML` where it cannot."""
    if isinstance(value, Path):
        return str(value)
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, enum.Enum)):
        return NOT_YAML if isinstance(value, float) and math.isnan(value) else value
    if isinstance(value, list | tuple):
        items = [as_yaml(item) for item in value]
        return NOT_YAML if NOT_YAML in items else items
    if isinstance(value, Mapping):
        pairs = {key: as_yaml(item) for key, item in value.items()}
        plain = all(isinstance(key, str | int) for key in pairs)
        return pairs if plain and NOT_YAML not in pairs.values() else NOT_YAML
    return NOT_YAML


def _is_same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def check_type(key: str, value: Any, hint: Any) -> None:
    """Refuse a value that does not fit a type annotation, or that holds a number that is not finite.

    Raises:
        SemipixError: the value is of another type, NaN, infinite, or larger than `MOST`.
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
    """Whether no number in a YAML value is NaN or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value may stand for an annotated parameter; where that is not known, it may."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping) and "_target_" in value:
        return not _takes_plain_values_only(hint)
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


def _takes_plain_values_only(hint: Any) -> bool:
    """Whether an annotation names numbers, text, paths and null, and no object."""
    return all(option in WORDS for option in typing.get_args(hint) or (hint,))


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
