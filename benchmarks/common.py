"""What the benchmarks share: arguments, records in JSON files, the device, options of the configuration, processes."""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import semipix.conf
from semipix.atomic import write_text
from semipix.errors import SemipixError, reason_of
from semipix.launch import runner

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CONF = Path(semipix.conf.__file__).parent

Record = dict[str, Any]

FOLDERS = [RESULTS]
"""Folders of records; where several hold a file, the first one counts."""


def new_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of a script's arguments, which has `--json` already.

    Args:
        module: the script's name below `benchmarks`, such as `speed.step`.
        description: its docstring, printed by `--help` as it is.
    """
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to this file")
    return parser


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user can fix is printed in one line, with exit status 2."""
    try:
        main()
    except SemipixError as error:
        print(f"error: {reason_of(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def records_in(path: Path | None) -> list[Record]:
    """The records that a file holds, as a list or under `records`; none where there is no file.

    Raises:
        SemipixError: the file holds something else.
    """
    if path is None or not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        found: list[Record] = content if isinstance(content, list) else content["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise SemipixError(f"{path}: no records of a benchmark found; choose another --json FILE") from error
    return found


def record_file(name: str) -> Path:
    """The file of a benchmark's records, in the first folder that has one."""
    places = [folder / f"{name}.json" for folder in FOLDERS]
    return next((place for place in places if place.exists()), places[-1])


def recorded(name: str) -> list[Record]:
    """The records of a benchmark; none where it was not run."""
    return records_in(record_file(name))


def write_records(path: Path | None, records: Sequence[Record], about: Mapping[str, Any] | None = None) -> None:
    """Write records, whole or not at all; nothing where no file is given.

    Args:
        path: the file of `--json`.
        records: all that it will hold.
        about: what belongs to all records, such as `environment()`; without it the file holds a list.
    """
    if path is not None:
        content = list(records) if about is None else {**about, "records": list(records)}
        write_text(path, json.dumps(content, indent=1) + "\n")


def without_views(records: Iterable[Record]) -> str:
    """A mark at trainings of `cues` or `features` whose detector got no strong views of labeled images, by a fault."""
    return " `†`" if any(record.get("without_views") for record in records) else ""


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the confidence interval of 95 % of a mean (Student's t), of three values or more."""
    from scipy.stats import t

    factor: float = t.ppf(0.975, len(values) - 1).item()
    return factor * statistics.stdev(values) / math.sqrt(len(values))


def over_seeds(values: Sequence[float], digits: int, *, signed: bool = False) -> str:
    """What several trainings reach: the mean and its confidence interval of 95 %, of three values or more.

    The interval of two values is 12.7 times as wide as their distance. So fewer than three are shown as they are, and
    have no mean.

    Args:
        values: one of each seed.
        digits: after the point.
        signed: show the sign of values above 0, as of differences.
    """
    form = f"{'+' if signed else ''}z.{digits}f"  # z: no -0.0
    if len(values) < 3:
        return ", ".join(f"{value:{form}}" for value in values)
    return f"{statistics.mean(values):{form}} ± {half_interval(values):.{digits}f}"


def table_row(cells: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table_head(titles: Sequence[str]) -> list[str]:
    """The two lines that a Markdown table begins with."""
    return [table_row(titles), "|" + " --- |" * len(titles)]


def device() -> Any:
    """The `torch.device` that is measured: the GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name of the GPU, or `CPU` with its widest vector instructions."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU {torch.backends.cpu.get_cpu_capability()}"


def wait_for_device() -> None:
    """Let a GPU finish what it was asked to compute, so that a clock can be read."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def options(group: str) -> list[str]:
    """Names of a group's options in the configuration."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def node(group: str, option: str) -> dict[str, Any]:
    """What the YAML file of an option holds."""
    found: dict[str, Any] = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    return found


def output_of(
    module: str, arguments: Sequence[str], cwd: Path = ROOT, surroundings: Mapping[str, str] | None = None
) -> str:
    """What a module prints that runs in a process of its own.

    Args:
        module: what follows `python -m`.
        arguments: its arguments.
        cwd: the folder it runs in.
        surroundings: environment variables beside those of this process.

    Raises:
        SemipixError: it failed; it has printed why.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = runner.surroundings(**(surroundings or {}))
    with runner.started(command, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment) as process:
        printed: str = process.communicate()[0]
    if process.returncode:
        hint = "; the system killed it, mostly for lack of memory" if process.returncode == -9 else ""
        raise SemipixError(f"{module} {' '.join(arguments)}: exit status {process.returncode}{hint}")
    return printed
