"""The paper's rules for the length of a run, and the distance of validations."""

import math

import pytest

from semipix.functional.length import training_steps, validation_interval

FULL = {"samples": 1464, "labeled": 1464, "batch_size": 8, "labeled_per_batch": 4, "epochs": 40}
PART = {**FULL, "labeled": 183}  # an eighth


def test_rule_1_full_supervision_passes_over_all_images() -> None:
    assert training_steps(**FULL) == 40 * 183
    assert training_steps(**{**FULL, "samples": 1465}) == 40 * 184, "the last batch of an epoch may be short"


def test_rule_2_supervision_on_a_subset_keeps_the_number_of_passes() -> None:
    assert training_steps(**PART, length="labeled") == 40 * 183 / 8
    assert training_steps(**FULL, length="labeled") == training_steps(**FULL)


def test_rule_3_a_semi_supervised_run_trains_as_many_samples_as_full_supervision() -> None:
    assert training_steps(**PART) == training_steps(**FULL)


def test_on_data_with_few_labels_both_subsets_are_passed_over_equally_often() -> None:
    matting = {"samples": 100 + 3850, "labeled": 100, "batch_size": 4, "labeled_per_batch": 1, "epochs": 3}
    assert training_steps(**matting, length="unlabeled") == 3 * math.ceil(3850 / 3)
    assert training_steps(**FULL, length="unlabeled") == training_steps(**FULL), "no image is unlabeled"


@pytest.mark.parametrize(("length", "steps"), [("full", 1000), ("labeled", 125), ("unlabeled", 1000)])
def test_steps_take_the_place_of_epochs(length: str, steps: int) -> None:
    assert training_steps(**PART, steps=1000, length=length) == steps


@pytest.mark.parametrize("length", ["full", "labeled", "unlabeled"])
def test_a_run_has_a_step(length: str) -> None:
    least = {"samples": 100, "labeled": 1, "batch_size": 8, "labeled_per_batch": 4}
    assert training_steps(**least, epochs=0.001, length=length) == 1


@pytest.mark.parametrize(
    ("steps", "validations", "interval", "made"),
    [
        (200, 3, 66, 3),  # recorded comparisons were validated there
        (2000, 20, 100, 20),
        (20, 3, 6, 3),
        (19, 10, 2, 9),  # an interval of 1 would make 19 validations
        (10, 4, 3, 3),  # and one of 2 would make 5
        (5, 10, 1, 5),
        (7, 1, 7, 1),
    ],
)
def test_validations_are_at_most_as_many_as_asked_for(steps: int, validations: int, interval: int, made: int) -> None:
    assert validation_interval(steps, validations) == interval
    assert steps // interval == made


def test_no_smaller_interval_makes_few_enough_validations() -> None:
    for steps in range(1, 60):
        for validations in range(1, 20):
            interval = validation_interval(steps, validations)
            exact = steps // max(1, steps // validations) == validations
            fitting = [each for each in range(1, steps + 1) if steps // each <= validations]
            assert interval == (max(each for each in fitting if steps // each == validations) if exact else fitting[0])
