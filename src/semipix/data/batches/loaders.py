"""Data sets and loaders between a source and the batches."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from semipix.batch import LabeledImages, UnlabeledImages
from semipix.data.batches import workers
from semipix.data.batches.sampler import StreamSampler
from semipix.errors import SemipixError, reason_of


@dataclass(frozen=True)
class LoaderSettings:
    """What all loaders share.

    Attributes:
        workers: reading processes of each loader; 0 reads in the main process.
        prefetch: batches that each of them reads ahead.
        pin: whether batches are put into pinned memory, from which an accelerator copies faster.
    """

    workers: int
    prefetch: int = 2
    pin: bool = False


class SourceLoader(DataLoader[Any]):
    """A loader over a source.

    Args:
        dataset: what to read.
        sampler: in which order.
        batch_size: samples of a batch in this process.
        settings: what all loaders share.
        collate: samples to batch.
        seed: for the workers' own generators, so that iterating leaves torch's global generator alone.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: Sampler[Any],
        batch_size: int,
        settings: LoaderSettings,
        collate: Callable[[list[Any]], Any],
        seed: int = 0,
    ) -> None:
        method = workers.start_method()
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=settings.workers,
            multiprocessing_context=method if settings.workers else None,
            persistent_workers=settings.workers > 0,
            prefetch_factor=settings.prefetch if settings.workers else None,
            pin_memory=settings.pin,
            collate_fn=Collate(collate),
            generator=torch.Generator().manual_seed(seed),
            worker_init_fn=workers.first_call(method),
        )
        self.start_method = method

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in self._batches():
                if isinstance(batch, SemipixError):
                    # A copy: this frame would hold an error that holds this frame, and closing the workers by garbage
                    # collection takes torch ten seconds.
                    raise SemipixError(*batch.args)
                yield batch
        except RuntimeError as error:
            if message := died_worker(error):
                raise SemipixError(message) from None
            raise

    def _batches(self) -> Iterator[Any]:
        """What the workers read, which are started at the first call.

        Raises:
            SemipixError: workers are not forked, and the source cannot be sent to one.
        """
        if self.num_workers:
            workers.prepare(self.start_method)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Got pickle error")  # the error below says it
                return super().__iter__()
        except (PicklingError, AttributeError, TypeError) as error:
            if self.start_method == "fork":
                raise
            source = type(getattr(self.dataset, "source", self.dataset)).__name__
            raise SemipixError(
                f"data: {source} cannot be sent to a reading process, since it cannot be pickled ({error}); give it no "
                "functions made inside of functions and no open files, or set data.workers=0"
            ) from error


def died_worker(error: RuntimeError) -> str | None:
    """The message where torch says that a reading process died; None for all other errors."""
    message = reason_of(error)
    if "DataLoader worker (pid" not in message:
        return None
    return (
        f"a reading process died ({message}), most likely because memory ran out; lower data.workers, data.prefetch or "
        "data.cache_limit"
    )


class StreamLoader(SourceLoader):
    """A training loader that goes on where a checkpoint was written.

    It asks the trainer where to go on at the first batch of an epoch. By then the trainer has restored its counters of
    batches, whether the checkpoint is from the middle of an epoch, from its end or from after a validation. (Its
    counter of epochs is one too high after some.) So the loader needs no state of its own. It has an empty one, because
    Lightning warns of loaders without.

    Args:
        dataset, sampler, batch_size, settings, collate, seed: see `SourceLoader`.
        progress: batches trained in all and in the present epoch, or None outside of training.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: StreamSampler,
        batch_size: int,
        settings: LoaderSettings,
        collate: Callable[[list[Any]], Any],
        seed: int,
        progress: Callable[[], tuple[int, int] | None],
    ) -> None:
        super().__init__(dataset, sampler, batch_size, settings, collate, seed)
        self.stream = sampler
        self.progress = progress

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if progress := self.progress():
            self.stream.continue_at(*progress)
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the sampler is a pure function of the trainer's counters."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class Collate:
    """Collates samples to a batch, or returns the first error among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """A batch, or a `SemipixError`."""
        errors = [sample for sample in samples if isinstance(sample, SemipixError)]
        return errors[0] if errors else self.collate(list(samples))


def collate_labeled(samples: list[LabeledImages]) -> LabeledImages:
    """Samples of one size to a batch."""
    images, targets, names, seeds, places, shown = zip(*samples, strict=True)
    return LabeledImages(
        torch.stack(images),
        torch.stack(targets),
        [name for part in names for name in part],
        [seed for part in seeds for seed in part],
        [place for part in places for place in part],
        _shown(shown),
    )


def collate_unlabeled(samples: list[UnlabeledImages]) -> UnlabeledImages:
    """Samples of one size to a batch."""
    images, names, seeds, shown = zip(*samples, strict=True)
    return UnlabeledImages(
        torch.stack(images),
        [name for part in names for name in part],
        [seed for part in seeds for seed in part],
        _shown(shown),
    )


def _shown(parts: Sequence[Tensor]) -> Tensor | None:
    """The pixels (B, 1, H, W) that images show, of those of each (1, H, W); None if these are all."""
    shown = torch.stack(list(parts))
    return None if bool(shown.all()) else shown
