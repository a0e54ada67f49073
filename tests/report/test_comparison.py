"""`compare.json` holds all of a comparison."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from semipix.errors import SemipixError
from semipix.functional.bootstrap import Interval
from semipix.report.comparison import (
    ClassFigure,
    Comparison,
    Curve,
    Forecast,
    LabelsNeeded,
    Row,
    Run,
)


def a_comparison() -> Comparison:
    """One row with everything, one with as little as there can be."""
    nothing = Interval(math.nan, math.nan, math.nan)
    needed = LabelsNeeded(21.0, 16.0, None, 8, 32, "", [0, 1], "21 (16 to more than 32)")
    full = Interval(0.8, 0.7, 0.9)
    cost = Interval(2.0, 1.0, 3.0), 900.0, Interval(2.0, 2.0, 2.0)
    return Comparison(
        task="Segmentation",
        metric="miou",
        higher_is_better=True,
        scale=100,
        unit="%",
        split="test",
        images=40,
        scenes=40,
        seeds=[0, 1],
        level=0.95,
        sentence="gct is ahead.",
        notes=["one failed"],
        rows=[
            Row("gct", 8, [0, 1], [0.7, 0.9], 0.14, full, Interval(0.1, 0.05, 0.2), [0, 1], True, needed, *cost),
            Row("gct", 16, [0], [math.nan], None, nothing, None, [], None, None, None, None, None),
        ],
        runs=[Run("runs/a", "gct", 8, 0, "finished", True), Run("runs/b", "gct", None, None, "failed", False, "why")],
        curves=[Curve("runs/a", "gct", 8, 0, [10, 20], [0.5, math.nan])],
        per_class=[ClassFigure("gct", 8, "sky", full, None), ClassFigure("gct", 8, "sea", nothing, full)],
        forecast=[
            Forecast(
                "gct", 16, 16, full, [0, 1], [{"labels": 8, "estimate": 0.7, "low": 0.6, "high": 0.8}], "16 more labels"
            ),
            Forecast("cps", 8, 8, None, [], [], "one number of labels"),
        ],
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    comparison = a_comparison()
    comparison.to_json(tmp_path / "compare.json")
    again = Comparison.from_json(tmp_path / "compare.json")
    assert repr(again) == repr(comparison)  # unlike ==, NaN is NaN
    assert isinstance(again.rows[0].difference, Interval)
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["rows"][0]["difference"] == {"estimate": 0.1, "low": 0.05, "high": 0.2}
    assert found["rows"][1]["mean"]["estimate"] is None


def test_values_are_shown_in_their_unit() -> None:
    comparison = a_comparison()
    assert (comparison.shown(0.8125), comparison.shown(math.nan)) == ("81.2", "-")
    small = Interval(0.000412, 0.000401, 0.000423)
    row = dataclasses.replace(comparison.rows[0], mean=small, difference=None)
    errors = dataclasses.replace(comparison, metric="mse", scale=1.0, unit="", rows=[row])
    assert errors.shown(small.estimate) == "0.0004120"
    assert dataclasses.replace(comparison, scale=1.0, unit="", rows=[]).shown(0.5) == "0.5000"


def test_scenes_are_named_where_there_are_fewer_than_images() -> None:
    comparison = a_comparison()
    assert comparison.measured_on == "40 test images"
    assert dataclasses.replace(comparison, scenes=5).measured_on == "40 test images of 5 scenes"


def test_a_file_that_is_no_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"a\.json: no such file"):
        Comparison.from_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"rows": [{}]}')
    with pytest.raises(SemipixError, match=r"b\.json: not a comparison"):
        Comparison.from_json(tmp_path / "b.json")
