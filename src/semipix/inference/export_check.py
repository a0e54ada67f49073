"""Compare an exported network with the network that it was made of, and time both."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from semipix.errors import SemipixError
from semipix.inference.export_network import Deployed
from semipix.interruption import raise_if_interrupted

SIZES = 20
"""Numbers of images, heights and widths that are compared."""

LARGEST_STEP = 128
"""Most pixels by which a compared side is longer than the smallest."""

MOST_IMAGES = 3
"""Most images of a batch that is compared."""

TOLERANCE = 1e-3
"""Largest difference of predictions in [0, 1], and largest mean difference of error maps: rounding is far below it."""

PASSES = 5
"""Passes of which the median time is reported, after one that is not counted."""

Network = Callable[[Tensor], Sequence[Tensor]]
"""A network, exported or not: images (N, C_in, H, W) to predictions and, if it has them, error maps."""


class Differences(NamedTuple):
    """How far an exported network is from its source, over all compared sizes.

    Attributes:
        sizes: how many were compared.
        prediction: largest difference of a prediction.
        error: largest difference of an error map, or None.
    """

    sizes: int
    prediction: float
    error: float | None

    def line(self, by: str) -> str:
        """The figures for the user, of what `by` computed."""
        error = "" if self.error is None else f", of the error map {self.error:.1e}"
        return f"checked: {self.sizes} sizes by {by}, largest difference of a prediction {self.prediction:.1e}{error}"


@torch.no_grad()
def compare(network: Deployed, run: Network) -> Differences:
    """Compare an exported network with its source over `SIZES` sizes.

    Raises:
        SemipixError: they differ by more than rounding, or the exported one refuses a size.
    """
    prediction, error = 0.0, None
    for images in tqdm(examples(network), desc="check", unit="size", total=SIZES):
        raise_if_interrupted()
        shape = "x".join(map(str, images.shape))
        wanted = network(images)
        try:
            found = run(images)
        except Exception as reason:  # a runtime raises errors of its own classes
            raise SemipixError(
                f"export: the exported network refuses images {shape}: {_first_line(reason)}"
            ) from reason
        if [each.shape for each in found] != [each.shape for each in wanted]:
            raise SemipixError(f"export: the exported network returns maps of another size for images {shape}")
        gaps = [(own.double() - other.double()).abs() for own, other in zip(wanted, found, strict=True)]
        prediction = max(prediction, float(gaps[0].max()))
        means = [float(gaps[0].max())]
        if len(gaps) > 1:
            error = max(error or 0.0, float(gaps[1].max()))
            means.append(float(gaps[1].mean()))  # at a step of the calibration's table, rounding moves single pixels
        if not max(means) <= TOLERANCE:
            raise SemipixError(
                f"export: the exported network differs from the run's by {max(means):.2g} for images {shape}, at most "
                f"{TOLERANCE:g} expected; nothing was written, try another --format"
            )
    return Differences(SIZES, prediction, error)


def examples(network: Deployed) -> Iterator[Tensor]:
    """Images of `SIZES` sizes, the smallest first; smooth, with some noise. A trimap has three values."""
    draw = torch.Generator().manual_seed(0)
    for number in range(SIZES):
        steps = torch.randint(0, LARGEST_STEP + 1, (2,), generator=draw).tolist() if number else [0, 0]
        count = 1 + number % MOST_IMAGES
        yield example(network, count, network.smallest + steps[0], network.smallest + steps[1], draw)


def example(network: Deployed, count: int, height: int, width: int, draw: torch.Generator) -> Tensor:
    """Random images (count, C_in, height, width) in [0, 1]."""
    channels = network.task.in_channels
    coarse = torch.rand(count, channels, height // 16 + 2, width // 16 + 2, generator=draw)
    noise = torch.randn(count, channels, height, width, generator=draw)
    images = (F.interpolate(coarse, (height, width), mode="bilinear") + 0.05 * noise).clamp(0, 1)
    if network.task.trimap:
        images[:, 3:] = (2 * images[:, 3:]).round() / 2
    return images


@torch.no_grad()
def seconds(run: Network, images: Tensor) -> float:
    """Median seconds of a pass over these images."""
    run(images)
    found = []
    for _ in range(PASSES):
        raise_if_interrupted()
        begin = time.perf_counter()
        run(images)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
