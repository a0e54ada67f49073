"""What happens to a training image that cannot be read: `data.on_error`."""

import os
import warnings
from pathlib import Path
from typing import Literal

from semipix.atomic import write_text
from semipix.errors import reason_of

OnError = Literal["stop", "skip"]


class Skipped:
    """Lists the files that a training went on without, one line each, from all its processes.

    Args:
        path: the list, usually `skipped.txt` of the run folder. Without one, each file is warned of.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._told: set[str] = set()

    def add(self, problem: Exception) -> None:
        """Add a line for a file, unless it has one."""
        line = reason_of(problem)
        if line in self._told:
            return
        self._told.add(line)
        if self.path is None:
            warnings.warn(f"skipped {line}", stacklevel=2)
        elif line not in self.lines():
            # One short write at the end of a file is not torn apart by those of other processes.
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, f"{line}\n".encode(errors="surrogateescape"))
            finally:
                os.close(handle)

    def lines(self) -> list[str]:
        """What was skipped, sorted, each file once, though two processes may have met it at the same time."""
        if self.path is None or not self.path.exists():
            return []
        return sorted(set(self.path.read_text("utf-8", "surrogateescape").splitlines()))

    def count(self) -> int:
        """Tidy the list up and count it; for one process, when all are done."""
        lines = self.lines()
        if self.path is not None and lines:
            write_text(self.path, "".join(f"{line}\n" for line in lines), "surrogateescape")
        return len(lines)
