"""Compose a resolved configuration from overrides, with Hydra."""

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from semipix.config import GROUPS, OUTSIDE, TOP, check_needed, plain, plain_known, unknown_key
from semipix.data.files.listing import PAIRS
from semipix.errors import SemipixError, reason_of
from semipix.launch.overrides import check_syntax, open_overrides, parse_flags, put_together, quoted
from semipix.launch.paper import with_paper_values
from semipix.signatures import check_type

CONFIG = "semipix.conf"
"""Module of the configuration."""

SEARCH = "search"
"""Key of the settings of a search, which belong to no single training."""


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of one training, with the paper's values where one of its experiments is chosen.

    Args:
        overrides: as on the command line: KEY=VALUE and GROUP=NAME.

    Raises:
        SemipixError: an override cannot be read or names something unknown, or a key that training needs is missing.
    """
    overrides = put_together(overrides)
    check_syntax(overrides)
    found = configuration_of(parse_flags(open_overrides(overrides)))
    if SEARCH in found:
        raise SemipixError("experiment=search: makes many trainings; run it by the command semipix train")
    return found


def compose_unresolved(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed configuration with its references and missing values as they are, to be shown.

    Raises:
        SemipixError: training would refuse an override.
    """
    check_syntax(overrides)
    with _hydra_configuration(parse_flags(open_overrides(overrides))) as config:
        found = OmegaConf.to_container(_without_hydra(_as_trained(config)), resolve=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def data_overrides(data: str) -> list[str]:
    """Overrides for data that are named by one word: an option of the group `data`, or the path of a data folder.

    A folder that contains `inputs` has pairs of images; any other folder has images and masks.
    """
    if resources.files(CONFIG).joinpath("data", f"{data}.yaml").is_file():
        return [f"data={data}"]
    root = Path(data).expanduser()
    kind = "pairs" if (root / PAIRS.images.partition("/")[0]).is_dir() else "folder"
    return [f"data={kind}", f"data.root={quoted(root)}"]


def configuration_of(flags: argparse.Namespace) -> dict[str, Any]:
    """The resolved configuration of parsed overrides."""
    with _hydra_configuration(flags) as config:
        return resolved_configuration(_without_hydra(config))


def _without_hydra(config: DictConfig) -> DictConfig:
    """A configuration without Hydra's own settings, some of which have no value."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@contextlib.contextmanager
def _hydra_configuration(flags: argparse.Namespace) -> Iterator[DictConfig]:
    """The composed configuration with Hydra's own settings. Its references can be resolved inside the `with` block.

    Raises:
        SemipixError: Hydra refuses an override.
    """
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    searched = [f"hydra.searchpath=[{_search_entry(flags.config_dir)}]"] if flags.config_dir else []
    overrides = [*searched, *flags.overrides]
    try:
        with initialize_config_module(CONFIG, version_base="1.3", job_name="train"):
            config = hydra_compose(flags.config_name or "train", overrides, return_hydra_config=True)
            hydra_config.set_config(config)
            yield config
    except SemipixError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise SemipixError(one_line_of_hydra(str(error))) from error
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:  # of overrides like a.b=1 c=2
        raise unreadable(error) from error
    finally:
        hydra_config.cfg = before


def _search_entry(folder: str) -> str:
    """A folder of configurations as an entry of Hydra's search path.

    Raises:
        SemipixError: the path is no folder.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise SemipixError(f"--config-dir: {folder} found, a folder of configurations expected")
    return quoted(f"file://{path}")


def _as_trained(config: DictConfig) -> DictConfig:
    """A composed configuration with the paper's values for the chosen options. References and missing values stay.

    Raises:
        SemipixError: training would refuse a key or a value.
    """
    from semipix.training.configuration import Configuration  # here, since it imports torch and Lightning

    check_needed(plain_known(_without_hydra(config)))
    groups = {
        name: OmegaConf.to_container(config[name], resolve=False) for name in GROUPS if config.get(name) is not None
    }
    with open_dict(config):
        for name, values in _with_paper_values(groups).items():
            config[name] = values
    shown = plain_known(_without_hydra(config))
    Configuration.parse({key: value for key, value in shown.items() if key != SEARCH})
    return config


def shown_configuration(flags: argparse.Namespace) -> str:
    """The configuration as YAML, for --cfg.

    Raises:
        SemipixError: training would refuse a key or a value; it may still be missing.
    """
    with _hydra_configuration(flags) as composed_config:
        config = _as_trained(composed_config)
        shown: Any = OmegaConf.masked_copy(config, ["hydra"]) if flags.cfg == "hydra" else config
        if flags.cfg == "job":
            shown = _without_hydra(config)
        if flags.package:
            shown = OmegaConf.select(shown, flags.package)
        if not OmegaConf.is_config(shown):
            return f"{shown}\n"
        return OmegaConf.to_yaml(shown, resolve=flags.resolve)


def unreadable(error: Exception) -> SemipixError:
    """A message to users for an error of Hydra that is meant for programmers."""
    return SemipixError(
        f"these overrides make no configuration ({type(error).__name__}: {reason_of(error, 160)}); expected KEY=VALUE "
        "and GROUP=NAME, see semipix train --help"
    )


def one_line_of_hydra(message: str) -> str:
    """The first line of Hydra's message, and the options where it lists some."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    experiment = re.search(r"Could not find 'experiment/(.+?)'", message)  # Hydra does not list nested folders
    if experiment:
        known = "compare, search, paper/TASK and compare/DATA, e.g. experiment=paper/segmentation"
        return f"experiment={experiment[1]}: no such option; known: {known}"
    if "Available options" in message:
        start = next(index for index, line in enumerate(lines) if line.startswith("Available options"))
        options = [line for line in lines[start + 1 :] if not line.startswith(("Config search", "provider="))]
        missing = re.search(r"Could not find '(.+?)'", lines[0])
        group, _, option = missing[1].partition("/") if missing else ("", "", "")
        return f"{group}={option}: no such option; known: {', '.join(options)}" if option else lines[0]
    unknown = re.search(r"(?:Could not override|Could not append to config\. An item is already at) '(.+?)'", message)
    if unknown:
        return unknown_key(unknown[1], {*GROUPS, *TOP, *OUTSIDE})
    if message.startswith("Ambiguous value"):
        return f"{lines[0]}: several values make a sweep, add -m; one list is KEY=[VALUE,VALUE]"
    return " ".join(lines[:2])


def given_overrides() -> list[str]:
    """The job's overrides as they were given, with references that are not resolved."""
    given = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(given, list)
    return list(map(str, given))


def run_folder_of(config: dict[str, Any]) -> Path:
    """The absolute path of the run folder.

    Raises:
        SemipixError: `run` is missing, or its value is no path.
    """
    run = config.get("run")
    check_type("run", run or None, Path)
    return Path(str(run)).absolute()


def resolved_configuration(config: DictConfig) -> dict[str, Any]:
    """The job's configuration as plain values, with the paper's values for the chosen options.

    Raises:
        SemipixError: a key that training needs is missing, `resume` is given, or the paper lacks the method.
    """
    resolved = plain(config)
    check_needed(resolved)
    if resolved.get("resume") is not None:
        raise SemipixError("resume: takes no + and no other key; continue a run by semipix train resume=RUN alone")
    return _with_paper_values(resolved)


def _with_paper_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the paper's values for the options that the overrides choose.

    Raises:
        SemipixError: the paper lacks the method.
    """
    return with_paper_values(config, HydraConfig.get().runtime.choices, given_overrides())
