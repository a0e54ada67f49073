"""Datasets: read samples of a source, augment them and convert them to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from semipix.batch import EvalSample, LabeledImages, UnlabeledImages
from semipix.data.batches.augment import TrainTransform, augment, plain_tensor
from semipix.data.batches.sampler import Draw, stable_seed
from semipix.data.batches.skipped import Skipped
from semipix.data.files.bands import missing_pixels, without_missing
from semipix.data.files.decode import unit_range
from semipix.data.files.names import Names
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image, resize_target
from semipix.data.files.sizes import Size, check_crop
from semipix.data.source import Source
from semipix.data.targets import ImageTarget, Target
from semipix.errors import SemipixError, UnreadableFileError

ATTEMPTS = 20
"""Replacements that are tried for an image that cannot be read, before training stops."""


class _SourceDataset(Dataset[Any]):
    """Reads the named images of a source; a `SemipixError` is returned instead of raised.

    torch would wrap an error raised in a worker process in a traceback. A returned error reaches the main process
    unchanged, where `SourceLoader` raises it.
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
    """Settings for reading and augmenting training images.

    Attributes:
        reader: reads the images in shards; the source has the same reader.
        crop: height and width that an image must have at least after `data.resize`.
        transform: the augmentation.
        pad: whether an image may be smaller than the crop.
        skipped: list of the images that cannot be read; None to stop at the first one.
    """

    reader: Reader
    crop: Size
    transform: TrainTransform
    pad: bool = False
    skipped: Skipped | None = None

    def filled(self, image: Tensor) -> Tensor:
        """An augmented image (C, H, W) of which no value is missing."""
        return image if self.reader.bands is None else self.reader.bands.filled(image)


class _AugmentedDataset(_SourceDataset):
    """Augmented images of a source.

    Args:
        source: reads the images.
        names: the images.
        settings: settings for reading and augmenting.
        samples: samples of each image. Sample s shows image s % number of images.
    """

    def __init__(self, source: Source, names: Sequence[str], settings: TrainSettings, samples: int = 1) -> None:
        super().__init__(source, names, settings.reader.resize)
        self.settings = settings
        self.samples = samples
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.names) * self.samples

    def __getitem__(self, item: Draw) -> Any:
        """The drawn sample; with `data.on_error=skip`, another one if it cannot be read."""
        number, seed = item
        index = number % len(self.names)
        if self.settings.skipped is None:
            sample = super().__getitem__((index, seed))
            return with_skip_hint(sample) if isinstance(sample, UnreadableFileError) else sample
        problem: SemipixError | None = None
        for attempt in range(ATTEMPTS + 1):
            # The replacement depends only on the draw, so that it is the same in every process.
            drawn = index if attempt == 0 else stable_seed(seed, "instead", attempt) % len(self.names)
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
            f"{problem or self.names[index]}; and none of {ATTEMPTS} replacements could be read; "
            "check the data (semipix data check ROOT)"
        )


class LabeledDataset(_AugmentedDataset):
    """Augmented labeled images with their targets; an item is given by a draw.

    Args:
        source, names, settings, samples: see `_AugmentedDataset`.
        seed: of the random order that gives each image its place.
    """

    def __init__(
        self, source: Source, names: Sequence[str], settings: TrainSettings, seed: int = 0, samples: int = 1
    ) -> None:
        super().__init__(source, names, settings, samples)
        self.places = places_of(len(self.names), seed)

    def read(self, item: Draw) -> LabeledImages:
        index, seed = item
        name = self.names[index]
        image, target = self.source.pair(name, stable_seed(seed, "source"))
        image, target = resize_and_check(name, image, self.settings), resize_target(as_target(target), self.resize)
        image, target, inside = augment(self.settings.transform.with_inside, seed, image, target)
        image, target = plain_tensor(image), without_missing(plain_tensor(target), image, self.source.target_fill)
        shown = shown_pixels(image, inside)
        return LabeledImages(self.settings.filled(image), target, [name], [seed], [self.places[index]], shown)


def places_of(count: int, seed: int) -> list[float]:
    """The place in (0, 1) of each labeled image in a random order of all of them.

    Args:
        count: labeled images.
        seed: of the order; that of the data module.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(stable_seed(seed, "places")))
    found: list[float] = ((order + 0.5) / max(1, count)).tolist()
    return found


class UnlabeledDataset(_AugmentedDataset):
    """Augmented unlabeled images; an item is given by a draw."""

    def read(self, item: Draw) -> UnlabeledImages:
        index, seed = item
        name = self.names[index]
        image = resize_and_check(name, self.source.image(name, stable_seed(seed, "source")), self.settings)
        return unlabeled_sample(image, name, seed, self.settings)


class EvalDataset(_SourceDataset):
    """Images to evaluate with their labels; an item is given by its index."""

    def read(self, item: int) -> EvalSample:
        name = self.names[item]
        image, target = self.source.pair(name)
        label = without_missing(plain_tensor(full_precision(target)), image, self.source.target_fill)
        seen = plain_tensor(unit_range(resize_image(image, self.resize)))
        bands = self.source.reader.bands
        return EvalSample(seen if bands is None else bands.filled(seen), label, name)


def unlabeled_sample(image: tv_tensors.Image, name: str, seed: int, settings: TrainSettings) -> UnlabeledImages:
    """One unlabeled image, augmented."""
    made, inside = augment(settings.transform.with_inside, seed, image)
    made = plain_tensor(made)
    return UnlabeledImages(settings.filled(made), [name], [seed], shown_pixels(made, inside))


def shown_pixels(image: Tensor, inside: Tensor) -> Tensor:
    """(1, H, W) bool: the pixels of an augmented image (C, H, W) that are inside (1, H, W) and have a value."""
    missing = missing_pixels(image)
    return inside if missing is None else inside & ~missing


def resize_and_check(name: str, image: tv_tensors.Image, settings: TrainSettings) -> tv_tensors.Image:
    """Apply `data.resize` to an image and check that it is not smaller than the crop, unless it may be padded.

    Raises:
        SemipixError: the image is smaller than the crop, and `data.pad` is off.
    """
    image = resize_image(image, settings.reader.resize)
    if not settings.pad:
        check_crop(name, image, settings.crop)
    return image


def with_skip_hint(error: UnreadableFileError) -> UnreadableFileError:
    """The error with a hint at `data.on_error=skip`."""
    return UnreadableFileError(f"{error}, or set data.on_error=skip to train without it")


def as_target(target: Target) -> Target:
    """The target with a type of its own, by which transforms distinguish it from an image."""
    if isinstance(target, tv_tensors.Mask | ImageTarget):
        return target
    marked: Target = target.as_subclass(ImageTarget)
    return marked


def full_precision(target: Target) -> Tensor:
    """A label in the type that metrics take: int64 class indices, or float32 (images in [0, 1])."""
    return target.long() if isinstance(target, tv_tensors.Mask) else unit_range(target)
