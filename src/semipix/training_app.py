"""`semipix train`: Hydra's part, from overrides to a resolved configuration."""

import argparse
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
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra
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
from semipix.data.layout import PAIRS
from semipix.errors import SemipixError
from semipix.folders import no_empty_folders
from semipix.interruption import MESSAGE, Interrupted, check, number_of
from semipix.sweep import JOBS, Job, Record, forget_refused, quoted, records, run_job, table

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

CONFIG = "semipix.conf"
"""Module of the configuration."""

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


BAD = ("failed", "killed", "interrupted")
"""States of a sweep's jobs that have not done what they were started for."""
CHOICES = (*GROUPS, "experiment", "variant")
"""Keys whose value is the name of an option."""


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
    check()  # a library may have swallowed the exception while it was imported
    quiet()
    overrides = put_together(overrides)
    if any(override.startswith("resume=") for override in overrides):
        folder, root, trust = _resumed(overrides)
        _report(folder, None, root, trust)
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

    _check_syntax(overrides)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below instead of Hydra's own printing
    opened = open_overrides(overrides)
    if {"-m", "--multirun"} & set(opened):
        return _sweep(opened)
    flags = parse_flags(opened)
    if flags.cfg:
        print(_shown_configuration(flags), end="")
        return 0
    config = _composed(flags)
    folder = _run_folder(config)
    with _started_again_as("train", *_without_run(overrides), f"run={quoted(folder)}"):
        _report(folder, {**config, "run": str(folder)})
    return 0


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of one training, with the paper's values where an experiment of the paper is chosen.

    Args:
        overrides: as on the command line: KEY=VALUE and GROUP=NAME.

    Raises:
        SemipixError: an override is at fault.
    """
    overrides = put_together(overrides)
    _check_syntax(overrides)
    return _composed(parse_flags(open_overrides(overrides)))


def data_overrides(data: str) -> list[str]:
    """Overrides that choose data by one word: the name of a data configuration, or a data folder's path.

    A folder with `inputs` holds pairs, any other one images and masks.
    """
    if resources.files(CONFIG).joinpath("data", f"{data}.yaml").is_file():
        return [f"data={data}"]
    root = Path(data).expanduser()
    kind = "pairs" if (root / PAIRS.images.partition("/")[0]).is_dir() else "folder"
    return [f"data={kind}", f"data.root={quoted(root)}"]


def _composed(flags: argparse.Namespace) -> dict[str, Any]:
    with _hydra_configuration(flags) as config:
        return _resolved(_without_hydra(config))


def _without_hydra(config: DictConfig) -> DictConfig:
    """A configuration without Hydra's own, which has keys that are missing."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@contextlib.contextmanager
def _hydra_configuration(flags: argparse.Namespace) -> Iterator[DictConfig]:
    """The composed configuration with Hydra's own; references in it can be resolved while this lasts.

    Raises:
        SemipixError: an override is at fault.
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
        raise SemipixError(_one_line(str(error))) from error
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:  # of overrides like a.b=1 c=2
        raise _unreadable(error) from error
    finally:
        hydra_config.cfg = before


def _search_entry(folder: str) -> str:
    """A folder of configurations as an entry of Hydra's search path.

    Raises:
        SemipixError: there is no such folder.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise SemipixError(f"--config-dir: {folder} found, a folder of configurations expected")
    return quoted(f"file://{path}")


def _shown_configuration(flags: argparse.Namespace) -> str:
    """The configuration as YAML, for --cfg."""
    with _hydra_configuration(flags) as config:
        shown: Any = OmegaConf.masked_copy(config, ["hydra"]) if flags.cfg == "hydra" else config
        if flags.cfg == "job":
            shown = _without_hydra(config)
        if flags.package:
            shown = OmegaConf.select(shown, flags.package)
        if not OmegaConf.is_config(shown):
            return f"{shown}\n"
        return OmegaConf.to_yaml(shown, resolve=flags.resolve)


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
            _check_syntax([override])
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
        _run_hydra(parse_flags(overrides), _parser(), job, f"pkg://{CONFIG}", "train")
    except (HydraException, OmegaConfBaseException) as error:
        raise SemipixError(_one_line(str(error))) from error


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's options, and the overrides as the attribute `overrides`.

    Raises:
        SemipixError: an option lacks its value, or has a wrong one.
    """
    return _parser().parse_args(list(arguments))


def _parser() -> argparse.ArgumentParser:
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
    refused: list[Record] = []
    new = not (folder / JOBS).exists()
    where = [item for item in overrides if _says_where(item, overrides)]
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
        raise broken if isinstance(broken, OSError) else _unreadable(broken)
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
        known = "paper/TASK, e.g. experiment=paper/segmentation, and compare/DATA, e.g. experiment=compare/camvid"
        return f"experiment={experiment[1]}: no such option; known: {known}"
    unknown = re.search(r"(?:Could not override|Could not append to config\. An item is already at) '(.+?)'", message)
    if unknown:
        return unknown_key(unknown[1], {*GROUPS, *TOP, *OUTSIDE})
    if message.startswith("Ambiguous value"):
        return f"{lines[0]}: several values make a sweep, add -m; one list is KEY=[VALUE,VALUE]"
    return " ".join(lines[:2])


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


def _report(folder: Path, config: dict[str, Any] | None, root: Path | None = None, trust: bool = False) -> None:
    """Train a configuration, or resume without one and with the data at `root`, and say what came of it."""
    from semipix import train

    flag = " --trust" if trust or (config is not None and train.needs_trust(config)) else ""
    try:
        summary = train.resume(folder, root, trust) if config is None else train.start(config, folder)
    except KeyboardInterrupt as error:
        raise Interrupted(number_of(error), _how_to_go_on(folder, root, flag, error)) from None
    if train.is_first_process():
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
