"""Memory that a process shares with its data-loading workers, however they are started."""

import contextlib
import mmap
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import context, reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform != "win32":
    import fcntl


class SharedMemory:
    """A block of memory, 0 at first, of which a worker gets a handle and no copy under fork, forkserver and spawn.

    It takes room only where it is written to. Linux keeps it in no folder: torch and `multiprocessing.shared_memory`
    would use /dev/shm, which has 64 MB in most containers. Elsewhere it is a temporary file that has no name any more.
    Windows shares nothing.

    Args:
        size: bytes, at least 1.
        handle: of a block that another process has made.

    Attributes:
        handle: number of the open file; None on Windows.
        bytes: the memory, (size,) uint8.

    Raises:
        OSError: the machine has less memory than that.
    """

    def __init__(self, size: int, handle: int | None = None) -> None:
        self.size = size
        self._lock = threading.Lock()  # a lock of the file excludes processes alone
        self.handle = _new_file(size) if handle is None else handle
        self.bytes: NDArray[np.uint8] = np.frombuffer(
            mmap.mmap(-1 if self.handle is None else self.handle, size), np.uint8
        )
        if self.handle is not None:
            weakref.finalize(self, os.close, self.handle)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes out that use this too. A process that is killed gives its lock back."""
        with self._lock:
            if self.handle is None:
                yield
                return
            fcntl.lockf(self.handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self.handle, fcntl.LOCK_UN)

    def __reduce__(self) -> Any:
        """A handle, for a process that is being started; nothing else can use one."""
        assert self.handle is not None
        return _attached, (reduction.DupFd(self.handle), self.size)


def can_hand_over() -> bool:
    """Whether what is being pickled goes to a process that is being started here, so that it can share memory."""
    return sys.platform != "win32" and context.get_spawning_popen() is not None


def _attached(handle: Any, size: int) -> SharedMemory:
    return SharedMemory(size, handle.detach())


def _new_file(size: int) -> int | None:
    """The number of a new open file without a name; None on Windows."""
    if sys.platform == "win32":
        return None
    mmap.mmap(-1, size).close()  # more than the machine has is refused here; a file may be of any size
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("semipix")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle
