"""Choose images that represent all images, by their features; pure functions of arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semipix.interruption import raise_if_interrupted

SAME = 0.5
"""Two images count as nearly the same below this share of the usual (median) distance of an image to the nearest other.
On CamVid, half of it is the distance of frames a second apart while the car is standing."""

SAME_AT_LEAST = 0.02
"""They do so below this share of the root mean squared distance of all images from their mean, too: where most images
are there twice, the median is 0."""

TRIED = 256
"""Images of which the distance to the nearest other is computed for that."""

RESTARTS = 4
"""How often k-means starts; the best result is taken."""

MOST_STEPS = 100
"""Steps of one start of k-means."""

SAMPLE = 256
"""Images for each centre from which k-means computes the centres, if there are more; as in Faiss."""

LEAST_SAMPLE = 20_000
"""Images from which k-means computes the centres at least, if there are as many."""

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


def choose(by: str, features: Floats, covered: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """Choose images, none of which is nearly the same as another one or as an image that is covered.

    Args:
        by: a key of `STRATEGIES`.
        features: of all images, (N, D).
        covered: (N,) images that have a label already. They are not chosen, and what they represent needs no choice.
        count: how many are chosen, at most as many as are not covered.
        seed: of random numbers.

    Returns:
        Numbers of the images, those that represent most images first. They are fewer than `count` if the other images
        are nearly the same as these or as covered ones.
    """
    found = STRATEGIES[by](features, covered, count, seed)
    sizes = [len(cell) for cell in cells(features, covered, found)]
    return [found[number] for number in sorted(range(len(found)), key=lambda number: -sizes[number])]


def by_kmeans(features: Floats, covered: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """The images nearest to the centres of k-means, in which covered images are centres that do not move.

    The centres minimise the mean squared distance of all images to the nearest centre or covered image. scikit-learn's
    k-means has no centres that are fixed.
    """
    chosen = _Chosen(features, covered)
    centres = _centres(features, chosen.distance, count, seed)
    nearest, distance = _nearest(features, centres)
    sizes = np.bincount(nearest[distance < chosen.distance], minlength=len(centres))
    for number in np.argsort(-sizes, kind="stable"):
        order = np.argsort(((features - centres[number]) ** 2).sum(1), kind="stable")
        # Only images of the centre's own cluster: farther ones belong to another.
        own = order[(nearest[order] == number) & chosen.free[order]]
        if len(own):
            chosen.add(int(own[0]))
    chosen.fill(count)
    return chosen.numbers


def by_kcentre(features: Floats, covered: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """Greedy k-centre: each image is the farthest from those chosen or covered (Sener and Savarese, ICLR 2018).

    The first one, if none is covered, is the nearest to the mean; so the seed has no effect.
    """
    chosen = _Chosen(features, covered)
    chosen.fill(count)
    return chosen.numbers


def at_random(features: Floats, covered: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """Random images."""
    chosen = _Chosen(features, covered)
    for number in np.random.default_rng(seed).permutation(len(features)):
        if len(chosen.numbers) < count and chosen.free[number]:
            chosen.add(int(number))
    return chosen.numbers


STRATEGIES: Mapping[str, Callable[[Floats, NDArray[np.bool_], int, int], list[int]]] = {
    "kmeans": by_kmeans,
    "kcentre": by_kcentre,
    "random": at_random,
}
"""The values of `--by`."""


def cells(features: Floats, covered: NDArray[np.bool_], chosen: Sequence[int]) -> list[Numbers]:
    """For each chosen image the images to which no other chosen or covered image is nearer, the nearest first.

    The first of each is the chosen image itself. An image that is as near to a covered one belongs to that.
    """
    if not chosen:
        return []
    nearest, distance = _nearest(features, features[list(chosen)])
    own = distance < _to_covered(features, covered)
    nearest[list(chosen)], own[list(chosen)], distance[list(chosen)] = range(len(chosen)), True, -1.0
    members = (np.flatnonzero(own & (nearest == number)) for number in range(len(chosen)))
    return [each[np.argsort(distance[each], kind="stable")] for each in members]


@dataclass(frozen=True)
class Coverage:
    """How many clusters of similar images have a label.

    Attributes:
        clusters: number of clusters.
        missed: the clusters without a label, the largest first: numbers of their images, the most typical first.
        by_chance: clusters that as many labels would miss on average if they were drawn at random.
    """

    clusters: int
    missed: list[Numbers]
    by_chance: float

    @property
    def images(self) -> int:
        """Number of images in the clusters without a label."""
        return sum(map(len, self.missed))


def coverage(features: Floats, covered: NDArray[np.bool_], clusters: int, seed: int = 0) -> Coverage:
    """Cluster all images by k-means and find the clusters without a label.

    Args:
        features: of all images, (N, D).
        covered: (N,) images that have a label.
        clusters: number of clusters, at most N.
        seed: of k-means.
    """
    centres = _centres(features, np.full(len(features), np.inf), clusters, seed)
    nearest, distance = _nearest(features, centres)
    groups = [np.flatnonzero(nearest == number) for number in range(len(centres))]
    groups = [group[np.argsort(distance[group], kind="stable")] for group in groups if len(group)]
    missed = sorted((group for group in groups if not covered[group].any()), key=len, reverse=True)
    labels = int(covered.sum())
    by_chance = sum(_missed_by_chance(len(group), labels, len(features)) for group in groups)
    return Coverage(len(groups), missed, by_chance)


def _missed_by_chance(size: int, labels: int, images: int) -> float:
    """The probability that none of the labeled images, drawn without replacement, is in a cluster of this size."""
    if labels > images - size:
        return 0.0
    ways = math.lgamma(images - size + 1) - math.lgamma(images - size - labels + 1)
    return math.exp(ways - math.lgamma(images + 1) + math.lgamma(images - labels + 1))


class _Chosen:
    """The images that are chosen so far.

    Attributes:
        numbers: of these images.
        distance: (N,) squared distance of each image to the nearest chosen or covered one; infinity if there is none.
        free: (N,) images that may be chosen: not covered, and not nearly the same as a chosen or covered one.
    """

    def __init__(self, features: Floats, covered: NDArray[np.bool_]) -> None:
        self._features = features
        self._same = _nearly_the_same(features)
        self.numbers: list[int] = []
        self.distance = _to_covered(features, covered)
        self.free = ~covered & (self.distance > self._same)

    def add(self, number: int) -> None:
        """Choose an image."""
        self.numbers.append(number)
        self.distance = np.minimum(self.distance, ((self._features - self._features[number]) ** 2).sum(1))
        self.free &= self.distance > self._same
        self.free[number] = False

    def fill(self, count: int) -> None:
        """Choose the free image that is farthest from all chosen and covered ones, until there are enough."""
        while len(self.numbers) < count and self.free.any():
            raise_if_interrupted()
            if np.isinf(self.distance).all():  # the most typical image
                score = -((self._features - self._features.mean(0)) ** 2).sum(1)
            else:
                score = self.distance
            self.add(int(np.argmax(np.where(self.free, score, -np.inf))))


def _nearly_the_same(features: Floats) -> float:
    """The squared distance up to which two images are nearly the same; see `SAME`."""
    least = SAME_AT_LEAST**2 * float(((features - features.mean(0)) ** 2).sum(1).mean())
    if len(features) < 2:
        return least
    tried = np.unique(np.linspace(0, len(features) - 1, TRIED).astype(int))
    squares = (features**2).sum(1)
    between = squares[tried, None] + squares - 2 * features[tried] @ features.T
    between[np.arange(len(tried)), tried] = np.inf
    return max(least, SAME**2 * float(np.median(between.min(1))))


def _to_covered(features: Floats, covered: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Squared distance of each image to the nearest covered one; infinity if there is none."""
    if not covered.any():
        return np.full(len(features), np.inf)
    return np.where(covered, 0.0, _nearest(features, features[covered])[1])


def _nearest(features: Floats, centres: Floats) -> tuple[Numbers, NDArray[np.float64]]:
    """For each image (N, D) the number of the nearest centre, and the squared distance to it."""
    from sklearn.metrics import pairwise_distances_argmin_min

    numbers, distances = pairwise_distances_argmin_min(features, centres, metric="sqeuclidean")
    return numbers.astype(np.int64), distances.astype(np.float64)


def _centres(features: Floats, fixed: NDArray[np.float64], count: int, seed: int) -> Floats:
    """The centres (K, D) of k-means (Lloyd) beside fixed ones; fewer than `count` if fewer images are different.

    Args:
        features: of all images, (N, D).
        fixed: (N,) squared distance of each image to the nearest fixed centre.
        count: number of the other centres.
        seed: of random numbers.
    """
    draw = np.random.default_rng(seed)
    most = max(LEAST_SAMPLE, SAMPLE * count)
    if len(features) > most:
        sample = np.sort(draw.choice(len(features), most, replace=False))
        features, fixed = features[sample], fixed[sample]
    best, least = features[:0], np.inf
    for _ in range(RESTARTS):
        centres = _first_centres(features, fixed, count, draw)
        for _ in range(MOST_STEPS):
            raise_if_interrupted()
            nearest, distance = _nearest(features, centres)
            own = distance < fixed
            moved = _means(features[own], nearest[own], centres)
            if np.array_equal(moved, centres):
                break
            centres = moved
        error = np.minimum(_nearest(features, centres)[1], fixed).sum()
        if error < least:
            best, least = centres, error
    return best


def _first_centres(features: Floats, fixed: NDArray[np.float64], count: int, draw: np.random.Generator) -> Floats:
    """Images drawn with a probability by their squared distance from those drawn before (k-means++)."""
    distance = fixed
    numbers: list[int] = []
    while len(numbers) < count:
        weight = np.ones(len(features)) if np.isinf(distance).any() else distance
        if weight.sum() <= 0:  # all other images equal one that is drawn
            break
        numbers.append(int(draw.choice(len(features), p=weight / weight.sum())))
        distance = np.minimum(distance, ((features - features[numbers[-1]]) ** 2).sum(1))
    return features[numbers]


def _means(features: Floats, nearest: Numbers, centres: Floats) -> Floats:
    """The mean of the images of each centre; a centre without images stays where it is."""
    from scipy.sparse import csr_array

    counts = np.bincount(nearest, minlength=len(centres))
    shape = len(centres), len(features)
    member = csr_array((np.ones(len(nearest), np.float32), (nearest, np.arange(len(nearest)))), shape)
    sums = member @ features
    return np.where(counts[:, None] > 0, sums / np.maximum(1, counts)[:, None], centres).astype(np.float32)
