"""Reading, computing and writing at the same time; both engines run this."""

import errno
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Condition
from typing import Any

import torch

from semipix.data.files.decode import unit_range
from semipix.errors import SemipixError
from semipix.functional.grouping import batch_pixels
from semipix.inference.predictor import Photo, Predictor
from semipix.interruption import check
from semipix.training.failures import memory_short

READ_AHEAD_BYTES = 2**28
"""Bytes of the images that are read ahead of the network: one larger image, or as many as fit in."""

WAITING_BYTES = 2**28
"""Bytes of the images that wait for others of their size; the oldest are computed when there are more."""

WRITING_BYTES = 2**28
"""Bytes of images and network outputs that may be written while the next batch is computed; else it waits for them."""

READERS = WRITERS = 2
"""Threads that decode, and that draw, encode and write; each leaves Python's lock for most of its time."""

AHEAD = range(4, 65)
"""Images read ahead of the network: two batches of the last size, within these bounds and `READ_AHEAD_BYTES`."""

MORE_MEMORY = "shrink it, predict by a run with a smaller data.resize, or use a machine with more memory"

Failure = str
"""One line about an image that could not be predicted."""


def predict_files(predictor: Predictor, files: Iterable[tuple[Path, Path]]) -> Generator[Failure | None]:
    """Predict images and write their results; one image is computed while others are read and written.

    Images of one size are computed together, so that results come in another order than the files. Images that are
    too large for one pass are computed in slabs of rows.

    Args:
        predictor: reads, computes and writes.
        files: each with the name of its results.

    Yields:
        For each image None, or what was wrong with it.

    Raises:
        OSError: results cannot be written.
        KeyboardInterrupt: a signal has come; what is being written is finished.
    """
    budget = batch_pixels(predictor.device.type)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
        writing: deque[Future[Failure | None]] = deque()
        held = 0  # bytes of what is being written
        room = Room(READ_AHEAD_BYTES)
        try:
            for item in _batches(_read_ahead(predictor, files, readers, budget, room), budget):
                check()
                if isinstance(item, Failure):
                    yield item
                    continue
                while held > WRITING_BYTES and writing:
                    yield writing.popleft().result()
                written, held = _compute(predictor, item, writers)
                while writing:  # what was computed while this batch was: by now most of it is on disk
                    yield writing.popleft().result()
                writing.extend(written)
            while writing:
                yield writing.popleft().result()
        finally:
            room.close()
            for pool in (readers, writers):
                pool.shutdown(wait=False, cancel_futures=True)


class Room:
    """Bytes that images take which are read ahead; they get in one after the other, in their order.

    Args:
        limit: bytes of all images; a larger one gets in where there is no other.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._turn = 0
        self._closed = False
        self._changed = Condition()

    def enter(self, turn: int, size: int) -> None:
        """Wait until all images before this one are in and there is room, or until there is nothing to wait for."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (turn == self._turn and (not self.held or self.held + size <= self.limit))
            )
            self._turn += 1
            self.held += size
            self._changed.notify_all()

    def change(self, size: int) -> None:
        """Correct what is held by a number of bytes, or leave."""
        with self._changed:
            self.held += size
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _read_ahead(
    predictor: Predictor, files: Iterable[tuple[Path, Path]], pool: ThreadPoolExecutor, budget: int, room: Room
) -> Iterator[Photo | Failure]:
    """Images in the order of the files, or why one could not be read, read by a pool ahead of being asked for."""
    reading: deque[Future[tuple[Photo | Failure, int]]] = deque()
    ahead, rest, turns = AHEAD.start, iter(files), count()
    while True:
        while len(reading) < ahead and (pair := next(rest, None)) is not None:
            reading.append(pool.submit(_read, predictor, *pair, next(turns), room))
        if not reading:
            return
        found, size = reading.popleft().result()
        room.change(-size)
        if isinstance(found, Photo):
            ahead = min(max(2 * budget // _pixels(found), AHEAD.start), AHEAD.stop - 1)
        yield found


def _read(predictor: Predictor, file: Path, name: Path, turn: int, room: Room) -> tuple[Photo | Failure, int]:
    """An image or why it could not be read, and the bytes that it takes of the room."""
    expected = predictor.bytes_of(file)
    room.enter(turn, expected)
    found: Photo | Failure
    try:
        found = predictor.read(file, name)
    except SemipixError as error:
        found = str(error)
    except (MemoryError, RuntimeError) as error:
        if not (short := memory_short(error)):
            raise
        found = f"{file}: out of {short} while this image was read; {MORE_MEMORY}"
    size = found.nbytes if isinstance(found, Photo) else 0
    room.change(size - expected)
    return found, size


def _batches(found: Iterable[Photo | Failure], budget: int) -> Iterator[list[Photo] | Failure]:
    """Images of equal size in batches of at most `budget` pixels, or one image; failures pass through.

    A size that stays rare waits for more of it while fewer than four batches' pixels and `WAITING_BYTES` wait in all.
    """
    waiting: dict[torch.Size, list[Photo]] = {}
    for item in found:
        if isinstance(item, Failure):
            yield item
            continue
        group = waiting.setdefault(item.seen.shape, [])
        group.append(item)
        if (len(group) + 1) * _pixels(item) > budget:
            yield waiting.pop(item.seen.shape)
            continue
        while _waits_too_long(waiting, budget):
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _waits_too_long(waiting: Mapping[torch.Size, list[Photo]], budget: int) -> bool:
    """Whether more waits than may."""
    photos = [photo for group in waiting.values() for photo in group]
    return sum(map(_pixels, photos)) > 4 * budget or sum(photo.nbytes for photo in photos) > WAITING_BYTES


def _pixels(photo: Photo) -> int:
    return photo.seen.shape[-2] * photo.seen.shape[-1]


def _compute(
    predictor: Predictor, photos: list[Photo], pool: ThreadPoolExecutor
) -> tuple[list[Future[Failure | None]], int]:
    """Compute a batch and hand each image's output to the writers; one by one where the batch fails as a whole.

    Returns:
        What is being written, and the bytes that it holds.
    """
    try:
        if len(photos) == 1 and predictor.slabs.applies((photos[0].seen.shape[-2], photos[0].seen.shape[-1])):
            drawing = predictor.draw_in_slabs(photos[0])
            return [pool.submit(_write, photos[0], predictor.save, photos[0], drawing)], drawing.nbytes
        outputs, flaws = predictor.compute(torch.stack([unit_range(photo.seen) for photo in photos]))
    except (RuntimeError, ValueError, MemoryError) as error:  # the network refuses this size, or memory is short
        if len(photos) == 1:
            told: Future[Failure | None] = Future()
            told.set_result(_refusal(photos[0], error))
            return [told], 0
        parts = [_compute(predictor, [photo], pool) for photo in photos]
        return [future for written, _ in parts for future in written], sum(held for _, held in parts)
    held = sum(photo.nbytes for photo in photos) + outputs.nbytes + (0 if flaws is None else flaws.nbytes)
    return [
        pool.submit(_write, photo, predictor.write, photo, outputs[index], None if flaws is None else flaws[index])
        for index, photo in enumerate(photos)
    ], held


def _write(photo: Photo, write: Callable[..., None], *what: Any) -> Failure | None:
    """Write an image's results, or say why that is not possible."""
    try:
        write(*what)
    except (RuntimeError, ValueError, MemoryError) as error:
        return _refusal(photo, error)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"{photo.file}: its result could not be written: {error.strerror}; shorten the name"
    return None


def _refusal(photo: Photo, error: Exception) -> Failure:
    size = f"{photo.image.shape[-1]}x{photo.image.shape[-2]}"
    if short := memory_short(error):
        return f"{photo.file}: out of {short} for this image of {size} pixels; {MORE_MEMORY}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{photo.file}: this image of {size} pixels could not be predicted: {reason}"
