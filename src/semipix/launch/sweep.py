"""The jobs of a sweep, whatever launches them.

A job trains in a process of its own. One that is finished is left out, one that was cut off is resumed, one that dies
is tried again, and what becomes of it never touches the others. Beside the run folders, `jobs/` holds a record and a
log of each job; a lock keeps two sweeps from training one folder at the same time.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml

from semipix.errors import SemipixError, one_line
from semipix.launch.runner import INTERRUPTED, has_trained, run_training, surroundings
from semipix.training.run_folder import CONFIG, PILOTS, SUMMARY, is_finished, write_json

JOBS = "jobs"
"""Folder of records and logs in a sweep's folder."""

TRIES = 2
"""How often a job is started that ends by a signal or a bug; an error of the user is not tried again."""

PATIENCE = 30.0
"""Seconds in which the process of a launcher that died has to let go of its job."""

State = Literal["running", "finished", "finished before", "interrupted", "failed", "killed", "running elsewhere"]

_SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
"""By these Lightning would take a job for one rank of a training that SLURM has started."""


@dataclass(frozen=True)
class Record:
    """What became of a job.

    Attributes:
        folder: the run folder.
        sweep: which start of the sweep wrote this.
        state: `running` until it has ended.
        tries: how often it was started.
        reason: why it failed, in one line.
        metric: name and value of the primary validation metric, if it has ended.
    """

    folder: str
    sweep: str
    state: State
    tries: int = 0
    reason: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        folder: its run folder, in the sweep's folder.
        sweep_folder: the sweep's folder.
        sweep: which start of the sweep this is.
        overrides: its part of the command line, and Hydra's options that say where configurations are.
        config: composes them; raises the errors of the configuration.
        started_in: where relative paths begin.
        path: where modules are imported from; a launcher's process may know less of them.
    """

    folder: Path
    sweep_folder: Path
    sweep: str
    overrides: Sequence[str]
    config: Callable[[], Mapping[str, Any]]
    started_in: Path
    path: Sequence[str]

    @property
    def place(self) -> Path:
        """Record and log without their extensions."""
        return self.sweep_folder / JOBS / str(self.folder.relative_to(self.sweep_folder)).replace("/", "__")


def run_job(job: Job, watch: Callable[[], bool] | None = None) -> Record:
    """Train, resume or leave out one job, and record what became of it. Nothing that goes wrong in it is raised.

    Args:
        job: the job.
        watch: called every second; if it returns True, the training is stopped, and can be resumed.

    Raises:
        KeyboardInterrupt: the sweep was interrupted; the job has ended.
    """
    sys.path.extend(folder for folder in job.path if folder not in sys.path)
    with _locked(job.place) as lock:
        if lock is None:
            return Record(str(job.folder), job.sweep, "running elsewhere")
        try:
            record = _attempts(job, lock, watch)
            with contextlib.suppress(SemipixError):  # a task that cannot be imported in this process
                record = replace(record, metric=primary(job.folder, job.config()["task"]))
        except SemipixError as error:
            record = Record(str(job.folder), job.sweep, "failed", reason=one_line(str(error)))
        except KeyboardInterrupt:
            _write(job, Record(str(job.folder), job.sweep, "interrupted"))
            raise
        with contextlib.suppress(OSError):
            job.folder.rmdir()  # Hydra made it; it stays where the training wrote something
        _write(job, record)
    return record


def _attempts(job: Job, lock: TextIO, watch: Callable[[], bool] | None) -> Record:
    trust = _check_same(job)
    if is_finished(job.folder):
        return Record(str(job.folder), job.sweep, "finished before")

    def begin(attempt: int) -> bool:
        _write(job, Record(str(job.folder), job.sweep, "running", attempt))
        return trust if attempt == 1 else _check_same(job)

    log = Path(f"{job.place}.log")
    ended = run_training(
        job.folder,
        job.overrides,
        log,
        tries=TRIES,
        before=begin,
        watch=watch,
        cwd=job.started_in,
        env=surroundings(_SLURM, PYTHONPATH=os.pathsep.join(filter(None, job.path))),
        pass_fds=[lock.fileno()],  # while it lives the job is not free, whatever becomes of this process
    )
    state: State = "failed"
    reason = ended.line
    if has_trained(ended, job.folder):
        state, reason = "finished", ""
    elif ended.code in INTERRUPTED:
        state = "interrupted"
    elif ended.code < 0:
        state, reason = "killed", f"{signal.Signals(-ended.code).name}, see {log}"
    return Record(str(job.folder), job.sweep, state, ended.tries, reason)


def _check_same(job: Job) -> bool:
    """Refuse a folder that holds a training of another configuration.

    Returns:
        Whether the folder names code that this command names too, so that the job has to trust it.

    Raises:
        SemipixError: it does, or it names code that this command does not, or the configuration is at fault.
    """
    from semipix.data.class_balance import BALANCE
    from semipix.tasks.label_losses import takes_weights
    from semipix.training.configuration import CHOSEN_FROM_DATA, KINDS, Configuration
    from semipix.training.run_folder import read_config
    from semipix.training.trust import refused

    settings = job.config()
    given = leaves(settings)
    # Of a run with method=auto, that configuration was asked for; `config.yaml` names the method that was chosen.
    place = job.folder / PILOTS if (job.folder / PILOTS / CONFIG).exists() else job.folder
    path = place / CONFIG
    if not path.exists():
        return False
    config, about = read_config(place, trust=True)  # compared below; nothing in it is imported
    found = leaves(config)
    asked = stored_leaves(Configuration.parse(settings).as_mapping())
    for key, value in given.items():  # a default may have changed since the folder was trained
        if key not in found or found[key] == asked.get(key, value):
            continue
        is_open = value is None
        if key == "task.class_weights":  # numbers, whose word only the command tells
            command = str(about.get("command") or "")
            said = [word for word in BALANCE if f"{key}={word}" in command] or (["auto"] if command else [*BALANCE])
            powers = [BALANCE[word] for word in said]
            is_open = isinstance(value, str) and BALANCE.get(value) in powers and found[key] is not None
            is_open |= value == "auto" and not takes_weights(config["task"].get("loss", "cross_entropy"))
        if (key, value) == ("trainer.precision", "auto") or (key in CHOSEN_FROM_DATA and is_open):
            continue
        raise SemipixError(
            f"{key}={found[key]!r} found in its config.yaml, {value!r} expected: it holds another training; choose "
            "another run=PATH for the sweep, or remove it"
        )
    _check_said(str(about.get("command") or ""), found, given, asked)
    refusal = refused(config, KINDS)
    if refusal is None:
        return False
    # The job trusts all of the folder or nothing: then nothing may be in there that was not asked for.
    if place != job.folder and (job.folder / CONFIG).exists():
        own, _ = read_config(job.folder, trust=True)
        method = own.pop("method")
        if refused({"method": method}, KINDS) and method.get("_target_") not in asked["method.candidates"]:
            raise SemipixError(
                f"{job.folder / CONFIG}: method: {str(method)[:80]} found, which this command does not name"
            )
        found = {**found, **leaves(own)}
    for key, value in found.items():
        same = key in asked and asked[key] == value
        items = value if isinstance(value, list) else [value]
        chosen = key in CHOSEN_FROM_DATA and all(isinstance(item, str | int | float | None) for item in items)
        precision = key == "trainer.precision" and isinstance(value, str)
        if not (same or chosen or precision):
            raise SemipixError(
                f"{path}: {key}={str(value)[:80]!r} found, which this command does not ask for, beside {refusal.key}; "
                "remove the folder, or choose another run=PATH for the sweep"
            )
    return True


def _check_said(command: str, found: Mapping[str, Any], given: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a folder whose command said what this one does not say, so that a default would hold now.

    A default that has changed since is no reason: only what the folder's command named is compared.

    Args:
        command: that started the training of the folder.
        found: values in the folder by dotted keys.
        given: values that this command and the YAML files give; those of the folder are compared with them elsewhere.
        asked: the same with all defaults.

    Raises:
        SemipixError: such a key has another value now.
    """
    from semipix.training.configuration import CHOSEN_FROM_DATA

    for said, text in _said(command).items():
        for name in _named(said, text, {*found, *asked}):
            if (name in given and name in found) or found.get(name) == asked.get(name):
                continue
            if name in CHOSEN_FROM_DATA and text in ("auto", "null"):
                continue
            raise SemipixError(
                f"{name}={found.get(name)!r} found in its config.yaml, since its command had {said}={text}, "
                f"{asked.get(name)!r} expected: it holds another training; give {said} again, choose another run=PATH "
                "for the sweep, or remove it"
            )


def _said(command: str) -> dict[str, str]:
    """The keys that a command line names, with the text of their values; null for `~KEY`, which removes one."""
    try:
        words = shlex.split(command)
    except ValueError:  # edited by hand
        return {}
    pairs = (word.partition("=") for word in words if "=" in word or word.startswith("~"))
    given = {key: text if sign else "null" for key, sign, text in pairs if not key.startswith("-")}
    return {key.lstrip("+~").rpartition("@")[2]: text for key, text in given.items()}


def _named(key: str, text: str, known: Collection[str]) -> list[str]:
    """The dotted keys that an override sets: of an option, such as `trainer=ddp`, those in its YAML file.

    Args:
        key: of the override.
        text: of its value.
        known: all dotted keys.
    """
    from semipix.launch.overrides import CHOICES

    names = {name for name in known if name == key or name.startswith(f"{key}.")}
    if key in CHOICES and text != "null":
        folder = "model" if key == "second_model" else key
        file = resources.files("semipix.conf").joinpath(folder, f"{text}.yaml")
        option = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
        names = {*known} & leaves(option if key == "experiment" else {key: option}).keys()
    return sorted(names)


def stored_leaves(node: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration by dotted keys, as they come back from a file."""
    return leaves(yaml.safe_load(yaml.safe_dump(node)))


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """A nested configuration as values by dotted keys."""
    if not isinstance(node, Mapping):
        return {name: node}
    nested = (leaves(value, f"{name}.{key}" if name else str(key)) for key, value in node.items())
    return {key: value for part in nested for key, value in part.items()}


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[TextIO | None]:
    """The job's lock, or None while another process holds it for longer than a dying one would."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as file:
        deadline = time.monotonic() + PATIENCE
        while not _try_lock(file):
            if time.monotonic() > deadline:
                yield None
                return
            time.sleep(0.2)
        yield file


def _try_lock(file: TextIO) -> bool:
    import fcntl  # Windows, which has none, trains without sweeps

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _write(job: Job, record: Record) -> None:
    write_json(Path(f"{job.place}.json"), asdict(record))


def records(sweep_folder: Path, sweep: str) -> list[Record]:
    """The jobs of one start of a sweep, in the order of their names, when all of them have ended.

    A launcher may give up while jobs of it still run on this machine or on others; this waits for them.
    """
    found = []
    for path in sorted((sweep_folder / JOBS).glob("*.json")):
        with Path(f"{str(path).removesuffix('.json')}.lock").open("a") as lock:
            ours = Record(**json.loads(path.read_text())).sweep == sweep
            while ours and not _try_lock(lock):
                time.sleep(0.5)
            held = not _try_lock(lock)
        record = Record(**json.loads(path.read_text()))
        if record.sweep == sweep and record.state == "running":
            record = Record(record.folder, sweep, "killed", record.tries, f"its process died, see {path.stem}.log")
        if record.sweep == sweep:
            found.append(record)
        elif held:
            found.append(Record(record.folder, record.sweep, "running elsewhere"))
    return found


def forget_refused(sweep_folder: Path, sweep: str) -> list[Record]:
    """Remove the folder of records where every job of a sweep was refused; some that were are reported by theirs.

    Returns:
        The records that were removed, if they were.
    """
    found = records(sweep_folder, sweep)
    if not found or any(each.state != "failed" or Path(each.folder).exists() for each in found):
        return []
    shutil.rmtree(sweep_folder / JOBS)
    return found


def sweep_table(found: Sequence[Record], sweep_folder: Path) -> str:
    """Job, state and primary validation metric, in aligned lines."""
    rows = [("job", "state", "metric")]
    for record in found:
        folder = Path(record.folder)
        rows.append((str(folder.relative_to(sweep_folder)), record.state, record.metric or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{job:{widths[0]}}  {state:{widths[1]}}  {metric}" for job, state, metric in rows)


def primary(folder: Path, task: Mapping[str, Any]) -> str:
    """A finished run's primary metric on the validation images by name and value; empty where there is none.

    It is that of the best checkpoint, which is deployed; summaries of earlier versions have only that of the last step.

    Args:
        folder: the run folder. Nothing that it names is imported.
        task: the task that was asked for.
    """
    from semipix.config import target_of

    if not is_finished(folder):
        return ""
    metric = getattr(target_of("task", task), "primary", "")
    summary = json.loads((folder / SUMMARY).read_text())
    value = summary.get(f"best/{metric}", summary.get(f"val/{metric}"))
    return "" if value is None else f"val/{metric} {value:.4f}"
