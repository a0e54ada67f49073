"""A simulated camera: noise is added to the raw sensor values, before demosaicing, white balance, gamma and JPEG."""

import io
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from semipix.data.drawing.shapes import smooth_noise

Colours = NDArray[np.float32]
"""(H, W, 3) float32 in [0, 1]."""

_GAMMA = 2.2

_BAYER = ((0, 1), (1, 2))
"""Colour index of each site in the sensor's 2x2 cells: red and green, green and blue."""

_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
"""Weights of a site's neighbours for bilinear interpolation on a Bayer sensor."""


def photograph(scene: Colours, generator: Generator) -> Colours:
    """Take a noisy picture: linear light, shot and read noise, Bayer mosaic, demosaicing, white balance, gamma, JPEG.

    Args:
        scene: the clean scene.
        generator: draws noise, sensitivity of the sensor, white balance and quality of the JPEG.

    Returns:
        The picture, of 8 bits a channel.
    """
    shot, read = np.exp(generator.uniform(np.log([1e-3, 3e-3]), np.log([1e-2, 1.5e-2])))
    picture = expose(scene, 1.0, float(shot), float(read), generator)
    return _jpeg(picture, int(generator.integers(75, 96)))


def photograph_at_night(scene: Colours, generator: Generator) -> Colours:
    """Take a dark, unevenly lit and noisy picture of a scene.

    Args:
        scene: the scene in daylight.
        generator: draws light and noise.

    Returns:
        The picture, of 8 bits a channel.
    """
    height, width = scene.shape[:2]
    light: NDArray[Any] = generator.uniform(0.02, 0.12) * (1 + 0.6 * smooth_noise(generator, 2, height, width))
    shot, read = np.exp(generator.uniform(np.log([2e-4, 5e-4]), np.log([1e-3, 2e-3])))
    picture = expose(scene, light[..., None], float(shot), float(read), generator)
    return _rounded(picture)


def expose(scene: Colours, light: float | NDArray[Any], shot: float, read: float, generator: Generator) -> Colours:
    """A noisy picture of a scene: linear light, noise, Bayer mosaic, demosaicing, white balance, gamma.

    Args:
        scene: the clean scene.
        light: factor on the linear light, broadcast to (H, W, 3).
        shot, read: the noise has the variance `shot * signal + read**2` in linear light.
        generator: draws noise and sensitivity of the sensor.

    Returns:
        The picture, not rounded to bytes.
    """
    gains = np.array([generator.uniform(1.4, 2.0), 1.0, generator.uniform(1.3, 1.8)], np.float32)
    linear = light * scene**_GAMMA / gains
    sites = _sites(*scene.shape[:2])
    signal = np.take_along_axis(linear, sites[..., None], axis=-1)[..., 0]
    noise = np.sqrt(shot * signal + read**2) * generator.standard_normal(signal.shape, np.float32)
    raw = np.clip(signal + noise, 0, 1).astype(np.float32)
    picture: Colours = np.clip(demosaic(raw) * gains, 0, 1) ** np.float32(1 / _GAMMA)
    return picture.astype(np.float32)


def demosaic(mosaic: NDArray[np.float32]) -> Colours:
    """Interpolate the two missing colours of each site (H, W) of a Bayer sensor from the nearest sites."""
    sites = _sites(*mosaic.shape)
    colours = [np.where(sites == colour, mosaic, _smooth(mosaic, sites == colour)) for colour in range(3)]
    return np.stack(colours, axis=-1).astype(np.float32)


def _sites(height: int, width: int) -> NDArray[np.int64]:
    """Index of the colour that each site of the sensor sees, (H, W)."""
    cell = np.array(_BAYER)
    return np.tile(cell, (height // 2 + 1, width // 2 + 1))[:height, :width]


def _smooth(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weighted mean of the known values in each 3x3 neighbourhood; nearer ones have a larger weight."""
    weight = known.astype(np.float32)
    mean = _convolve(values * weight) / np.maximum(_convolve(weight), np.float32(1e-6))
    return mean.astype(np.float32)


def _convolve(values: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = values.shape
    padded = np.pad(values, 1)
    total = np.zeros_like(values)
    for y in range(3):
        for x in range(3):
            total += _KERNEL[y, x] * padded[y : y + height, x : x + width]
    return total


def _jpeg(picture: Colours, quality: int) -> Colours:
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image, np.float32) / np.float32(255)


def _rounded(picture: Colours) -> Colours:
    return (picture * 255).round().astype(np.float32) / np.float32(255)
