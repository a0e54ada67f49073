"""The settings of images with any bands, and pixels whose value is missing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.errors import SemipixError

KEYS = ("bands", "range", "mean", "std")
"""Keys of `data` that these settings come from."""

ALL = "all"

Pairs = Sequence[float] | Sequence[Sequence[float]]
"""A pair of numbers, or one for each band."""

MOST_BAND = 2**16 - 1
"""Largest number of a band; a TIFF cannot hold more."""


class BandImage(tv_tensors.Image):  # type: ignore[misc]
    """An image (C, H, W) of bands, float32 in [0, 1], NaN where a value is missing; no channel is a trimap."""


@dataclass(frozen=True)
class Bands:
    """Which bands of an image are read, and how their numbers become [0, 1].

    Attributes:
        chosen: numbers of the bands, from 0; None for all.
        limits: the numbers that become 0 and 1: one pair, or one for each band; None for the range of the file's type.
        mean: mean of each band in [0, 1]; None if it is not measured yet.
        std: standard deviation of each band.
    """

    chosen: tuple[int, ...] | None = None
    limits: tuple[tuple[float, float], ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls,
        bands: Sequence[int] | Literal["all"] | None,
        limits: Pairs | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Self | None:
        """Check the settings `data.bands`, `data.range`, `data.mean` and `data.std`.

        Returns:
            None if neither bands nor a range are set: images are then read as colours.

        Raises:
            SemipixError: a value is out of range, or the settings differ in their number of bands.
        """
        if bands is None and limits is None:
            for key, value in (("mean", mean), ("std", std)):
                if value is not None:
                    raise SemipixError(
                        f"data.{key}={list(value)}: found it without data.bands or data.range, which it is for; leave "
                        "it out, or set data.bands=all"
                    )
            return None
        chosen = None if bands is None or bands == ALL else _chosen(bands)
        made = cls(chosen, None if limits is None else _limits(limits), *_statistics(mean, std))
        counts = {
            "data.bands": None if chosen is None else len(chosen),
            "data.range": None if made.limits is None or len(made.limits) == 1 else len(made.limits),
            "data.mean": None if made.mean is None else len(made.mean),
        }
        known = {key: count for key, count in counts.items() if count is not None}
        if len(set(known.values())) > 1:
            several = ", ".join(f"{count} in {key}" for key, count in known.items())
            raise SemipixError(f"data.bands: found different numbers of bands, {several}; expected as many in each")
        return made

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self | None:
        """The settings among the options of a run's data."""
        return cls.of(*(options.get(key) for key in KEYS))

    @property
    def count(self) -> int | None:
        """How many bands are read; None if only the files know it."""
        if self.chosen is not None:
            return len(self.chosen)
        return None if self.mean is None else len(self.mean)

    @property
    def identity(self) -> str:
        """What decides about the numbers that are read, as text."""
        return f"{self.chosen} {self.limits}"

    def with_statistics(self, mean: Sequence[float], std: Sequence[float]) -> Self:
        """The same settings with these statistics."""
        return dataclasses.replace(self, mean=tuple(mean), std=tuple(std))

    def filled(self, image: Tensor) -> Tensor:
        """An image (..., C, H, W) whose missing values are the mean of their band, so 0 after normalisation."""
        missing = image.isnan()
        if self.mean is None or not bool(missing.any()):
            return image
        return torch.where(missing, image.new_tensor(self.mean).view(-1, 1, 1), image)


def missing_pixels(image: Tensor) -> Tensor | None:
    """(H, W) bool: pixels of an image (C, H, W) of which a band is missing; None if there is none."""
    if not image.is_floating_point():
        return None
    missing = image.isnan()
    return missing.any(0) if bool(missing.any()) else None


def without_missing(target: Tensor, image: Tensor, fill: float) -> Tensor:
    """A label without the pixels of which the image has no value.

    Args:
        target: (H, W) integers or (C, H, W) floats.
        image: (C, H, W) of the same size, in which values may be NaN.
        fill: value of masks at pixels without a label; regression targets have NaN there.
    """
    if image.shape[-2:] != target.shape[-2:] or (missing := missing_pixels(image)) is None:
        return target
    return target.masked_fill(missing, math.nan if target.is_floating_point() else fill)


def _chosen(bands: Sequence[int] | str) -> tuple[int, ...]:
    numbers = [bands] if isinstance(bands, str) else list(bands)
    for number in numbers:
        if isinstance(number, str) or not 0 <= number <= MOST_BAND:
            raise SemipixError(
                f"data.bands={bands if isinstance(bands, str) else numbers}: expected all, or a list of the numbers of "
                "bands from 0, such as [0,3,7]"
            )
    if not numbers or len(set(numbers)) < len(numbers):
        raise SemipixError(f"data.bands={numbers}: expected at least one band, and each only once")
    return tuple(int(number) for number in numbers)


def _limits(limits: Pairs) -> tuple[tuple[float, float], ...]:
    given: list[Any] = list(limits)
    pairs = given if given and all(isinstance(each, list | tuple) for each in given) else [given]
    for pair in pairs:
        numbers = [each for each in pair if isinstance(each, int | float)]
        if len(pair) != 2 or len(numbers) != 2 or not -math.inf < pair[0] < pair[1] < math.inf:
            raise SemipixError(
                f"data.range={given}: expected [low,high], the numbers that become 0 and 1, or one such pair for each "
                "band"
            )
    return tuple((float(low), float(high)) for low, high in pairs)


def _statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if (mean is None) != (std is None) or (mean is not None and std is not None and len(mean) != len(std)):
        raise SemipixError(
            f"data.mean={_shown(mean)}, data.std={_shown(std)}: expected both, with a number for each band, or "
            "neither, so that they are measured"
        )
    if mean is None or std is None:
        return None, None
    for key, values, low in (("mean", mean, 0.0), ("std", std, 1e-6)):
        if not values or not all(low <= value <= 1 for value in values):
            raise SemipixError(
                f"data.{key}={_shown(values)}: expected numbers of values from 0 to 1, as data.range makes them"
            )
    return tuple(map(float, mean)), tuple(map(float, std))


def _shown(values: Sequence[float] | None) -> str:
    return "null" if values is None else f"[{','.join(f'{value:g}' for value in values)}]"
