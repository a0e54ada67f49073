"""Slow flaw functions, pixel by pixel in float64, as a reference for the fast ones.

Written from the description, not from `semipix.functional.flaw`, and shares nothing with it: dense two-dimensional
kernels, one pixel at a time. `python -m tests.helpers.slow_flaw` writes reference_flaw.npz again.
"""

from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).with_name("reference_flaw.npz")
CASES: dict[str, dict[str, Any]] = {
    "wide": {"size": (40, 56), "channels": 3, "mu": 1 / 2, "nu": 1},
    "odd": {"size": (33, 47), "channels": 1, "mu": 1.0, "nu": 1},
    "small": {"size": (17, 29), "channels": 3, "mu": 1 / 3, "nu": 5},
}
THRESHOLD = 0.4
STEPS = 65535
"""Maps in [0, 1] are stored as 16-bit integers."""

Array = np.ndarray[Any, np.dtype[Any]]


def blur(image: Array, share: int) -> Array:
    """Gaussian blur of (H, W): each pixel is a weighted sum over its own window, mirrored at the borders."""
    height, width = image.shape
    tall, broad = (_odd_size(side, share) for side in (height, width))
    kernel = _gaussian(tall, broad)
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            rows = [_mirror(y + i - tall // 2, height) for i in range(tall)]
            columns = [_mirror(x + j - broad // 2, width) for j in range(broad)]
            result[y, x] = (image[np.ix_(rows, columns)] * kernel).sum()
    return result


def _odd_size(side: int, share: int) -> int:
    size = side // share
    if size < 1:
        return 1
    return size if size % 2 == 1 else size + 1


def _gaussian(tall: int, broad: int) -> Array:
    kernel = np.zeros((tall, broad))
    sigma_y = 0.3 * ((tall - 1) / 2 - 1) + 0.8
    sigma_x = 0.3 * ((broad - 1) / 2 - 1) + 0.8
    for i in range(tall):
        for j in range(broad):
            y, x = i - tall // 2, j - broad // 2
            kernel[i, j] = np.exp(-(y * y) / (2 * sigma_y**2) - (x * x) / (2 * sigma_x**2))
    return kernel / kernel.sum()


def _mirror(index: int, side: int) -> int:
    """The border pixel itself is not repeated: -1 is 1, and `side` is `side - 2`."""
    if index < 0:
        return -index
    return 2 * side - 2 - index if index >= side else index


def dilate(image: Array) -> Array:
    """Maximum over the 3x3 window, cut off at the borders."""
    height, width = image.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            result[y, x] = image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
    return result


def flaw_target(prediction: Array, target: Array, mu: float, nu: int) -> Array:
    """Dense flaw map (H, W) of one prediction (C, H, W)."""
    flaw = np.zeros(prediction.shape[1:])
    for channel in range(len(prediction)):
        flaw += mu * np.abs(prediction[channel] - target[channel])
    flaw = blur(flaw, 8)
    for _ in range(nu):
        flaw = blur(dilate(flaw), 4)
    return (flaw - flaw.min()) / (flaw.max() - flaw.min() + 1e-9)


def normalize_flaw(raw: Array) -> Array:
    """Comparable flaw map (H, W) of a detector's raw one."""
    smooth = blur(np.maximum(raw, 0), 16)
    if smooth.max() <= 0.1:
        return np.zeros_like(smooth)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min() + 1e-9)


def exchange(first: Array, second: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Where (H, W) the first learns from the second, where the second from the first, and where both are flawed."""
    to_first, to_second, both = (np.zeros(first.shape, dtype=bool) for _ in range(3))
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            mine, theirs = first[y, x], second[y, x]
            if mine > threshold and theirs > threshold:
                both[y, x] = True
            elif mine > theirs:
                to_first[y, x] = True
            elif theirs > mine:
                to_second[y, x] = True
    return to_first, to_second, both


def inputs(name: str) -> dict[str, Array]:
    """Random predictions, label and raw maps of a case, as bytes: predictions are value / 255, maps value / 100 - 1."""
    case = CASES[name]
    generator = np.random.default_rng(sorted(CASES).index(name))
    (height, width), channels = case["size"], case["channels"]
    coarse = generator.integers(0, 2, (channels, 5, 5)) * 255
    target = coarse[:, np.arange(height) * 5 // height][:, :, np.arange(width) * 5 // width]
    arrays = {"target": target.astype(np.uint8)}
    for which in ("first", "second"):
        wrong = generator.random((4, 4))[np.arange(height) * 4 // height][:, np.arange(width) * 4 // width] ** 3
        noise = generator.integers(0, 256, (channels, height, width))
        arrays[f"prediction_{which}"] = (target * (1 - wrong) + noise * wrong).astype(np.uint8) // 17 * 17
        arrays[f"raw_{which}"] = (80 + 90 * wrong + generator.integers(0, 30, (height, width))).astype(np.uint8)
    if name == "small":
        arrays["raw_second"] = np.minimum(arrays["raw_second"], 109)  # 0.09 at most: silent
    return arrays


def decode(arrays: dict[str, Array]) -> dict[str, Array]:
    """Stored arrays of a case to numbers; masks are left as they are."""
    scales = {"raw": lambda value: value / 100 - 1, "prediction": lambda value: value / 255}
    scales["target"] = scales["prediction"]
    scales["flaw"] = scales["normalized"] = lambda value: value / STEPS
    return {
        key: scales[key.partition("_")[0]](value.astype(float)) if value.dtype != bool else value
        for key, value in arrays.items()
    }


def outputs(name: str, given: dict[str, Array]) -> dict[str, Array]:
    """The slow functions' outputs for the inputs of a case, in the stored types."""
    case = CASES[name]
    numbers = decode(given)
    arrays: dict[str, Array] = {}
    for which in ("first", "second"):
        target = flaw_target(numbers[f"prediction_{which}"], numbers["target"], case["mu"], case["nu"])
        arrays[f"flaw_{which}"] = np.round(target * STEPS).astype(np.uint16)
        normalized = normalize_flaw(numbers[f"raw_{which}"])
        arrays[f"normalized_{which}"] = np.round(normalized * STEPS).astype(np.uint16)
    compared = decode({key: value for key, value in arrays.items() if key.startswith("normalized")})
    masks = exchange(compared["normalized_first"], compared["normalized_second"], THRESHOLD)
    return arrays | dict(zip(("to_first", "to_second", "both_flawed"), masks, strict=True))


def stored(name: str) -> dict[str, Array]:
    """Inputs and outputs of a case from reference_flaw.npz, as they are stored."""
    with np.load(REFERENCE) as file:
        return {key.partition("/")[2]: file[key] for key in file if key.startswith(f"{name}/")}


def main() -> None:
    """Write reference_flaw.npz."""
    arrays = {}
    for name in CASES:
        given = inputs(name)
        arrays |= {f"{name}/{key}": value for key, value in (given | outputs(name, given)).items()}
    np.savez_compressed(REFERENCE, **arrays)


if __name__ == "__main__":
    main()
