"""What is recorded of the choices of `method=auto`."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy.choices import options_of, record_of, summary

from semipix.launch.auto import Settings
from semipix.launch.compose import compose
from semipix.training.configuration import Configuration
from semipix.training.run_folder import write_config

PILOTS: dict[str, Any] = {"supervised": {"seconds": 10.0}, "gct": {"seconds": 20.0}}


def test_a_record_says_how_far_the_chosen_method_is_from_the_best() -> None:
    choice = {"chosen": "gct", "higher_is_better": True, "pilots": PILOTS}
    wrong = record_of(choice, {"supervised": 70.0, "gct": 68.0, "unimatch": 75.0}, 60.0)
    assert (wrong["best"], wrong["regret"], wrong["gain"], wrong["pilot_seconds"]) == ("unimatch", 7.0, -2.0, 30.0)
    # Pilots of matting are compared by SAD, of which less is better; the figures are PSNR.
    right = record_of({**choice, "higher_is_better": False}, {"supervised": 0.25, "gct": 0.5}, 40.0)
    assert (right["best"], right["regret"], right["gain"]) == ("gct", 0.0, 0.25)
    assert summary([wrong, right]) == (
        "the best method chosen in 1 of 2, one worse than supervised in 1; mean gain over supervised -0.88, mean "
        "distance from the best 3.50; the pilots took 0.6 times the final training"
    )


def test_methods_are_compared_without_the_feature_maps_that_the_model_lacks(tmp_path: Path) -> None:
    assert options_of(tmp_path) == []
    for dropout, expected in ((0.0, ["method.feature_dropout=0.0"]), (0.5, [])):
        asked = compose(["data=scenes", "method=gct_strong", f"method.feature_dropout={dropout}"])
        write_config(tmp_path, Configuration.parse(asked), "semipix train")
        assert options_of(tmp_path) == expected


def test_the_settings_of_comparisons_take_auto() -> None:
    config = Configuration.parse(compose(["experiment=compare/portrait", "data.root=x", "method=auto"]))
    assert Settings.of(config.method).candidates == ("unimatch", "gct_strong")
    assert config.steps == pytest.approx(200)
