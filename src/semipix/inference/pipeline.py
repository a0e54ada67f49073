"""Reading, computing and writing at the same time; both engines run this."""

import errno
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from semipix.errors import SemipixError
from semipix.inference.batches import pixels_of_a_batch
from semipix.inference.predictor import Photo, Predictor
from semipix.interruption import check

READERS = WRITERS = 2
"""Threads that decode, and that draw, encode and write; each leaves Python's lock for most of its time."""

AHEAD = range(4, 65)
"""Images read ahead of the network: two batches of the last size, within these bounds."""

Failure = str
"""One line about an image that could not be predicted."""


def predict_files(predictor: Predictor, files: Iterable[tuple[Path, Path]]) -> Generator[Failure | None]:
    """Predict images and write their results; one image is computed while others are read and written.

    Images of one size are computed together, so that results come in another order than the files.

    Args:
        predictor: reads, computes and writes.
        files: each with the name of its results.

    Yields:
        For each image None, or what was wrong with it.

    Raises:
        OSError: results cannot be written.
        KeyboardInterrupt: a signal has come; what is being written is finished.
    """
    budget = pixels_of_a_batch(predictor.device.type)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
        writing: deque[Future[Failure | None]] = deque()
        try:
            for item in _batches(_read_ahead(predictor, files, readers, budget), budget):
                check()
                if isinstance(item, Failure):
                    yield item
                    continue
                written = _compute(predictor, item, writers)
                while writing:  # what was computed while this batch was: by now most of it is on disk
                    yield writing.popleft().result()
                writing.extend(written)
            while writing:
                yield writing.popleft().result()
        finally:
            for pool in (readers, writers):
                pool.shutdown(wait=False, cancel_futures=True)


def _read_ahead(
    predictor: Predictor, files: Iterable[tuple[Path, Path]], pool: ThreadPoolExecutor, budget: int
) -> Iterator[Photo | Failure]:
    """Images in the order of the files, or why one could not be read, read by a pool ahead of being asked for."""
    reading: deque[Future[Photo | Failure]] = deque()
    ahead, rest = AHEAD.start, iter(files)
    while True:
        while len(reading) < ahead and (pair := next(rest, None)) is not None:
            reading.append(pool.submit(_read, predictor, *pair))
        if not reading:
            return
        found = reading.popleft().result()
        if isinstance(found, Photo):
            ahead = min(max(2 * budget // _pixels(found), AHEAD.start), AHEAD.stop - 1)
        yield found


def _read(predictor: Predictor, file: Path, name: Path) -> Photo | Failure:
    try:
        return predictor.read(file, name)
    except SemipixError as error:
        return str(error)


def _batches(found: Iterable[Photo | Failure], budget: int) -> Iterator[list[Photo] | Failure]:
    """Images of equal size in batches of at most `budget` pixels, or one image; failures pass through.

    A size that stays rare waits for more of it while fewer than four batches' pixels wait in all.
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
        elif sum(_pixels(photo) for photos in waiting.values() for photo in photos) > 4 * budget:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _pixels(photo: Photo) -> int:
    return photo.seen.shape[-2] * photo.seen.shape[-1]


def _compute(predictor: Predictor, photos: list[Photo], pool: ThreadPoolExecutor) -> list[Future[Failure | None]]:
    """Compute a batch and hand each image's output to the writers; one by one where the batch fails as a whole."""
    try:
        outputs, flaws = predictor.compute(torch.stack([photo.seen for photo in photos]))
    except (RuntimeError, ValueError) as error:  # the network refuses this size, or memory is short
        if len(photos) == 1:
            told: Future[Failure | None] = Future()
            told.set_result(_refusal(photos[0], error))
            return [told]
        return [future for photo in photos for future in _compute(predictor, [photo], pool)]
    return [
        pool.submit(_write, predictor, photo, outputs[index], None if flaws is None else flaws[index])
        for index, photo in enumerate(photos)
    ]


def _write(predictor: Predictor, photo: Photo, output: Tensor, flaw: Tensor | None) -> Failure | None:
    try:
        predictor.write(photo, output, flaw)
    except (RuntimeError, ValueError) as error:
        return _refusal(photo, error)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"{photo.file}: its result could not be written: {error.strerror}; shorten the name"
    return None


def _refusal(photo: Photo, error: Exception) -> Failure:
    size = f"{photo.image.shape[-1]}x{photo.image.shape[-2]}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{photo.file}: this image of {size} pixels could not be predicted: {reason}"
