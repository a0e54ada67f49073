"""What a command that is refused leaves behind: nothing."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from semipix.errors import SemipixError


@contextlib.contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Remove a folder and those around it afterwards, where they were missing before and hold nothing."""
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in missing:  # the innermost first
                if each.exists():
                    each.rmdir()


@contextlib.contextmanager
def emptied_where_refused(folder: Path, trained: Callable[[], bool]) -> Iterator[None]:
    """Remove what came into a folder, where its training is refused or interrupted before the first step.

    Args:
        folder: claimed by this process.
        trained: whether a step was made.
    """
    before = {*folder.iterdir()} if folder.exists() else set()
    try:
        yield
    except (SemipixError, KeyboardInterrupt):
        if not trained():
            for each in {*folder.iterdir()} - before:
                with contextlib.suppress(OSError):
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
        raise
