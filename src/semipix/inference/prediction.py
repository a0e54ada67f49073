"""What a run predicts of one image, in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a run predicts of one image, at the image's own size (H, W). The arrays are numpy's.

    Attributes:
        name: the file's name relative to the given folder; empty for an image without a file.
        classes: in classification the names of the classes, by their index.
        class_map: in classification (H, W) uint8, the index of the most probable class, as in `masks/`.
        probabilities: in classification (K, H, W) float32, the probability of each class.
        values: in regression (K, H, W) float32, in the units of the data.
        array: what `semipix predict` writes to `masks/` or `predictions/`: `class_map`, or whole numbers of 8 or 16
            bits, (H, W), (H, W, 3) or, in a file for each channel, (K, H, W).
        picture: (H, W, 3) uint8, as in `pictures/`.
        error_map: (H, W) float32: the probability that a pixel is wrong; in regression the expected absolute error as a
            share of the range. Not calibrated if the run has no calibration. None if it has no such map.
        expected_error: mean of a calibrated error map; in regression in the units of the data. None without a
            calibration, or if no pixel counts: all are known by a trimap, or the image has no value of any.
        expected_quality: expected mean IoU or, in regression, PSNR in dB; None where `expected_error` is.
        accepted: with a risk (H, W) bool, the accepted pixels.
    """

    name: str
    classes: tuple[str, ...]
    class_map: NDArray[np.uint8] | None
    probabilities: NDArray[np.float32] | None
    values: NDArray[np.float32] | None
    array: NDArray[Any]
    picture: NDArray[np.uint8]
    error_map: NDArray[np.float32] | None
    expected_error: float | None
    expected_quality: float | None
    accepted: NDArray[np.bool_] | None

    def __repr__(self) -> str:
        error = "" if self.expected_error is None else f", expected_error={self.expected_error:.4g}"
        return f"Prediction({self.name!r}, {self.picture.shape[1]}x{self.picture.shape[0]} pixels{error})"
