"""Damaged image files: what is read must be correct, and what cannot be read must be refused in one line.

Most files are read by semipix's reader in a child process with limits of time and memory. The others are in one folder
that is given to `predict` and `data check`.
"""

import io
import resource
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.reliability.commands import GIB, LIMIT, context, patient, run
from benchmarks.reliability.folders import SMALL, emptied, trained, write_photos
from benchmarks.reliability.mutations import MUTATIONS, WIDTH, Base, Mutant, bases
from benchmarks.reliability.outcomes import LONGEST, Case, Ended, Outcome, Result, Section, judged

COUNT = 1000
BY_COMMANDS = 60
"""Of these, how many go through the commands: the last ones."""

MEMORY = GIB + GIB // 2
"""Most memory that a child may take to read one file."""

SHRUNK = 16
"""Longer side to which some files are read."""


def drawn(case: Case) -> tuple[Base, Mutant, str]:
    """The file of a case, and what it is called."""
    draw = case.draw()
    base = draw.choice(bases())
    mutation = draw.choice(MUTATIONS)
    return base, mutation(base, draw), f"{base.name}, {mutation.__name__}"


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Read the files one by one, then let the commands read the others."""
    alone = [case for case in cases if case.number < COUNT - BY_COMMANDS]
    reader = ReadingChild()
    for case in alone:
        base, mutant, name = drawn(case)
        path = folder / f"{case.number:04d}.{mutant.suffix}"
        path.write_bytes(mutant.content)
        resize = SHRUNK if not base.mask and case.draw().random() < 0.15 else None
        answer = reader.read(path, base.mask, resize)
        yield Result(case, name, judged_file(base, mutant, path, answer, resize))
        path.unlink()
    reader.close()
    if together := [case for case in cases if case.number >= COUNT - BY_COMMANDS]:
        photos = write_photos(folder / "photos")
        made = trained(folder / "trained", *SMALL, f"data.root={photos}", "steps=2", "validations=1")
        yield from _by_commands(together, emptied(folder / "together"), made)


class ReadingChild:
    """A process that reads files, and is started again if a file kills or blocks it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_read_all, args=(there,), daemon=True)
        self._process.start()
        there.close()
        self._pipe.recv()  # it has begun

    def read(self, path: Path, mask: bool, resize: int | None) -> Outcome | NDArray[Any]:
        """The values of a file, or how reading it ended."""
        self._pipe.send((path, mask, resize))
        try:
            if self._pipe.poll(patient(LIMIT)):
                answer: Outcome | NDArray[Any] = self._pipe.recv()
                return answer
            outcome = Outcome("hang", f"more than {LIMIT} s")
        except EOFError:
            self._process.join(5)
            outcome = Outcome("crash", f"signal {-(self._process.exitcode or 0)}")
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _read_all(pipe: Connection) -> None:
    """Read the files that are asked for until the pipe is closed."""
    from semipix.data.files.reader import Reader
    from semipix.errors import UnreadableFileError

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    pipe.send("ready")
    while True:
        try:
            path, mask, resize = pipe.recv()
        except EOFError:
            return
        try:
            reader = Reader(resize)
            values = reader.mask(path) if mask else reader.whole(path) if resize is None else reader.image(path)
            answer: Any = values.numpy()
        except UnreadableFileError as error:
            answer = Outcome("one line", str(error))
        except Exception as error:
            kind = "one line" if type(error).__name__ == "SemipixError" else "traceback"
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = "" if kind == "one line" else f" ({Path(last.filename).name}:{last.lineno})"
            answer = Outcome(kind, str(error) if not where else f"{type(error).__name__}: {error}{where}")
        pipe.send(answer)


def judged_file(base: Base, mutant: Mutant, path: Path, answer: Outcome | NDArray[Any], resize: int | None) -> Outcome:
    if isinstance(answer, Outcome):
        return _judged_refusal(mutant, path, answer)
    if mutant.effect == "refused":
        return Outcome("wrong", f"read as {answer.shape}, a refusal expected")
    if resize is not None:
        right = max(answer.shape[-2:]) in (SHRUNK, WIDTH) or mutant.effect == "damaged"  # deep colours come whole
        return Outcome("right") if right else Outcome("wrong", f"{answer.shape} found, {SHRUNK} expected")
    wanted = expected(base)
    if wanted is not None and _same(answer, wanted, base.deep and base.values is None):
        return Outcome("right")
    if mutant.effect != "damaged":
        return Outcome("wrong", f"{_difference(answer, wanted)}, though {mutant.effect} ({path.name})")
    independent = decoded_mask(mutant.content) if base.mask else decoded(mutant.content)
    if independent is not None and _same(answer, independent, base.deep):
        return Outcome("right", "the pixels are damaged, as Pillow reads them")
    if wanted is not None and _same(answer, np.rot90(wanted, 1, (-2, -1)), base.deep):
        return Outcome("right", "the orientation is damaged, and so is not applied")
    return Outcome("wrong", f"neither the original nor what Pillow reads: {_difference(answer, independent)}")


def _judged_refusal(mutant: Mutant, path: Path, answer: Outcome) -> Outcome:
    if answer.kind != "one line":
        return answer
    if "\n" in answer.message or path.name not in answer.message or len(answer.message) > LONGEST:
        return Outcome("unclear", answer.message)
    return answer


def expected(base: Base) -> NDArray[Any] | None:
    """What an intact file holds: as it was drawn, or as Pillow reads it without semipix."""
    if base.mask:
        return base.values
    return base.values.transpose(2, 0, 1) if base.values is not None else decoded(base.content)


def decoded(content: bytes) -> NDArray[Any] | None:
    """An image (3, H, W) in [0, 1] read only with Pillow; None if Pillow cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                top = 1 if image.mode == "F" else 65535
                return np.repeat(np.asarray(image, np.float64)[None] / top, 3, axis=0)
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return np.asarray(image.convert("RGB"), np.float64).transpose(2, 0, 1) / 255
    except Exception:  # as many kinds as there are decoders
        return None


def decoded_mask(content: bytes) -> NDArray[Any] | None:
    """The numbers of a mask (H, W) read only with Pillow; None if Pillow cannot read it."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            colours = np.asarray(turned.convert("RGB"))
            is_grey = image.format == "GIF" and (colours == colours[..., :1]).all()  # a GIF cannot store grey itself
            return colours[..., 0] if is_grey else np.asarray(turned)
    except Exception:
        return None


def _same(found: NDArray[Any], wanted: NDArray[Any], high_bytes: bool) -> bool:
    """Whether values are equal; for colours of 16 bits, whether the high bytes are, since Pillow gives only those."""
    if found.shape != wanted.shape:
        return False
    tolerance = 1.01 / 255 if high_bytes else 1e-6
    return bool(np.abs(found.astype(np.float64) - wanted).max() <= tolerance)


def _difference(found: NDArray[Any], wanted: NDArray[Any] | None) -> str:
    if wanted is None:
        return f"{found.shape} found, nothing to compare with"
    if found.shape != wanted.shape:
        return f"{found.shape} found, {wanted.shape} expected"
    return f"{np.mean(np.abs(found - wanted) > 1e-6):.1%} of the values differ"


def _by_commands(cases: Sequence[Case], folder: Path, made: Path) -> Iterator[Result]:
    """Put the files into one data folder for `data check` and `predict` by a run that was made."""
    root, files = folder / "damaged", {}
    for case in cases:
        base, mutant, name = drawn(case)
        path = root / ("masks" if base.mask else "images") / f"train/{case.number:04d}.{mutant.suffix}"
        for other in (path, root / ("images" if base.mask else "masks") / f"train/{case.number:04d}.png"):
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(next(each for each in bases() if each.mask != (other.parts[-3] == "images")).content)
        path.write_bytes(mutant.content)
        files[case] = path, base, name
    commands = {
        "data check": ["data", "check", "damaged"],
        "predict": ["predict", made, "damaged/images", "--out", "out"],
    }
    ended = {name: run(command, folder, limit=LIMIT + 0.5 * len(cases)) for name, command in commands.items()}
    broken = {name: bad for name, each in ended.items() if (bad := _wrong_as_a_whole(each))}
    if broken and len(cases) > 1:  # which of the files is it?
        for case in cases:
            yield from _by_commands([case], emptied(folder / "alone"), made)
        return
    for case, (path, base, name) in files.items():
        outcome = Outcome("right")
        if broken:
            command, bad = next(iter(broken.items()))
            outcome = Outcome(bad.kind, f"{command}: {bad.message}")
        elif not base.mask:
            written = (folder / f"out/masks/train/{path.stem}.png").exists()
            named = [line for line in ended["predict"].errors if f"{path.name}:" in line]
            if written == bool(named):
                outcome = Outcome("lost", f"predict wrote {'a' if written else 'no'} mask, lines: {named}")
            elif named:
                outcome = Outcome("one line", named[0])
        yield Result(case, f"by commands: {name}", outcome)


def _wrong_as_a_whole(ended: Ended) -> Outcome | None:
    """What is wrong with a command as a whole; None if nothing is. Messages about single files do not count."""
    if ended.code == 2:
        long = [line for line in [*ended.out.splitlines(), *ended.lines] if len(line) > LONGEST + 20]
        foreign = [line for line in ended.lines if not line.startswith("semipix: ")]
        return Outcome("unclear", (long + foreign)[0]) if long or foreign else None
    outcome = judged(ended)
    return None if outcome.kind == "right" else outcome


SECTION = Section("images", COUNT, run_cases)
