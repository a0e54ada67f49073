"""Errors of a matte as loops over pixels, written from the definitions."""

import math

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]


def gradient_magnitude(alpha: Map) -> Map:
    height, width = alpha.shape
    kernel = {}
    for y in range(-4, 5):
        for x in range(-4, 5):
            bell = math.exp(-(x * x + y * y) / (2 * 1.4**2))
            kernel[y, x] = (y * bell, x * bell)
    norms = [math.sqrt(sum(weight[axis] ** 2 for weight in kernel.values())) for axis in (0, 1)]
    result = np.zeros_like(alpha)
    for row in range(height):
        for column in range(width):
            slopes = [0.0, 0.0]
            for (y, x), weights in kernel.items():
                value = alpha[min(max(row + y, 0), height - 1), min(max(column + x, 0), width - 1)]
                slopes = [
                    slope + weight * value / norm for slope, weight, norm in zip(slopes, weights, norms, strict=True)
                ]
            result[row, column] = math.hypot(*slopes)
    return result


def largest_region(active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = active.shape
    seen: set[tuple[int, int]] = set()
    best: set[tuple[int, int]] = set()
    for start in zip(*np.nonzero(active), strict=True):
        if start in seen:
            continue
        region, edge = {start}, [start]
        while edge:
            row, column = edge.pop()
            for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= near[0] < height and 0 <= near[1] < width and active[near] and near not in region:
                    region.add(near)
                    edge.append(near)
        seen |= region
        if len(region) > len(best):
            best = region
    result = np.zeros_like(active)
    for place in best:
        result[place] = True
    return result


def connectivity_error(prediction: Map, alpha: Map, unknown: NDArray[np.bool_]) -> float:
    regions = []
    for step in range(1, 11):
        level = np.float32(step / 10)
        regions.append(largest_region((prediction >= level) & (alpha >= level)))
    total = 0.0
    for row in range(alpha.shape[0]):
        for column in range(alpha.shape[1]):
            if not unknown[row, column]:
                continue
            reached = 0
            while reached < 10 and regions[reached][row, column]:
                reached += 1
            degrees = []
            for matte in (prediction, alpha):
                distance = float(matte[row, column]) - reached / 10
                degrees.append(1 - distance if distance >= 0.15 else 1.0)
            total += abs(degrees[0] - degrees[1])
    return total / 1000
