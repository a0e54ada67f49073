"""`semipix train`: Hydra's part, from overrides to a resolved configuration."""

import contextlib
import os
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from semipix.errors import SemipixError
from semipix.interruption import MESSAGE, Interrupted, check, number_of
from semipix.launch.compose import (
    CONFIG,
    composed,
    given_overrides,
    one_line_of_hydra,
    resolved_configuration,
    run_folder_of,
    shown_configuration,
    unreadable,
)
from semipix.launch.overrides import (
    SHOWING,
    check_syntax,
    named_sweep,
    open_overrides,
    option_parser,
    parse_flags,
    put_together,
    says_where,
)
from semipix.launch.sweep import JOBS, Job, Record, forget_refused, quoted, records, run_job, table
from semipix.training.quiet import quiet
from semipix.training.run_folder import no_empty_folders

BAD = ("failed", "killed", "interrupted")
"""States of a sweep's jobs that have not done what they were started for."""


def run(overrides: list[str]) -> int:
    """Train, sweep or resume.

    Args:
        overrides: Hydra's command line after `semipix train`.

    Returns:
        0.

    Raises:
        SemipixError: the configuration or the input is at fault.
        KeyboardInterrupt: the user interrupted; its message says how to go on.
    """
    check()  # a library may have swallowed the exception while it was imported
    quiet()
    command = shlex.join(["semipix", "train", *overrides])
    overrides = put_together(overrides)
    if any(override.startswith("resume=") for override in overrides):
        folder, root, trust = _resumed(overrides)
        _report(folder, None, root=root, trust=trust)
        return 0
    for override in overrides:
        if override.partition("=")[0] == "--trust":
            raise SemipixError(
                "--trust: goes with resume=RUN, evaluate and predict, which read a run folder; leave it out, what the "
                "command line of a new training names runs as it is"
            )
        if override.partition("=")[0] == "--data":
            raise SemipixError(
                "--data: goes with resume=RUN, for a data folder that has moved; a new training takes data.root=ROOT"
            )

    check_syntax(overrides)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below instead of Hydra's own printing
    opened = open_overrides(overrides)
    if {"-m", "--multirun"} & set(opened):
        return _sweep(opened)
    flags = parse_flags(opened)
    if flags.cfg:
        print(shown_configuration(flags), end="")
        return 0
    config = composed(flags)
    folder = run_folder_of(config)
    with _started_again_as("train", *_without_run(overrides), f"run={quoted(folder)}"):
        _report(folder, config, command)
    return 0


def _without_run(overrides: Sequence[str]) -> list[str]:
    return [item for item in overrides if item.lstrip("+").partition("=")[0] != "run"]


@contextlib.contextmanager
def _started_again_as(*arguments: str) -> Iterator[None]:
    """Set the arguments with which Lightning starts a further process for each further GPU.

    The time in a run folder's name is that of the first process.
    """
    given = sys.argv
    sys.argv = [given[0], *arguments]
    try:
        yield
    finally:
        sys.argv = given


def _resumed(overrides: list[str]) -> tuple[Path, Path | None, bool]:
    """The run folder to resume, where its data folder is now, if that is given, and whether it may run code it names.

    Raises:
        SemipixError: no run folder, no data folder after --data, or another key.
    """
    resume = next(override for override in overrides if override.startswith("resume="))
    folder = resume.partition("=")[2]
    if not folder:
        raise SemipixError("resume: nothing found, a run folder expected: resume=PATH")
    root: str | None = None
    trust = "--trust" in overrides
    match [override for override in overrides if override is not resume and override != "--trust"]:
        case []:
            return Path(folder), None, trust
        case ["--data"]:
            root = ""
        case ["--data", value]:
            root = value
        case [override] if override.startswith("--data="):
            root = override.partition("=")[2]
        case [override] if override.startswith("data.root="):
            check_syntax([override])
            root = str(OverridesParser.create().parse_override(override).value())
    if root is None:
        raise SemipixError(
            f"resume takes no other key: {' '.join(overrides)}; a resumed run keeps its configuration, save the place "
            "of its data folder: --data ROOT"
        )
    if not root:
        raise SemipixError("--data: nothing found, the run's data folder expected: --data ROOT")
    return Path(folder), Path(root), trust


def _hydra(overrides: list[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the configurations of a sweep, and its launcher call a job with each.

    Raises:
        SemipixError: an override is at fault.
    """
    hydra_version.setbase("1.3")
    try:
        _run_hydra(parse_flags(overrides), option_parser(), job, f"pkg://{CONFIG}", "train")
    except (HydraException, OmegaConfBaseException) as error:
        raise SemipixError(one_line_of_hydra(str(error))) from error


def _sweep(overrides: list[str]) -> int:
    """Run the jobs of a sweep by whatever launcher is chosen, and print what became of each.

    Raises:
        SemipixError: some failed, or were never started; the same command does what is missing.
        KeyboardInterrupt: the user interrupted.
    """
    named, folder, count = named_sweep(overrides)
    sweep = uuid.uuid4().hex
    broken: Exception | None = None
    refused: list[Record] = []
    new = not (folder / JOBS).exists()
    where = [item for item in overrides if says_where(item, overrides)]
    try:
        with no_empty_folders(folder), _no_lone_file(folder / "multirun.yaml", folder / JOBS):
            _hydra(named, _sweep_job(sweep, Path.cwd(), where))
            refused = forget_refused(folder, sweep) if new else []
    except SemipixError:
        raise
    except KeyboardInterrupt as error:
        raise Interrupted(
            number_of(error), f"interrupted; the same command with run={shown(folder)} does what is missing"
        ) from error
    except Exception as error:
        broken = error  # a launcher that gives up when one of its workers dies
    if SHOWING & set(overrides):
        return 0
    found = refused or records(folder, sweep)
    if broken and not found:
        raise broken if isinstance(broken, OSError) else unreadable(broken)
    print(table(found, folder))
    bad = [f"{shown(Path(each.folder))}: {each.reason}" for each in found if each.state in BAD]
    if count is not None and count > len(found):
        bad.append(f"{count - len(found)} were never started")
    if bad:
        why = f"; the launcher gave up ({type(broken).__name__})" if broken else ""
        raise SemipixError(
            f"{len(bad)} of the sweep's runs failed: {'; '.join(bad)}{why}; the same command with run={shown(folder)} "
            "does what is missing"
        )
    return 0


@contextlib.contextmanager
def _no_lone_file(path: Path, beside: Path) -> Iterator[None]:
    """Remove a file that was written while nothing came to be beside it: Hydra's of a sweep that it then refuses."""
    there = path.exists()
    try:
        yield
    finally:
        if not there and not beside.exists():
            path.unlink(missing_ok=True)


def shown(folder: Path) -> str:
    """A folder as a user would type it here."""
    folder = folder.resolve()
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return shlex.quote(str(folder))


def _sweep_job(sweep: str, started_in: Path, where: Sequence[str]) -> Callable[[DictConfig], str]:
    """Hydra's task function of a sweep; a launcher may call it in another process, or on another machine."""

    path = list(sys.path)

    def job(config: DictConfig) -> str:
        hydra_config = HydraConfig.get()
        folder, sweep_folder = Path(hydra_config.runtime.output_dir), Path(hydra_config.sweep.dir)
        if int(os.environ.get("SLURM_PROCID", 0)) > 0:  # the first of a job's tasks starts what it needs itself
            return "running"
        overrides = [*where, *given_overrides()]
        return run_job(
            Job(folder, sweep_folder, sweep, overrides, lambda: resolved_configuration(config), started_in, path)
        ).state

    return job


def _report(
    folder: Path, config: dict[str, Any] | None, command: str = "", root: Path | None = None, trust: bool = False
) -> None:
    """Train a configuration, or resume without one and with the data at `root`, and say what came of it."""
    from semipix.processes import is_first_process
    from semipix.training.configuration import Configuration
    from semipix.training.run import resume, start
    from semipix.training.run_folder import needs_trust

    configuration = None if config is None else Configuration.parse(config)
    flag = " --trust" if trust or (configuration is not None and needs_trust(configuration)) else ""
    try:
        summary = resume(folder, root, trust) if configuration is None else start(configuration, folder, command)
    except KeyboardInterrupt as error:
        raise Interrupted(number_of(error), _how_to_go_on(folder, root, flag, error)) from None
    if is_first_process():
        name = shown(folder)
        early = f", stopped early ({summary['stopped_early']})" if "stopped_early" in summary else ""
        done = f"{name}: {int(summary['steps'])} steps{early}, see {name}/summary.json"
        print(f"{done}; next: semipix evaluate {name}{flag}")


def _how_to_go_on(folder: Path, root: Path | None, flag: str, error: KeyboardInterrupt) -> str:
    """What a user is told who interrupted a training."""
    if (folder / "checkpoints" / "last.ckpt").exists():
        moved = "" if root is None else f" --data {shown(root)}"
        step = getattr(error, "step", None)
        at = "" if step is None else f" at step {step}"
        return f"interrupted{at}; continue with: semipix train resume={shown(folder)}{moved}{flag}"
    if not getattr(error, "begun", False):
        return MESSAGE
    return f"interrupted before the first checkpoint (checkpoint_every) of {shown(folder)}; remove it and start again"
