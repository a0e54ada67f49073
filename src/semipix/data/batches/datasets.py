"""Datasets: samples of a source, read, augmented and converted to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from semipix.batch import EvalSample, LabeledImages, UnlabeledImages
from semipix.data.batches.augment import TrainTransform, augment, plain_tensor
from semipix.data.batches.sampler import Draw, stable_seed
from semipix.data.batches.skipped import Skipped
from semipix.data.files.decode import unit_range
from semipix.data.files.names import Names
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image, resize_target
from semipix.data.files.sizes import Size, check_crop
from semipix.data.source import Source
from semipix.data.targets import ImageTarget, Target
from semipix.errors import SemipixError, UnreadableFileError

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


class _AugmentedDataset(_SourceDataset):
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


def resize_and_check(name: str, image: tv_tensors.Image, settings: TrainSettings) -> tv_tensors.Image:
    """The image after `data.resize`, at least as large as the crop unless it may be padded.

    Raises:
        SemipixError: it is smaller.
    """
    image = resize_image(image, settings.reader.resize)
    if not settings.pad:
        check_crop(name, image, settings.crop)
    return image


class LabeledDataset(_AugmentedDataset):
    """Augmented images with their targets, by draw."""

    def read(self, item: Draw) -> LabeledImages:
        index, seed = item
        name = self.names[index]
        image, target = self.source.pair(name, stable_seed(seed, "source"))
        image, target = resize_and_check(name, image, self.settings), resize_target(as_target(target), self.resize)
        image, target = augment(self.settings.transform, seed, image, target)
        return LabeledImages(plain_tensor(image), plain_tensor(target), [name])


class UnlabeledDataset(_AugmentedDataset):
    """Augmented images, by draw."""

    def read(self, item: Draw) -> UnlabeledImages:
        index, seed = item
        name = self.names[index]
        image = resize_and_check(name, self.source.image(name, stable_seed(seed, "source")), self.settings)
        return UnlabeledImages(plain_tensor(augment(self.settings.transform, seed, image)), [name], [seed])


class EvalDataset(_SourceDataset):
    """Images to evaluate, by index."""

    def read(self, item: int) -> EvalSample:
        name = self.names[item]
        image, target = self.source.pair(name)
        return EvalSample(
            plain_tensor(unit_range(resize_image(image, self.resize))), plain_tensor(full_precision(target)), name
        )


def with_skip_hint(error: UnreadableFileError) -> UnreadableFileError:
    """The error with the way to do without the file."""
    return UnreadableFileError(f"{error}, or set data.on_error=skip to train without it")


def as_target(target: Target) -> Target:
    """A target that transforms can tell from an image."""
    if isinstance(target, tv_tensors.Mask | ImageTarget):
        return target
    marked: Target = target.as_subclass(ImageTarget)
    return marked


def full_precision(target: Target) -> Tensor:
    """A label as metrics take it: int64 class indices, or float32 with images in [0, 1]."""
    return target.long() if isinstance(target, tv_tensors.Mask) else unit_range(target)
