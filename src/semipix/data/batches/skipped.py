"""The list of training images that were skipped with `data.on_error=skip`."""

import os
import warnings
from pathlib import Path
from typing import Literal

from semipix.atomic import write_text
from semipix.errors import reason_of

OnError = Literal["stop", "skip"]


class Skipped:
    """The list of skipped files, one line each; all processes of a training write to it.

    Args:
        path: the file of the list, usually `skipped.txt` in the run folder. Without it, each file gives a warning.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._noted: set[str] = set()

    def add(self, problem: Exception) -> None:
        """Add the line of a file, unless it is in the list already."""
        line = reason_of(problem)
        if line in self._noted:
            return
        self._noted.add(line)
        if self.path is None:
            warnings.warn(f"skipped {line}", stacklevel=2)
        elif line not in self.lines():
            # A short write with O_APPEND is not interleaved with those of other processes.
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, f"{line}\n".encode(errors="surrogateescape"))
            finally:
                os.close(handle)

    def lines(self) -> list[str]:
        """The skipped files, sorted. Each is returned once, even if two processes added it at the same time."""
        if self.path is None or not self.path.exists():
            return []
        return sorted(set(self.path.read_text("utf-8", "surrogateescape").splitlines()))

    def count(self) -> int:
        """Sort the list, remove duplicates and return its length; called by one process after all have finished."""
        lines = self.lines()
        if self.path is not None and lines:
            write_text(self.path, "".join(f"{line}\n" for line in lines), "surrogateescape")
        return len(lines)
