"""Check keys and values of a configuration against constructor signatures, and call the constructors."""

import difflib
import functools
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from hydra.utils import get_object
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from semipix.errors import SemipixError, reason_of
from semipix.signatures import Signature, signature_of

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # `get_object` would print what `target_of` raises

GROUPS = ("task", "method", "model", "second_model", "data", "optimizer", "scheduler", "trainer")

TOP: dict[str, Any] = {
    "seed": int,
    "epochs": float,
    "steps": int | None,
    "length": Literal["full", "labeled", "unlabeled"],
    "validations": int,
    "checkpoint_every": int,
    "channels_last": bool,
    "freeze_batch_norm": bool,
    "memory": Literal["full", "low"],
    "compile": bool,
    "calibrate": bool,
}
"""Types of the keys that belong to no group."""

OUTSIDE = ("run", "resume", "compare")
"""Keys that say where and how often, not what, is trained."""

RESERVED = {
    *("self", "task", "make_model", "params", "optimizer", "source", "split", "use_unlabeled"),
    *("run_classes", "needed_splits"),
}
"""Parameters that semipix fills in itself, in whatever group."""

NEEDED = {*TOP, *GROUPS} - {"second_model", "scheduler"}
"""Keys without which nothing can be trained."""

LATER: dict[str, Any] = {"calibrate": True}
"""Keys that run folders of older versions do not have, with the values that they have there."""


def unknown_key(key: str, known: Collection[str]) -> str:
    """The message about a key that is none of the known ones."""
    close = difflib.get_close_matches(key.rpartition(".")[2], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {key}; {hint}"


@dataclass(frozen=True)
class Node:
    """A group of a configuration whose keys and values were checked.

    Attributes:
        name: of the group, for messages.
        path: the `_target_`, as the configuration names it.
        target: the class or function that it names.
        options: keyword arguments by name, plain values in the order of the signatures.
        kind: class that comes out of a call.
        own: the target's signature.
        shared: the signature of another callable whose keys are in the same group, such as the data module's.
    """

    name: str
    path: str
    target: Callable[..., Any]
    options: Mapping[str, Any]
    kind: type
    own: Signature = field(repr=False)
    shared: Signature = field(default=Signature(), repr=False)

    @classmethod
    def parse(cls, name: str, group: Mapping[str, Any], kind: type, sharing: Callable[..., Any] | None = None) -> Self:
        """Check a group of a resolved configuration.

        Args:
            name: of the group.
            group: holds `_target_` and keyword arguments.
            kind: class that has to come out of a call.
            sharing: another callable whose keys are in the same group.

        Raises:
            SemipixError: the target cannot be imported or makes something else, a key is unknown, or a value is of a
                wrong type.
        """
        target, path = target_of(name, group), str(group["_target_"])
        check_kind(name, path, target, kind)
        shared = Signature() if sharing is None else signature_of(sharing)
        node = cls(name, path, target, {}, kind, signature_of(target), shared)
        return node.with_options({str(key): value for key, value in group.items() if key != "_target_"})

    def takes(self, key: str) -> bool:
        """Whether the target itself has a parameter of this name."""
        return key in self.own.names

    def with_options(self, changes: Mapping[str, Any]) -> Self:
        """The same group with other values of some keys.

        Raises:
            SemipixError: a key is unknown, or a value is of a wrong type.
        """
        known = [*self.own.names, *self.shared.names]
        allowed = {*known} - RESERVED
        options = {**self.options}
        for key, value in changes.items():
            if key not in allowed and not self.own.open_ended:
                raise SemipixError(unknown_key(f"{self.name}.{key}", allowed))
            signature = self._signature(key)
            signature.check(f"{self.name}.{key}", key, value)
            options[key] = signature.path_text(key, value)
        ordered = {key: options[key] for key in known if key in options}
        return replace(self, options={**ordered, **options})

    def with_defaults(self, without: Collection[str] = ()) -> Self:
        """The same group with the defaults of all parameters that have no value yet.

        A default that YAML cannot hold is left out, and so is one of a key that both callables name with different
        defaults: given, the value would go to both.

        Args:
            without: further names to leave out.
        """
        own, shared = self.own.stored_defaults(), self.shared.stored_defaults()
        differing = {key for key in own.keys() & shared.keys() if own[key] != shared[key]}
        defaults = {**shared, **own}
        missing = defaults.keys() - self.options.keys() - differing - RESERVED - {*without}
        return self.with_options({key: defaults[key] for key in defaults if key in missing})

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the target, with nested `_target_` mappings built."""
        mine = {key: value for key, value in self.options.items() if self.takes(key) or key not in self.shared.names}
        return {key: self.own.native(key, _build(value)) for key, value in mine.items()}

    def shared_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the other callable whose keys are in this group."""
        theirs = {key: value for key, value in self.options.items() if key in self.shared.names}
        return {key: self.shared.native(key, _build(value)) for key, value in theirs.items()}

    def call(self, /, *positional: Any, **options: Any) -> Any:
        """Call the target with these arguments alone.

        Raises:
            SemipixError: it refused them, or made an object of another kind.
        """
        value = call(self.name, self.target, *positional, **options)
        if not isinstance(value, self.kind):
            raise SemipixError(
                f"{self.name}: its _target_ made a {type(value).__name__}, a {self.kind.__name__} expected"
            )
        return value

    def build(self, /, *positional: Any, **extra: Any) -> Any:
        """Call the target with the group's options.

        Args:
            *positional: positional arguments.
            **extra: further keyword arguments, which replace options of the same name.

        Raises:
            SemipixError: it refused them, or made an object of another kind.
        """
        return self.call(*positional, **{**self.arguments(), **extra})

    def as_mapping(self) -> dict[str, Any]:
        """The group as it is written to a file."""
        return {"_target_": self.path, **self.options}

    def _signature(self, key: str) -> Signature:
        """The signature by which a key's value is checked: the target's own where both have it."""
        return self.shared if key in self.shared.names and not self.takes(key) else self.own


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
        raise SemipixError(f"{name}._target_: {node['_target_']!r} cannot be imported: {reason_of(error)}") from error
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


def check_kind(name: str, path: str, target: Callable[..., Any], kind: type) -> None:
    """Refuse a target that makes something else than its group holds, before it is called.

    A function may leave out what it returns; one with an annotation, or that is written in C, has to name the kind.

    Args:
        name: of the group.
        path: the `_target_`, for the message.
        target: what it names.
        kind: class that has to come out.

    Raises:
        SemipixError: it is no class of this kind, an abstract one, or a function that returns something else.
    """
    expected = f"a subclass of {public_name(kind)}, or a function that returns one, expected"
    if inspect.isclass(target) and _is_subclass(target, kind):
        if inspect.isabstract(target) or (target is kind and name != "trainer"):
            raise SemipixError(f"{name}._target_: {path!r} is a base class; {expected}")
        return
    function = inspect.unwrap(target.func if isinstance(target, functools.partial) else target)
    python = inspect.isfunction(function) or inspect.ismethod(function)
    if inspect.isclass(target) or not _may_return(function, kind, unannotated=python):
        raise SemipixError(f"{name}._target_: {path!r} found, {expected}")


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


def _may_return(function: Callable[..., Any], kind: type, *, unannotated: bool) -> bool:
    """Whether a function's annotation lets it return an instance of a class; `unannotated` where it has none."""
    try:
        returned = typing.get_type_hints(function).get("return", inspect.Signature.empty)
    except Exception:  # names that are imported for type checkers alone
        return unannotated
    if returned is inspect.Signature.empty:
        return unannotated
    options = (
        typing.get_args(returned) if typing.get_origin(returned) in (typing.Union, types.UnionType) else [returned]
    )
    classes = [typing.get_origin(option) or option for option in options]
    return any(
        found is Any or not inspect.isclass(found) or _is_subclass(found, kind) or issubclass(kind, found)
        for found in classes
    )


def _build(value: Any) -> Any:
    """A plain value with the objects that nested `_target_` mappings name."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            name = str(value["_target_"])
            options = {str(key): _build(item) for key, item in value.items() if key != "_target_"}
            return call(name, target_of(name, value), **options)
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
        raise SemipixError(f"{name}: {kind}{reason_of(error)}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration with all references resolved, as plain dicts and lists.

    Raises:
        SemipixError: a key that must be given is missing, or a reference leads nowhere.
    """
    return _plain(config, throw_on_missing=True)


def plain_known(config: DictConfig) -> dict[str, Any]:
    """The configuration as by `plain`, without the keys of groups whose value is still missing.

    Raises:
        SemipixError: a reference leads nowhere.
    """
    found = _plain(config, throw_on_missing=False)
    return {
        name: {key: value for key, value in item.items() if value != MISSING} if isinstance(item, dict) else item
        for name, item in found.items()
    }


def _plain(config: DictConfig, *, throw_on_missing: bool) -> dict[str, Any]:
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    except MissingMandatoryValue as error:
        raise SemipixError(f"{error.full_key} is missing: give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise SemipixError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items() if key != "hydra"}
