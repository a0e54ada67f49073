"""The paper's rules for the length of a run."""

from semipix.functional.length import training_steps

FULL = {"images": 1464, "labeled": 1464, "batch_size": 8, "epochs": 40}
PART = {**FULL, "labeled": 183}  # an eighth


def test_rule_1_full_supervision_passes_over_all_images() -> None:
    assert training_steps(**FULL) == 40 * 183
    assert training_steps(**{**FULL, "images": 1465}) == 40 * 184, "the last batch of an epoch may be short"


def test_rule_2_supervision_on_a_subset_keeps_the_number_of_passes() -> None:
    assert training_steps(**PART, length="labeled") == 40 * 183 / 8
    assert training_steps(**FULL, length="labeled") == training_steps(**FULL)


def test_rule_3_a_semi_supervised_run_trains_as_many_samples_as_full_supervision() -> None:
    assert training_steps(**PART) == training_steps(**FULL)


def test_steps_take_the_place_of_epochs() -> None:
    assert training_steps(**PART, steps=1000) == 1000
    assert training_steps(**PART, steps=1000, length="labeled") == 125


def test_a_run_has_a_step() -> None:
    assert training_steps(images=100, labeled=1, batch_size=8, epochs=0.001) == 1
    assert training_steps(images=100, labeled=1, batch_size=8, epochs=1, length="labeled") == 1
