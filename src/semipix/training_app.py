"""`semipix train`: Hydra's part, from overrides to a resolved configuration."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from semipix.config import open_overrides, plain
from semipix.errors import SemipixError

QUIET = (".*does not have many workers.*", ".*not resumable.*", ".*[Cc]heckpoint directory.*exists.*", ".*isinstance.*")


def run(overrides: list[str]) -> int:
    """Train, sweep or resume.

    Args:
        overrides: Hydra's command line after `semipix train`.

    Returns:
        0, or 130 when the user interrupted.

    Raises:
        SemipixError: the configuration or the input is at fault.
    """
    quiet()
    continued = [override for override in overrides if override.startswith("resume=")]
    if continued:
        if len(overrides) > 1:
            raise SemipixError(f"resume takes no other key: {' '.join(overrides)}; a resumed run keeps its configuration")
        _report(Path(continued[0].partition("=")[2]), None)
        return 0

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below instead of Hydra's own printing
    sys.argv = [sys.argv[0], *open_overrides(overrides)]
    errors: list[Exception] = []
    try:
        hydra.main(version_base="1.3", config_path="pkg://semipix.conf", config_name="train")(_job(errors))()
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or str(error)
        raise SemipixError(f"{key} is missing: give {key}=VALUE") from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, SemipixError) else error
        raise SemipixError(_one_line(str(cause))) from error
    if errors:
        raise errors[0]
    return 0


def quiet() -> None:
    """Keep warnings about what this package does on purpose from the user's screen."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _one_line(message: str) -> str:
    """Hydra's message without its layout: first line, and the options where it lists them."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Available options" in message:
        start = next(index for index, line in enumerate(lines) if line.startswith("Available options"))
        options = [line for line in lines[start + 1 :] if not line.startswith(("Config search", "provider="))]
        return f"{lines[0]}; known: {', '.join(options)}"
    if "is not in struct" in message:
        return f"{lines[0].replace('Key', 'unknown key').replace(' is not in struct', '')}; see semipix train --help"
    return lines[0]


def _job(errors: list[Exception]) -> Callable[[DictConfig], None]:
    """Hydra's task function. A single run hands its error over past Hydra, which would print around it."""

    def job(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        try:
            _report(Path(hydra_config.runtime.output_dir), plain(config))
        except Exception as error:
            if hydra_config.mode is not RunMode.RUN:
                raise
            errors.append(error)

    return job


def _report(folder: Path, config: dict[str, Any] | None) -> None:
    """Train a configuration, or resume without one, and say what came of it."""
    from semipix import train

    try:
        summary = train.resume(folder) if config is None else train.start(config, folder)
    except SystemExit as error:  # how Lightning ends after Ctrl-C
        print(f"semipix: interrupted; continue with: semipix train resume={folder}", file=sys.stderr)
        raise KeyboardInterrupt from error
    steps = int(summary["steps"])
    print(f"{folder}: {steps} steps, see {folder / 'summary.json'}; next: semipix evaluate {folder}")
