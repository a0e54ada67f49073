"""`semipix train --help keys`: every key of the chosen groups, from the constructors' signatures and docstrings."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docstring_parser

from semipix.config import GROUPS, RESERVED, TOP, target_of
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.signatures import parameters, type_words

ABOUT = {
    "seed": "of the first weights, the split and all random numbers",
    "epochs": "passes of a fully labeled training, from which the paper's rules derive the steps",
    "steps": "optimizer steps; replaces epochs",
    "length": "full: as many samples as full supervision; labeled: passes over the labels alone (the paper's rule 2)",
    "validations": "how often validation runs",
    "checkpoint_every": "steps between two writings of checkpoints/last.ckpt",
    "channels_last": "lay images and weights out channels last, which is faster on most hardware",
    "freeze_batch_norm": "keep all running statistics and normalise by them in training too",
    "memory": "low: task models keep little for the backward pass and compute it again, a third slower",
    "compile": "run the networks through torch.compile",
}
"""What the keys that belong to no group mean."""

_FROM_TASK = {"model": {"in_channels", "channels"}, "second_model": {"in_channels", "channels"}, "data": {"seed"}}
"""Parameters that semipix takes from elsewhere, by group."""

_WIDTH = 110
_INDENT = 8


def describe(config: Mapping[str, Any]) -> Iterator[str]:
    """Lines about every key of a configuration: name, type, effective value, and what its docstring says.

    Args:
        config: a resolved configuration, whose groups name what is described.
    """
    for key, hint in TOP.items():
        yield from _entry(key, type_words(hint), config.get(key), ABOUT[key])
    for group in GROUPS:
        node = config.get(group)
        if not node:
            continue
        target = target_of(group, node)
        yield f"\n{group}: {node['_target_']}"
        callables = (target, SemiSupervisedDataModule) if group == "data" else (target,)
        seen: set[str] = set()
        for each in callables:
            for key, words, default, text in _parameters(each):
                if key in seen or key in _FROM_TASK.get(group, ()):
                    continue
                seen.add(key)
                yield from _entry(f"{group}.{key}", words, node.get(key, default), text)
        for key in node.keys() - seen - {"_target_"}:
            yield from _entry(f"{group}.{key}", "", node[key], "")


def _entry(key: str, words: str, value: Any, text: str) -> Iterator[str]:
    """A key's line, and what it means below it."""
    missing = value is inspect.Parameter.empty or value == "???"
    shown = f"  {key}=" if missing else f"  {key}={_yaml(value)}"
    yield f"{shown}   ({words}{', no default' if missing else ''})" if words else shown
    yield from textwrap.wrap(text, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT)


def _yaml(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_yaml, value))}]"
    return str(value)


def _parameters(target: Callable[..., Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Name, type in words, default and description of each parameter that a user may set."""
    named, _ = parameters(target)
    try:
        signature = inspect.signature(target).parameters
    except (ValueError, TypeError):  # written in C
        return
    about = _descriptions(target)
    for name, parameter in signature.items():
        if name in named - RESERVED:
            hint = parameter.annotation
            words = "" if hint is inspect.Parameter.empty else type_words(hint)
            yield name, words, parameter.default, about.get(name, "")


def _descriptions(target: Callable[..., Any]) -> dict[str, str]:
    """Descriptions of the parameters by name, from the docstrings of a class, its bases and their constructors."""
    documented = [target]
    if inspect.isclass(target):
        bases = [base for base in inspect.getmro(target) if base is not object]
        documented = [each for base in bases for each in (base, vars(base).get("__init__")) if each]
    found: dict[str, str] = {}
    for each in documented:
        for parameter in docstring_parser.parse(inspect.getdoc(each) or "").params:
            for name in parameter.arg_name.split(","):
                found.setdefault(name.strip(), " ".join((parameter.description or "").split()))
    return found
