"""Features of images from the pretrained encoder, by which `semipix data pick` compares images."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from semipix.data.files.cache import Cache
from semipix.data.files.decode import unit_range
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image
from semipix.errors import SemipixError, one_line
from semipix.functional.display import shown_colours
from semipix.interruption import raise_if_interrupted
from semipix.models.pretrained import OFFLINE_ENCODER, OFFLINE_MEAN, OFFLINE_STD, Normalize, offline_weights

SIDE = 224
"""Height and width of the images that the encoder gets; the size that it was trained on."""

CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the encoder's maps, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size."""

DEPTHS: Mapping[str, tuple[int, ...]] = {"early": (0, 1), "middle": (2, 3), "late": (4,), "all": (0, 1, 2, 3, 4)}
"""The numbers of the maps that each value of `--depth` uses."""

BATCH = 16
"""Images that the encoder gets at a time."""

_THREADS = 4
"""Threads that read the next batch while the encoder computes."""

_VERSION = 1
"""Of the features in a cache; those of other versions are not found."""

Features = NDArray[np.float32]


class Encoder(nn.Module):
    """The encoder whose ImageNet weights are installed with semipix, with maps averaged over the image.

    Raises:
        SemipixError: the package with the weights is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(3, [OFFLINE_MEAN] * 3, [OFFLINE_STD] * 3)
        self.network: Any = timm.create_model(OFFLINE_ENCODER, features_only=True)
        weights = offline_weights(3)
        self.network.load_state_dict({name: weights[name] for name in self.network.state_dict()})
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, SIDE, SIDE) in [0, 1] to the means of all maps (N, sum(CHANNELS))."""
        return torch.cat([each.mean((-2, -1)) for each in self.network(self.normalize(image))], 1)


def features_of(
    paths: Sequence[Path], reader: Reader, cache: Cache | None = None, delay: float = 0.0
) -> tuple[Features, dict[int, str]]:
    """Features of image files. Memory is constant apart from them, since the images are read batch by batch.

    Args:
        paths: the files.
        reader: reads them, with `resize=(SIDE, SIDE)`.
        cache: has the features of files that were seen before, and gets the others, so that an interrupted command
            continues.
        delay: seconds after which a progress bar is shown.

    Returns:
        Features (len(paths), sum(CHANNELS)), NaN for files that cannot be read; and why they cannot, by their number.

    Raises:
        SemipixError: the package with the encoder's weights is not installed.
        Interrupted: a signal was received.
    """
    found = np.full((len(paths), sum(CHANNELS)), np.nan, np.float32)
    keys = [None if cache is None else _key(path, reader) for path in paths]
    missing = []
    for number, key in enumerate(keys):
        kept = None if cache is None or key is None else cache.get(key)
        if kept is not None and kept.shape == found[number].shape:
            found[number] = kept
        else:
            missing.append(number)
    if not missing:
        return found, {}
    problems: dict[int, str] = {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = Encoder().to(device)
    # disable=None shows the bar only on a terminal.
    with tqdm(desc="features", total=len(missing), unit=" images", leave=False, disable=None, delay=delay) as bar:
        for numbers, images in _batches(missing, paths, reader):
            good = [(number, image) for number, image in zip(numbers, images, strict=True) if isinstance(image, Tensor)]
            problems |= {
                number: one_line(str(error))
                for number, error in zip(numbers, images, strict=True)
                if isinstance(error, SemipixError)
            }
            if good:
                with torch.inference_mode():
                    values = encoder(torch.stack([image for _, image in good]).to(device)).cpu().numpy()
                for (number, _), value in zip(good, values, strict=True):
                    found[number] = value
                    if cache is not None and (key := keys[number]) is not None:
                        cache.put(key, found[number])
            bar.update(len(numbers))
            raise_if_interrupted()
    return found, problems


def _batches(
    numbers: Sequence[int], paths: Sequence[Path], reader: Reader
) -> Iterator[tuple[Sequence[int], list[Tensor | SemipixError]]]:
    """The images with these numbers, batch by batch; threads read the next batch while the caller uses one."""

    def read(number: int) -> Tensor | SemipixError:
        try:
            image = reader.tensor(paths[number])
        except SemipixError as error:
            return error
        pixels = unit_range(resize_image(image, reader.resize).as_subclass(Tensor).contiguous())
        return pixels if reader.bands is None else shown_colours(pixels)

    pool = ThreadPoolExecutor(_THREADS)
    try:
        pending: list[tuple[Sequence[int], list[Future[Tensor | SemipixError]]]] = []
        for start in range(0, len(numbers), BATCH):
            some = numbers[start : start + BATCH]
            pending.append((some, [pool.submit(read, number) for number in some]))
            if len(pending) == 2:
                done, futures = pending.pop(0)
                yield done, [future.result() for future in futures]
        for done, futures in pending:
            yield done, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _key(path: Path, reader: Reader) -> bytes | None:
    """The key of a file's features in a cache; None if the file cannot be found."""
    try:
        state = path.stat()
    except OSError:
        return None  # reading it raises the error
    bands = "" if reader.bands is None else f"{reader.bands.identity}/"
    identity = (
        f"features {_VERSION}/{OFFLINE_ENCODER}/{reader.resize}/{reader.max_pixels}/{bands}{state.st_mtime_ns}/"
        f"{state.st_size}/{path.absolute()}"
    )
    return hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).digest()


def at_depth(features: Features, depth: str) -> Features:
    """The features of one depth, in which all maps have the same weight.

    Args:
        features: (N, sum(CHANNELS)), of the images among which is chosen.
        depth: a key of `DEPTHS`.

    Returns:
        (N, D): each channel has mean 0, and the mean squared length of a row is the number of maps.
    """
    ends = np.cumsum(CHANNELS)
    parts = []
    for number in DEPTHS[depth]:
        part = features[:, ends[number] - CHANNELS[number] : ends[number]].astype(np.float64)
        part = part - part.mean(0)
        spread = part.std(0)
        # A channel that is the same in all images says nothing; rounding must not become a difference.
        part = part / np.where(spread > 1e-6, spread, np.inf) / np.sqrt(CHANNELS[number])
        parts.append(part.astype(np.float32))
    return np.concatenate(parts, 1)
