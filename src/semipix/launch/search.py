"""`semipix train experiment=search`: trials of other hyper-parameters, chosen by Optuna from validation results.

Each trial trains in a process of its own, in a run folder like any other. The study, an SQLite database, is in the
search's folder. What a command does not finish, the same command continues, and several commands may work on one study.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import shlex
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout
from tqdm import tqdm

from semipix.config import OUTSIDE, target_of, unknown_key
from semipix.errors import SemipixError, one_line, reason_of
from semipix.interruption import deferred, raise_if_interrupted
from semipix.launch.compose import SEARCH, configuration_of
from semipix.launch.overrides import is_config_location, open_overrides, parse_flags
from semipix.launch.search_space import Choice, Parameter, Space
from semipix.launch.sweep import JOBS, Job, Record, leaves, run_job
from semipix.training.configuration import Configuration
from semipix.training.run_folder import no_empty_folders, write_json

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY = "study.db"
"""The study in a search's folder."""

RESULT = "search.json"
"""The trials and the best one, written whenever a trial has ended."""

TRIALS = 20
"""Trials of a search that names no number."""

FIRST_PRUNED = 5
"""Finished trials from which on others are compared with them."""

MOST_FAILED = 3
"""Failed trials after which a search without any finished trial ends."""

_PATIENCE = 60
"""Seconds to wait while another command writes to the study."""


@dataclass(frozen=True)
class Settings:
    """The keys of a search.

    Attributes:
        trials: number of trials in the study, over all commands that work on it.
        prune: whether trials are stopped whose validation results are worse than the median of earlier trials.
        space: the parameters.
    """

    trials: int
    prune: bool
    space: Space

    @classmethod
    def parse(cls, composed: Any, given: Mapping[str, str]) -> Self:
        """Check the settings.

        Args:
            composed: the key `search` of the composed configuration; None if it has none.
            given: text of the keys on the command line, without `search.` before them, which have precedence. If they
                have parameters, they replace those of the configuration.

        Raises:
            SemipixError: a key is unknown, or a value is of a wrong type or out of range.
        """
        found = {str(key): value for key, value in (composed or {}).items()}
        texts: dict[str, dict[str, str]] = {"space": {}, "when": {}}
        for key, text in given.items():
            group, _, rest = key.partition(".")
            if group in texts and rest:
                texts[group][rest] = text
            else:
                found[key] = text
        if texts["space"] or texts["when"]:
            found |= {"space": texts["space"] or found.get("space"), "when": _by_option(texts["when"])}
        known = ("trials", "prune", "space", "when")
        if unknown := next((key for key in found if key not in known), None):
            raise SemipixError(unknown_key(f"search.{unknown}", known))
        trials, prune = str(found.get("trials", TRIALS)), str(found.get("prune", True)).lower()
        if not trials.isdecimal() or int(trials) < 1:
            raise SemipixError(f"search.trials={trials}: expected a number of trainings, from 1 on")
        if prune not in ("true", "false"):
            raise SemipixError(f"search.prune={prune}: expected true or false")
        return cls(int(trials), prune == "true", Space.parse(found.get("space"), found.get("when")))


def _by_option(texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The parameters of `search.when`, by the value of the choice."""
    found: dict[str, dict[str, str]] = {}
    for key, text in texts.items():
        option, _, rest = key.partition(".")
        if not rest:
            raise SemipixError(
                f"search.when.{key}={text}: expected a key after the value, as search.when.gct.method.KEY="
            )
        found.setdefault(option, {})[rest] = text
    return found


class Search:
    """A study, and the trainings of its trials.

    Args:
        settings: of the search.
        overrides: of `semipix train`, without those of the search and without `run`.
        config: the configuration that they compose.
        folder: of the search.

    Raises:
        SemipixError: Optuna is not installed, nothing is validated, an override of the space is refused, or the folder
            has a study of another space, of other overrides or of another configuration.
    """

    def __init__(self, settings: Settings, overrides: Sequence[str], config: Mapping[str, Any], folder: Path) -> None:
        self.optuna = _optuna()
        self.settings, self.overrides, self.folder = settings, list(overrides), folder
        task = target_of("task", config["task"])
        self.metric = f"val/{getattr(task, 'primary', '')}"
        self.larger = bool(getattr(task, "higher_is_better", True))
        self.seed = int(config["seed"])
        if not config["validations"]:
            raise SemipixError("validations=0: a search compares validation results; set validations=1 or more")
        for example in settings.space.examples():
            Configuration.parse(self._composed(example))
        self.study = self._opened(_common(config, settings.space))

    def run(self) -> list[str]:
        """Train trials until the study has enough; the lines of a table.

        Raises:
            SemipixError: no trial has finished, since they failed; or a training was stopped from outside.
            KeyboardInterrupt: the user interrupted.
        """
        with tqdm(total=self.settings.trials, desc="trials", unit="trial", disable=None, leave=False) as bar:
            while True:
                raise_if_interrupted()
                bar.n = len([each for each in self.study.get_trials(deepcopy=False) if each.state.is_finished()])
                bar.refresh()
                with self._claimed() as trial:
                    if trial is None:
                        break
                    tqdm.write(self._trained(trial), file=sys.stderr)
                self._write()
                self._check_failures()
        self._write()
        self._check_failures()  # also where earlier commands have trained all trials
        return self._table()

    def _opened(self, common: Mapping[str, Any]) -> "Study":
        """The study; it is made where it is missing.

        Args:
            common: what all trials have in common.

        Raises:
            SemipixError: it is a study of another space, of other overrides or of another configuration.
        """
        (self.folder / JOBS).mkdir(parents=True, exist_ok=True)
        asked = {**self.settings.space.given, **_by_key(self.overrides), "metric": self.metric}
        with self._locked():
            direction = "maximize" if self.larger else "minimize"
            pruner = self.optuna.pruners.MedianPruner(FIRST_PRUNED, 1) if self.settings.prune else None
            with self._readable():
                study: Study = self.optuna.create_study(
                    storage=_storage(self.folder / STUDY),
                    study_name=SEARCH,
                    direction=direction,
                    load_if_exists=True,
                    pruner=pruner or self.optuna.pruners.NopPruner(),
                )
            for name, values in (("asked", asked), ("common", common)):
                if name not in study.user_attrs:  # also studies of earlier versions
                    study.set_user_attr(name, values)
        for name, now in (("asked", asked), ("common", common)):
            found = study.user_attrs[name]
            for key in sorted({*found, *now}):
                if found.get(key) != now.get(key):
                    raise SemipixError(
                        f"{self.folder}: holds a search with {key}={found.get(key, 'nothing')}, but this command has "
                        f"{now.get(key, 'nothing')}; give the same values, or choose another run=PATH"
                    )
        return study

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Explain why the study's file cannot be opened.

        Raises:
            SemipixError: it is damaged, or cannot be written.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            why = reason_of(getattr(error, "orig", None) or error, 120)
            raise SemipixError(
                f"{self.folder / STUDY}: not readable as a study ({why}); restore it, or choose another run=PATH"
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other command change the study.

        Raises:
            SemipixError: another command holds the lock for longer than writing takes.
        """
        lock = FileLock(self.folder / JOBS / "study.lock", timeout=_PATIENCE)
        try:
            lock.acquire()
        except Timeout:
            message = f"{self.folder / STUDY}: another command has been writing it for {_PATIENCE} s; try again later"
            raise SemipixError(message) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _claimed(self) -> Iterator["Trial | None"]:
        """A trial that no other command works on: one that was cut off, or a new one; None if there are enough."""
        with contextlib.ExitStack() as claim:
            with deferred(None), self._locked():  # no trial whose values are not drawn completely
                trial = self._cut_off(claim)
                if trial is None and len(self.study.get_trials(deepcopy=False)) < self.settings.trials:
                    trial = self._new()
                    claim.enter_context(self._worker_lock(trial.number))
            yield trial

    def _cut_off(self, claim: contextlib.ExitStack) -> "Trial | None":
        """A trial whose command has ended before the trial; its lock goes to `claim`."""
        states = self.optuna.trial.TrialState
        for found in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            try:
                claim.enter_context(self._worker_lock(found.number))
            except Timeout:  # a command works on it
                continue
            if "overrides" in found.user_attrs:
                trial: Trial = self.optuna.Trial(self.study, found._trial_id)
                return trial
            self.study.tell(found.number, state=states.FAIL)  # its values were not drawn completely
        return None

    def _worker_lock(self, number: int) -> FileLock:
        """The lock of the command that trains a trial; the system releases it when the command ends."""
        return FileLock(self.folder / JOBS / f"{_name(number)}.worker", timeout=0)

    def _new(self) -> "Trial":
        """A trial with values that Optuna draws; they depend on the seed, its number and earlier results."""
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self.optuna.samplers.TPESampler(seed=(self.seed * 1_000_003 + number) % 2**32)
        trial = self.study.ask()

        def draw(name: str, parameter: Parameter) -> Any:
            if isinstance(parameter, Choice):
                return trial.suggest_categorical(name, parameter.values)
            step, low, high = parameter.step, parameter.low, parameter.high
            if parameter.whole:
                return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=parameter.log)
            return trial.suggest_float(name, low, high, step=step, log=parameter.log)

        trial.set_user_attr("overrides", self.settings.space.draw(draw))
        return trial

    def _trained(self, trial: "Trial") -> str:
        """Train a trial, or take over the result of an earlier one with the same values; a line about it."""
        states = self.optuna.trial.TrialState
        overrides: list[str] = trial.user_attrs["overrides"]
        about = f"{_name(trial.number)} ({', '.join(overrides)})"
        for other in self.study.get_trials(deepcopy=False, states=(states.COMPLETE,)):
            if other.number != trial.number and other.user_attrs.get("overrides") == overrides:
                trial.set_user_attr("same_as", other.number)
                self.study.tell(trial.number, other.value)
                return f"{about}: same values as {_name(other.number)}, not trained again"
        watch = _Watch(trial, self.folder / _name(trial.number), self.metric)
        record = self._run(trial.number, overrides, watch)
        values = watch.values()
        best = (max if self.larger else min)(values, default=None)
        if record.state in ("finished", "finished before") and best is not None:
            self.study.tell(trial.number, best)
            return f"{about}: {self.metric} {best:.4f}"
        if watch.pruned:
            self.study.tell(trial.number, state=states.PRUNED)
            return f"{about}: pruned after {len(values)} validations, {self.metric} {values[-1]:.4f}"
        if record.state in ("interrupted", "running elsewhere"):
            what = "was stopped" if record.state == "interrupted" else "of an earlier command has not ended yet"
            folder = self.folder / _name(trial.number)
            raise SemipixError(f"{folder}: its training {what}; the same command continues")
        reason = record.reason or f"{self.metric} was never a number"
        trial.set_user_attr("reason", one_line(reason))
        self.study.tell(trial.number, state=states.FAIL)
        return f"{about}: failed: {one_line(reason)}"

    def _run(self, number: int, overrides: Sequence[str], watch: "_Watch") -> Record:
        """Train the run folder of a trial, or continue it."""
        job = Job(
            self.folder / _name(number),
            self.folder,
            SEARCH,
            [*self.overrides, *overrides],
            lambda: self._composed(overrides),
            Path.cwd(),
            list(sys.path),
        )
        return run_job(job, watch.should_stop)

    def _composed(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The configuration of a trial."""
        return configuration_of(parse_flags(open_overrides([*self.overrides, *overrides])))

    def _check_failures(self) -> None:
        """End a search of which every trial fails.

        Raises:
            SemipixError: the first trials have all failed.
        """
        ended = [each for each in self.study.get_trials(deepcopy=False) if each.state.is_finished()]
        failed = [each for each in ended if each.state == self.optuna.trial.TrialState.FAIL]
        if len(failed) == len(ended) >= min(MOST_FAILED, self.settings.trials):
            raise SemipixError(
                f"{self.folder}: all {len(failed)} trials failed, the last one: {failed[-1].user_attrs.get('reason')}; "
                "change search.space or the other keys, and choose another run=PATH"
            )

    def result(self) -> dict[str, Any]:
        """The trials by number, and the best one."""
        trials = [
            {
                "number": each.number,
                "folder": _name(each.user_attrs.get("same_as", each.number)),
                "state": each.state.name.lower(),
                "value": each.value if each.state.name == "COMPLETE" else None,
                "overrides": each.user_attrs.get("overrides", []),
                **({"reason": each.user_attrs["reason"]} if "reason" in each.user_attrs else {}),
            }
            for each in self.study.get_trials(deepcopy=False)
        ]
        complete = [each for each in trials if each["value"] is not None]
        best = (max if self.larger else min)(complete, key=lambda each: each["value"], default=None)
        command = None if best is None else shlex.join(["semipix", "train", *self.overrides, *best["overrides"]])
        about = {"metric": self.metric, "larger_is_better": self.larger, "space": dict(self.settings.space.given)}
        return {**about, "best": None if best is None else {**best, "command": command}, "trials": trials}

    def _write(self) -> None:
        write_json(self.folder / RESULT, self.result())

    def _table(self) -> list[str]:
        """Lines of a table, best first, and the command of the best trial."""
        found = self.result()
        order = {"complete": 0, "pruned": 1, "fail": 2, "running": 3}
        sign = -1 if self.larger else 1
        trials = sorted(found["trials"], key=lambda each: (order.get(each["state"], 4), sign * (each["value"] or 0)))
        rows = [("trial", "state", self.metric, "values")]
        rows += [
            (
                each["folder"],
                each["state"],
                "-" if each["value"] is None else f"{each['value']:.4f}",
                " ".join(each["overrides"]),
            )
            for each in trials
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]) for row in rows]
        if found["best"]:
            lines += ["", f"best: {self.folder / found['best']['folder']}", found["best"]["command"]]
        running = sum(each["state"] == "running" for each in trials)
        return [*lines, *([f"{running} trials are still trained by other commands"] if running else [])]


class _Watch:
    """Reports the validation results of a training to the study while it runs.

    Attributes:
        pruned: whether the study wants the training to stop.
    """

    def __init__(self, trial: "Trial", folder: Path, metric: str) -> None:
        self.pruned = False
        self._trial, self._folder, self._metric = trial, folder, metric
        self._reported = 0

    def values(self) -> list[float]:
        """The finite validation results so far, in the order of the steps; a resumed training has several tables."""
        by_step: dict[int, float] = {}
        for path in sorted(
            self._folder.glob("metrics/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns
        ):
            complete, end, _ = path.read_text("utf-8").rpartition("\n")  # the last row may be half written
            for row in csv.DictReader(io.StringIO(complete + end)):
                with contextlib.suppress(KeyError, TypeError, ValueError):  # rows of other metrics
                    by_step[int(row["step"])] = float(row[self._metric])
        return [by_step[step] for step in sorted(by_step) if math.isfinite(by_step[step])]

    def should_stop(self) -> bool:
        """Report what is new; whether the study prunes the trial."""
        values = self.values()
        for number in range(self._reported, len(values)):
            self._trial.report(values[number], number)
            self.pruned = self.pruned or self._trial.should_prune()
        self._reported = len(values)
        return self.pruned


def search_folder(overrides: Sequence[str], config: Mapping[str, Any]) -> Path:
    """The absolute path of a search's folder: that of `run`, or one named by the time."""
    named = any(_key(item) == "run" for item in overrides)
    return Path(str(config["run"]) if named else f"runs/search-{time.strftime('%Y%m%d-%H%M%S')}").absolute()


def search(
    composed: Any, given: Mapping[str, str], overrides: Sequence[str], config: Mapping[str, Any], folder: Path
) -> list[str]:
    """Run a search, or continue it.

    Args:
        composed: the key `search` of the composed configuration; None if it has none.
        given: text of the search's keys on the command line, without `search.` before them.
        overrides: the other overrides of `semipix train`.
        config: the configuration that they compose, without `search`.
        folder: of the search.

    Returns:
        Lines of a table of the trials, and the command line of the best one.

    Raises:
        SemipixError: a setting is refused, or all trials fail.
        KeyboardInterrupt: the user interrupted.
    """
    settings = Settings.parse(composed, given)
    others = [item for item in overrides if _key(item) != "run" and item != f"experiment={SEARCH}"]
    if composed is not None and any(_key(item) in ("experiment", "-cn", "--config-name") for item in others):
        others.append(f"~{SEARCH}")  # a trial is no search
    with no_empty_folders(folder):
        return Search(settings, others, config, folder).run()


def _optuna() -> Any:
    """The package, without its messages about trials.

    Raises:
        SemipixError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise SemipixError(
            f"experiment=search: its package cannot be imported ({reason_of(error, 120)}); "
            "pip install 'semipix[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    return optuna


def _storage(path: Path) -> Any:
    """The storage of a study in an SQLite file.

    The file is opened by its path, since in a URL characters such as ? and % have a meaning, and Optuna formats it.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import QueuePool

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path.absolute(), timeout=_PATIENCE, check_same_thread=False)

    return RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool})


def _common(config: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The values that all trials have in common, by dotted keys as they come back from a study.

    An edited YAML file or an edited list of labels changes them, also where the command line stays the same.

    Args:
        config: the composed configuration.
        space: the keys that each trial sets.
    """
    searched = [*space.always, *(key for parameters in space.when.values() for key in parameters), *OUTSIDE]
    found = {
        key: value
        for key, value in leaves(config).items()
        if not any(key == each or key.startswith(f"{each}.") for each in searched)
    }
    labels = Path(str(found.get("data.labels")))
    if labels.is_file():
        found[f"the content of {labels}"] = hashlib.sha256(labels.read_bytes()).hexdigest()[:12]
    return dict(json.loads(json.dumps(found, default=str)))


def _name(number: int) -> str:
    return f"trial-{number:03d}"


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as a mapping, by which two commands are compared; options of Hydra with their values."""
    located = [item for item in overrides if is_config_location(item, overrides)]
    found = {_key(item): item.partition("=")[2] for item in overrides if item not in located}
    return {**found, **({"--config": " ".join(located)} if located else {})}
