"""Data sets and loaders between a source and the batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors

from semipix.data.decode import unit_range
from semipix.data.names import Names
from semipix.data.reader import Reader
from semipix.data.sampler import Draw, StreamSampler, stable_seed
from semipix.data.sizes import Size
from semipix.data.skipped import Skipped
from semipix.data.source import ImageTarget, Source, Target
from semipix.data.transforms import TrainTransform, check_crop, resize_image, resize_target
from semipix.errors import SemipixError, UnreadableFileError
from semipix.processes import worker_init


class LabeledImages(NamedTuple):
    """The labeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        target: (B, H, W) int64 for classification, (B, C, H, W) float32 for regression.
        names: the images' names.
    """

    image: Tensor
    target: Tensor
    names: list[str]


class UnlabeledImages(NamedTuple):
    """The unlabeled part of a training batch.

    Attributes:
        image: (B, C_in, H, W) float32 in [0, 1].
        names: the images' names.
        seeds: a seed for each image, from which its strong views are drawn.
    """

    image: Tensor
    names: list[str]
    seeds: list[int]


class EvalSample(NamedTuple):
    """One image to evaluate.

    Attributes:
        image: (C_in, h, w) float32 in [0, 1], resized for the network.
        target: the label at its own size, (H, W) int64 or (C, H, W) float32.
        name: the image's name.
    """

    image: Tensor
    target: Tensor
    name: str


ATTEMPTS = 20
"""Images that are tried in the place of one that cannot be read, before the data are given up."""


class _SourceDataset(Dataset[Any]):
    """Reads named images; a user's slip is handed over as a value instead of being raised.

    A loader's worker process would wrap a raised error in its own traceback; as a value it arrives unharmed, and
    `SourceLoader` raises it in the main process.
    """

    def __init__(self, source: Source, names: Sequence[str], resize: int | Size | None) -> None:
        self.source = source
        self.names = Names.of(names)
        self.resize = resize

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.read(item)
        except SemipixError as error:
            return error

    def read(self, item: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class TrainSettings:
    """What all training images go through.

    Attributes:
        reader: reads images in shards as the source reads its own.
        crop: height and width that an image has to have then.
        transform: augmentation.
        pad: whether an image may be smaller than the crop.
        skipped: where images that cannot be read are listed; None to stop at the first.
    """

    reader: Reader
    crop: Size
    transform: TrainTransform
    pad: bool = False
    skipped: Skipped | None = None


class _TrainDataset(_SourceDataset):
    def __init__(self, source: Source, names: Sequence[str], settings: TrainSettings) -> None:
        super().__init__(source, names, settings.reader.resize)
        self.settings = settings
        self._unreadable: set[int] = set()

    def __getitem__(self, item: Draw) -> Any:
        """The drawn sample, or with `data.on_error=skip` another one where it cannot be read."""
        index, seed = item
        if self.settings.skipped is None:
            sample = super().__getitem__(item)
            return with_skip_hint(sample) if isinstance(sample, UnreadableFileError) else sample
        problem: SemipixError | None = None
        for attempt in range(ATTEMPTS + 1):
            # The replacement depends on the draw alone, whichever process reads it.
            drawn = index if attempt == 0 else stable_seed(seed, "instead", attempt) % len(self)
            if drawn in self._unreadable:
                continue
            try:
                return self.read((drawn, seed))
            except UnreadableFileError as error:
                problem = problem or error
                self._unreadable.add(drawn)
                self.settings.skipped.add(error)
            except SemipixError as error:
                return error
        return SemipixError(
            f"{problem or self.names[index]}; and none of {ATTEMPTS} images drawn in its place could be read; "
            "check the data (semipix data check ROOT)"
        )


def fitted(name: str, image: tv_tensors.Image, settings: TrainSettings) -> tv_tensors.Image:
    """The image after `data.resize`, at least as large as the crop unless it may be padded.

    Raises:
        SemipixError: it is smaller.
    """
    image = resize_image(image, settings.reader.resize)
    if not settings.pad:
        check_crop(name, image, settings.crop)
    return image


class LabeledDataset(_TrainDataset):
    """Augmented images with their targets, by draw."""

    def read(self, item: Draw) -> LabeledImages:
        index, seed = item
        name = self.names[index]
        image, target = self.source.pair(name, stable_seed(seed, "source"))
        image, target = fitted(name, image, self.settings), resize_target(as_target(target), self.resize)
        image, target = augment(self.settings.transform, seed, image, target)
        return LabeledImages(plain(image), plain(target), [name])


class UnlabeledDataset(_TrainDataset):
    """Augmented images, by draw."""

    def read(self, item: Draw) -> UnlabeledImages:
        index, seed = item
        name = self.names[index]
        image = fitted(name, self.source.image(name, stable_seed(seed, "source")), self.settings)
        return UnlabeledImages(plain(augment(self.settings.transform, seed, image)), [name], [seed])


class EvalDataset(_SourceDataset):
    """Images to evaluate, by index."""

    def read(self, item: int) -> EvalSample:
        name = self.names[item]
        image, target = self.source.pair(name)
        return EvalSample(plain(unit_range(resize_image(image, self.resize))), plain(full_precision(target)), name)


@dataclass(frozen=True)
class LoaderSettings:
    """What all loaders share.

    Attributes:
        workers: reading processes of each loader; 0 reads in the main process.
        prefetch: batches that each of them reads ahead.
        pin: whether batches stand in memory from which an accelerator copies faster.
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
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
            prefetch_factor=settings.prefetch if settings.workers else None,
            pin_memory=settings.pin,
            collate_fn=Collate(collate),
            generator=torch.Generator().manual_seed(seed),
            worker_init_fn=worker_init(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in super().__iter__():
                if isinstance(batch, SemipixError):
                    # A copy: this frame would hold an error that holds this frame, and closing the workers by garbage
                    # collection takes torch ten seconds.
                    raise SemipixError(*batch.args)
                yield batch
        except RuntimeError as error:
            if told := died_worker(error):
                raise SemipixError(told) from None
            raise


def died_worker(error: RuntimeError) -> str | None:
    """What to tell where torch says that a reading process died; None for all other errors."""
    message = " ".join(str(error).split())
    if "DataLoader worker (pid" not in message:
        return None
    return (
        f"a reading process died ({message}), most likely because memory ran out; lower data.workers, data.prefetch or "
        "data.cache_limit"
    )


def with_skip_hint(error: UnreadableFileError) -> UnreadableFileError:
    """The error with the way to do without the file."""
    return UnreadableFileError(f"{error}, or set data.on_error=skip to train without it")


class StreamLoader(SourceLoader):
    """A training loader that goes on where a checkpoint was written.

    Its place is asked for at an epoch's first batch, not before: by then the trainer has restored its counters of
    batches, whether the checkpoint is from an epoch's middle, its end or after validation. (Its counter of epochs runs
    ahead after some.) That makes it resumable without a state of its own; the empty state tells Lightning so, which
    would otherwise warn.

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
    """Collate samples, or hand over the first error among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """A batch, or a `SemipixError`."""
        errors = [sample for sample in samples if isinstance(sample, SemipixError)]
        return errors[0] if errors else self.collate(list(samples))


def collate_labeled(samples: list[LabeledImages]) -> LabeledImages:
    """Samples of one size to a batch."""
    images, targets, names = zip(*samples, strict=True)
    return LabeledImages(torch.stack(images), torch.stack(targets), [name for part in names for name in part])


def collate_unlabeled(samples: list[UnlabeledImages]) -> UnlabeledImages:
    """Samples of one size to a batch."""
    images, names, seeds = zip(*samples, strict=True)
    return UnlabeledImages(
        torch.stack(images), [name for part in names for name in part], [seed for part in seeds for seed in part]
    )


def augment(transform: Callable[..., Any], seed: int, *tensors: Tensor) -> Any:
    """Run a transform with a seed of its own; torch's global generator is neither read nor changed."""
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would also reseed the accelerators, and those are not forked.
        torch.default_generator.manual_seed(seed)
        return transform(*tensors)


def as_target(target: Target) -> Target:
    """A target that transforms can tell from an image."""
    if isinstance(target, tv_tensors.Mask | ImageTarget):
        return target
    marked: Target = target.as_subclass(ImageTarget)
    return marked


def full_precision(target: Target) -> Tensor:
    """A label as metrics take it: int64 class indices, or float32 with images in [0, 1]."""
    return target.long() if isinstance(target, tv_tensors.Mask) else unit_range(target)


def plain(tensor: Tensor) -> Tensor:
    """A contiguous tensor without its tv_tensor type."""
    return tensor.as_subclass(torch.Tensor).contiguous()
