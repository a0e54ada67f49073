"""An unlabeled pool in WebDataset shards: tar archives that are streamed from a disk or from object storage."""

import contextlib
import importlib
import json
import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision import tv_tensors

from semipix.batch import UnlabeledImages
from semipix.data.batches.augment import augment, plain
from semipix.data.batches.datasets import ATTEMPTS, TrainSettings, fitted, with_skip_hint
from semipix.data.batches.sampler import StreamSampler, stable_seed
from semipix.data.files.names import Names
from semipix.data.files.opening import EXTENSIONS, Encoded
from semipix.errors import SemipixError, UnreadableFileError, reason_of

_URL = re.compile(r"^(\w{2,}):")

_PLAIN_URL = re.compile(
    r"(file|https?|ftps?|sftp|scp|s3a?|gs|gcs|hf|az|abfss?|adl|oci|oss|hdfs|webhdfs|ais|htgs|memory):"
    r"([\w\-./@%?&=+~,{}*\[\]!#]|:\d)*",
    re.ASCII,
)
"""An address that names a file and nothing else: no command, no chain of fsspec's, nothing that a shell takes apart."""

_META = re.compile(r"__[^/]*__($|/)")

_FAILED = re.compile(r"\): exit (\d+) \(")
"""What webdataset says where a command like curl failed."""

_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)
"""What reading a damaged or missing shard may raise."""


def is_plain_pattern(pattern: str) -> bool:
    """Whether opening the shards of a pattern runs no command: `pipe:` does, and so do some file systems of fsspec."""
    return "$" not in pattern and all(map(_is_plain, pattern.split("::")))


def _is_plain(url: str) -> bool:
    """Whether a shard is a local file, or an address that names a file and nothing else."""
    return ":" not in url or bool(re.match(r"[A-Za-z]:[\\/][^:]*$", url)) or bool(_PLAIN_URL.fullmatch(url))


class Shards:
    """Which shards there are and how many images each holds.

    The image of a sample is its first file with an extension of an image; whatever else a sample holds is ignored.

    Args:
        pattern: paths or URLs with `{000..123}`, or paths with `*`, several joined by `::`, as webdataset takes them;
            or an index (`.json` with `shardlist`, a list of `url` and `nsamples`). An index comes with the data, so
            that `pipe:` and other addresses that run commands are refused in it. Without an index the shards are
            counted: local archives by their headers, all others by reading them once.
        skip: whether to go on without what cannot be read.

    Attributes:
        urls: the shards.
        counts: images in each.
        problems: what was wrong with some of them, if `skip`.

    Raises:
        SemipixError: webdataset is not installed, nothing is found, a shard is damaged, or there is no image.
    """

    def __init__(self, pattern: str, skip: bool = False) -> None:
        _webdataset("gopen")
        self.problems: list[UnreadableFileError] = []
        if pattern.endswith(".json"):
            urls, counts = _read_index(Path(pattern).expanduser())
        else:
            urls = _expanded(pattern)
            counts = [self._count(url, skip) for url in urls]
        self.urls = Names(urls)
        self.counts: NDArray[np.int64] = np.array(counts, np.int64)
        if not len(self):
            raise SemipixError(
                f"data.shards={pattern}: found no image in {len(urls)} shards, expected samples with one of the "
                f"extensions {', '.join(sorted(EXTENSIONS))}; mend data.shards"
            )

    def __len__(self) -> int:
        return int(self.counts.sum())

    def _count(self, url: str, skip: bool) -> int:
        count = 0
        try:
            for _ in _headers(url) if not _URL.match(url) else images_of(url):
                count += 1
        except UnreadableFileError as error:
            if not skip:
                raise with_skip_hint(error) from None
            self.problems.append(error)
        return count

    def stream(self, seed: int, turn: int, start: int, stop: int) -> Iterator[Encoded | UnreadableFileError]:
        """Images `start` to `stop` of a turn's order, in which shards are shuffled; beyond the end it starts again.

        Where a shard ends too early, there is an error in the place of each image that is missing.
        """
        generator = torch.Generator().manual_seed(stable_seed(seed, "shards", turn))
        order = torch.randperm(len(self.urls), generator=generator).tolist()
        ends = np.cumsum(self.counts[order])
        while start < stop:
            place = start % len(self)
            number = int(np.searchsorted(ends, place, side="right"))
            count = min(stop - start, int(ends[number]) - place)
            first = place - int(ends[number] - self.counts[order[number]])
            yield from _part(self.urls[order[number]], first, count)
            start += count


class ShardDraw(NamedTuple):
    """An image of a stream.

    Attributes:
        turn: pass over all shards.
        start, stop: part of the turn's order that one reading process streams.
        number: the image's number in that part.
        seed: of its augmentation.
    """

    turn: int
    start: int
    stop: int
    number: int
    seed: int


class PoolSampler(StreamSampler):
    """Deals shards out: each epoch is a pass, of which every reading process of every rank streams its own part.

    The parts are equal to a batch's share and together hold each image once; the last batch is filled up with images
    from the start. The reading process of a batch follows from the batch's number alone, as torch deals batches out.

    Args:
        size, batch_size, batches, seed, rank, world_size: see `StreamSampler`.
        workers: reading processes of each rank.
    """

    def __init__(
        self, size: int, batch_size: int, batches: int, seed: int, rank: int, world_size: int, workers: int
    ) -> None:
        super().__init__(size, batch_size, batches, seed, rank, world_size)
        self.workers = max(1, workers)

    def _draws(self, batches: range) -> Iterator[Any]:
        for batch in batches:
            turn, step = divmod(batch, self.batches)
            number, worker = divmod(step, self.workers)
            before = sum(self._batches_of(other) for other in range(worker))
            start = (self.rank * self.batches + before) * self.share
            stop = start + self._batches_of(worker) * self.share
            for place in range(self.share):
                draw = batch * self.batch_size + self.rank * self.share + place
                seed = stable_seed(self.stream_seed, "augmentation", draw)
                yield ShardDraw(turn, start, stop, number * self.share + place, seed)

    def _batches_of(self, worker: int) -> int:
        return len(range(worker, self.batches, self.workers))


class ShardDataset(Dataset[Any]):
    """Augmented images of shards, by draw. Draws that follow each other are streamed; any other opens a new stream.

    Args:
        shards: the pool.
        settings: what all training images go through.
        seed: chooses the order.
        buffer: encoded images that a reading process holds, of which it draws the next one.
    """

    def __init__(self, shards: Shards, settings: TrainSettings, seed: int, buffer: int) -> None:
        self.shards = shards
        self.settings = settings
        self.seed = seed
        self.buffer = buffer
        self._held: list[Encoded | UnreadableFileError] = []
        self._stream: Iterator[Encoded | UnreadableFileError] = iter(())
        self._next: ShardDraw | None = None

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, draw: ShardDraw) -> Any:
        """The sample, or a user's slip as a value. With `data.on_error=skip` another image stands in for a bad one."""
        encoded = self._encoded(draw)
        problem: UnreadableFileError | None = None
        for attempt in (encoded, *self._held[:ATTEMPTS]):
            try:
                return self._read(attempt, draw.seed)
            except UnreadableFileError as error:
                problem = problem or error
                if self.settings.skipped is None:
                    return with_skip_hint(error)
                self.settings.skipped.add(error)
            except SemipixError as error:
                return error
        return SemipixError(f"{problem}; and none of the images next to it could be read; check data.shards")

    def _read(self, encoded: Encoded | UnreadableFileError, seed: int) -> UnlabeledImages:
        if isinstance(encoded, UnreadableFileError):
            raise encoded
        image = tv_tensors.Image(self.settings.reader.image(encoded))
        image = fitted(encoded.name, image, self.settings)
        return UnlabeledImages(plain(augment(self.settings.transform, seed, image)), [encoded.name], [seed])

    def _encoded(self, draw: ShardDraw) -> Encoded | UnreadableFileError:
        if self._next != draw._replace(seed=0):
            self._stream = self._shuffled(draw)
            for _ in range(draw.number):  # after resuming: what was trained on is read, not decoded
                next(self._stream)
        self._next = draw._replace(number=draw.number + 1, seed=0)
        return next(self._stream)

    def _shuffled(self, draw: ShardDraw) -> Iterator[Encoded | UnreadableFileError]:
        chosen = random.Random(stable_seed(self.seed, "buffer", draw.turn, draw.start))
        self._held = held = []
        for image in self.shards.stream(self.seed, draw.turn, draw.start, draw.stop):
            held.append(image)
            if len(held) > self.buffer:
                yield _taken(held, chosen)
        while len(held) > 1:
            yield _taken(held, chosen)
        yield from held  # not taken out: the last one may have to stand in for itself


def _taken(held: list[Any], chosen: random.Random) -> Any:
    """A random item, taken out of a list whose order does not matter."""
    place = chosen.randrange(len(held))
    held[place], held[-1] = held[-1], held[place]
    return held.pop()


def images_of(url: str) -> Iterator[Encoded]:
    """The images of a shard, in order.

    Raises:
        UnreadableFileError: the shard cannot be opened, or is truncated or damaged.
    """
    last = ""
    try:
        stream = _opened(url)
        try:
            for member in _webdataset("tariterators").tar_file_iterator(stream):
                key = _image_key(member["fname"])
                if key and key != last:
                    last = key
                    yield Encoded(f"{url}/{member['fname']}", member["data"])
        finally:
            with contextlib.suppress(OSError):  # a command that is not read to its end fails
                stream.close()
    except _BROKEN as error:
        raise _damaged(url, error) from None


def _opened(url: str) -> Any:
    """A shard as a file to read from: by webdataset or, where it does not know the scheme, by fsspec.

    Raises:
        UnreadableFileError: it cannot be opened.
    """
    gopen = _webdataset("gopen")
    scheme = _URL.match(url)
    if scheme is None or scheme[1] in gopen.gopen_schemes:
        return gopen.gopen(url)
    try:
        return fsspec.open(url, "rb").open()
    except FileNotFoundError:
        raise
    except Exception as error:  # each storage's package has its own
        raise UnreadableFileError(
            f"{url}: cannot be opened ({reason_of(error)}); install what fsspec needs for {scheme[1]}:, see to its "
            "credentials, or mend data.shards"
        ) from error


def _headers(path: str) -> Iterator[str]:
    """Keys of the images of a local shard, by its headers alone if it is not compressed."""
    last = ""
    whole = True
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not whole:
                    yield last  # tarfile looks for the end of a member before it goes on to the next
                key = _image_key(member.name) if member.isreg() else None
                whole = not key or key == last
                last = key or last
                archive.members = []  # type: ignore[attr-defined]
        if not whole:
            yield last
    except _BROKEN as error:
        raise _damaged(path, error) from None


def _image_key(name: str) -> str | None:
    """What webdataset calls the sample of an image file, its path up to the first dot; None for other files."""
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    if f".{extension.lower()}" not in EXTENSIONS or not stem or _META.match(name):
        return None
    return f"{folder}/{stem}"


def _part(url: str, first: int, count: int) -> Iterator[Encoded | UnreadableFileError]:
    """Images `first` to `first + count` of a shard; an error for each that is missing."""
    given = seen = 0
    problem = None
    with contextlib.closing(images_of(url)) as images:  # type: ignore[type-var]
        try:
            for image in images:
                seen += 1
                if seen > first:
                    given += 1
                    yield image
                    if given == count:
                        return
        except UnreadableFileError as error:
            problem = error
    problem = problem or UnreadableFileError(
        f"{url}: truncated shard: found {seen} images, expected at least {first + count}; replace the shard"
    )
    for _ in range(count - given):
        yield problem


def _damaged(url: str, error: Exception) -> UnreadableFileError:
    reason = " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return UnreadableFileError(f"{url}: no such shard; mend data.shards")
    if failed := _FAILED.search(reason):
        return UnreadableFileError(
            f"{url}: truncated or damaged shard, or none that can be reached (the command that reads it ended with "
            f"exit status {failed[1]}); mend the address, replace it or take it out of data.shards"
        )
    reason = reason.partition(" @ ")[0][:120]
    return UnreadableFileError(
        f"{url}: truncated or damaged shard ({reason}); replace it or take it out of data.shards"
    )


def _expanded(pattern: str) -> list[str]:
    urls = []
    for url in _webdataset("shardlists").expand_urls(pattern):
        url = url.removeprefix("file://").removeprefix("file:")
        if _URL.match(url):
            urls.append(url)
            continue
        path = Path(url).expanduser()
        several = any(sign in path.name for sign in "*?[")
        found = sorted(path.parent.glob(path.name)) if several else [path]
        if not found or not found[0].is_file():
            raise SemipixError(f"data.shards={pattern}: no such file: {url}; expected tar archives, mend data.shards")
        urls += map(str, found)
    return urls


def _read_index(path: Path) -> tuple[list[str], list[int]]:
    """Shards and counts from an index as webdataset's tools write it."""
    try:
        listed: Sequence[dict[str, Any]] = json.loads(path.read_text("utf-8"))["shardlist"]
        urls, counts = [str(shard["url"]) for shard in listed], [int(shard["nsamples"]) for shard in listed]
    except FileNotFoundError:
        raise SemipixError(f"data.shards={path}: no such file; mend data.shards") from None
    except (ValueError, KeyError, TypeError):
        raise SemipixError(
            f'data.shards={path}: not an index of shards, expected JSON with "shardlist": [{{"url": ..., "nsamples": '
            "...}, ...]"
        ) from None
    for url in urls:
        if not _is_plain(url):
            raise SemipixError(
                f"data.shards={path}: {url[:80]!r} found in the index, a file or a plain address expected; give a "
                "command as data.shards=pipe:COMMAND, without an index"
            )
    return [url if _URL.match(url) else str(path.parent / url) for url in urls], counts


def _webdataset(module: str) -> Any:
    """A module of webdataset, which is installed on demand.

    Raises:
        SemipixError: it is not.
    """
    try:
        return importlib.import_module(f"webdataset.{module}")
    except ImportError:
        raise SemipixError("data.shards: webdataset is needed to read shards: pip install 'semipix[shards]'") from None
