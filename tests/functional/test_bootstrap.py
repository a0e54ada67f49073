"""Intervals of metrics over all images: exact values, pairing, and how often they contain the truth."""

import math

import numpy as np
import pytest

from semipix.functional.bootstrap import (
    SHARE,
    ImageFigures,
    Interval,
    draw_means,
    mean_interval,
    mean_ratio,
    paired_difference,
    root_mean_ratio,
)


def figures(numerators: np.ndarray, denominators: np.ndarray | None = None, first: int = 0) -> ImageFigures:
    """Figures of images that are named by their numbers."""
    names = tuple(str(first + number) for number in range(len(numerators)))
    return ImageFigures(names, numerators, np.ones_like(numerators) if denominators is None else denominators)


def test_miou_is_computed_from_sums_and_leaves_absent_classes_out() -> None:
    run = figures(np.array([[8.0, 1, 0], [2, 0, 0]]), np.array([[10.0, 2, 0], [10, 2, 0]]))
    assert run.value(mean_ratio) == pytest.approx((10 / 20 + 1 / 4) / 2)  # a mean of the images' mIoU would be 0.375
    assert math.isnan(mean_ratio(np.zeros(3), np.zeros(3)))


def test_the_root_is_taken_of_the_summed_squares() -> None:
    run = figures(np.array([[8.0], [1]]), np.array([[2.0], [1]]))
    assert run.value(root_mean_ratio) == pytest.approx(math.sqrt(3))


def test_what_all_images_share_is_not_counted_as_uncertain() -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(50, 20, (40, 1))  # how hard an image is, for both runs
    noise = draw.normal(1, 0.5, (40, 1))
    paired = paired_difference([figures(hard + noise)], [figures(hard)])
    assert paired.estimate == pytest.approx(noise.mean())
    assert 0.5 < paired.low < noise.mean() < paired.high < 1.5
    alone = mean_interval([figures(hard)])
    assert alone.high - alone.low > 8


def test_an_interval_ends_where_values_of_the_metric_end() -> None:
    few = [figures(np.array([[0.0], [0.0], [0.1]]))]
    assert mean_interval(few).low < 0
    assert mean_interval(few, within=SHARE).low == 0
    assert mean_interval(few, within=SHARE).high == mean_interval(few).high


def test_a_difference_that_is_always_the_same_has_no_width() -> None:
    runs = [figures(np.full((10, 1), 2.0))] * 3
    others = [figures(np.full((10, 1), 1.5))] * 3
    assert paired_difference(runs, others) == pytest.approx(Interval(0.5, 0.5, 0.5))


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = [figures(np.random.default_rng(seed).random((20, 2))) for seed in range(2)]
    others = [figures(np.random.default_rng(seed + 9).random((20, 2))) for seed in range(2)]
    assert paired_difference(runs, others) == paired_difference(runs, others)
    assert paired_difference(runs, others) != paired_difference(runs, others, seed=1)


def test_draws_in_several_parts_are_draws_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [figures(np.random.default_rng(seed).random((20, 2))) for seed in range(2)]
    whole = mean_interval(runs)
    monkeypatch.setattr("semipix.functional.bootstrap.CHUNK", 700)  # of 35 draws
    assert mean_interval(runs) == pytest.approx(whole, abs=0.03)


def test_seeds_may_have_images_of_their_own() -> None:
    runs = [figures(np.random.default_rng(seed).random((20, 1)), first=100 * seed) for seed in range(3)]
    estimates, drawn = draw_means([runs], samples=50)
    assert estimates[0] == pytest.approx(np.mean([run.value(mean_ratio) for run in runs]))
    assert drawn.shape == (50, 1)


def test_runs_on_other_images_are_no_pair() -> None:
    with pytest.raises(ValueError, match="the same images"):
        paired_difference([figures(np.ones((4, 1)))], [figures(np.ones((4, 1)), first=1)])
    with pytest.raises(ValueError, match="2, 1 runs"):
        paired_difference([figures(np.ones((4, 1)))] * 2, [figures(np.ones((4, 1)))])
    with pytest.raises(ValueError, match="at least one"):
        figures(np.ones((0, 1)))


def test_without_a_value_there_is_no_interval() -> None:
    empty = figures(np.zeros((3, 1)), np.zeros((3, 1)))
    found = mean_interval([empty])
    assert all(map(math.isnan, found)) and not found.excludes()
    alone = mean_interval([figures(np.ones((1, 1)))])
    assert alone.estimate == 1 and math.isnan(alone.low) and not alone.excludes()
    assert Interval(2, 1, 3).excludes() and not Interval(1, -1, 3).excludes()


@pytest.mark.parametrize("seeds, images", [(1, 12), (3, 40), (5, 15)])
def test_intervals_contain_the_truth_as_often_as_they_should(seeds: int, images: int) -> None:
    """Simulated trainings, whose difference of 1 varies with the seed, with the image, and with both."""
    cases, hits = 400, 0
    draw = np.random.default_rng(5)
    for case in range(cases):
        of_seed = draw.normal(0, 0 if seeds == 1 else 0.5, seeds)  # of one seed, the truth is that of its training
        of_image = draw.normal(0, 2, (images, 1))
        hard = draw.normal(0, 5, (images, 1))
        first = [figures(hard + 1 + of_image + shift + draw.normal(0, 1, (images, 1))) for shift in of_seed]
        found = paired_difference(first, [figures(hard)] * seeds, samples=400, seed=case)
        hits += found.low <= 1 <= found.high
    assert 0.92 <= hits / cases <= 0.985


@pytest.mark.parametrize(("level", "least", "most"), [(0.99, 0.0, 0.02), (0.8, 0.15, 0.25)])
def test_few_images_are_allowed_for_at_every_level(level: float, least: float, most: float) -> None:
    """The share of intervals that leave the truth, 0, out."""
    draw, cases = np.random.default_rng(1), 400
    zero = [figures(np.zeros((3, 1)))]
    wrong = 0
    for _ in range(cases):
        run = figures(draw.normal(size=(3, 1)))
        wrong += paired_difference([run], zero, samples=300, level=level).excludes()
    assert least <= wrong / cases <= most


def test_intervals_of_miou_contain_the_truth_as_often_as_they_should() -> None:
    """Classes of different frequency, of which one is right more often; the truth is that of very many images."""
    draw = np.random.default_rng(6)

    def run(images: int) -> ImageFigures:
        unions = draw.gamma([2.0, 0.5, 1.0], 100, (images, 3))
        return figures(unions * draw.beta([8, 2, 4], 2, (images, 3)), unions)

    truth = run(200_000).value(mean_ratio)
    found = [mean_interval([run(30)], samples=400, seed=case) for case in range(300)]
    assert 0.9 <= sum(each.low <= truth <= each.high for each in found) / 300 <= 0.985


def test_images_of_a_scene_count_as_one() -> None:
    figures = ImageFigures(("1", "2", "3"), np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [3.0], [4.0]]))
    found = figures.summed_by(["b", "a", "b"])
    assert found.names == ("a", "b")
    assert found.numerators.tolist() == [[2.0], [4.0]]
    assert found.denominators.tolist() == [[3.0], [6.0]]


def test_a_class_in_few_images_has_the_interval_of_these() -> None:
    """40 images, of which few have the class: as many draws contain the truth as with a frequent one."""
    draw = np.random.default_rng(5)
    hits = 0
    for case in range(150):
        unions = np.zeros((40, 1))
        unions[:3] = 100
        run = figures(unions * (0.6 + draw.normal(0, 0.1, (40, 1))), unions)
        found = mean_interval([run], samples=400, seed=case)
        hits += found.low <= 0.6 <= found.high
    assert hits / 150 >= 0.9
    one = figures(np.array([[62.0]] + [[0.0]] * 39), np.array([[100.0]] + [[0.0]] * 39))
    alone = mean_interval([one])
    assert alone.estimate == pytest.approx(0.62)
    assert math.isnan(alone.low) and math.isnan(alone.high)


def test_equal_methods_differ_as_seldom_as_they_should_where_images_come_in_scenes() -> None:
    """Two methods that are equally good on all scenes, but not on each: 100 images of 5 scenes, 3 seeds."""
    draw = np.random.default_rng(11)
    scenes = [str(number // 20) for number in range(100)]
    called = {"images": 0, "scenes": 0}
    for case in range(60):
        level = np.repeat(draw.normal(0, 0.05, (2, 5)), 20, axis=1)[..., None]  # of each method on each scene
        groups = [
            [figures(0.7 + level[method] + draw.normal(0, 0.05, (100, 1))) for _ in range(3)] for method in range(2)
        ]
        summed = [[run.summed_by(scenes) for run in group] for group in groups]
        called["images"] += paired_difference(*groups, samples=300, seed=case).excludes()
        called["scenes"] += paired_difference(*summed, samples=300, seed=case).excludes()
    assert called["images"] >= 24, "images of a scene are no independent ones"
    assert called["scenes"] <= 7
