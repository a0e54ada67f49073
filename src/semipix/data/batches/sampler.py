"""The order in which images are drawn. It is a function of the batch number, so that a training can be resumed."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DistributedSampler

Draw = tuple[int, int]
"""Index of an image and the seed of its augmentation."""


class StreamSampler(DistributedSampler[Any]):
    """An endless stream of draws, divided into epochs of the same number of batches.

    A draw is a pure function of its number. Draw d belongs to pass `d // size`; each pass is one permutation of all
    images. Epoch e begins at batch `e * batches`, unless `continue_at` sets another place. The class is a
    `DistributedSampler` since it distributes each global batch to the processes itself; Lightning would replace another
    kind of sampler.

    Args:
        size: number of images.
        batch_size: images of a batch over all processes.
        batches: batches of an epoch.
        seed: chooses permutations and augmentations; each stream needs its own.
        rank: this process, which gets the rank-th part of every batch.
        world_size: number of processes; divides `batch_size`.
    """

    def __init__(self, size: int, batch_size: int, batches: int, seed: int, rank: int, world_size: int) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.size = size
        self.batch_size = batch_size
        self.batches = batches
        self.stream_seed = seed
        self.share = batch_size // world_size
        self._batches: range | None = None

    def continue_at(self, batch: int, done: int) -> None:
        """Set the place of the stream where the next iteration begins; later iterations are not affected.

        Args:
            batch: number of the first batch to draw, counted over all epochs.
            done: batches of the current epoch that are done already; the iteration is shorter by that number.
        """
        self._batches = range(batch, batch + self.batches - done)

    def __iter__(self) -> Iterator[Draw]:
        first = self.epoch * self.batches
        batches, self._batches = self._batches or range(first, first + self.batches), None
        return self._draws(batches)

    def __len__(self) -> int:
        return self.batches * self.share

    def _draws(self, batches: range) -> Iterator[Draw]:
        current_pass, permutation = -1, torch.empty(0)
        for batch in batches:
            start = batch * self.batch_size + self.rank * self.share
            for draw in range(start, start + self.share):
                if draw // self.size != current_pass:
                    current_pass = draw // self.size
                    permutation = self._permutation(current_pass)
                yield int(permutation[draw % self.size]), stable_seed(self.stream_seed, "augmentation", draw)

    def _permutation(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(stable_seed(self.stream_seed, "pass", number))
        return torch.randperm(self.size, generator=generator)


class ShardSampler(DistributedSampler[Any]):
    """Each image once, in order; this process gets every `world_size`-th image.

    torch's own sampler repeats images until all processes have the same number, so that a metric would count some of
    them twice.

    Args:
        size: number of images.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def stable_seed(*parts: int | str) -> int:
    """A seed below 2**63 for a tuple of numbers and words, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
