"""Writing a file so that what is there is whole: the one way in which results, checkpoints and caches are written."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ENDING = ".partial"
"""Of files that are being written; one that stays was left by a process that was killed."""


@contextlib.contextmanager
def written(path: Path, *, sync: bool = False) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of `path` once it is whole.

    It has a random name beside that place and is opened exclusively: a link that somebody put there is not followed,
    and two processes that write one file do not mix. Where writing fails, what was there before stays.

    Args:
        path: where the file belongs; its folder is made where it is missing.
        sync: wait until the disk has it.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{secrets.token_hex(8)}{ENDING}")
        handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a UTF-8 text by `written`."""
    with written(path) as file:
        file.write(text.encode("utf-8", errors))
