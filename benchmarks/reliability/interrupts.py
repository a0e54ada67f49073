"""Ctrl-C, SIGTERM and SIGHUP in the first seconds of the real command.

The command must end with status 128 plus the signal's number and one line. It must leave no process, and a folder that
is empty or can be resumed.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.commands import ended, patient, real_command
from benchmarks.reliability.folders import SMALL, emptied, write_photos
from benchmarks.reliability.outcomes import Case, Ended, Outcome, Result, Section

SIGNALS = (*(signal.SIGINT,) * 4, signal.SIGTERM, signal.SIGHUP)
COUNT = 30
FIRST = 6.0
"""Seconds within which the signal is sent, on an idle machine."""

ENDLESS = ("steps=1000000", "validations=0", "checkpoint_every=20", "data.workers=2", "run=run")
LIMIT = 20.0


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Start, signal the whole group, and look at what is left."""
    photos = write_photos(folder / "photos")
    arguments = [*(item for item in SMALL if item != "data.workers=0"), f"data.root={photos}", *ENDLESS]
    start = _start_of_python(folder)
    for case in cases:
        number = SIGNALS[case.number % len(SIGNALS)]
        moment = case.draw().uniform(start, patient(FIRST))
        place = emptied(folder / "interrupted")
        process, began = real_command(["train", *arguments], place), time.monotonic()
        time.sleep(moment)
        os.killpg(process.pid, number)
        yield Result(
            case, f"{number.name} after {moment:.2f} s", _judged(ended(process, began, moment + LIMIT), number, place)
        )


def _start_of_python(folder: Path) -> float:
    """Seconds after which semipix is surely running; an earlier signal would only meet Python's own start."""
    began = time.monotonic()
    process = real_command(["--help"], folder)
    process.communicate()
    return 1.5 * (time.monotonic() - began)


def _judged(end: Ended, number: signal.Signals, place: Path) -> Outcome:
    lines = [line for line in end.lines if not line.startswith("semipix: stopping")]
    last = lines[-1] if lines else ""
    if end.code is None:
        return Outcome("hang", f"no end within {LIMIT} s of the signal: {last}")
    if "Traceback (most recent call last)" in end.err:
        return Outcome("traceback", last)
    if end.left:
        return Outcome("left behind", f"{end.left} processes: {last}")
    if end.code != 128 + number or len(lines) != 1 or not last.startswith("semipix: "):
        return Outcome("unclear", f"exit status {end.code}, {128 + number} expected: {' / '.join(lines)}")
    if "memory" in last:
        return Outcome("unclear", last)
    if not any(place.iterdir()):
        return Outcome("one line", last)
    if not (place / "run/checkpoints/last.ckpt").exists():
        return Outcome(
            "left behind", f"{sorted(each.name for each in (place / 'run').iterdir())}, no checkpoint: {last}"
        )
    return _resumed(place, last)


def _resumed(place: Path, last: str) -> Outcome:
    """Whether the run can be continued; once it continues it is interrupted again, because it would not end."""
    process, began = real_command(["train", "resume=run"], place), time.monotonic()
    before = (place / "run/checkpoints/last.ckpt").stat().st_mtime_ns
    while process.poll() is None and time.monotonic() - began < patient(60):
        if (place / "run/checkpoints/last.ckpt").stat().st_mtime_ns != before:
            break
        time.sleep(0.05)
    went_on = process.poll() is None and (place / "run/checkpoints/last.ckpt").stat().st_mtime_ns != before
    os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    return Outcome("one line", last) if went_on else Outcome("lost", f"cannot be resumed: {err[-200:]}")


SECTION = Section("interrupts", COUNT, run_cases)
