"""Write files so that they are always complete; results, checkpoints and caches are written by it."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ENDING = ".partial"
"""Ending of files that are being written; a process that was killed leaves such a file."""


@contextlib.contextmanager
def written(path: Path, *, sync: bool = False) -> Iterator[IO[bytes]]:
    """A binary file to write to, which is renamed to `path` when it is complete.

    The file has a random name in the same folder and is opened exclusively. So links are not followed, and two
    processes that write the same file do not mix their data. If writing fails, an existing file stays unchanged.

    Args:
        path: path of the complete file; its folder is created if it is missing.
        sync: wait until the data are on the disk.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    with written_path(path) as unfinished:
        handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())


@contextlib.contextmanager
def written_path(path: Path) -> Iterator[Path]:
    """The path of a file to write, for libraries that open it themselves; it is renamed to `path` when it is complete.

    It is in the same folder and has a random name. If writing fails, an existing file stays unchanged.

    Args:
        path: path of the complete file; its folder is created if it is missing.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{secrets.token_hex(8)}{ENDING}")
        try:
            yield unfinished
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text as UTF-8, in the same way as `written`."""
    with written(path) as file:
        file.write(text.encode("utf-8", errors))


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which is renamed to `path` when it is complete; `path` may be an empty folder before.

    It has a random name beside `path`. If writing fails or is interrupted, it is removed, and `path` stays as it was.

    Args:
        path: path of the complete folder.

    Raises:
        OSError: the folder cannot be made or renamed; the error names `path`.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}{ENDING}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    try:
        yield unfinished
        try:
            unfinished.replace(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
