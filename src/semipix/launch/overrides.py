"""Parse, check and complete the overrides of a command line."""

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
"""Options of Hydra that `semipix train` takes."""

SHOWING = {"-c", "--cfg"}
"""Options that print the configuration and exit."""

CONFIG_LOCATION = ("-cd", "--config-dir", "-cn", "--config-name")
"""Options with the folder and the name of the configuration; each is followed by its value."""

SET_BY_SEMIPIX = ("hydra.run", "hydra.output_subdir", "hydra.job_logging", "hydra.hydra_logging", "hydra.verbose")
"""Hydra's keys for what is written where; semipix sets them."""

CHOICES = (*GROUPS, "experiment", "variant")
"""Keys whose value is the name of an option, a YAML file."""

MOST_JOBS = 10_000
"""Largest number of jobs of a sweep."""


def open_overrides(overrides: Sequence[str]) -> list[str]:
    """Change overrides so that Hydra accepts keys that are not in the YAML files.

    Hydra refuses keys that are not in a YAML file, and the YAML files contain only values that differ from the
    constructors' defaults. So `method.lambda_dc=10` becomes `++method.lambda_dc=10`; `check_keys` finds misspelt keys
    later. `second_model=NAME` becomes Hydra's `model@second_model=NAME`. Hydra also refuses null as the value of a
    group: `scheduler=null` becomes `~scheduler`. `second_model=null` becomes a value, which replaces the option that an
    experiment has chosen; it is left out where a later override chooses another one.
    """
    opened = []
    last = next((override for override in reversed(overrides) if override.startswith("second_model=")), "")
    for override in overrides:
        key = override.partition("=")[0]
        if override == "second_model=null":
            if override != last:
                continue
            override = "++" + override
        elif override == "scheduler=null":
            override = "~scheduler"
        elif key == "second_model":
            override = "model@" + override
        elif "." in key and key.partition(".")[0] in GROUPS:
            override = "++" + override
        opened.append(override)
    return opened


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's options; the attribute `overrides` has the other arguments.

    Raises:
        SemipixError: the value of an option is missing or wrong.
    """
    return option_parser().parse_args(list(arguments))


def option_parser() -> argparse.ArgumentParser:
    """A parser of Hydra's options; since Python 3.14 argparse refuses the help text of Hydra's own parser."""
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


def is_config_location(item: str, overrides: Sequence[str]) -> bool:
    """Whether an argument is an option of `CONFIG_LOCATION` or its value."""
    before = dict(zip(overrides[1:], overrides, strict=False)).get(item, "")
    return item.partition("=")[0] in CONFIG_LOCATION or before in CONFIG_LOCATION


def check_syntax(overrides: Sequence[str]) -> None:
    """Check that Hydra can parse the overrides; Hydra's own errors name neither the override nor the fix.

    Raises:
        SemipixError: an override is not KEY=VALUE, the value of a group is not a name, or the key is one that semipix
            sets.
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
            raise SemipixError(
                f"{override}: the name of an option expected, {found} found; set single keys by {key}.KEY="
            )
        if not key.partition("@")[0].strip("+"):
            raise SemipixError(f"{override}: no key before the =; expected KEY=VALUE")
        if key.strip("+") == "hydra":
            raise SemipixError(f"{override}: Hydra's keys are given one by one, as hydra.KEY=VALUE")
        if key.lstrip("+").replace("/", ".").startswith(SET_BY_SEMIPIX):
            raise SemipixError(f"{override}: semipix writes the run folder itself; name it by run=PATH")


def put_together(overrides: Sequence[str]) -> list[str]:
    """Restore mappings that a shell expanded: from KEY={0:0,255:1} it makes the arguments KEY=0:0 and KEY=255:1."""
    pairs: dict[str, list[str]] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if re.fullmatch(r"\d+:\d+", value):
            pairs.setdefault(key, []).append(value)
    mappings = {key: f"{key}={{{','.join(values)}}}" for key, values in pairs.items() if len(values) > 1}
    if not mappings:
        return list(overrides)
    mapping_of = {f"{key}={value}": mappings[key] for key in mappings for value in pairs[key]}
    return list(dict.fromkeys(mapping_of.get(override, override) for override in overrides))


def read_overrides(given: Sequence[str]) -> dict[str, Any]:
    """Parse KEY=VALUE arguments to values by key.

    Raises:
        SemipixError: an argument is not KEY=VALUE.
    """
    given = put_together(given)
    check_syntax(given)
    parser = OverridesParser.create()
    parsed = [parser.parse_override(item) for item in given]
    return {item.key_or_group: item.value() for item in parsed}


def named_sweep(overrides: list[str]) -> tuple[list[str], Path, int | None]:
    """Complete a sweep's overrides: run folders are named by the keys that vary, and `run=` names their parent.

    Returns:
        The overrides, the sweep's folder, and the number of its jobs, which is None if a pattern gives the values.

    Raises:
        SemipixError: there are too many jobs, or the folder's name contains an interpolation.
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
            if isinstance(item.value(), Glob):  # only Hydra can list the matches of a pattern
                known = False
            else:
                count *= len(list(itertools.islice(item.sweep_string_iterator(), MOST_JOBS + 1)))
    if count > MOST_JOBS:
        raise SemipixError(f"-m: more than {MOST_JOBS} jobs found; give fewer values, or several sweeps")
    if names and "hydra.sweep.subdir" not in given:
        others.append(f"hydra.sweep.subdir='{'-'.join(names)}'")
    runs = [str(parser.parse_override(item).value()) for item in overrides if item.startswith("run=")]
    # The path is absolute, since a launcher's workers may have another working directory, and its time is fixed here.
    default = given.get("hydra.sweep.dir", f"runs/sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    text = runs[-1] if runs else str(default)
    if "${" in text:
        raise SemipixError(
            f"run={text}: the folder of a sweep has to be a plain path without ${{...}}, since its jobs are found there"
        )
    folder = Path(text).absolute()
    return ["-m", *others, f"hydra.sweep.dir={quoted(folder)}"], folder, count if known else None


def quoted(path: Path | str) -> str:
    """A path as Hydra reads it from a command line."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
