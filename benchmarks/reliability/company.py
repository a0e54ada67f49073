"""Two commands on one folder at the same time: one works and the other is refused, or both give correct results."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.commands import Command, run
from benchmarks.reliability.folders import SMALL, contents, difference, emptied, trained, write_photos
from benchmarks.reliability.outcomes import Case, Outcome, Result, Section, judged

KINDS = ("trainings", "predictions", "resumes", "sweeps")
COUNT = 12
LIMIT = 120.0
STEPS = ("steps=8", "validations=1", "checkpoint_every=2")


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Start both within a second, wait for both, and compare with a command that ran by itself."""
    photos = write_photos(folder / "photos")
    training = ["train", *SMALL, f"data.root={photos}", *STEPS]
    alone = trained(folder / "alone", *training[1:])
    for case in cases:
        kind = KINDS[case.number % len(KINDS)]
        place = emptied(folder / "together")
        arguments: list[str | Path] = [*training, "run=run"]
        if kind == "predictions":
            arguments = ["predict", alone, photos / "images", "--out", "out"]
            run([*arguments[:-1], "wanted"], folder)
        elif kind == "resumes":
            _cut_off(arguments, place)
            arguments = ["train", "resume=run"]
        elif kind == "sweeps":
            arguments = [*training, "model.width=2,4", "-m", "run=sweep"]
        first = Command(arguments, place)
        time.sleep(case.draw().choice((0.0, 0.0, 0.3, 1.0)))
        second = Command(arguments, place)
        outcomes = [judged(each.wait(LIMIT)) for each in (first, second)]
        yield Result(case, f"two {kind}", _judged(kind, outcomes, place, folder, alone))


def _cut_off(arguments: Sequence[str | Path], place: Path) -> None:
    """Make a run folder that has only its first checkpoint."""
    command = Command(arguments, place)
    while command.alive and not (place / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.01)
    command.kill()
    command.wait()


def _judged(kind: str, outcomes: list[Outcome], place: Path, folder: Path, alone: Path) -> Outcome:
    messages = "; ".join(f"{each.kind}: {each.message}" for each in outcomes)
    for each in outcomes:
        if each.kind not in ("right", "one line"):
            return Outcome(each.kind, messages)
    if all(each.kind == "one line" for each in outcomes):
        return Outcome("lost", f"both were refused: {messages}")
    if kind == "predictions":
        same = contents(place / "out") == contents(folder / "wanted")
        return Outcome("right" if same else "mixed", messages)
    problem = difference(place / ("sweep/model.width_2" if kind == "sweeps" else "run"), alone)
    if kind == "sweeps" and not problem:
        problem = "" if (place / "sweep/model.width_4/summary.json").exists() else "model.width_4 has no summary"
    return Outcome("mixed", f"{problem}; {messages}") if problem else Outcome("right", messages)


SECTION = Section("company", COUNT, run_cases)
