"""Lists of very many names."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from semipix.data.files.shared import SharedMemory, can_hand_over

_FEW = 2**16
"""Bytes of a list that a worker gets as a copy, since a shared one costs an open file."""


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS stores "e" and an accent where others store one letter."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class Names(Sequence[str]):
    """An immutable list of strings in two arrays.

    A list of a million `str` takes 100 bytes a name, and a worker that reads it gets a copy of its own even if it was
    forked, since Python counts references in the memory of the strings. Arrays are shared: a forked worker finds them
    in its memory, and for one that is started otherwise they move into shared memory.

    Args:
        names: the strings.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._ends: NDArray[np.int64] = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._text: NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)
        self._shared: SharedMemory | None = None

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """The names, which may be such a list already."""
        return names if isinstance(names, cls) else cls(names)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._ends.nbytes + self._text.nbytes

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        text, start = self._text.tobytes(), 0
        for end in self._ends.tolist():
            yield text[start:end].decode("utf-8", "surrogateescape")
            start = end

    def __contains__(self, name: object) -> bool:
        return any(name == other for other in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return np.array_equal(self._ends, other._ends) and np.array_equal(self._text, other._text)
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[str]) -> list[str]:
        return [*self, *other]

    def __radd__(self, other: Iterable[str]) -> list[str]:
        return [*other, *self]

    def __repr__(self) -> str:
        return f"Names({len(self)}: {', '.join(self[:3])}{', ...' if len(self) > 3 else ''})"

    def __reduce__(self) -> Any:
        if self.nbytes < _FEW or not can_hand_over():
            return _restored, (self._text, self._ends)
        if self._shared is None:
            shared = SharedMemory(self.nbytes)
            shared.bytes[: self._ends.nbytes] = self._ends.view(np.uint8)
            shared.bytes[self._ends.nbytes :] = self._text
            self._lay_out(shared, len(self))
        return _attached, (self._shared, len(self))

    def _lay_out(self, shared: SharedMemory, count: int) -> None:
        """Use the arrays in shared memory: the ends of all names, then their text."""
        self._shared = shared
        self._ends, self._text = shared.bytes[: 8 * count].view(np.int64), shared.bytes[8 * count :]


def _restored(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> Names:
    names = Names()
    names._text, names._ends = text, ends
    return names


def _attached(shared: SharedMemory, count: int) -> Names:
    names = Names()
    names._lay_out(shared, count)
    return names
