"""The versions that a run folder records of what computed it."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semipix.processes import is_first_process

PACKAGES = ("semipix", "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning")
"""Packages on which the results of a training depend."""

MOST_SHOWN = 30
"""Letters of a recorded version in a message."""


def versions() -> dict[str, str]:
    """The versions of Python and the packages that run now; without packages that are not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as semipix itself, run from its sources
            continue
    return found


def report_other_versions(run: Path, recorded: Mapping[str, Any]) -> None:
    """Print a line to stderr where a run was trained with other versions than those that run now.

    Builds of one version, such as 2.9.0+cpu and 2.9.0+cu130, are the same version.
    """
    now = versions()
    differing = [
        f"{name} {_shown(recorded[name])} (now {now[name]})"
        for name in now
        if name in recorded and _public(recorded[name]) != _public(now[name])
    ]
    if differing and is_first_process():
        print(f"semipix: {run}: trained with {', '.join(differing)}; results may differ slightly", file=sys.stderr)


def _shown(found: Any) -> str:
    """A recorded version for the screen; somebody else may have written it."""
    return repr(str(found)[:MOST_SHOWN])[1:-1]


def _public(found: Any) -> str:
    """A version without its build."""
    return str(found).partition("+")[0]
