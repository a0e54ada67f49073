"""How often each class occurs in labels, and weights that make up for it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from semipix.batch import VOID
from semipix.data.files.bands import without_missing
from semipix.data.source import Source
from semipix.errors import UnreadableFileError

BALANCE = {"auto": 0.5, "balanced": 1.0, "sqrt_balanced": 0.5}
"""Values of `task.class_weights` that a training replaces by numbers: the power of the inverse of a class's share.
`auto` is `sqrt_balanced`, or no weights for a loss that takes none."""

MOST_COUNTED = 1000
"""Most masks whose pixels are counted for weights; of more, as many are taken at equal distances by name."""

MOST_WEIGHT = 10.0
"""Largest class weight, before the root of `sqrt_balanced`. Without a limit, a few wrong labels of a class that hardly
occurs would outweigh all others."""

_READING_DELAY = 2.0
"""Seconds after which reading masks shows a progress bar."""


def class_counts(mask: Tensor) -> NDArray[np.int64]:
    """Number of pixels of each class, (256,) by index; that of void is 0.

    Args:
        mask: class indices (H, W) of any whole type, 255 for void.
    """
    indices = mask.as_subclass(Tensor).numpy().astype(np.uint8, copy=False)
    counts = np.array(Image.fromarray(indices).histogram(), np.int64)  # ten times as fast as numpy's bincount
    counts[VOID] = 0
    return counts


def class_pixels(source: Source, names: Sequence[str], *, skip: bool = False) -> Counter[int]:
    """Number of pixels by class index over the masks of labeled images, without void.

    Where images have bands, they are read too, since pixels without a value have no label in training.

    Args:
        source: a source of masks.
        names: the images.
        skip: whether files that cannot be read are left out.

    Raises:
        UnreadableFileError: a file cannot be read, and `skip` is off.
    """
    pixels: Counter[int] = Counter()
    for name in tqdm(names, desc="counting classes", leave=False, disable=None, delay=_READING_DELAY):
        try:
            counts = class_counts(_label(source, name))
        except UnreadableFileError:
            if skip:
                continue
            raise
        pixels.update({int(index): int(counts[index]) for index in counts.nonzero()[0]})
    return pixels


def _label(source: Source, name: str) -> Tensor:
    """The mask (H, W) of an image as a training sees it: without a label where a band of the image has no value."""
    if source.bands is None:
        mask: Tensor = source.target(name)
        return mask
    image, target = source.pair(name)
    return without_missing(target.as_subclass(Tensor), image.as_subclass(Tensor), source.target_fill)


def balanced_weights(pixels: Mapping[int, int], classes: int, power: float = 1.0) -> list[float]:
    """Weights that make up for rare classes: a power of the inverse of their shares of the pixels.

    As in scikit-learn's `class_weight="balanced"`, a class has the weight n / (K n_c): n pixels in all, n_c of the
    class, K classes that occur: all classes count alike, and one with an equal share has weight 1. Here, no weight is
    above `MOST_WEIGHT`, and a class without a pixel has weight 1. A power of 1/2 is half way between that and equal
    weights, the inverse square root of the number of samples.

    Args:
        pixels: number of pixels by class index, without void.
        classes: number of classes.
        power: of the weights, one of `BALANCE`.

    Returns:
        A weight for each class, rounded to four digits.
    """
    present = sum(pixels.get(index, 0) > 0 for index in range(classes))
    total = sum(pixels.values())
    weights = []
    for index in range(classes):
        count = pixels.get(index, 0)
        weights.append(min(MOST_WEIGHT, total / (present * count)) ** power if count else 1.0)
    return [float(f"{weight:.4g}") for weight in weights]


def without_pixels(pixels: Mapping[int, int], classes: Iterable[str]) -> list[str]:
    """Names of the classes that have no pixel.

    Args:
        pixels: number of pixels by class index.
        classes: names in index order.
    """
    return [name for index, name in enumerate(classes) if not pixels.get(index)]
