"""Decoded images that are kept: in memory that all reading processes share, or in a folder."""

import contextlib
import os
import re
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from semipix.atomic import ENDING, write_text, written
from semipix.data.files.shared import SharedMemory, can_hand_over
from semipix.errors import SemipixError

GIB = 2**30

_TYPES = (np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.float32))

_AVERAGE = 16 * 1024
"""Bytes of an entry for which the table of a memory cache is laid out; smaller ones fill it before its memory."""

_PART = re.compile(r"[0-9a-f]{2}")

_ENTRY = re.compile(r"[0-9a-f]{30}\.npy")

_UNFINISHED = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(ENDING)}")
"""Names that `semipix.atomic` gives to files that are being written."""

_ABANDONED = 3600
"""Seconds after which an unfinished entry of a folder is taken for that of a process that died."""


def users_folder(name: str) -> Path:
    """A folder of semipix in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semipix" / name


class Cache(ABC):
    """Keeps arrays by a key of 16 bytes, up to a limit; what no longer fits is not kept."""

    @abstractmethod
    def get(self, key: bytes) -> NDArray[Any] | None:
        """The array of a key, not to be written to, or None."""

    @abstractmethod
    def put(self, key: bytes, values: NDArray[Any]) -> None:
        """Keep an array of at most three dimensions, if there is room."""


class MemoryCache(Cache):
    """Keeps arrays in memory that a process shares with its data-loading workers.

    Nothing is evicted: each image is drawn once a pass, so one is as useful as another.

    Args:
        limit: bytes of all arrays.
        readers: processes that read. On Windows each has a cache of its own with a part of the limit.
        memory: that of a cache of the same limit in another process; by default new memory.

    Raises:
        OSError: the machine has less memory than the limit.
    """

    def __init__(self, limit: int, readers: int = 1, memory: SharedMemory | None = None) -> None:
        self.limit = limit
        self.readers = max(1, readers)
        slots = min(2**23, max(1024, 2 * limit // _AVERAGE))
        self._memory = memory or SharedMemory((1 + slots) * 64 + max(1, limit))
        self._used: NDArray[np.int64] = self._memory.bytes[:16].view(np.int64)  # bytes, entries
        self._table: NDArray[np.int64] = self._memory.bytes[64 : (1 + slots) * 64].view(np.int64).reshape(slots, 8)
        self._arena: NDArray[np.uint8] = self._memory.bytes[(1 + slots) * 64 :]

    def get(self, key: bytes) -> NDArray[Any] | None:
        high, low = _halves(key)
        with self._memory.locked():
            row, found = self._row(high, low)
            offset, code, *shape = self._table[row, 2:7].tolist()
        if not found or offset < 0:
            return None
        sides = [side for side in shape if side]
        dtype = _TYPES[code]
        length = int(np.prod(sides)) * dtype.itemsize
        return self._arena[offset : offset + length].view(dtype).reshape(sides)

    def put(self, key: bytes, values: NDArray[Any]) -> None:
        high, low = _halves(key)
        length = -(-values.nbytes // 16) * 16
        with self._memory.locked():
            row, found = self._row(high, low)
            full = self._used[0] + length > self.limit or self._used[1] >= 0.8 * len(self._table)
            if found or full or values.dtype not in _TYPES:
                return
            offset = int(self._used[0])
            self._used += (length, 1)
            self._table[row, :3] = high, low, -1  # claimed, not readable yet
        self._arena[offset : offset + values.nbytes] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        shape = [*values.shape, 0, 0, 0][:3]
        with self._memory.locked():
            self._table[row, 3:7] = _TYPES.index(values.dtype), *shape
            self._table[row, 2] = offset  # last: from here on it can be read, even if this process is killed

    def _row(self, high: int, low: int) -> tuple[int, bool]:
        """The row of a key, and whether it is taken by it already; free rows are all 0."""
        row = high % len(self._table)
        while True:
            there = self._table[row, :2].tolist()
            if there == [high, low]:
                return row, True
            if there == [0, 0]:
                return row, False
            row = (row + 1) % len(self._table)

    def __reduce__(self) -> Any:
        if can_hand_over():
            return MemoryCache, (self.limit, self.readers, self._memory)
        return MemoryCache, (self.limit // self.readers,)  # a copy, which cannot share the memory, is empty


class _NotKeptError(Exception):
    """There is no room for an entry, or another process has written it."""


class DiskCache(Cache):
    """Keeps arrays in a folder, one file each, named by the key; several processes may share it.

    A file appears whole or not at all. One that is damaged is removed, and written again. Entries are mapped into
    memory, so that a crop reads only its rows. Opening a folder that holds more than the limit removes the oldest.

    Args:
        folder: made where it is missing.
        limit: bytes of all files.

    Raises:
        SemipixError: the folder cannot be made or written to, anybody may write to it, or it holds other files.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder.expanduser().absolute()
        self.limit = limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (mode := self.folder.stat().st_mode) & stat.S_IWOTH:
                raise SemipixError(
                    f"data.cache_folder={folder}: everybody may write to it ({stat.filemode(mode)}), so that what it "
                    "holds need not be what was read; set data.cache_folder=PATH to a folder of yours"
                )
            if stranger := next(filter(_is_strange, self.folder.iterdir()), None):
                raise SemipixError(
                    f"data.cache_folder={folder}: {stranger.name} found in it, an empty folder or a cache expected, "
                    "since files are removed there; set data.cache_folder=PATH to a folder of its own"
                )
            with self._locked():
                self._write_used(self._tidy())
        except OSError as error:
            raise SemipixError(
                f"data.cache_folder={folder}: cannot be written to ({error.strerror}); set data.cache_folder=PATH to "
                "a folder of yours"
            ) from None

    def get(self, key: bytes) -> NDArray[Any] | None:
        path = self._path(key)
        try:
            # Copy on write: torch warns of arrays that cannot be written to.
            values: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
            whole = path.stat().st_size == values.nbytes + values.offset  # type: ignore[attr-defined]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, SyntaxError):
            whole = False
        if whole and values.dtype in _TYPES:
            return values
        with contextlib.suppress(OSError):
            self._remove(path)
        return None

    def put(self, key: bytes, values: NDArray[Any]) -> None:
        path = self._path(key)
        length = values.nbytes + 128  # numpy's header
        with contextlib.suppress(OSError, _NotKeptError), written(path) as file:  # the disk is full, say
            with self._locked():
                used = self._used()
                if used + length > self.limit or path.exists():
                    raise _NotKeptError
                file.truncate(length)  # so that whoever counts the files now counts this one
                self._write_used(used + length)
            np.save(file, np.ascontiguousarray(values))

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name[2:]}.npy"

    def _remove(self, path: Path) -> None:
        with self._locked():
            length = path.stat().st_size
            path.unlink()
            self._write_used(max(0, self._used() - length))

    def _tidy(self) -> int:
        """Remove entries that were never finished and, beyond the limit, the oldest ones; bytes of the rest."""
        found: list[tuple[int, int, str]] = []
        for part in [*os.scandir(self.folder)]:
            inside = _PART.fullmatch(part.name) and part.is_dir()
            for entry in [*os.scandir(part)] if inside else [part]:
                with contextlib.suppress(FileNotFoundError):  # another process has finished it, or given it up
                    state = entry.stat()
                    if entry.name.endswith(ENDING) and time.time() - state.st_mtime > _ABANDONED:
                        Path(entry.path).unlink()
                    elif inside and (entry.name.endswith(ENDING) or _ENTRY.fullmatch(entry.name)):
                        found.append((state.st_mtime_ns, state.st_size, entry.path))
        used = sum(length for _, length, _ in found)
        for _, length, path in sorted(found):
            if used <= self.limit:
                break
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            used -= length
        return used

    def _used(self) -> int:
        try:
            return int((self.folder / "used").read_text())
        except (OSError, ValueError):
            return self._tidy()

    def _write_used(self, used: int) -> None:
        write_text(self.folder / "used", str(used))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the folder."""
        with FileLock(self.folder / "lock"):
            yield


def _is_strange(path: Path) -> bool:
    """Whether a file in a cache's folder is not of the cache; links never are, so that nothing elsewhere is removed."""
    ours = path.name in ("lock", "used") or _PART.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name)
    return path.is_symlink() or not ours


def _halves(key: bytes) -> tuple[int, int]:
    return int.from_bytes(key[:8], "big") >> 1, (int.from_bytes(key[8:], "big") >> 1) | 1
