"""`semipix train --help keys`: all keys of the chosen groups, from the constructors' signatures and docstrings."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docstring_parser

from semipix.config import GROUPS, RESERVED, TOP, target_of
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.launch.completion import NOT_KEYS
from semipix.signatures import inspected, parameters, type_words

ABOUT = {
    "seed": "seed of the initial weights, the split and all random numbers",
    "epochs": "passes over all images by full supervision, from which the paper's rules derive the steps",
    "steps": "optimizer steps; replaces epochs",
    "length": "what epochs counts: full: passes over all images, so that all runs are as long as full supervision; "
    "labeled: over the labeled images alone; unlabeled: over the unlabeled ones (the paper's rules)",
    "validations": "most validations during training; they are evenly spaced",
    "checkpoint_every": "steps after which checkpoints/last.ckpt is written again",
    "channels_last": "use the memory format channels last, which is faster on most hardware",
    "freeze_batch_norm": "do not update running statistics, and normalise by them also in training",
    "memory": "low: compute activations again in the backward pass, which needs less memory and a third more time",
    "compile": "compile the networks with torch.compile",
    "calibrate": "fit an error map on the validation images at the end, which semipix predict writes for each image",
}
"""Descriptions of the keys that belong to no group."""

_WIDTH = 110
"""Characters of a line."""

_INDENT = 8
"""Spaces before a description."""


def describe(config: Mapping[str, Any]) -> Iterator[str]:
    """Lines for all keys of a configuration: name, value, type, and the description from the docstring.

    Args:
        config: a resolved configuration.
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
            for key, words, default, text in _documented_parameters(each):
                if key in seen or key in NOT_KEYS.get(group, ()):
                    continue
                seen.add(key)
                yield from _entry(f"{group}.{key}", words, node.get(key, default), text)
        for key in node.keys() - seen - {"_target_"}:
            yield from _entry(f"{group}.{key}", "", node[key], "")


def _entry(key: str, words: str, value: Any, text: str) -> Iterator[str]:
    """The line of a key, and its description below it."""
    missing = value is inspect.Parameter.empty or value == "???"
    shown = f"  {key}=" if missing else f"  {key}={_yaml(value)}"
    yield f"{shown}   ({words}{', no default' if missing else ''})" if words else shown
    yield from textwrap.wrap(text, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT)


def _yaml(value: Any) -> str:
    """A value as on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_yaml, value))}]"
    return str(value)


def _documented_parameters(target: Callable[..., Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Name, type in words, default and description of each parameter that a user can set."""
    named, _ = parameters(target)
    try:
        signature = inspected(target).parameters
    except (ValueError, TypeError):  # written in C
        return
    about = _descriptions(target)
    for name, parameter in signature.items():
        if name in named - RESERVED:
            hint = parameter.annotation
            words = "" if hint is inspect.Parameter.empty else type_words(hint)
            yield name, words, parameter.default, about.get(name, "")


def _descriptions(target: Callable[..., Any]) -> dict[str, str]:
    """Descriptions of parameters by name, from the docstrings of a class, its bases and their constructors."""
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
