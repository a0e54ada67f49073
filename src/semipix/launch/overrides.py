"""Read, check and complete the overrides of a command line."""

import argparse
import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob
from hydra.errors import HydraException

from semipix.config import GROUPS
from semipix.errors import SemipixError

FLAGS = (
    *("-m", "--multirun", "-r", "--run", "-c", "--cfg", "--resolve", "-p", "--package"),
    *("-cn", "--config-name", "-cd", "--config-dir"),
)
"""Options of Hydra that a training takes."""

SHOWING = {"-c", "--cfg"}
"""Options that print something and exit."""

WHERE = ("-cd", "--config-dir", "-cn", "--config-name")
"""Options that say where configurations are, each with a value that follows."""

OURS = ("hydra.run", "hydra.output_subdir", "hydra.job_logging", "hydra.hydra_logging", "hydra.verbose")
"""Hydra's keys that say where a run writes what, which semipix does itself."""

CHOICES = (*GROUPS, "experiment", "variant")
"""Keys whose value is the name of an option."""

MOST_JOBS = 10_000
"""Of a sweep."""


def open_overrides(overrides: Sequence[str]) -> list[str]:
    """Let overrides reach every constructor parameter, though the YAML files hold only what deviates.

    `method.lambda_dc=10` becomes `++method.lambda_dc=10` (misspelt keys are found later, by `check_keys`), and
    `second_model=NAME` becomes Hydra's `model@second_model=NAME`. Hydra refuses null for a group; `scheduler` and
    `second_model` may be left out by it.
    """
    opened = []
    for override in overrides:
        key = override.partition("=")[0]
        if override == "second_model=null":
            continue
        if override == "scheduler=null":
            override = "~scheduler"
        elif key == "second_model":
            override = "model@" + override
        elif "." in key and key.partition(".")[0] in GROUPS:
            override = "++" + override
        opened.append(override)
    return opened


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's options, and the overrides as the attribute `overrides`.

    Raises:
        SemipixError: an option lacks its value, or has a wrong one.
    """
    return option_parser().parse_args(list(arguments))


def option_parser() -> argparse.ArgumentParser:
    """Reads Hydra's options. Hydra's own parser has a help text that argparse refuses since Python 3.14."""
    parser = argparse.ArgumentParser(prog="semipix train", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("-cn", "--config-name")
    parser.add_argument("-cd", "--config-dir")
    for option in ("--resolve", "--run", "--multirun"):
        parser.add_argument(*([option] if option == "--resolve" else [option[1:3], option]), action="store_true")
    unused = dict.fromkeys(("config_path", "info", "experimental_rerun"))
    parser.set_defaults(help=False, hydra_help=False, shell_completion=False, **unused)

    def refuse(message: str) -> NoReturn:
        raise SemipixError(f"{message}; options of Hydra, with their values, go before all KEY=VALUE")

    parser.error = refuse  # type: ignore[method-assign]
    return parser


def says_where(item: str, overrides: Sequence[str]) -> bool:
    """Whether an argument tells Hydra where configurations are."""
    before = dict(zip(overrides[1:], overrides, strict=False)).get(item, "")
    return item.partition("=")[0] in WHERE or before in WHERE


def check_syntax(overrides: Sequence[str]) -> None:
    """Refuse overrides that Hydra cannot read, by name; it would name neither override nor mend.

    Raises:
        SemipixError: one is no KEY=VALUE, or chooses an option of a group by something else than a name.
    """
    parser = OverridesParser.create()
    for before, override in zip(["", *overrides], overrides, strict=False):
        key, _, text = override.partition("=")
        if override.startswith("-"):
            if key not in FLAGS:
                raise SemipixError(f"{override}: no such option; keys are given as KEY=VALUE, see semipix train --help")
            continue
        if override.startswith("~") or ("=" not in override and before.startswith("-")):
            continue
        try:
            parsed = parser.parse_override(override)
            value = parsed.value()
            values = value.list if isinstance(value, ChoiceSweep) else [value]
        except (HydraException, ValueError) as error:
            raise SemipixError(
                f"{override!r}: not readable as KEY=VALUE; quote a value with spaces, brackets or commas twice: "
                "'KEY=\"VALUE\"'"
            ) from error
        no_name = [value for value in values if value is None or isinstance(value, bool | int | float | list | dict)]
        if no_name and key in CHOICES and override not in ("second_model=null", "scheduler=null"):
            found = text if len(values) == 1 else "null" if no_name[0] is None else no_name[0]
            raise SemipixError(f"{override}: the name of an option expected, {found} found; single keys are {key}.KEY=")
        if not key.partition("@")[0].strip("+"):
            raise SemipixError(f"{override}: no key before the =; expected KEY=VALUE")
        if key.strip("+") == "hydra":
            raise SemipixError(f"{override}: Hydra's keys are given one by one, as hydra.KEY=VALUE")
        if key.lstrip("+").replace("/", ".").startswith(OURS):
            raise SemipixError(f"{override}: semipix writes the run folder itself; name it by run=PATH")


def put_together(overrides: Sequence[str]) -> list[str]:
    """Overrides with the mappings that a shell took apart: of KEY={0:0,255:1} it makes KEY=0:0 and KEY=255:1."""
    pairs: dict[str, list[str]] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if re.fullmatch(r"\d+:\d+", value):
            pairs.setdefault(key, []).append(value)
    whole = {key: f"{key}={{{','.join(values)}}}" for key, values in pairs.items() if len(values) > 1}
    parted = {f"{key}={value}": whole[key] for key in whole for value in pairs[key]}
    return list(dict.fromkeys(parted.get(override, override) for override in overrides)) if parted else list(overrides)


def read_overrides(given: Sequence[str]) -> dict[str, Any]:
    """Values by key of KEY=VALUE arguments that name single keys.

    Raises:
        SemipixError: one is not readable.
    """
    given = put_together(given)
    check_syntax(given)
    parser = OverridesParser.create()
    parsed = [parser.parse_override(item) for item in given]
    return {item.key_or_group: item.value() for item in parsed}


def named_sweep(overrides: list[str]) -> tuple[list[str], Path, int | None]:
    """Name a sweep's run folders by the keys that are swept, and let `run=` name the folder around them.

    Returns:
        The overrides, the sweep's folder and the number of its jobs, or None where a pattern names them.

    Raises:
        SemipixError: the folder's name is not known before the jobs start.
    """
    others = [item for item in overrides if item not in ("-m", "--multirun") and not item.startswith("run=")]
    parser = OverridesParser.create()
    parsed = [parser.parse_override(item) for item in others if "=" in item and not item.startswith("-")]
    given = {item.key_or_group: item.value() for item in parsed}
    names, count, known = [], 1, True
    for item in parsed:
        if item.is_sweep_override():
            key = item.key_or_group
            value = f"hydra:runtime.choices.{key}" if key.partition("@")[0] in CHOICES else key
            names.append(f"{key.rpartition('@')[2]}_${{{value}}}")
            if isinstance(item.value(), Glob):  # Hydra alone knows what it matches
                known = False
            else:
                count *= len(list(itertools.islice(item.sweep_string_iterator(), MOST_JOBS + 1)))
    if count > MOST_JOBS:
        raise SemipixError(f"-m: more than {MOST_JOBS} jobs found; give fewer values, or several sweeps")
    if names and "hydra.sweep.subdir" not in given:
        others.append(f"hydra.sweep.subdir='{'-'.join(names)}'")
    runs = [str(parser.parse_override(item).value()) for item in overrides if item.startswith("run=")]
    # Absolute, for the workers of a launcher may be elsewhere, and with one time for all of them.
    default = given.get("hydra.sweep.dir", f"runs/sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    text = runs[-1] if runs else str(default)
    if "${" in text:
        raise SemipixError(
            f"run={text}: the folder of a sweep has to be a plain path, for its jobs are looked for there"
        )
    folder = Path(text).absolute()
    return ["-m", *others, f"hydra.sweep.dir={quoted(folder)}"], folder, count if known else None


def quoted(path: Path | str) -> str:
    """A path as Hydra reads it from a command line."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
