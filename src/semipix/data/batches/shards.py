"""Unlabeled images in WebDataset shards: tar archives that are streamed from a disk or from object storage."""

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

from semipix.batch import UnlabeledImages
from semipix.data.batches.datasets import ATTEMPTS, TrainSettings, resize_and_check, unlabeled_sample, with_skip_hint
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
"""An address of a file, without commands, chains of fsspec, or characters that are special in a shell."""

_META = re.compile(r"__[^/]*__($|/)")

_FAILED = re.compile(r"\): exit (\d+) \(")
"""The exit status in webdataset's message about a failed command, such as curl."""

_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)
"""Errors that reading a damaged or missing shard may raise."""


def is_plain_pattern(pattern: str) -> bool:
    """Whether opening the shards of a pattern runs no command.

    `pipe:` and some file systems of fsspec do.
    """
    return "$" not in pattern and all(map(_is_plain_address, pattern.split("::")))


class Shards:
    """The list of shards and the number of images in each.

    The image of a sample is its first file with the extension of an image; all other files of a sample are ignored.

    Args:
        pattern: paths or URLs with `{000..123}`, or paths with `*`, several joined by `::`, as webdataset takes them;
            or an index (`.json` with `shardlist`, a list of `url` and `nsamples`). An index usually comes from the
            author of the data, so `pipe:` and other addresses that run commands are refused in it. Without an index the
            images are counted: local archives by their headers, all others by reading them once.
        skip: whether to continue without shards that cannot be read.

    Attributes:
        urls: the shards.
        counts: number of images in each shard.
        problems: with `skip`, the errors of shards that cannot be read.

    Raises:
        SemipixError: webdataset is not installed, no shard is found, a shard is damaged (without `skip`), or the shards
            contain no image.
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
                f"extensions {', '.join(sorted(EXTENSIONS))}; fix data.shards"
            )

    def __len__(self) -> int:
        return int(self.counts.sum())

    def _count(self, url: str, skip: bool) -> int:
        count = 0
        try:
            for _ in _image_keys(url) if not _URL.match(url) else images_of(url):
                count += 1
        except UnreadableFileError as error:
            if not skip:
                raise with_skip_hint(error) from None
            self.problems.append(error)
        return count

    def stream(self, seed: int, turn: int, start: int, stop: int) -> Iterator[Encoded | UnreadableFileError]:
        """The images `start` to `stop` of a pass, with the shards in random order; after the end it starts again.

        If a shard ends too early, an error is returned in place of each missing image.

        Args:
            seed: chooses the order of the shards.
            turn: number of the pass, each of which has another order.
            start, stop: range of images in this order.
        """
        generator = torch.Generator().manual_seed(stable_seed(seed, "shards", turn))
        order = torch.randperm(len(self.urls), generator=generator).tolist()
        ends = np.cumsum(self.counts[order])
        while start < stop:
            place = start % len(self)
            number = int(np.searchsorted(ends, place, side="right"))
            count = min(stop - start, int(ends[number]) - place)
            first = place - int(ends[number] - self.counts[order[number]])
            yield from _shard_images(self.urls[order[number]], first, count)
            start += count


class ShardDraw(NamedTuple):
    """One image of the stream of a reading process.

    Attributes:
        turn: number of the pass over all shards.
        start, stop: range of images of the pass that one reading process streams.
        number: number of the image in that range.
        seed: seed of its augmentation.
    """

    turn: int
    start: int
    stop: int
    number: int
    seed: int


class PoolSampler(StreamSampler):
    """Distributes the images of shards: each epoch is a pass, of which each reading process streams its own part.

    The sizes of the parts differ by at most one process's share of a batch. Together they contain each image once; the
    last batch is completed with images from the start. The number of a batch decides which process reads it, in the
    same way as in torch's loader.

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
    """Augmented images of shards; an item is given by a draw.

    Consecutive draws are read from the same stream. A draw that does not follow the last one opens a new stream.

    Args:
        shards: the shards.
        settings: settings for reading and augmenting.
        seed: chooses the order.
        buffer: number of encoded images in memory, from which a reading process draws the next one.
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
        """The sample, or an error as the return value; with `data.on_error=skip`, another image replaces a bad one."""
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
        image = self.settings.reader.tensor(encoded)
        image = resize_and_check(encoded.name, image, self.settings)
        return unlabeled_sample(image, encoded.name, seed, self.settings)

    def _encoded(self, draw: ShardDraw) -> Encoded | UnreadableFileError:
        if self._next != draw._replace(seed=0):
            self._stream = self._shuffled(draw)
            for _ in range(draw.number):  # after resuming: images that were trained on are read, but not decoded
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
        yield from held  # not taken out, since `_held` must contain a replacement for the last one


def images_of(url: str) -> Iterator[Encoded]:
    """The images of a shard, in order.

    Raises:
        UnreadableFileError: the shard cannot be opened, or is truncated or damaged.
    """
    last = ""
    try:
        stream = _open_shard(url)
        try:
            for member in _webdataset("tariterators").tar_file_iterator(stream):
                key = _image_key(member["fname"])
                if key and key != last:
                    last = key
                    yield Encoded(f"{url}/{member['fname']}", member["data"])
        finally:
            with contextlib.suppress(OSError):  # a command fails if its output is not read to the end
                stream.close()
    except _BROKEN as error:
        raise _damaged(url, error) from None


def _is_plain_address(url: str) -> bool:
    """Whether a shard is a local file, or an address that runs no command."""
    return ":" not in url or bool(re.match(r"[A-Za-z]:[\\/][^:]*$", url)) or bool(_PLAIN_URL.fullmatch(url))


def _taken(held: list[Any], chosen: random.Random) -> Any:
    """Take a random item out of a list; the order of the list may change."""
    place = chosen.randrange(len(held))
    held[place], held[-1] = held[-1], held[place]
    return held.pop()


def _open_shard(url: str) -> Any:
    """Open a shard for reading, by webdataset or, for schemes that webdataset does not know, by fsspec.

    Raises:
        UnreadableFileError: the storage cannot be reached.
    """
    gopen = _webdataset("gopen")
    scheme = _URL.match(url)
    if scheme is None or scheme[1] in gopen.gopen_schemes:
        return gopen.gopen(url)
    try:
        return fsspec.open(url, "rb").open()
    except FileNotFoundError:
        raise
    except Exception as error:  # the packages for storages raise errors of their own
        reason = reason_of(error)
        raise UnreadableFileError(
            f"{url}: cannot be opened ({reason}); install what fsspec needs for {scheme[1]}:, check its credentials, "
            "or fix data.shards"
        ) from error


def _image_keys(path: str) -> Iterator[str]:
    """Keys of the images of a local shard; only headers are read unless it is compressed."""
    last = ""
    whole = True
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not whole:
                    yield last  # the member is complete, since tarfile found the next one
                key = _image_key(member.name) if member.isreg() else None
                whole = not key or key == last
                last = key or last
                archive.members = []  # type: ignore[attr-defined]
        if not whole:
            yield last
    except _BROKEN as error:
        raise _damaged(path, error) from None


def _image_key(name: str) -> str | None:
    """webdataset's key of an image file, its path up to the first dot; None for other files."""
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    if f".{extension.lower()}" not in EXTENSIONS or not stem or _META.match(name):
        return None
    return f"{folder}/{stem}"


def _shard_images(url: str, first: int, count: int) -> Iterator[Encoded | UnreadableFileError]:
    """The images `first` to `first + count` of a shard; an error in place of each missing one."""
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
        return UnreadableFileError(f"{url}: no such shard; fix data.shards")
    if failed := _FAILED.search(reason):
        return UnreadableFileError(
            f"{url}: truncated or damaged shard, or none that can be reached (the command that reads it ended with "
            f"exit status {failed[1]}); fix the address, replace it or take it out of data.shards"
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
            raise SemipixError(f"data.shards={pattern}: no such file: {url}; expected tar archives, fix data.shards")
        urls += map(str, found)
    return urls


def _read_index(path: Path) -> tuple[list[str], list[int]]:
    """Shards and counts from an index in the format of webdataset's tools."""
    try:
        listed: Sequence[dict[str, Any]] = json.loads(path.read_text("utf-8"))["shardlist"]
        urls, counts = [str(shard["url"]) for shard in listed], [int(shard["nsamples"]) for shard in listed]
    except FileNotFoundError:
        raise SemipixError(f"data.shards={path}: no such file; fix data.shards") from None
    except (ValueError, KeyError, TypeError):
        raise SemipixError(
            f'data.shards={path}: not an index of shards, expected JSON with "shardlist": [{{"url": ..., "nsamples": '
            "...}, ...]"
        ) from None
    for url in urls:
        if not _is_plain_address(url):
            raise SemipixError(
                f"data.shards={path}: found {url[:80]!r} in the index, expected a file or a plain address; give a "
                "command as data.shards=pipe:COMMAND, without an index"
            )
    return [url if _URL.match(url) else str(path.parent / url) for url in urls], counts


def _webdataset(module: str) -> Any:
    """Import a module of webdataset, which is an optional dependency.

    Raises:
        SemipixError: webdataset is not installed.
    """
    try:
        return importlib.import_module(f"webdataset.{module}")
    except ImportError:
        raise SemipixError("data.shards: webdataset is needed to read shards: pip install 'semipix[shards]'") from None
