"""`semipix train`: Hydra's part, from overrides to a resolved configuration."""

import contextlib
import itertools
import logging
import os
import re
import shlex
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semipix.config import (
    GROUPS,
    OUTSIDE,
    TOP,
    check_needed,
    check_type,
    open_overrides,
    plain,
    unknown_key,
    with_paper_row,
)
from semipix.errors import SemipixError
from semipix.folders import no_empty_folders
from semipix.processes import is_started_by_lightning
from semipix.sweep import JOBS, Job, quoted, records, run_job, table

QUIET = (
    ".*does not have many workers.*",
    ".*not resumable.*",
    ".*[Cc]heckpoint directory.*exists.*",
    ".*dirpath has changed.*",  # a run folder may be moved
    ".*isinstance.*",
    ".*smaller than the logging interval.*",  # short runs are no slip
    ".*GPU available but not used.*",  # the user said accelerator=cpu
    ".*method of metric.*was called before the.*",  # a diagnostic that no pixel fed is not a number, and left out
    ".*sync_dist.*",
    ".*zero-element tensors.*",  # an error follows
)

HYDRA_FLAGS = (
    *("-m", "--multirun", "--run", "-r", "-c", "--cfg", "--resolve", "-i", "--info", "-p", "--package"),
    *("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir", "--hydra-help"),
    *("-sc", "--shell-completion"),
)

SHOWING = {"-c", "--cfg", "-i", "--info", "--hydra-help", "-sc", "--shell-completion"}
"""Those of them by which nothing is trained."""

WHERE = ("-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name")
"""Those of them that say where configurations are, each with a value that follows."""


OURS = ("hydra.run", "hydra.output_subdir", "hydra.job_logging", "hydra.hydra_logging")
"""Hydra's keys that say where a run writes what, which semipix does itself."""


MOST_JOBS = 10_000
"""Of a sweep."""


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
    quiet()
    overrides = put_together(overrides)
    if any(override.startswith("resume=") for override in overrides):
        folder, root = _resumed(overrides)
        _report(folder, None, root)
        return 0
    for override in overrides:
        if override.partition("=")[0] == "--data":
            raise SemipixError(
                "--data: goes with resume=RUN, for a data folder that has moved; a new training takes data.root=ROOT"
            )

    _check_syntax(overrides)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below instead of Hydra's own printing
    opened = open_overrides(overrides)
    if {"-m", "--multirun"} & set(opened):
        return _sweep(opened)
    errors: list[Exception] = []
    try:
        _hydra(opened, _job(errors))
    except (SemipixError, OSError):
        raise
    except Exception as error:  # Hydra's own, for the job's are kept aside
        raise _unreadable(error) from error
    if errors:
        raise errors[0]
    return 0


def _resumed(overrides: list[str]) -> tuple[Path, Path | None]:
    """The run folder to resume, and where its data folder is now, if that is given.

    Raises:
        SemipixError: no run folder, no data folder after --data, or another key.
    """
    resume = next(override for override in overrides if override.startswith("resume="))
    folder = resume.partition("=")[2]
    if not folder:
        raise SemipixError("resume: nothing found, a run folder expected: resume=PATH")
    root: str | None = None
    match [override for override in overrides if override is not resume]:
        case []:
            return Path(folder), None
        case ["--data"]:
            root = ""
        case ["--data", value]:
            root = value
        case [override] if override.startswith("--data="):
            root = override.partition("=")[2]
        case [override] if override.startswith("data.root="):
            _check_syntax([override])
            root = str(OverridesParser.create().parse_override(override).value())
    if root is None:
        raise SemipixError(
            f"resume takes no other key: {' '.join(overrides)}; a resumed run keeps its configuration, save the place "
            "of its data folder: --data ROOT"
        )
    if not root:
        raise SemipixError("--data: nothing found, the run's data folder expected: --data ROOT")
    return Path(folder), Path(root)


def _hydra(overrides: list[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose configurations and call a job with each.

    Raises:
        SemipixError: an override is at fault.
    """
    _check_flags(overrides)
    given = sys.argv
    sys.argv = [given[0], *overrides]
    try:
        hydra.main(version_base="1.3", config_path="pkg://semipix.conf", config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise SemipixError(_one_line(str(error))) from error
    finally:
        sys.argv = given


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse options that Hydra would explain over several lines.

    Raises:
        SemipixError: an option lacks its value, or has a wrong one.
    """

    def refuse(message: str) -> NoReturn:
        raise SemipixError(f"{message}; options of Hydra, with their values, go before all KEY=VALUE")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(list(arguments))


def _unreadable(error: Exception) -> SemipixError:
    """What an error of Hydra's that is meant for programmers says to a user."""
    reason = " ".join(str(error).split())
    return SemipixError(
        f"these overrides make no configuration ({type(error).__name__}: {reason[:160]}); expected KEY=VALUE and "
        "GROUP=NAME, see semipix train --help"
    )


def _sweep(overrides: list[str]) -> int:
    """Run the jobs of a sweep by whatever launcher is chosen, and print what became of each.

    Raises:
        SemipixError: some failed, or were never started; the same command does what is missing.
        KeyboardInterrupt: the user interrupted.
    """
    named, folder, count = _named_sweep(overrides)
    sweep = uuid.uuid4().hex
    broken: Exception | None = None
    where = [item for item in overrides if _says_where(item, overrides)]
    try:
        with no_empty_folders(folder), _no_lone_file(folder / "multirun.yaml", folder / JOBS):
            _hydra(named, _sweep_job(sweep, Path.cwd(), where))
    except SemipixError:
        raise
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"interrupted; the same command with run={shown(folder)} does what is missing"
        ) from error
    except Exception as error:
        broken = error  # a launcher that gives up when one of its workers dies
    if SHOWING & set(overrides):
        return 0
    found = records(folder, sweep)
    if broken and not found:
        raise broken if isinstance(broken, OSError) else _unreadable(broken)
    print(table(found, folder))
    bad = [f"{shown(Path(each.folder))}: {each.reason}" for each in found if each.state in ("failed", "killed")]
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


def _says_where(item: str, overrides: Sequence[str]) -> bool:
    """Whether an argument tells Hydra where configurations are."""
    before = dict(zip(overrides[1:], overrides, strict=False)).get(item, "")
    return item.partition("=")[0] in WHERE or before in WHERE


def quiet() -> None:
    """Keep warnings about what this package does on purpose from the user's screen."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _thread_ended


_usual_hook = threading.excepthook


def _thread_ended(failure: threading.ExceptHookArgs) -> None:
    """Print why a thread ended, except where it could not write: the training meets that error too and says it."""
    if not isinstance(failure.exc_value, OSError):
        _usual_hook(failure)


def shown(folder: Path) -> str:
    """A folder as a user would type it here."""
    folder = folder.resolve()
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return shlex.quote(str(folder))


def _check_syntax(overrides: Sequence[str]) -> None:
    """Refuse overrides that Hydra cannot read, by name; it would name neither override nor mend.

    Raises:
        SemipixError: one is no KEY=VALUE, or chooses an option of a group by something else than a name.
    """
    parser = OverridesParser.create()
    for before, override in zip(["", *overrides], overrides, strict=False):
        key, _, text = override.partition("=")
        if override.startswith("-"):
            if key not in HYDRA_FLAGS:
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
        if no_name and key in (*GROUPS, "experiment") and override not in ("second_model=null", "scheduler=null"):
            found = text if len(values) == 1 else "null" if no_name[0] is None else no_name[0]
            raise SemipixError(f"{override}: the name of an option expected, {found} found; single keys are {key}.KEY=")
        if not key.partition("@")[0].strip("+"):
            raise SemipixError(f"{override}: no key before the =; expected KEY=VALUE")
        if key.strip("+") == "hydra":
            raise SemipixError(f"{override}: Hydra's keys are given one by one, as hydra.KEY=VALUE")
        if key.lstrip("+").replace("/", ".").startswith(OURS) and not is_started_by_lightning():
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
    _check_syntax(given)
    parser = OverridesParser.create()
    parsed = [parser.parse_override(item) for item in given]
    return {item.key_or_group: item.value() for item in parsed}


def _named_sweep(overrides: list[str]) -> tuple[list[str], Path, int | None]:
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
            value = f"hydra:runtime.choices.{key}" if key.partition("@")[0] in GROUPS else key
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


def _one_line(message: str) -> str:
    """Hydra's message without its layout: first line, and the options where it lists them."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Available options" in message:
        start = next(index for index, line in enumerate(lines) if line.startswith("Available options"))
        options = [line for line in lines[start + 1 :] if not line.startswith(("Config search", "provider="))]
        missing = re.search(r"Could not find '(.+?)'", lines[0])
        group, _, option = missing[1].partition("/") if missing else ("", "", "")
        return f"{group}={option}: no such option; known: {', '.join(options)}" if option else lines[0]
    experiment = re.search(r"Could not find 'experiment/(.+?)'", message)  # Hydra lists no options of nested folders
    if experiment:
        return f"experiment={experiment[1]}: no such option; known: paper/TASK, e.g. experiment=paper/segmentation"
    unknown = re.search(r"(?:Could not override|Could not append to config\. An item is already at) '(.+?)'", message)
    if unknown:
        return unknown_key(unknown[1], {*GROUPS, *TOP, *OUTSIDE})
    if message.startswith("Ambiguous value"):
        return f"{lines[0]}: several values make a sweep, add -m; one list is KEY=[VALUE,VALUE]"
    return " ".join(lines[:2])


def _job(errors: list[Exception]) -> Callable[[DictConfig], None]:
    """Hydra's task function. It hands its error over past Hydra, which would print around it."""

    def job(config: DictConfig) -> None:
        overrides = [item for item in _given() if item.lstrip("+").partition("=")[0] != "run"]
        try:
            resolved = _resolved(config)
            folder = _run_folder(resolved)
            # What Lightning starts again for each further GPU; the time in a folder's name is that of the first.
            sys.argv = [sys.argv[0], "train", *overrides, f"run={quoted(folder)}"]
            _report(folder, {**resolved, "run": str(folder)})
        except Exception as error:
            errors.append(error)

    return job


def _given() -> list[str]:
    """The job's overrides as they were given, with references in them left alone."""
    given = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(given, list)
    return list(map(str, given))


def _run_folder(config: dict[str, Any]) -> Path:
    """The absolute path of the run folder.

    Raises:
        SemipixError: `run` is no path.
    """
    run = config.get("run")
    check_type("run", run or None, Path)
    return Path(str(run)).absolute()


def _sweep_job(sweep: str, started_in: Path, where: Sequence[str]) -> Callable[[DictConfig], str]:
    """Hydra's task function of a sweep; a launcher may call it in another process, or on another machine."""

    path = list(sys.path)

    def job(config: DictConfig) -> str:
        hydra_config = HydraConfig.get()
        folder, sweep_folder = Path(hydra_config.runtime.output_dir), Path(hydra_config.sweep.dir)
        if int(os.environ.get("SLURM_PROCID", 0)) > 0:  # the first of a job's tasks starts what it needs itself
            return "running"
        overrides = [*where, *_given()]
        return run_job(Job(folder, sweep_folder, sweep, overrides, lambda: _resolved(config), started_in, path)).state

    return job


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The job's configuration as plain values, with the paper's row for the chosen method."""
    chosen = HydraConfig.get().runtime.choices
    resolved = plain(config)
    check_needed(resolved)
    if resolved.get("resume") is not None:
        raise SemipixError("resume: takes no + and no other key; continue a run by semipix train resume=RUN alone")
    return with_paper_row(resolved, chosen.get("experiment"), chosen["method"], _given())


def _report(folder: Path, config: dict[str, Any] | None, root: Path | None = None) -> None:
    """Train a configuration, or resume without one and with the data at `root`, and say what came of it."""
    from semipix import train

    try:
        summary = train.resume(folder, root) if config is None else train.start(config, folder)
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning ends by SystemExit after Ctrl-C
        raise KeyboardInterrupt(_how_to_go_on(folder, root)) from error
    if train.is_first_process():
        name = shown(folder)
        print(f"{name}: {int(summary['steps'])} steps, see {name}/summary.json; next: semipix evaluate {name}")


def _how_to_go_on(folder: Path, root: Path | None) -> str:
    if (folder / "checkpoints" / "last.ckpt").exists():
        moved = "" if root is None else f" --data {shown(root)}"
        return f"interrupted; continue with: semipix train resume={shown(folder)}{moved}"
    return f"interrupted before the first checkpoint (checkpoint_every) of {shown(folder)}; remove it and start again"
