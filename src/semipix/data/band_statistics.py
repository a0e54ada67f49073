"""Mean and standard deviation of the bands of training images, by which networks normalise them."""

import math
from collections.abc import Sequence

import torch
from tqdm import tqdm

from semipix.data.files.bands import Bands
from semipix.data.source import Source
from semipix.errors import SemipixError, UnreadableFileError
from semipix.interruption import raise_if_interrupted

IMAGES = 64
"""Images that are measured; of more, as many are taken evenly from their list."""

LEAST_STD = 1e-4
"""Smallest standard deviation that is returned, so that a band that never varies is not divided by 0."""

_DELAY = 2.0
"""Seconds after which a progress bar is shown."""


def with_measured_statistics(bands: Bands, source: Source, names: Sequence[str], skip: bool = False) -> Bands:
    """The settings with the statistics of some images; missing values do not count.

    Args:
        bands: the settings.
        source: reads the images.
        names: training images, labeled or not.
        skip: whether images that cannot be read are left out, as with `data.on_error=skip`.

    Raises:
        SemipixError: an image cannot be read, images differ in their number of bands, or a band has no value.
    """
    step = max(1, math.ceil(len(names) / IMAGES))
    first, sums = "", torch.zeros(3, 0, dtype=torch.float64)
    for name in tqdm(names[::step], "measuring bands", unit="image", leave=False, disable=None, delay=_DELAY):
        raise_if_interrupted()
        try:
            image = source.image(name).as_subclass(torch.Tensor)
        except UnreadableFileError:
            if skip:
                continue
            raise
        if not first:
            first, sums = name, torch.zeros(3, len(image), dtype=torch.float64)
        elif len(image) != sums.shape[1]:
            raise SemipixError(
                f"{name}: holds {len(image)} bands, but {first} holds {sums.shape[1]}; expected equally many, or name "
                "the bands to read in data.bands=[0,...]"
            )
        values = image.flatten(1)
        known = ~values.isnan()
        values = values.nan_to_num(0.0).double()
        sums += torch.stack([known.sum(1).double(), values.sum(1), values.square().sum(1)])
    count, total, squares = sums
    if not len(count) or bool((count == 0).any()):
        number = "" if not len(count) else f" {int((count == 0).nonzero()[0])}"
        raise SemipixError(
            f"data.bands: no value of band{number} is known in the training images that were measured; expected some, "
            "remove the band or state data.mean and data.std"
        )
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_STD)
    rounded = [[float(f"{value:.6g}") for value in values.tolist()] for values in (mean, std)]
    return bands.with_statistics(*rounded)
