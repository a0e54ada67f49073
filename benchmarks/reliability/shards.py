"""Tar archives with members whose names lead outside of the folder, that are no files, or whose headers are wrong.

A training must refuse such an archive in one line, or continue without the member. Nothing may be written outside of
its folder.
"""

import io
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.commands import run
from benchmarks.reliability.folders import SMALL, contents, emptied, write_photos
from benchmarks.reliability.mutations import bases
from benchmarks.reliability.outcomes import Case, Outcome, Result, Section, judged

LIMIT = 30.0


def _archive(members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _images(photos: Path, count: int = 6) -> list[tuple[tarfile.TarInfo, bytes]]:
    files = sorted((photos / "images/train").iterdir())[:count]
    return [(tarfile.TarInfo(f"{number:03d}{path.suffix}"), path.read_bytes()) for number, path in enumerate(files)]


def _special(kind: bytes, name: str, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def _with(*more: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path, random.Random], bytes]:
    """An archive with good images around some members."""

    def make(photos: Path, draw: random.Random) -> bytes:
        good = _images(photos)
        return _archive([*good[:3], *more, *good[3:]])

    return make


def _named(name: str) -> Callable[[Path, random.Random], bytes]:
    """An archive in which an image's name leads outside of the folder."""

    def make(photos: Path, draw: random.Random) -> bytes:
        return _with((tarfile.TarInfo(name), _images(photos, 1)[0][1]))(photos, draw)

    return make


def _truncated(photos: Path, draw: random.Random) -> bytes:
    whole = _archive(_images(photos))
    return whole[: draw.randrange(1, len(whole) - 10_240)]


def _flipped(photos: Path, draw: random.Random) -> bytes:
    whole = bytearray(_archive(_images(photos)))
    for _ in range(20):
        whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    return bytes(whole)


def _huge(photos: Path, draw: random.Random) -> bytes:
    """An archive whose last member claims to be larger than any disk."""
    whole = bytearray(_archive(_images(photos)))
    member = tarfile.TarInfo("999.png")
    member.size = draw.choice((2**33, 2**40, 2**62))
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    return bytes(whole[:end]) + member.tobuf(tarfile.GNU_FORMAT) + bytes(512)


def _damaged_images(photos: Path, draw: random.Random) -> bytes:
    good = _images(photos)
    return _archive([*good, (tarfile.TarInfo("100.png"), good[0][1][:200]), (tarfile.TarInfo("101.jpg"), b"no image")])


def _doubled(photos: Path, draw: random.Random) -> bytes:
    good = _images(photos, 3)
    return _archive([*good, *((tarfile.TarInfo(member.name), content) for member, content in good)])


def _garbage(photos: Path, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\0" * 512, draw.randbytes(5000), bases()[0].content, b"\x1f\x8b" + draw.randbytes(500)))


FORMS: dict[str, Callable[[Path, random.Random], bytes]] = {
    "as it should be": _with(),
    "../ in a name": _named("../../outside.png"),
    "an absolute name": _named("/tmp/outside.png"),
    "a symbolic link": _with(_special(tarfile.SYMTYPE, "link.png", "/etc/passwd")),
    "a hard link": _with(_special(tarfile.LNKTYPE, "hard.png", "../../../etc/passwd")),
    "a device": _with(_special(tarfile.CHRTYPE, "device.png")),
    "a pipe": _with(_special(tarfile.FIFOTYPE, "pipe.png")),
    "a folder called like an image": _with(_special(tarfile.DIRTYPE, "folder.png")),
    "one name twice": _doubled,
    "a name that is no text": _named("\udce9\udcff.png"),
    "a name of 5,000 characters": _named("x" * 5000 + ".png"),
    "a null character in a name": _named("a\0b.png"),
    "truncated": _truncated,
    "flipped bits": _flipped,
    "a huge size": _huge,
    "damaged images": _damaged_images,
    "garbage": _garbage,
}
"""What is wrong with an archive."""

COUNT = 2 * len(FORMS)


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Train on a good archive and a bad one, with and without `data.on_error=skip`."""
    photos = write_photos(folder / "photos")
    for case in cases:
        form, skips = list(FORMS)[case.number // 2], bool(case.number % 2)
        place = emptied(folder / "a/b/c")
        (place / "good.tar").write_bytes(FORMS["as it should be"](photos, case.draw()))
        (place / "bad.tar").write_bytes(FORMS[form](photos, case.draw()))
        before = contents(folder)
        arguments = [
            *SMALL,
            f"data.root={photos}",
            "data.shards=good.tar::bad.tar",
            "steps=4",
            "validations=0",
            "run=run",
        ]
        ended = run(["train", *arguments, f"data.on_error={'skip' if skips else 'stop'}"], place, limit=LIMIT)
        outcome = judged(ended)
        outside = [name for name in contents(folder) if name not in before and not name.startswith("a/b/c/run/")]
        if outside or Path("/tmp/outside.png").exists():
            outcome = Outcome("executed", f"{(outside or ['/tmp/outside.png'])[0]} was written: {outcome.message}")
        elif form == "as it should be" and outcome.kind != "right":
            outcome = Outcome("lost", f"a good archive was refused: {outcome.message}")
        elif outcome.kind == "one line" and (place / "run/checkpoints").exists():
            shutil.rmtree(place / "run")  # refused after some steps, whose checkpoint stays
        elif outcome.kind == "one line" and (place / "run").exists():
            outcome = Outcome("left behind", f"{sorted(contents(place / 'run'))[:2]}: {outcome.message}")
        yield Result(case, f"{form}, {'skip' if skips else 'stop'}", outcome)


SECTION = Section("shards", COUNT, run_cases)
