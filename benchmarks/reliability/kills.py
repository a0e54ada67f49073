"""SIGKILL at any moment of a training, a prediction, a sweep or of filling a cache; then continue as documented.

The result must equal that of an uninterrupted command, bit by bit.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.reliability.commands import Command, run
from benchmarks.reliability.folders import DEFAULT, SMALL, contents, difference, emptied, write_photos
from benchmarks.reliability.outcomes import Case, Ended, Outcome, Result, Section, judged

KINDS = (
    "training",
    "training",
    "small training",
    "prediction",
    "cache",
    "training",
    "prediction",
    "cache",
    "small training",
    "sweep",
)
COUNT = 50
LIMIT = 120.0
"""Seconds that a whole command may take here."""

TRIES = 4
"""How often a command is started that ends before it is killed."""

CACHE = ("data.cache=disk", "data.cache_folder=cache")


class Whole:
    """The commands that are killed, with the result and the time of each when it is not killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = write_photos(folder / "photos", unlabeled=12)
        self._made: dict[str, tuple[Path, float]] = {}

    def arguments(self, kind: str) -> list[str | Path]:
        """The command of a kind."""
        data = f"data.root={self.photos}"
        if kind == "prediction":
            return ["predict", self.get("small training")[0] / "run", self.photos / "images", "--out", "out"]
        if kind == "sweep":
            return [
                "train",
                *SMALL,
                data,
                "steps=4",
                "validations=1",
                "checkpoint_every=1",
                "seed=0,1",
                "-m",
                "run=sweep",
            ]
        if kind == "training":
            return ["train", *DEFAULT, data, "steps=4", "validations=2", "checkpoint_every=1", "run=run"]
        more = CACHE if kind == "cache" else ("data.workers=2",)  # which have to end with the one that started them
        return ["train", *SMALL, data, "steps=12", "validations=2", "checkpoint_every=2", *more, "run=run"]

    def get(self, kind: str) -> tuple[Path, float]:
        """Where the uninterrupted command of a kind ran, and how many seconds it took."""
        if kind not in self._made:
            place = emptied(self.folder / f"whole {kind}")
            ended = run(self.arguments(kind), place, limit=LIMIT)
            if ended.code != 0:
                raise RuntimeError(f"{kind}, which nobody killed, ended with {ended.code}: {ended.err}")
            self._made[kind] = place, ended.seconds
        return self._made[kind]


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Kill, continue and compare."""
    whole = Whole(folder)
    for case in cases:
        kind = KINDS[case.number % len(KINDS)]
        _, seconds = whole.get(kind)
        share = case.draw().uniform(0.02, 1.0)
        for _ in range(TRIES):
            place = emptied(folder / "killed")
            command = Command(whole.arguments(kind), place)
            time.sleep(share * seconds)
            command.kill()
            killed = command.wait(LIMIT)
            if killed.code == -signal.SIGKILL:
                break
            share *= 0.7  # the machine has less to do now than when the whole command ran
        name = f"{kind}, {'killed' if killed.code else 'ended before'} at {share:.0%}"
        yield Result(case, name, _judged(kind, killed, place, whole))


def _judged(kind: str, killed: Ended, place: Path, whole: Whole) -> Outcome:
    if killed.left:
        return Outcome("left behind", f"{killed.left} processes after the kill")
    again = _way_on(kind, place, whole)
    outcome = judged(run(again, place, limit=LIMIT))
    if outcome.kind != "right":
        return Outcome("lost", f"{' '.join(map(str, again))[:60]} ended in {outcome.kind}: {outcome.message}")
    problem = COMPARE[kind](place, whole.get(kind)[0])
    return Outcome("wrong", problem) if problem else Outcome("right")


def _way_on(kind: str, place: Path, whole: Whole) -> list[str | Path]:
    """What the documentation says to do after a kill."""
    again = whole.arguments(kind)
    if kind == "prediction":
        return [*again, "--skip-existing"]
    if kind == "sweep":
        return again
    if (place / "run/checkpoints/last.ckpt").exists():
        return ["train", "resume=run"]
    shutil.rmtree(place / "run", ignore_errors=True)  # there was nothing to continue yet
    return again


def _compare_runs(found: Path, wanted: Path) -> str:
    return difference(found / "run", wanted / "run")


def _compare_sweeps(found: Path, wanted: Path) -> str:
    different = (difference(found / f"sweep/seed_{seed}", wanted / f"sweep/seed_{seed}") for seed in (0, 1))
    return next(filter(None, different), "")


def _compare_predictions(found: Path, wanted: Path) -> str:
    files = [
        {name: digest for name, digest in contents(place / "out").items() if not name.endswith(".partial")}
        for place in (found, wanted)
    ]
    names = sorted({*files[0], *files[1]})
    return next((f"{name} differs" for name in names if files[0].get(name) != files[1].get(name)), "")


def _compare_caches(found: Path, wanted: Path) -> str:
    """Whether two caches hold the same entries; keys depend on the file's time, which both share."""
    entries = [{path.name: path for path in (place / "cache").rglob("*.npy")} for place in (found, wanted)]
    if entries[0].keys() != entries[1].keys():
        return f"{len(entries[0])} entries instead of {len(entries[1])}"
    for name, path in entries[0].items():
        if not np.array_equal(np.load(path), np.load(entries[1][name])):
            return f"{name} differs"
    return _compare_runs(found, wanted)


COMPARE: dict[str, Callable[[Path, Path], str]] = {
    "training": _compare_runs,
    "small training": _compare_runs,
    "prediction": _compare_predictions,
    "sweep": _compare_sweeps,
    "cache": _compare_caches,
}

SECTION = Section("kills", COUNT, run_cases)
