"""`semipix train`: from the overrides of a command line to a training, a sweep or a resumed run."""

import contextlib
import os
import shlex
import sys
import time
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
from semipix.interruption import MESSAGE, Interrupted, number_of, raise_if_interrupted
from semipix.launch.comparison import (
    NODE,
    Grid,
    chosen_grid,
    job_override,
    jobs_of,
    labels_of,
    opening,
    shared_overrides,
)
from semipix.launch.compose import (
    CONFIG,
    SEARCH,
    configuration_of,
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
    is_config_location,
    named_sweep,
    open_overrides,
    option_parser,
    parse_flags,
    put_together,
    quoted,
)
from semipix.launch.search_space import split_keys
from semipix.launch.sweep import JOBS, Job, Record, forget_refused, records, run_job, sweep_table
from semipix.training.quiet import quiet
from semipix.training.run_folder import no_empty_folders

UNFINISHED = ("failed", "killed", "interrupted")
"""States of a sweep's jobs that did not complete their training."""


def train_command(overrides: list[str]) -> int:
    """Train, sweep or resume.

    Args:
        overrides: the command line after `semipix train`.

    Returns:
        The exit status, 0.

    Raises:
        SemipixError: an override, the configuration or the data has an error, or a job of a sweep failed.
        KeyboardInterrupt: the user interrupted; its message says how to continue.
    """
    raise_if_interrupted()  # a library may have suppressed the exception during its import
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
                "--trust: goes with resume=RUN, evaluate and predict, which read a run folder; leave it out, since a "
                "new training always runs the code that its command line names"
            )
        if override.partition("=")[0] == "--data":
            raise SemipixError(
                "--data: goes with resume=RUN, for a data folder that has moved; a new training takes data.root=ROOT"
            )

    check_syntax(overrides)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    searched, overrides = split_keys(overrides)
    opened = open_overrides(overrides)
    if (grid := chosen_grid(opened)) and not SHOWING & {item.partition("=")[0] for item in opened}:
        return _comparison(opened, grid)
    if {"-m", "--multirun"} & set(opened):
        if SHOWING & {item.partition("=")[0] for item in opened}:
            raise SemipixError("--cfg: shows one configuration; leave -m out, and give each key one value")
        if searched or f"experiment={SEARCH}" in opened:
            raise SemipixError("-m: a search chooses the values of each training; leave -m out")
        return _sweep(opened)
    flags = parse_flags(opened)
    if flags.cfg:
        print(shown_configuration(flags), end="")
        return 0
    config = configuration_of(flags)
    if searched or SEARCH in config:
        return _search(config, searched, overrides)
    folder = run_folder_of(config)
    others = [item for item in overrides if item.lstrip("+").partition("=")[0] != "run"]
    with _arguments_of_processes("train", *others, f"run={quoted(folder)}"):
        _report(folder, config, command)
    return 0


def _search(config: dict[str, Any], given: dict[str, str], overrides: list[str]) -> int:
    """Search for hyper-parameters, and print the trials and the command line of the best one.

    Args:
        config: the composed configuration, with the settings of the search where an experiment has them.
        given: text of the search's keys on the command line.
        overrides: the other overrides.

    Raises:
        SemipixError: a setting is refused, or all trials fail.
        KeyboardInterrupt: the user interrupted; its message says how to continue.
    """
    from semipix.launch.search import search, search_folder

    composed = config.pop(SEARCH, None)
    folder = search_folder(overrides, config)
    try:
        lines = search(composed, given, overrides, config, folder)
    except KeyboardInterrupt as error:
        message = f"interrupted; the same command with run={display_path(folder)} continues"
        raise Interrupted(number_of(error), message) from error
    print("\n".join(lines))
    return 0


@contextlib.contextmanager
def _arguments_of_processes(*arguments: str) -> Iterator[None]:
    """Set `sys.argv`, with which Lightning starts a process for each further GPU.

    They need the name of the run folder, which by default contains the time at which the first process started.
    """
    given = sys.argv
    sys.argv = [given[0], *arguments]
    try:
        yield
    finally:
        sys.argv = given


def _resumed(overrides: list[str]) -> tuple[Path, Path | None, bool]:
    """The run folder to resume, the folder to which its data were moved, or None, and whether the run is trusted.

    Raises:
        SemipixError: the run folder is missing, the folder after --data is missing, or there is another override.
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
            f"resume takes no other key: {' '.join(overrides)}; a resumed run keeps its configuration; only its data "
            "folder may have moved: --data ROOT"
        )
    if not root:
        raise SemipixError("--data: nothing found, the run's data folder expected: --data ROOT")
    return Path(folder), Path(root), trust


def _hydra(overrides: list[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the configurations of a sweep, and let its launcher call `job` with each of them.

    Raises:
        SemipixError: Hydra cannot compose a configuration from the overrides.
    """
    hydra_version.setbase("1.3")
    try:
        _run_hydra(parse_flags(overrides), option_parser(), job, f"pkg://{CONFIG}", "train")
    except (HydraException, OmegaConfBaseException) as error:
        raise SemipixError(one_line_of_hydra(str(error))) from error


def _comparison(overrides: list[str], experiment: str) -> int:
    """Train the runs of a grid as one sweep, and compare them.

    Args:
        overrides: of the command line, with the grid's experiment.
        experiment: its name.

    Raises:
        SemipixError: the grid or its runs' configuration is at fault, or runs failed; the others are compared.
        KeyboardInterrupt: the user interrupted.
    """
    from semipix.report.page import require_plotly
    from semipix.training.build import build_data
    from semipix.training.configuration import Configuration
    from semipix.training.run_folder import needs_trust

    require_plotly()  # before anything is trained
    shared_overrides(overrides)  # what the command line may not set is refused first
    opened = [f"++{item}" if item.startswith(f"{NODE}.") else item for item in overrides]  # also names of `changes`
    grid = Grid.parse(configuration_of(parse_flags(opened))[NODE])
    shared = shared_overrides(overrides, grid)
    configuration = Configuration.parse(configuration_of(parse_flags([*shared, *_base(grid)])))
    grid, labels = labels_of(grid, build_data(configuration))
    jobs = jobs_of(grid, labels)
    for changes in dict.fromkeys(tuple(job[:-2]) for job in jobs):  # without seed and folder
        Configuration.parse(configuration_of(parse_flags([*shared, *open_overrides(changes)])))
    given = [item for item in shared if item.startswith("run=")]
    if not given:
        shared.append(f"run=runs/{experiment.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}")
    _, folder, _ = named_sweep(shared)
    print(opening(grid, labels, jobs, display_path(folder)), flush=True)
    failed: SemipixError | None = None
    try:
        _sweep([*shared, "hydra/sweeper=semipix_jobs", job_override([open_overrides(job) for job in jobs])], len(jobs))
    except SemipixError as error:
        failed = error
    if folder.exists():
        _compare(folder, needs_trust(configuration), failed)
    if failed:
        raise failed
    return 0


def _base(grid: Grid) -> list[str]:
    """Overrides of a run that stands for all others of a grid when their data are looked at."""
    return [*([f"experiment={grid.experiment}"] if grid.experiment else []), "method=gct"]


def _compare(folder: Path, trust: bool, failed: SemipixError | None) -> None:
    """Compare the runs of a sweep and print the result; where runs have failed, their error is more important."""
    from semipix.report.comparison_command import compare, write
    from semipix.report.comparison_tables import terminal_table
    from semipix.report.page_comparison import write_comparison_page

    try:
        comparison = compare([folder], trust=trust)
    except SemipixError:
        if failed:
            return
        raise
    print(terminal_table(comparison))
    write(comparison, folder)
    print(f"open {display_path(write_comparison_page(comparison, folder, trust=trust))}")
    print(f"see {display_path(folder)}; again: semipix compare {display_path(folder)}")


def _sweep(overrides: list[str], jobs: int | None = None) -> int:
    """Run the jobs of a sweep with the chosen launcher, and print the state of each.

    Args:
        overrides: of the command line.
        jobs: the number of jobs, where the overrides do not say it.

    Raises:
        SemipixError: jobs failed or were not started; the same command runs them again.
        KeyboardInterrupt: the user interrupted.
    """
    named, folder, count = named_sweep(overrides)
    count = jobs or count
    sweep = uuid.uuid4().hex
    broken: Exception | None = None
    refused: list[Record] = []
    new = not (folder / JOBS).exists()
    where = [item for item in overrides if is_config_location(item, overrides)]
    try:
        with no_empty_folders(folder), _removed_without(folder / JOBS, folder / "multirun.yaml"):
            _hydra(named, _sweep_job(sweep, Path.cwd(), where))
            refused = forget_refused(folder, sweep) if new else []
    except SemipixError:
        raise
    except KeyboardInterrupt as error:
        raise Interrupted(
            number_of(error), f"interrupted; the same command with run={display_path(folder)} does what is missing"
        ) from error
    except Exception as error:
        broken = error  # some launchers stop when one of their workers dies
    found = refused or records(folder, sweep)
    if broken and not found:
        raise broken if isinstance(broken, OSError) else unreadable(broken)
    print(sweep_table(found, folder))
    unfinished = [f"{display_path(Path(each.folder))}: {each.reason}" for each in found if each.state in UNFINISHED]
    if count is not None and count > len(found):
        unfinished.append(f"{count - len(found)} were never started")
    if unfinished:
        why = f"; the launcher stopped ({type(broken).__name__})" if broken else ""
        raise SemipixError(
            f"{len(unfinished)} of the sweep's runs failed: {'; '.join(unfinished)}{why}; the same command with "
            f"run={display_path(folder)} does what is missing"
        )
    return 0


@contextlib.contextmanager
def _removed_without(folder: Path, file: Path) -> Iterator[None]:
    """Remove a new file if the folder does not exist at the end: Hydra writes the file, also if no job starts."""
    existed = file.exists()
    try:
        yield
    finally:
        if not existed and not folder.exists():
            file.unlink(missing_ok=True)


def display_path(folder: Path) -> str:
    """A folder for messages and command lines: relative to the working directory if it is in it, quoted for a shell."""
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
        if int(os.environ.get("SLURM_PROCID", 0)) > 0:  # the first task of a SLURM job starts all processes
            return "running"
        overrides = [*where, *given_overrides()]
        return run_job(
            Job(folder, sweep_folder, sweep, overrides, lambda: resolved_configuration(config), started_in, path)
        ).state

    return job


def _report(
    folder: Path, config: dict[str, Any] | None, command: str = "", root: Path | None = None, trust: bool = False
) -> None:
    """Train a configuration, or resume the run if there is none, and print the result.

    Args:
        folder: the run folder.
        config: the configuration of a new training; None to resume the run.
        command: the command line, which is kept in the run folder.
        root: the data folder of a resumed run, if it was moved.
        trust: allow a resumed run to name code outside of the known packages.
    """
    from semipix.launch.auto import check_keys, resume, start
    from semipix.processes import is_first_process
    from semipix.training.configuration import Configuration
    from semipix.training.run_folder import needs_trust

    check_keys(config or {})
    configuration = None if config is None else Configuration.parse(config)
    flag = " --trust" if trust or (configuration is not None and needs_trust(configuration)) else ""
    try:
        summary = resume(folder, root, trust) if configuration is None else start(configuration, folder, command)
    except KeyboardInterrupt as error:
        raise Interrupted(number_of(error), _how_to_continue(folder, root, flag, error)) from None
    if is_first_process():
        name = display_path(folder)
        early = f", stopped early ({summary['stopped_early']})" if "stopped_early" in summary else ""
        done = f"{name}: {int(summary['steps'])} steps{early}, see {name}/summary.json"
        print(f"{done}; next: semipix evaluate {name}{flag}")


def _how_to_continue(folder: Path, root: Path | None, flag: str, error: KeyboardInterrupt) -> str:
    """The message of an interrupted training."""
    from semipix.training.run_folder import CONFIG, PILOTS, SUMMARY, is_choosing, is_finished

    name = display_path(folder)
    moved = "" if root is None else f" --data {display_path(root)}"
    if is_choosing(folder):
        pilots, done = (len(list((folder / PILOTS).glob(f"*/{file}"))) for file in (CONFIG, SUMMARY))
        done_so_far = f"interrupted, {done} of {pilots} pilots are finished"
        return f"{done_so_far}; continue with: semipix train resume={name}{moved}{flag}"
    if is_finished(folder):
        return (
            f"interrupted in the calibration; the training is finished, continue with: semipix calibrate {name}{flag}"
        )
    if (folder / "checkpoints" / "last.ckpt").exists():
        step = getattr(error, "step", None)
        at = "" if step is None else f" at step {step}"
        return f"interrupted{at}; continue with: semipix train resume={name}{moved}{flag}"
    if not getattr(error, "begun", False):
        return MESSAGE
    return f"interrupted before the first checkpoint (checkpoint_every) of {name}; remove it and start again"
