"""The paper's rules for the length of a run."""

import math

import pytest

from semipix.functional.length import training_steps

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
