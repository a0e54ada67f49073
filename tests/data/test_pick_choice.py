"""Strategies that choose images, on points whose best choice is known."""

from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from semipix.data.pick_choice import STRATEGIES, by_kcentre, by_kmeans, cells, choose, coverage

CENTRES = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
SIZES = 40, 20, 10, 5


def groups() -> NDArray[np.float32]:
    """Four groups of points, the largest first."""
    draw = np.random.default_rng(0)
    parts = [centre + draw.normal(0, 0.5, (size, 2)) for centre, size in zip(CENTRES, SIZES, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def group_of(number: int) -> int:
    return int(np.searchsorted(np.cumsum(SIZES), number, side="right"))


def nothing(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.zeros(len(features), bool)


def test_kmeans_chooses_one_of_each_group_the_largest_first() -> None:
    features = groups()
    found = choose("kmeans", features, nothing(features), 4, seed=0)
    assert [group_of(number) for number in found] == [0, 1, 2, 3]
    for group, number in enumerate(found):  # the most typical image of each
        own = features[[group_of(each) == group for each in range(len(features))]]
        distances = ((own - own.mean(0)) ** 2).sum(1)
        assert ((features[number] - own.mean(0)) ** 2).sum() == pytest.approx(distances.min())


@pytest.mark.parametrize("by", ["kmeans", "kcentre"])
def test_groups_with_a_label_count_as_covered(by: str) -> None:
    features = groups()
    covered = nothing(features)
    covered[[3, 65]] = True  # in the groups 0 and 2
    assert sorted(group_of(number) for number in choose(by, features, covered, 2, seed=0)) == [1, 3]


def test_kmeans_moves_its_centres_as_scikit_learn_does() -> None:
    from sklearn.cluster import KMeans

    features = np.random.default_rng(1).normal(size=(120, 3)).astype(np.float32)
    best = KMeans(6, n_init=10, random_state=0).fit(features)
    found = by_kmeans(features, nothing(features), 6, seed=0)
    typical = [int(((features - centre) ** 2).sum(1).argmin()) for centre in best.cluster_centers_]
    error, least = (((features[:, None] - features[numbers]) ** 2).sum(2).min(1).sum() for numbers in (found, typical))
    assert error < 1.1 * least


def test_kcentre_takes_what_is_farthest() -> None:
    features = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [50, 0]], np.float32)
    assert by_kcentre(features, nothing(features), 3, seed=0) == [3, 4, 0]


@pytest.mark.parametrize("by", STRATEGIES)
def test_nearly_the_same_images_are_chosen_once(by: str) -> None:
    features = np.repeat(np.array([[0, 0], [5, 0], [0, 5]], np.float32), 4, 0)
    features += np.random.default_rng(0).normal(0, 1e-3, features.shape).astype(np.float32)
    found = choose(by, features, nothing(features), 6, seed=0)
    assert sorted(number // 4 for number in found) == [0, 1, 2]
    covered = nothing(features)
    covered[0] = True
    assert sorted(number // 4 for number in choose(by, features, covered, 6, seed=0)) == [1, 2]


@pytest.mark.parametrize("by", STRATEGIES)
@pytest.mark.parametrize("count", [1, 75])
def test_one_image_and_all_images(by: str, count: int) -> None:
    features = np.arange(75, dtype=np.float32)[:, None] ** 3
    found = choose(by, features, nothing(features), count, seed=0)
    assert len(found) == len(set(found))
    assert len(found) == 1 if count == 1 else len(found) > 3
    same = np.ones((75, 2), np.float32)
    assert len(choose(by, same, nothing(same), count, seed=0)) == 1


def test_the_seed_decides() -> None:
    features = np.random.default_rng(2).normal(size=(60, 4)).astype(np.float32)
    first, again, other = (choose("random", features, nothing(features), 8, seed) for seed in (0, 0, 1))
    assert first == again
    assert set(first) != set(other)


def test_each_image_is_represented_by_the_nearest() -> None:
    features = np.array([[0], [1], [2], [7], [9], [10]], np.float32)
    covered = np.array([False, False, False, False, False, True])
    assert [each.tolist() for each in cells(features, covered, [1, 3])] == [[1, 0, 2], [3]]
    assert cells(features, covered, []) == []


def test_clusters_without_a_label_are_found() -> None:
    features = groups()
    covered = nothing(features)
    covered[[0, 1, 61]] = True  # twice in group 0, once in group 2
    found = coverage(features, covered, 4)
    assert found.clusters == 4
    assert [len(each) for each in found.missed] == [20, 5]
    assert {group_of(number) for number in found.missed[0]} == {1}
    assert found.images == 25
    assert found.by_chance == pytest.approx(sum(comb(75 - size, 3) / comb(75, 3) for size in SIZES))


def test_labels_by_chance_are_different_images() -> None:
    """20 labels of 20 images miss nothing; of 300 images in as many clusters, 256 labels miss 44."""
    draw = np.random.default_rng(0)
    for images, labels, missed in ((20, 20, 0), (300, 256, 44)):
        features = draw.normal(size=(images, 4)).astype(np.float32)
        covered = np.arange(images) < labels
        assert coverage(features, covered, images).by_chance == pytest.approx(missed)


def test_no_cluster_is_missed_where_each_has_a_label() -> None:
    features = groups()
    covered = nothing(features)
    covered[[0, 40, 60, 70]] = True
    assert coverage(features, covered, 4).missed == []
