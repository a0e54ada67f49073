"""Check that a run folder cannot run code: its files may have been written by somebody else.

What the command line names is run without such a check. The configuration of a run folder may name classes of the
packages that semipix is built on, each in a group where it belongs. This is checked before any other package is
imported, and before anything is called.
"""

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from semipix.config import public_name
from semipix.data.batches.shards import is_plain_pattern
from semipix.errors import SemipixError, reason_of
from semipix.signatures import parameters

PACKAGES = (*("semipix", "torch", "torchvision", "timm", "segmentation_models_pytorch", "torchmetrics", "lightning"),)
"""Packages whose classes a run folder may name."""

HOW = "add --trust to run code that this folder names"

HOMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("task", "method", "data"), ("semipix",)),
    **dict.fromkeys(
        ("model", "second_model"),
        ("semipix.models", "torch.nn", "torchvision", "timm.models", "timm.layers", "segmentation_models_pytorch"),
    ),
    "optimizer": ("torch.optim", "timm.optim"),
    "scheduler": ("torch.optim",),
    "trainer": ("lightning",),
}
"""Modules in which the classes of each group are defined. Other parts of torch, such as torch.fx, run source text."""

INSIDE: dict[str, tuple[type, ...]] = {
    "callbacks": (Callback,),
    "logger": (Logger,),
    "plugins": (Precision, ClusterEnvironment, CheckpointIO, LayerSync),
    "profiler": (Profiler,),
    "strategy": (Strategy,),
}
"""Keys of the trainer that hold objects, and of which kinds."""

SPECIAL = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys by which Hydra makes objects."""

FILES_OF_MODELS = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Options with which timm, and packages that use it, load weights from any file or address."""

STATE_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path", "best_k_models")
"""Keys of ModelCheckpoint's state in a checkpoint: files that Lightning removes after it has written the next one."""

MOST_VALUES = 10_000_000
"""Most values of a configuration, with references followed: a few lines of YAML can become more than memory holds."""

MOST_SHOWN = 60
"""Most letters of a value in a message."""


class Refusal(NamedTuple):
    """Something in a configuration that may run code, or that reaches outside of the run folder.

    Attributes:
        key: dotted.
        reason: what was found there and what was expected.
    """

    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


def check_size(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a configuration that contains itself, or that becomes too large by references of YAML.

    Args:
        path: the file that it was read from, for the message.
        config: as YAML gave it.

    Raises:
        SemipixError: it contains itself, or more than `MOST_VALUES` values.
    """
    try:
        size = _size(config, {})
    except RecursionError:
        size = MOST_VALUES + 1
    if size > MOST_VALUES:
        raise SemipixError(
            f"{path}: references to itself, or more than {MOST_VALUES} values found, expected the configuration that "
            "semipix train wrote; restore the file"
        )


def _size(value: Any, known: dict[int, int]) -> int:
    """Number of values in a nested value, with references followed; each object is visited once."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # found again while it is visited, it contains itself
        known[id(value)] = 1 + sum(
            _size(item, known) for item in (value.values() if isinstance(value, Mapping) else value)
        )
    return known[id(value)]


def check_trusted(path: Path, config: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Refuse a configuration from a run folder that could run code of other packages than the known ones.

    Args:
        path: the file that it was read from, for the message.
        config: as YAML gave it; nothing in it was imported or called yet.
        kinds: what the `_target_` of each group makes.

    Raises:
        SemipixError: a `_target_` names something else than a class of a known package that its place expects, an
            object is asked for where none belongs, or a value runs a command or names a file outside of the folder.
    """
    if refusal := refused(config, kinds):
        raise SemipixError(f"{path}: {refusal}; {HOW}")


def refused(config: Mapping[str, Any], kinds: Mapping[str, type]) -> Refusal | None:
    """The first thing in a configuration that a run folder may not hold, or None."""
    return next(_refusals(config, kinds), None)


def _refusals(config: Mapping[str, Any], kinds: Mapping[str, type]) -> Iterator[Refusal]:
    for key, value in config.items():
        if key not in kinds or not isinstance(value, Mapping):
            yield from _objects(str(key), value)
            continue
        for name, item in value.items():
            if name == "_target_":
                yield from _target(str(key), item, (kinds[key],), HOMES[key], may_be_function="model" in key)
            elif key == "trainer" and name in INSIDE:
                yield from _inside_trainer(str(name), item)
            else:
                yield from _objects(f"{key}.{name}", item, str(name))
        yield from _values(str(key), value)


def _inside_trainer(name: str, value: Any) -> Iterator[Refusal]:
    """Refusals of a key of the trainer that holds objects: one of them, or a list."""
    several = isinstance(value, list)
    for number, node in enumerate(value if several else [value]):
        key = f"trainer.{name}.{number}" if several else f"trainer.{name}"
        if not isinstance(node, Mapping) or "_target_" not in node:
            yield from _objects(key, node)
            continue
        refusals = list(_target(key, node["_target_"], INSIDE[name], ("lightning", "semipix")))
        yield from refusals
        # Any other option is passed on to a package that is not checked here, such as that of a logger.
        named = set() if refusals else parameters(_located(node["_target_"]))[0]
        for option, item in node.items():
            if option == "_target_":
                continue
            yield from _objects(f"{key}.{option}", item, str(option))
            if option not in named:
                yield Refusal(f"{key}.{option}", "an option found that its class does not name, none expected")


def _objects(key: str, value: Any, name: str = "") -> Iterator[Refusal]:
    """Refusals of a value that has to be plain: keys that make objects, at any depth."""
    if name in SPECIAL:
        yield Refusal(key, f"{_shown(value)} found, expected no such key here")
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield Refusal(f"{key}._target_", f"{_shown(value['_target_'])} found, a plain value expected here")
        for option, item in value.items():
            yield from _objects(f"{key}.{option}", item, str(option))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _objects(f"{key}.{number}", item)


def _target(
    key: str, name: Any, kinds: tuple[type, ...], homes: tuple[str, ...], may_be_function: bool = False
) -> Iterator[Refusal]:
    """Refusals of a `_target_`. Its module is imported only if it belongs to a known package."""
    key = f"{key}._target_"
    foreign = Refusal(key, f"{_shown(name)} found, which is no class of {', '.join(PACKAGES[:-1])} or {PACKAGES[-1]}")
    if not isinstance(name, str) or not _is_known(name) or not all(map(_is_public, name.split("."))):
        yield foreign
        return
    try:
        target = _located(name)
    except Exception as error:  # whatever the import of a module raises
        yield Refusal(key, f"{_shown(name)} cannot be imported: {reason_of(error)[:MOST_SHOWN]}")
        return
    if target is None or not _is_known(getattr(target, "__module__", None) or ""):
        yield foreign
        return
    fits = inspect.isclass(target) and isinstance(target, type) and issubclass(target, kinds)
    if may_be_function and inspect.isfunction(target):
        fits = _makes(target, kinds) and _is_builder(target)
    home = inspect.unwrap(target).__module__ if callable(target) else ""
    if not fits or not any(f"{home}.".startswith(f"{package}.") for package in homes):
        expected = " or ".join(map(public_name, kinds))
        function = " or model function" if may_be_function else ""
        yield Refusal(key, f"{_shown(name)} found, a {expected} class{function} of {', '.join(homes)} expected")


def _is_known(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def _is_public(part: str) -> bool:
    return part.isidentifier() and not part.startswith("__")


def _located(name: str) -> Any:
    """The object that a dotted name of a known package names; None where it leads out of the known packages.

    Raises:
        ImportError, AttributeError: there is no such thing, or whatever else the import of a module raises.
    """
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for length, part in enumerate(parts[1:], 2):
        if not isinstance(found, types.ModuleType | type):
            return None
        if isinstance(found, types.ModuleType) and not hasattr(found, part):
            importlib.import_module(".".join(parts[:length]))
        found = getattr(found, part)
        if isinstance(found, types.ModuleType) and not _is_known(found.__name__):
            return None
    return found


def _makes(function: Callable[..., Any], kinds: tuple[type, ...]) -> bool:
    """Whether a function says that it returns an object of a kind; silence and Any do not."""
    try:
        returned = typing.get_type_hints(inspect.unwrap(function)).get("return")
    except Exception:  # names that are imported for type checkers alone
        return False
    return isinstance(returned, type) and issubclass(returned, kinds)


def _is_builder(function: Callable[..., Any]) -> bool:
    """Whether a function is one by which torchvision, timm or segmentation_models_pytorch offer their models."""
    import segmentation_models_pytorch
    import timm
    from torchvision import models

    general = (models.get_model, timm.create_model, segmentation_models_pytorch.create_model)
    name = function.__name__
    of_timm = timm.is_model(name) and timm.model_entrypoint(name) is function
    return function in general or of_timm or any(models.get_model_builder(n) is function for n in models.list_models())


def _values(group: str, node: Mapping[str, Any]) -> Iterator[Refusal]:
    """Refusals of plain values with which a known class would run a command, or read or write elsewhere."""
    if group == "trainer":
        for key, text in _texts(group, node):
            if not key.endswith("_target_") and _leads_out(text):
                yield Refusal(key, f"{_shown(text)} found, a place outside of the run folder, where files are written")
    if "model" in group:
        for key, text in _texts(group, node):
            if text and not set(FILES_OF_MODELS).isdisjoint(key.split(".")):
                yield Refusal(key, f"{_shown(text)} found, from where weights would be loaded")
            if ":" in text:
                yield Refusal(key, f"{_shown(text)} found, an address, from where a model would be loaded")
    if group == "data":
        shards = node.get("shards")
        if isinstance(shards, str) and not is_plain_pattern(shards):
            yield Refusal("data.shards", f"{_shown(shards)} found, files or addresses without a command expected")


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """All texts in a nested value, each with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(f"{key}.{name}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(f"{key}.{number}", item)


def _leads_out(text: str) -> bool:
    """Whether a text, read as a path, leads out of the current folder."""
    path = PurePath(text)
    return (
        path.is_absolute()
        or ".." in path.parts
        or text.startswith("~")
        or re.search(r"\w:(//|\\)|::", text) is not None
    )


def check_state(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that makes Lightning remove other files than checkpoints of the run folder.

    Args:
        path: the checkpoint, for the message.
        state: what it holds.

    Raises:
        SemipixError: the state of a callback names such a file.
    """
    folder = path.parent.resolve()
    callbacks = state.get("callbacks")
    for name, kept in callbacks.items() if isinstance(callbacks, Mapping) else ():
        for key in STATE_PATHS if isinstance(kept, Mapping) else ():
            value = kept.get(key)
            for text in map(str, value if isinstance(value, Mapping) else [value or ""]):
                named = Path(text).absolute()
                elsewhere = ".." in named.parts or named.suffix != ".ckpt" or "://" in text or "::" in text
                by_a_link = folder in named.parents and named.parent != folder
                if text and (elsewhere or by_a_link):
                    raise SemipixError(
                        f"{path}: {_shown(text)} found in the state of {_shown(str(name))}, a checkpoint of the run "
                        "expected, for the next one replaces it; restore the file, or add --trust"
                    )


def _shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def without_downloads(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `data.download=false`: a run folder of somebody else downloads nothing."""
    data = config.get("data")
    if not isinstance(data, Mapping) or not data.get("download"):
        return dict(config)
    return {**config, "data": {**data, "download": False}}
