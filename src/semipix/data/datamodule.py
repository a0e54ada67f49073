"""From a source to batches: where the path of an image through `semipix.data` begins.

`SemiSupervisedDataModule` does the following:

1. List. The source (`sources`) lists the names of its images and labels by the functions of `files.listing`. It decodes
   no image; a source of masks reads all masks once to check them (`survey`).
2. Split. `splits` chooses which labels are used, and which images are set aside for validation. All other training
   images are unlabeled. An image or a scene in both training and evaluation is refused.
3. Draw. `batches.sampler` turns the number of a batch into the images of that batch and a seed for each. An interrupted
   training therefore continues with the images that would have come next.
4. Read. `files.reader` decodes the image, or takes it from the cache: upright by its orientation and, for
   segmentation, a JPEG at a reduced scale if `data.resize` shrinks it to at most half. Bytes stay bytes. Then
   `data.resize` is applied. With `data.bands` an image has bands instead of colours; where a value is missing it is NaN
   until step 7, in which it becomes the mean of its band, and its pixel is left out of the label.
5. Crop, then scale. `batches.augment` draws scale, flip and place first, and scales only the pixels that the crop
   shows. For a photo and mask of 2 megapixels (1696x1200) and a crop of 96, this takes 1.2 ms; scaling the whole and
   then cropping takes 123 ms. (CPU time, median of 40 draws of a scale from 0.75 to 1.5, one thread of an AMD EPYC.)
   Both orders give the same pixels up to rounding. For segmentation, a share of the labeled crops (`data.rare_share`)
   contains a pixel of a class that is rare in the mask.
6. Augment. The part is flipped, and rotated if `data.rotate` is set. If the image is smaller than the crop, it is
   padded: images with 0, labels with a value that the loss ignores.
7. Batch. `batches.loaders` stacks the samples that the reading processes return. A labeled and an unlabeled loader run
   side by side; the learner joins their images to one `Batch`.
8. Strong views. Where a method asks for them, `batches.strong_views` changes colours and sharpness of the unlabeled
   images, or hides parts of them, on the device of the batch, and says how their labels follow from those of the
   images. The task decides which changes are allowed. The geometry stays the same.

Evaluation images take steps 1, 2 and 4 only. A batch is a list of them, and labels keep their own size.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from semipix.data.band_statistics import with_measured_statistics
from semipix.data.batches.augment import train_transform
from semipix.data.batches.datasets import EvalDataset, LabeledDataset, TrainSettings, UnlabeledDataset, places_of
from semipix.data.batches.loaders import LoaderSettings, SourceLoader, StreamLoader, collate_labeled, collate_unlabeled
from semipix.data.batches.sampler import ShardSampler, StreamSampler, stable_seed
from semipix.data.batches.shards import PoolSampler, ShardDataset, Shards
from semipix.data.batches.skipped import OnError, Skipped
from semipix.data.batches.strong_views import StrongViews
from semipix.data.files.cache import GIB, Cache, DiskCache, MemoryCache, users_folder
from semipix.data.files.names import composed
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.files.sizes import as_resize, as_size
from semipix.data.source import Source
from semipix.data.splits import Amount, Split, check_overlap, make_split
from semipix.errors import SemipixError
from semipix.tasks.base import Task
from semipix.tasks.strong_changes import StrongChanges

_TrainDataset = LabeledDataset | UnlabeledDataset | ShardDataset

MOST_IMAGES = 2**16
MOST_WORKERS = 2**10
MOST_CACHE = 2**20
MOST_SCALE = 100
MOST_JITTER = 100
MOST_PATCH = 1024
"""Upper limits of settings: above any useful value, and low enough not to exhaust a machine or to overflow."""

RARE_SHARE = 1 / 3
"""Share of the labeled crops that contain a rare class, as in nnU-Net."""

_IMAGES_AS_TARGETS = ("denoising", "enhancement")
"""Kinds of data in which an image of other colours needs another target, whatever the task."""


class SemiSupervisedDataModule(LightningDataModule):
    """The loaders of one source. Batch sizes count the images of one step over all processes.

    A training batch is a dict: `labeled` is a `LabeledImages`, `unlabeled` an `UnlabeledImages`. Methods without
    unlabeled images get no key `unlabeled`. A validation or test batch is a list of `EvalSample`; one process may have
    more of them than another.

    An epoch is one pass over the unlabeled images, or over all their crops (`samples_per_image`). Methods without
    unlabeled images have epochs of the same length, so that their runs are comparable.

    Args:
        source: images and labels.
        labels: how many labels are used: all, or for an experiment a count (8), a share ("1/8", 0.125) or a file that
            lists names. The other labeled images count as unlabeled.
        val: how many labeled images, a count or a share, are set aside for validation if the source has no validation
            images; 0 means none. Of 8 labeled images or more, a share takes at least 2, so that the error map can be
            calibrated.
        batch_size: images of one step.
        labeled_per_batch: labeled images among them, by default half; all of them if no unlabeled images are used.
        crop: side, or height and width, of training images. For matting, crops are centred at unknown pixels.
        samples_per_image: crops of each image in a pass, each with its own augmentation: one number, or one for labeled
            and one for unlabeled images. Large images of which a crop shows little then count as many samples.
        pad: whether an image smaller than the crop is padded instead of being refused. The padding has no label, and
            losses that compare predictions leave it out.
        resize: applied to every image first: length of the longer side, or exact height and width.
        scale: smallest and largest random scale in training; by default 0.75 and 1.5, but 1 for denoising, since
            scaling would blur the noise.
        flip: probability of a horizontal flip in training.
        rare_share: for segmentation, the share of the labeled crops that contain a pixel of a class that is rare in the
            image's mask (see `RareClassCrop`); by default a third. All other crops are at a random place, as are those
            of a mask that the crop covers.
        rotate: largest random rotation to both sides in training, in degrees.
        strong_jitter: strength of the colour jitter of strong views, 0 for none; by default 0.5, but 0 for denoising
            and enhancement, where an image of other colours needs another target. This and the next seven defaults are
            the task's `strong_changes`.
        strong_grey: share of the strong views without colour; by default 0.2, but 0 for the same tasks.
        strong_blur: share of the strong views that are blurred; by default 0.5, but 0 for the same tasks.
        strong_mask: share of the patches of each strong view that are hidden; by default 0.
        strong_patch: side of these patches in pixels.
        strong_drop: share of the strong views in which one of red, green and blue is hidden; by default 0.
        strong_permute: share of the strong views of which image and label have another order of the colour channels;
            by default 0.5 for denoising and enhancement; only such tasks allow it.
        strong_gain: largest share of its brightness that a strong view loses, image and label alike; by default 0.2 for
            denoising; only such tasks allow it.
        strong_learn_hidden: whether the consistency of strong views counts the pixels of hidden patches too; by default
            true, but false for denoising and enhancement, where a hidden pixel can only be guessed.
        eval_batch_size: images of one validation or test batch in each process.
        workers: reading processes of each loader; with 0 the main process reads.
        prefetch: batches that each reading process prepares in advance.
        max_pixels: most pixels of an image file that is read; larger ones are refused before they fill the memory.
        cache: where decoded images are kept, memory or disk; by default they are not kept.
        cache_limit: size of the cache in GiB; images that no longer fit are decoded each time. A cache in memory counts
            once for all processes of a machine.
        cache_folder: folder of the cache on disk; by default in the user's cache folder. Runs may share it.
        on_error: what happens if a training image or its label cannot be read: stop ends the training, skip takes
            another image. Evaluation always stops: a metric over fewer images would not be comparable.
        shards: WebDataset shards whose images replace the source's unlabeled images, see `Shards`.
        shard_buffer: encoded images from which each reading process draws; a larger number mixes better and takes more
            memory.
        seed: chooses split, order and augmentation.
        use_unlabeled: whether training batches hold unlabeled images.
        split: a split to use, from a run folder; by default one is made.
        task: the task or its class, which decides about strong views; without one the kind of the data does.

    Attributes:
        split: names of the images in each part; with `shards`, its list of unlabeled images is empty.
        unlabeled_count: number of unlabeled images.
        skipped: the files that were skipped, listed in the run folder once `skipped.path` is set.
        classes: the source's class names.
        strong: makes the strong views of a batch's unlabeled images, for methods that ask for them.
        accumulate: number of batches whose gradients make one step; `build_data` sets it.

    Raises:
        SemipixError: a setting is out of range, the bands of the images cannot be measured, the task does not allow a
            change of strong views, the split does not fit the source, or training and evaluation share an image or a
            scene.
    """

    def __init__(
        self,
        source: Source,
        *,
        labels: Amount = "all",
        val: Amount = 0.1,
        batch_size: int = 8,
        labeled_per_batch: int | None = None,
        crop: int | Sequence[int] = 96,
        samples_per_image: int | Sequence[int] = 1,
        pad: bool = False,
        resize: int | Sequence[int] | None = None,
        scale: Sequence[float] | None = None,
        flip: float = 0.5,
        rare_share: float | None = None,
        rotate: float = 0.0,
        strong_jitter: float | None = None,
        strong_grey: float | None = None,
        strong_blur: float | None = None,
        strong_mask: float | None = None,
        strong_patch: int = 16,
        strong_drop: float | None = None,
        strong_permute: float | None = None,
        strong_gain: float | None = None,
        strong_learn_hidden: bool | None = None,
        eval_batch_size: int = 8,
        workers: int = 2,
        prefetch: int = 2,
        max_pixels: int = MAX_PIXELS,
        cache: Literal["memory", "disk"] | None = None,
        cache_limit: float = 4.0,
        cache_folder: str | Path | None = None,
        on_error: OnError = "stop",
        shards: str | None = None,
        shard_buffer: int = 128,
        seed: int = 0,
        use_unlabeled: bool = True,
        split: Split | None = None,
        task: Task | type[Task] | None = None,
    ) -> None:
        super().__init__()
        self.source = copy.copy(source)  # a copy, since its reader is set below
        self.classes = source.classes
        self.batch_size = _at_most(MOST_IMAGES, "data.batch_size", _at_least(1, "data.batch_size", batch_size))
        self.eval_batch_size = _at_most(
            MOST_IMAGES, "data.eval_batch_size", _at_least(1, "data.eval_batch_size", eval_batch_size)
        )
        self.workers = _at_most(MOST_WORKERS, "data.workers", _at_least(0, "data.workers", workers))
        self.prefetch = _at_most(MOST_IMAGES, "data.prefetch", _at_least(1, "data.prefetch", prefetch))
        self.on_error = _one_of("data.on_error", on_error, "stop", "skip")
        self.shard_buffer = _at_least(1, "data.shard_buffer", shard_buffer)
        self.skipped = Skipped()
        self.crop = as_size("data.crop", crop)
        self.samples_per_image = _samples(samples_per_image, shards)
        self.resize = as_resize(resize)
        self.cache = None if cache is None else _one_of("data.cache", cache, "memory", "disk")
        if not 0 < cache_limit <= MOST_CACHE:
            raise SemipixError(f"data.cache_limit={cache_limit}: expected a size in GiB above 0, at most {MOST_CACHE}")
        self._cache_bytes = int(cache_limit * GIB)
        kept: DiskCache | None = None
        if cache == "disk":
            kept = DiskCache(Path(cache_folder or users_folder("decoded")), self._cache_bytes)
        self.labels, self.val = labels, val
        self.max_pixels = _at_least(1, "data.max_pixels", max_pixels)
        self.source.reader = self._reader(kept)
        self.pad = pad
        self.scale = _scale_range(scale or ((1.0, 1.0) if source.kind == "denoising" else (0.75, 1.5)))
        self.flip = _probability("data.flip", flip)
        self.rare_share = self._rare_share(rare_share)
        if not 0 <= rotate <= 180:
            raise SemipixError(f"data.rotate={rotate}: expected degrees from 0 to 180")
        self.rotate = rotate
        changes = _changes(source.kind, task)
        if source.bands is not None:
            changes = dataclasses.replace(changes, grey=0.0)
            if strong_grey:
                raise SemipixError(
                    f"data.strong_grey={strong_grey}: found it with data.bands, whose images have no colours; expected "
                    "0, leave it out"
                )
        own = changes.learn_hidden
        self.strong = StrongViews(
            _at_least_zero("data.strong_jitter", _strength("jitter", strong_jitter, changes, task)),
            grey_probability=_share("grey", strong_grey, changes, task),
            blur_probability=_share("blur", strong_blur, changes, task),
            mask=_share("mask", strong_mask, changes, task),
            patch=_at_most(MOST_PATCH, "data.strong_patch", _at_least(1, "data.strong_patch", strong_patch)),
            drop_probability=_share("drop", strong_drop, changes, task),
            permute_probability=_share("permute", strong_permute, changes, task),
            gain=_share("gain", strong_gain, changes, task),
            learn_hidden=own if strong_learn_hidden is None else strong_learn_hidden,
            bands=source.bands is not None,
        )
        self.seed = seed
        if split is not None:
            split = _with_names_of(split, source)
        self.split = split or make_split(source, labels, val, seed)
        self.shards = None if shards is None else self._open_shards(shards)
        check_overlap(self.split, source)
        self.unlabeled_count = len(self.split.unlabeled if self.shards is None else self.shards)
        self.use_unlabeled = use_unlabeled
        self._measure_bands()
        self.mixed = use_unlabeled and self.unlabeled_count > 0
        self.labeled_per_batch = self._labeled_share(labeled_per_batch)
        self.accumulate = 1

    def counts(self) -> str:
        """One line: how many images are labeled, unlabeled and held out, labels that are not used, and the bands."""
        hidden = len(set(self.source.labeled()).difference(self.split.labeled, self.split.val))
        unlabeled = f"{self.unlabeled_count} unlabeled{'' if self.use_unlabeled else ' (not used by this method)'}"
        bands = "" if self.source.bands is None else f"; {self.source.bands.count} bands"
        return (
            f"data: {len(self.split.labeled)} labeled, {unlabeled}, {hidden} labels hidden by "
            f"data.labels={self.labels}, {len(self.split.val)} held out for validation{bands}"
        )

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch: a pass over the unlabeled images, or over the labeled ones if there are none."""
        labeled, unlabeled = self.samples_of_a_pass()
        if not unlabeled:
            return math.ceil(labeled / self.batch_size)
        # Without unlabeled images labeled_per_batch is not checked and may be the whole batch.
        return math.ceil(unlabeled / max(1, self.batch_size - self.labeled_per_batch))

    @property
    def batches_per_round(self) -> int:
        """Batches after which the loaders begin again: those of an epoch, up to a multiple of `accumulate`.

        Lightning makes a step with the last batch of a round, however few have been accumulated until then.
        """
        return math.ceil(self.batches_per_epoch / self.accumulate) * self.accumulate

    @property
    def passes_per_round(self) -> float:
        """How many epochs a round of the loaders is; above 1 where gradients of more batches are accumulated."""
        return self.batches_per_round / self.batches_per_epoch

    def samples_of_a_pass(self) -> tuple[int, int]:
        """Samples of one pass over the labeled images and of one over the unlabeled ones."""
        labeled, unlabeled = self.samples_per_image
        return len(self.split.labeled) * labeled, self.unlabeled_count * unlabeled

    def train_dataloader(self) -> CombinedLoader:
        """Loaders of one round, both of `batches_per_round` batches.

        Raises:
            SemipixError: a batch size is no multiple of the number of processes.
        """
        at_unknown = self.source.kind == "matting"
        transform = train_transform(
            self.crop, self.scale, self.flip, self.source.target_fill, at_unknown, self.rare_share, self.rotate
        )
        skipped = self.skipped if self.on_error == "skip" else None
        self._share_memory()
        settings = TrainSettings(self.source.reader, self.crop, transform, self.pad, skipped)
        of_labeled, of_unlabeled = self.samples_per_image
        labeled = LabeledDataset(self.source, self.split.labeled, settings, self.seed, of_labeled)
        if not self.mixed:
            return self._combine({"labeled": self._stream("labeled", labeled, self.batch_size, collate_labeled)})
        unlabeled: UnlabeledDataset | ShardDataset
        if self.shards is None:
            unlabeled = UnlabeledDataset(self.source, self.split.unlabeled, settings, of_unlabeled)
        else:
            unlabeled = ShardDataset(self.shards, settings, stable_seed(self.seed, "shards"), self.shard_buffer)
            for problem in self.shards.problems:
                self.skipped.add(problem)
        rest = self.batch_size - self.labeled_per_batch
        return self._combine(
            {
                "labeled": self._stream("labeled", labeled, self.labeled_per_batch, collate_labeled),
                "unlabeled": self._stream("unlabeled", unlabeled, rest, collate_unlabeled),
            }
        )

    def split_with(self, labels: Amount) -> Split:
        """The lists of a run with other labels.

        Raises:
            SemipixError: there are fewer labels than asked for, see `make_split`.
        """
        return make_split(self.source, labels, self.val, self.seed)

    def labeled_samples(self) -> tuple[EvalDataset, list[float]]:
        """The labeled images as they are evaluated, and the place of each, see `Batch.place`."""
        return EvalDataset(self.source, self.split.labeled, self.resize), places_of(len(self.split.labeled), self.seed)

    def val_dataloader(self) -> SourceLoader:
        """Batches of validation images, each image once over all processes."""
        return self._evaluation(self.split.val)

    def test_dataloader(self) -> SourceLoader:
        """Batches of test images, each image once over all processes."""
        return self._evaluation(self.split.test)

    def _stream(self, name: str, dataset: _TrainDataset, batch_size: int, collate: Any) -> StreamLoader:
        rank, world_size = self._place()
        if batch_size % world_size:
            raise SemipixError(
                f"data.batch_size={self.batch_size}: {batch_size} {name} images a step cannot be shared evenly by "
                f"{world_size} processes; make data.batch_size and data.labeled_per_batch multiples of {world_size}"
            )
        seed = stable_seed(self.seed, name)
        stream = len(dataset), batch_size, self.batches_per_round, seed, rank, world_size
        sampler = PoolSampler(*stream, self.workers) if isinstance(dataset, ShardDataset) else StreamSampler(*stream)
        share = batch_size // world_size
        return StreamLoader(dataset, sampler, share, self._loading(), collate, seed, self._progress)

    def _combine(self, loaders: dict[str, StreamLoader]) -> CombinedLoader:
        return CombinedLoader(loaders, mode="max_size_cycle")

    def _evaluation(self, names: Sequence[str]) -> SourceLoader:
        self._share_memory()
        dataset = EvalDataset(self.source, names, self.resize)
        sampler = ShardSampler(len(names), *self._place())
        return SourceLoader(dataset, sampler, self.eval_batch_size, self._loading(), list)

    def _loading(self) -> LoaderSettings:
        device = getattr(getattr(self.trainer, "strategy", None), "root_device", None)
        return LoaderSettings(self.workers, self.prefetch, pin=device is not None and device.type == "cuda")

    def _share_memory(self) -> None:
        """Set the memory cache up once the number of processes is known, and before any is forked."""
        if self.cache == "memory" and self.source.reader.cache is None:
            processes = getattr(self.trainer, "num_devices", 1)
            loaders = 2 + self.mixed
            kept: Cache = MemoryCache(self._cache_bytes // processes, loaders * self.workers)
            self.source.reader = self._reader(kept)

    def _reader(self, cache: Cache | None) -> Reader:
        # In image-to-image tasks input and target are decoded whole and then resized in the same way. Reduced-scale
        # decoding of one of them would make them differ.
        reduced = self.source.kind == "segmentation"
        return Reader(self.resize, cache, reduced, self.max_pixels, self.source.bands)

    def _measure_bands(self) -> None:
        """Measure the bands of training images, if they are not stated: images are read for it."""
        bands = self.source.bands
        if bands is None or bands.mean is not None:
            return
        names = sorted([*self.split.labeled, *self.split.unlabeled])
        measured = with_measured_statistics(bands, self.source, names, self.on_error == "skip")
        self.source.bands = self.source.reader.bands = measured

    def _open_shards(self, pattern: str) -> Shards:
        if self.source.kind == "matting":
            raise SemipixError(
                f"data.shards={pattern}: images for matting need trimaps, which shards do not hold; put unlabeled "
                "images and trimaps into the data folder instead"
            )
        self.split = dataclasses.replace(self.split, unlabeled=[])
        return Shards(pattern, skip=self.on_error == "skip")

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _progress(self) -> tuple[int, int] | None:
        """Number of batches trained so far, in all and in the current epoch."""
        if self.trainer is None or not self.trainer.training:
            return None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        return batches.total.completed, batches.current.completed

    def _rare_share(self, rare_share: float | None) -> float:
        if self.source.kind != "segmentation":
            if rare_share:
                raise SemipixError(
                    f"data.rare_share={rare_share}: targets of {self.source.kind} have no classes; leave it out"
                )
            return 0.0
        return _probability("data.rare_share", RARE_SHARE if rare_share is None else rare_share)

    def _labeled_share(self, labeled_per_batch: int | None) -> int:
        share = max(1, self.batch_size // 2) if labeled_per_batch is None else labeled_per_batch
        if self.mixed and not 1 <= share < self.batch_size:
            raise SemipixError(
                f"data.labeled_per_batch={share}: expected 1 to {self.batch_size - 1}, so that a batch of "
                f"data.batch_size={self.batch_size} holds labeled and unlabeled images"
                if self.batch_size > 1
                else "data.batch_size=1: expected at least 2, so that a batch holds labeled and unlabeled images"
            )
        return share


def _with_names_of(split: Split, source: Source) -> Split:
    """The split of a run with the source's own names, which may use another Unicode form than those of the run.

    Raises:
        SemipixError: an image of the split is not in the data, or no longer has a label.
    """
    labeled = {composed(name): name for name in [*source.labeled(), *source.val(), *source.test()]}
    known = labeled | {composed(name): name for name in source.unlabeled()}
    parts: dict[str, list[str]] = {}
    for part, names in split.parts().items():
        there = known if part == "unlabeled" else labeled
        missing = [name for name in names if composed(name) not in there]
        if missing:
            raise SemipixError(
                f"split: {len(missing)} of its images are not in the data or lost their labels, e.g. {missing[0]}; "
                "expected the data that the run was trained on, fix data.root"
            )
        parts[part] = [there[composed(name)] for name in names]
    return Split(**parts)


def _one_of(key: str, value: str, *known: str) -> str:
    if value not in known:
        raise SemipixError(f"{key}={value}: expected {' or '.join(known)}")
    return value


def _samples(value: int | Sequence[int], shards: str | None) -> tuple[int, int]:
    """Samples of each labeled and of each unlabeled image, from the `data.samples_per_image` setting.

    Raises:
        SemipixError: the value is neither a number nor two, out of range, or above 1 for the images of shards, which
            are read once in a pass.
    """
    samples = [value, value] if isinstance(value, int) else list(value)
    if len(samples) != 2 or not all(1 <= each <= MOST_IMAGES for each in samples):
        raise SemipixError(
            f"data.samples_per_image={value}: expected a number from 1 to {MOST_IMAGES} or [labeled,unlabeled]"
        )
    labeled, unlabeled = samples
    if shards is not None and unlabeled != 1:
        raise SemipixError(
            f"data.samples_per_image={value}: shards are read once in a pass; set data.samples_per_image=[{labeled},1]"
        )
    return labeled, unlabeled


def _at_least(minimum: int, key: str, value: int) -> int:
    if value < minimum:
        raise SemipixError(f"{key}={value}: expected at least {minimum}")
    return value


def _at_most(maximum: int, key: str, value: int) -> int:
    if value > maximum:
        raise SemipixError(f"{key}={value}: expected at most {maximum}")
    return value


def _changes(kind: str, task: Task | type[Task] | None) -> StrongChanges:
    """The changes of strong views for a task on data of this kind; without a task all are allowed."""
    changes = StrongChanges(permute=0.0, gain=0.0) if task is None else task.strong_changes
    if kind not in _IMAGES_AS_TARGETS:
        return changes
    jitter, grey, blur = (None if s is None else 0.0 for s in (changes.jitter, changes.grey, changes.blur))
    return dataclasses.replace(changes, jitter=jitter, grey=grey, blur=blur)


def _strength(change: str, given: float | None, changes: StrongChanges, task: Task | type[Task] | None) -> float:
    """The strength of a change: the given one, or the task's.

    Raises:
        SemipixError: it is above 0, and the task does not allow the change.
    """
    if change not in changes.refused:
        own: float = getattr(changes, change)
        return own if given is None else given
    if given:
        name = (task if isinstance(task, type) else type(task)).__name__
        raise SemipixError(
            f"data.strong_{change}={given}: expected 0, since the target of such a view is not known in {name}; set "
            f"data.strong_{change}=0"
        )
    return 0.0


def _share(change: str, given: float | None, changes: StrongChanges, task: Task | type[Task] | None) -> float:
    """The strength of a change that is a share."""
    return _probability(f"data.strong_{change}", _strength(change, given, changes, task))


def _at_least_zero(key: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise SemipixError(f"{key}={value}: expected 0 or more")
    if value > MOST_JITTER:
        raise SemipixError(f"{key}={value}: expected at most {MOST_JITTER}")
    return value


def _probability(key: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise SemipixError(f"{key}={value}: expected a probability from 0 to 1")
    return value


def _scale_range(scale: Sequence[float]) -> tuple[float, float]:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise SemipixError(f"data.scale={list(scale)}: expected [smallest,largest] factor, both positive")
    if not 1 / MOST_SCALE <= scale[0] <= scale[1] <= MOST_SCALE:
        raise SemipixError(f"data.scale={list(scale)}: expected factors from {1 / MOST_SCALE} to {MOST_SCALE}")
    return float(scale[0]), float(scale[1])
