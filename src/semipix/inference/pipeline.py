"""The pipeline of prediction, which reads, computes and writes at the same time; both engines use it."""

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
from semipix.inference.predictor import Photo, Predictor, Written
from semipix.interruption import raise_if_interrupted
from semipix.training.failures import memory_short

READ_AHEAD_BYTES = 2**28
"""Limit for the bytes of images that are read before the network needs them; one image may be larger."""

WAITING_BYTES = 2**28
"""Limit for the bytes of images that wait for others of their size; above it, the oldest are computed."""

WRITING_BYTES = 2**28
"""Limit for the bytes of images and outputs that are being written; above it, the next batch waits."""

READERS = WRITERS = 2
"""Threads that decode, and threads that draw, encode and write; most of their work does not hold Python's lock."""

READ_AHEAD_IMAGES = range(4, 65)
"""Smallest and largest number of images that are read before the network needs them; two batches within this range."""

MEMORY_HINT = "shrink it, predict by a run with a smaller data.resize, or use a machine with more memory"

Failure = str
"""One line about an image that could not be predicted."""

Ended = Failure | Written
"""How the prediction of an image ended: its error, or what the predictor returned of it."""


def predict_files(predictor: Predictor, files: Iterable[tuple[Path, Path]]) -> Generator[Ended]:
    """Predict images and write their results; images are read and written while others are computed.

    Images of equal size are computed in batches, so the order of the results differs from that of the files. Images
    that are too large for one pass are computed in parts.

    Args:
        predictor: reads, computes and writes.
        files: image files, each with the name of its results.

    Yields:
        How each image ended.

    Raises:
        OSError: results cannot be written.
        KeyboardInterrupt: a signal was received; files that are being written are completed.
    """
    pixels = batch_pixels(predictor.device.type)
    budget = MemoryBudget(READ_AHEAD_BYTES)
    with ThreadPoolExecutor(READERS) as readers:
        try:
            yield from _predict(predictor, _read_ahead(predictor, files, readers, pixels, budget), WRITERS)
        finally:
            budget.close()
            readers.shutdown(wait=False, cancel_futures=True)


def predict_frames(predictor: Predictor, frames: Iterator[Photo | Failure]) -> Generator[Ended]:
    """Predict the frames of a video, and write their results in the order of the frames.

    Frames are decoded by one thread, since each depends on the frames before it, and drawn and encoded by another.

    Args:
        predictor: computes and writes.
        frames: frames of one size, or the error of one.

    Yields:
        How each frame ended, errors before the frames that wait for their batch.

    Raises:
        SemipixError: the video cannot be read any further, or its results cannot be written.
        OSError: results cannot be written.
        KeyboardInterrupt: a signal was received; results that are being written are completed.
    """
    with ThreadPoolExecutor(1) as reader:
        try:
            yield from _predict(predictor, _decode_ahead(frames, reader, batch_pixels(predictor.device.type)), 1)
        finally:  # the decoder may be at work, and its file is closed after this
            reader.shutdown(wait=True, cancel_futures=True)


def _predict(predictor: Predictor, items: Iterator[Photo | Failure], threads: int) -> Generator[Ended]:
    """Compute images in batches and write their results by some threads, in the order of the batches."""
    pixels = batch_pixels(predictor.device.type)
    with ThreadPoolExecutor(threads) as writers:
        writing: deque[Future[Ended]] = deque()
        writing_bytes = 0
        try:
            for item in _batches(items, pixels):
                raise_if_interrupted()
                if isinstance(item, Failure):
                    yield item
                    continue
                while writing_bytes > WRITING_BYTES and writing:
                    yield writing.popleft().result()
                submitted, writing_bytes = _compute(predictor, item, writers)
                while writing:  # the batch before this one, most of which was written during the computation
                    yield writing.popleft().result()
                writing.extend(submitted)
            while writing:
                yield writing.popleft().result()
        finally:
            writers.shutdown(wait=False, cancel_futures=True)


def _decode_ahead(
    frames: Iterator[Photo | Failure], pool: ThreadPoolExecutor, pixels: int
) -> Iterator[Photo | Failure]:
    """The frames of a video; a pool of one thread decodes some in advance."""
    waiting: deque[Future[Photo | Failure | None]] = deque()
    ahead = READ_AHEAD_IMAGES.start
    while True:
        while len(waiting) < ahead:
            waiting.append(pool.submit(next, frames, None))
        item = waiting.popleft().result()
        if item is None:
            return
        if isinstance(item, Photo):
            in_memory = max(READ_AHEAD_IMAGES.start, READ_AHEAD_BYTES // max(1, item.nbytes))
            wanted = max(2 * pixels // _pixels(item), READ_AHEAD_IMAGES.start)
            ahead = min(wanted, READ_AHEAD_IMAGES.stop - 1, in_memory)
        yield item


class MemoryBudget:
    """Limits the bytes of images that are read ahead; images are admitted in their order.

    Args:
        limit: bytes of all images together; a larger image is admitted when there is no other.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._turn = 0
        self._closed = False
        self._changed = Condition()

    def enter(self, turn: int, size: int) -> None:
        """Wait until all earlier images were admitted and the image's bytes are free, or until the budget is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (turn == self._turn and (not self.used or self.used + size <= self.limit))
            )
            self._turn += 1
            self.used += size
            self._changed.notify_all()

    def change(self, size: int) -> None:
        """Add a number of bytes to the used ones; a negative number frees them."""
        with self._changed:
            self.used += size
            self._changed.notify_all()

    def close(self) -> None:
        """Admit all images that wait, without a limit."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _read_ahead(
    predictor: Predictor,
    files: Iterable[tuple[Path, Path]],
    pool: ThreadPoolExecutor,
    pixels: int,
    budget: MemoryBudget,
) -> Iterator[Photo | Failure]:
    """Images in the order of the files, or the error of one; a pool of threads reads them in advance."""
    reading: deque[Future[tuple[Photo | Failure, int]]] = deque()
    ahead, rest, turns = READ_AHEAD_IMAGES.start, iter(files), count()
    while True:
        while len(reading) < ahead and (pair := next(rest, None)) is not None:
            reading.append(pool.submit(_read, predictor, *pair, next(turns), budget))
        if not reading:
            return
        item, size = reading.popleft().result()
        budget.change(-size)
        if isinstance(item, Photo):
            ahead = min(max(2 * pixels // _pixels(item), READ_AHEAD_IMAGES.start), READ_AHEAD_IMAGES.stop - 1)
        yield item


def _read(predictor: Predictor, file: Path, name: Path, turn: int, budget: MemoryBudget) -> tuple[Photo | Failure, int]:
    """An image, or why it could not be read, and its bytes of the budget."""
    expected = predictor.bytes_of(file)
    budget.enter(turn, expected)
    item: Photo | Failure
    try:
        item = predictor.read(file, name)
    except SemipixError as error:
        item = str(error)
    except (MemoryError, RuntimeError) as error:
        if not (short := memory_short(error)):
            raise
        item = f"{file}: out of {short} while this image was read; {MEMORY_HINT}"
    size = item.nbytes if isinstance(item, Photo) else 0
    budget.change(size - expected)
    return item, size


def _batches(items: Iterable[Photo | Failure], pixels: int) -> Iterator[list[Photo] | Failure]:
    """Images of equal size in batches of at most `pixels` pixels, or of one image; failures pass through.

    Images wait for others of their size while all that wait have at most four batches' pixels and `WAITING_BYTES`.
    """
    waiting: dict[torch.Size, list[Photo]] = {}
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        group = waiting.setdefault(item.seen.shape, [])
        group.append(item)
        if (len(group) + 1) * _pixels(item) > pixels:
            yield waiting.pop(item.seen.shape)
            continue
        while _too_many_wait(waiting, pixels):
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _too_many_wait(waiting: Mapping[torch.Size, list[Photo]], pixels: int) -> bool:
    """Whether the waiting images exceed a limit of `_batches`."""
    photos = [photo for group in waiting.values() for photo in group]
    return sum(map(_pixels, photos)) > 4 * pixels or sum(photo.nbytes for photo in photos) > WAITING_BYTES


def _pixels(photo: Photo) -> int:
    return photo.seen.shape[-2] * photo.seen.shape[-1]


def _compute(predictor: Predictor, photos: list[Photo], pool: ThreadPoolExecutor) -> tuple[list[Future[Ended]], int]:
    """Compute a batch, and let the writers write each image's results; if the batch fails, compute single images.

    Returns:
        A future for each image, and the bytes that are in use until all are written.
    """
    try:
        if len(photos) == 1 and predictor.large.applies((photos[0].seen.shape[-2], photos[0].seen.shape[-1])):
            drawing = predictor.draw_in_parts(photos[0])
            return [pool.submit(_write, photos[0], predictor.save, photos[0], drawing)], drawing.nbytes
        outputs, scores = predictor.compute(torch.stack([unit_range(photo.seen) for photo in photos]))
    except (RuntimeError, ValueError, MemoryError) as error:  # the network refuses this size, or memory is short
        if len(photos) == 1:
            failure: Future[Ended] = Future()
            failure.set_result(failure_of(photos[0], error))
            return [failure], 0
        parts = [_compute(predictor, [photo], pool) for photo in photos]
        return [future for futures, _ in parts for future in futures], sum(size for _, size in parts)
    size = sum(photo.nbytes for photo in photos) + outputs.nbytes + (0 if scores is None else scores.nbytes)
    return [
        pool.submit(_write, photo, predictor.write, photo, outputs[index], None if scores is None else scores[index])
        for index, photo in enumerate(photos)
    ], size


def _write(photo: Photo, write: Callable[..., Written], *arguments: Any) -> Ended:
    """Write an image's results; return what the predictor does, or the error if this is not possible."""
    try:
        return write(*arguments)
    except (RuntimeError, ValueError, MemoryError) as error:
        return failure_of(photo, error)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"{photo.file}: its result could not be written: {error.strerror}; shorten the name"


def failure_of(photo: Photo, error: Exception) -> Failure:
    """The line about an image that a network or its surroundings refused."""
    size = f"{photo.image.shape[-1]}x{photo.image.shape[-2]}"
    if short := memory_short(error):
        return f"{photo.file}: out of {short} for this image of {size} pixels; {MEMORY_HINT}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{photo.file}: this image of {size} pixels could not be predicted: {reason}"
