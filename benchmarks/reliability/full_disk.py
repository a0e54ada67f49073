"""The disk is full at any moment: one error line, whole files stay whole, and the work continues once there is room.

Where mounting is permitted, the disk is a small file system in memory. The command's own process fills it when it opens
a file for the n-th time, so the moment is exact. Elsewhere the process's limit of file sizes is set to zero at that
moment (`RLIMIT_FSIZE`), which the system reports as another error.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.commands import run
from benchmarks.reliability.folders import SMALL, contents, difference, emptied, trained, write_photos
from benchmarks.reliability.outcomes import Case, Ended, Outcome, Result, Section, judged

COMMANDS = ("training", "prediction", "cache", "evaluation")
COUNT = 40
SIZE = "64m"
LIMIT = 60.0

REPORTED = "opened-for-writing"


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Find out how often each command opens a file for writing, then fill the disk at one of these moments."""
    photos = write_photos(folder / "photos")
    made = trained(folder / "trained", *SMALL, f"data.root={photos}", "steps=4", "validations=1")
    opened: dict[str, list[str]] = {}
    with small_disk(folder / "disk") as mounted:
        for case in cases:
            kind = COMMANDS[case.number % len(COMMANDS)]
            place = _prepared(kind, folder, made)
            arguments = _arguments(kind, photos, folder / "trained/run")
            if kind not in opened:
                whole = run(arguments, place, limit=LIMIT, prepare=partial(_watch, place, folder / REPORTED))
                if whole.code != 0:
                    raise RuntimeError(f"{kind}, with room on the disk, ended with {whole.code}: {whole.err}")
                opened[kind] = (folder / REPORTED).read_text().splitlines()
                shutil.rmtree(folder / f"whole {kind}", ignore_errors=True)
                shutil.copytree(place, folder / f"whole {kind}")
                place = _prepared(kind, folder, made)
            moment = (case.number // len(COMMANDS) * 7 + case.draw().randrange(7)) % len(opened[kind])
            before = contents(place)
            ended = run(arguments, place, limit=LIMIT, prepare=partial(_watch, place, None, moment, mounted))
            (place.parent / "ballast").unlink(missing_ok=True)
            how = "full" if mounted else "RLIMIT_FSIZE"
            name = f"{kind}, {how} at {moment}: {opened[kind][moment]}"
            yield Result(case, name, _judged(kind, ended, before, place, arguments, folder))


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A folder that is a small file system of its own; says whether mounting one was permitted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def _prepared(kind: str, folder: Path, made: Path) -> Path:
    place = emptied(folder / "disk/work")
    if kind == "evaluation":
        shutil.copytree(made, place / "run")
    return place


def _arguments(kind: str, photos: Path, made: Path) -> list[str | Path]:
    if kind == "prediction":
        return ["predict", made, photos / "images/test", "--out", "out"]
    if kind == "evaluation":
        return ["evaluate", "run"]
    more = ("data.cache=disk", "data.cache_folder=cache") if kind == "cache" else ()
    return ["train", *SMALL, f"data.root={photos}", "steps=4", "validations=2", "checkpoint_every=1", *more, "run=run"]


def _watch(place: Path, report: Path | None, moment: int | None = None, mounted: bool = True) -> None:
    """Count the files that this process opens for writing below a folder: note their names, or fill the disk at one."""
    seen: list[str] = []
    busy: list[bool] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or busy or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path, mode, flags = os.fsdecode(arguments[0]), arguments[1], arguments[2]
        writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
        if not writes or not Path(path).absolute().is_relative_to(place):
            return
        busy.append(True)
        seen.append(os.path.relpath(path, place))
        if report is not None:
            report.write_text("\n".join(seen))
        if moment is not None and len(seen) == moment + 1:
            _fill(place.parent / "ballast") if mounted else _forbid_writing()
        busy.clear()

    sys.addaudithook(look)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\1" * size)
            except OSError:
                continue


def _forbid_writing() -> None:
    """Let no file of this process grow; Python itself ignores the signal that the system sends then."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _judged(
    kind: str, ended: Ended, before: dict[str, str], place: Path, arguments: Sequence[str | Path], folder: Path
) -> Outcome:
    outcome = judged(ended)
    if outcome.kind not in ("right", "one line"):
        return outcome
    if lost := [name for name, digest in before.items() if contents(place).get(name) != digest]:
        return Outcome("lost", f"{lost[0]} has changed: {outcome.message}")
    again = list(arguments)  # which is what the line says where there is no checkpoint yet
    if (place / "run/checkpoints/last.ckpt").exists() and kind in ("training", "cache"):
        again = ["train", "resume=run"]
    elif kind == "prediction":
        again.append("--skip-existing")
    more = judged(run(again, place, limit=LIMIT))
    if more.kind != "right":
        return Outcome("lost", f"after making room: {more.kind}: {more.message}; before: {outcome.message}")
    problem = _compared(kind, place, folder / f"whole {kind}")
    return Outcome("wrong", f"{problem}; {outcome.message}") if problem else outcome


def _compared(kind: str, found: Path, wanted: Path) -> str:
    if kind in ("training", "cache"):
        return difference(found / "run", wanted / "run")
    files = contents(found), contents(wanted)
    return next((name for name in files[1] if files[0].get(name) != files[1][name]), "")


SECTION = Section("full_disk", COUNT, run_cases)
