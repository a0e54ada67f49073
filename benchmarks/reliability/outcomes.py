"""The possible outcomes of a case, and how the end of a command is judged."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LONGEST = 300
"""Characters of the longest acceptable message."""

GOOD = ("right", "one line")
"""Outcomes that are as they should be."""

BAD = {
    "traceback": "an error that is printed with its trace",
    "hang": "no end within the limit",
    "crash": "the process died by a signal that nobody sent",
    "unclear": "a refusal in more than one line, in a line that is too long, or with another exit status",
    "left behind": "files or processes that should not be there",
    "wrong": "values that differ from what they should be, without a message",
    "lost": "a result that was there, or should be, is gone or cannot be continued",
    "mixed": "a result that two commands wrote together",
    "executed": "code that a file named was run, or a file outside was touched",
}
"""Outcomes that count as failures."""


class Outcome(NamedTuple):
    """The outcome of a case: its kind and a line with details."""

    kind: str
    message: str = ""


@dataclass(frozen=True)
class Case:
    """One case of a section.

    Attributes:
        section: its section.
        seed: seed of the whole run.
        number: the case's number in the section; number and seed determine all random choices.
    """

    section: str
    seed: int
    number: int

    def draw(self) -> random.Random:
        """The case's own random numbers."""
        return random.Random(f"{self.section}/{self.seed}/{self.number}")


class Result(NamedTuple):
    """A case and its outcome."""

    case: Case
    name: str
    outcome: Outcome


@dataclass(frozen=True)
class Section:
    """One kind of fault.

    Attributes:
        name: what `--only` takes.
        count: cases of a full run.
        run: yields a result for each case; works in the given empty folder.
    """

    name: str
    count: int
    run: Callable[[Sequence[Case], Path], Iterator[Result]]

    def cases(self, seed: int, numbers: Sequence[int] | None = None) -> list[Case]:
        """The cases of a seed, all or some."""
        return [Case(self.name, seed, number) for number in (range(self.count) if numbers is None else numbers)]


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: its exit status, negative for a signal; None if it did not end in time and was killed.
        out, err: what it printed.
        seconds: how long it ran.
        left: number of its processes that are still alive.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    left: int

    @property
    def lines(self) -> list[str]:
        """What it printed as messages, without progress bars."""
        return [line for line in self.err.replace("\r", "\n").splitlines() if line.strip() and not _is_bar(line)]

    @property
    def errors(self) -> list[str]:
        """Its error lines."""
        return [line for line in self.lines if line.startswith("semipix: error: ")]


def _is_bar(line: str) -> bool:
    return "%|" in line or "it/s]" in line or "it [" in line


def judged(ended: Ended) -> Outcome:
    """How a command ended: `right` for exit status 0, `one line` for a proper refusal, else what was wrong."""
    lines = ended.lines
    last = lines[-1] if lines else ""
    if ended.code is None:
        return Outcome("hang", f"after {ended.seconds:.1f} s: {last}")
    if "Traceback (most recent call last)" in ended.err or ended.code == 1:
        return Outcome("traceback", last)
    if ended.code < 0:
        return Outcome("crash", f"signal {-ended.code}: {last}")
    if ended.left:
        return Outcome("left behind", f"{ended.left} processes: {last}")
    if ended.code == 0:
        return Outcome("right", last)
    if ended.code != 2 or len(ended.errors) != 1:
        return Outcome("unclear", f"exit status {ended.code}, {len(ended.errors)} error lines: {' / '.join(lines)}")
    if foreign := [line for line in lines if not line.startswith("semipix: ")]:
        return Outcome("unclear", f"not of semipix: {foreign[0]}")
    if len(last) > LONGEST:
        return Outcome("unclear", f"{len(last)} characters: {last}")
    return Outcome("one line", ended.errors[0].removeprefix("semipix: error: "))
