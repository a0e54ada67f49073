"""`experiment=compare`: which runs it makes, and that one command trains and compares them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import semipix.conf
from semipix.errors import SemipixError
from semipix.launch import app
from semipix.launch.comparison import Grid, chosen_grid, is_grid, jobs_of, labels_of, opening, shared_overrides
from semipix.report.comparison import Comparison
from tests.conftest import QUICK, Result

NODE = yaml.safe_load((Path(semipix.conf.__file__).parent / "experiment/compare.yaml").read_text())["compare"]


def a_grid(**changes: Any) -> Grid:
    return Grid.parse({**NODE, **changes})


def test_each_method_has_each_number_of_labels_and_all_labels_come_once() -> None:
    jobs = jobs_of(a_grid(methods=["supervised_short", "gct", "all_labels"], seeds=[5]), ["8", "1/4"])
    assert jobs == [
        *(
            [*changes, f"data.labels={labels}", "seed=5", f"hydra.sweep.subdir='{name}-{folder}-5'"]
            for name, changes in (
                ("supervised_short", ["method=supervised", "length=labeled"]),
                ("gct", ["method=gct"]),
            )
            for labels, folder in (("8", "8"), ("1/4", "1_of_4"))
        ),
        ["method=supervised", "data.labels=all", "seed=5", "hydra.sweep.subdir='all_labels-all-5'"],
    ]


def test_both_baselines_are_among_the_defaults() -> None:
    grid = a_grid()
    assert {"supervised", "supervised_short", "all_labels", "gct", "gct_strong"} <= {*grid.methods}
    assert (grid.seeds, grid.labels) == ((0, 1, 2), None)


def test_changes_are_runs_of_their_own() -> None:
    grid = a_grid(methods=[], seeds=[0], changes={"few": ["method=gct", "data.labels=2"]}, experiment="paper/matting")
    (job,) = jobs_of(grid, ["8"])
    assert job == ["experiment=paper/matting", "method=gct", "data.labels=2", "seed=0", "hydra.sweep.subdir='few-8-0'"]
    (job,) = jobs_of(a_grid(methods=[], seeds=[0], changes={"few": ["method=gct", "++data.labels=2"]}), ["8"])
    assert job == ["method=gct", "++data.labels=2", "seed=0", "hydra.sweep.subdir='few-8-0'"]


def test_the_labels_of_the_data_are_the_default() -> None:
    data: Any = SimpleNamespace(labels="all", mixed=True, split=SimpleNamespace(labeled=["a"] * 4), split_with=str)
    grid, labels = labels_of(a_grid(), data)
    assert labels == ("all",)
    assert "all_labels" not in grid.methods, "all runs have them"
    grid, labels = labels_of(a_grid(labels=[2, 4]), data)
    assert (labels, "all_labels" in grid.methods) == (("2", "4"), True)
    data.mixed = False
    with pytest.raises(SemipixError, match=r"compare\.labels: all 4 training images are labeled.*labels=\[8,16,32\]"):
        labels_of(a_grid(), data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, r"compare\.methods=\[\]: nothing found"),
        ({"seeds": []}, r"compare\.seeds=\[\]: nothing found"),
        ({"labels": [8, "8"]}, r"compare\.labels=\[8,8\]: the same value twice found"),
        ({"seeds": ["x"]}, r"compare\.seeds: \['x'\] found"),
        (
            {"methods": ["gct"], "changes": {"gct": ["method=gct", "method.decay=0.5"]}},
            r"compare\.changes\.gct: gct is a method of the grid; give it another name",
        ),
        ({"changes": {"all_labels": ["method=gct"]}}, r"compare\.changes\.all_labels: all_labels is a method"),
        (
            {"changes": {"x": ["method=gct", "+seed=5"]}},
            r"compare\.changes\.x: \+seed=5 found, but each run has each of",
        ),
        ({"method": ["gct"]}, r"unknown key compare\.method; did you mean methods\?"),
    ],
)
def test_a_grid_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SemipixError, match=message):
        a_grid(**changes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=gct", "the runs of this experiment differ in method; set compare.methods"),
        ("seed=3", "the runs of this experiment differ in seed; set compare.seeds"),
        ("++data.labels=8", "the runs of this experiment differ in data.labels; set compare.labels"),
        ("length=labeled", "as long as the paper's rules say"),
    ],
)
def test_keys_by_which_runs_differ_are_refused(override: str, message: str) -> None:
    with pytest.raises(SemipixError, match=message):
        shared_overrides(["experiment=compare", override])


def test_the_experiment_is_found_and_is_a_sweep_already() -> None:
    assert is_grid("compare") and not is_grid("compare/portrait") and not is_grid("nothing")
    assert chosen_grid(["data=folder", "experiment=compare"]) == "compare"
    assert chosen_grid(["data=folder", "experiment=compare/portrait"]) is None
    assert shared_overrides(["experiment=compare", "compare.seeds=[1]", "steps=5"]) == ["steps=5"]
    with pytest.raises(SemipixError, match="is a sweep already, which takes no -m"):
        chosen_grid(["-m", "experiment=compare"])


def test_the_command_line_goes_before_what_a_grid_sets() -> None:
    grid = a_grid(overrides=["data=voc", "data.crop=64"])
    assert shared_overrides(["experiment=x", "steps=5"], grid) == ["data=voc", "++data.crop=64", "steps=5"]
    assert shared_overrides(["experiment=x", "data=folder"], grid) == ["++data.crop=64", "data=folder"]
    assert shared_overrides(["++data.crop=32"], grid) == ["data=voc", "++data.crop=32"]


def test_the_opening_says_how_many_runs_there_are() -> None:
    grid = a_grid(methods=["gct", "all_labels"], seeds=[0, 1])
    line = opening(grid, ["8"], jobs_of(grid, ["8"]), "runs/x")
    assert line == "compare: 4 runs: 1 methods (gct) x labels 8 x seeds 0, 1; all_labels for each seed; in runs/x"


def test_one_command_trains_and_compares_and_does_what_is_missing(
    command: Callable[..., Result], shared_photos: Path
) -> None:
    quick = [item for item in QUICK if not item.startswith("data.labels=")]
    given = ["train", "experiment=compare", *quick, f"data.root={shared_photos}", "compare.seeds=[0]", "run=sweep"]
    bad = "compare.changes={bad:['method=supervised','data.labels=100']}"
    result = command(*given, "compare.methods=[supervised]", "compare.labels=[2]", bad)
    assert "sweep/bad-2-0: data.labels=100: only 8 labeled images are there" in result.error
    assert "compare: 2 runs: 2 methods (supervised, bad) x labels 2 x seeds 0; in sweep" in result.out
    assert json.loads(Path("sweep/jobs/supervised-2-0.json").read_text())["state"] == "finished"
    found = Comparison.from_json(Path("sweep/compare.json"))
    assert [(row.variant, row.labels, row.seeds) for row in found.rows] == [("supervised", 2, [0])]
    assert [run.state for run in found.runs] == ["failed", "finished"]

    result = command(*given, "compare.methods=[supervised,gct]", "compare.labels=[2]")
    assert result.code == 0, result.err
    assert [line.split()[:3] for line in result.out.splitlines()[1:4]] == [
        ["job", "state", "metric"],
        ["gct-2-0", "finished", "val/miou"],
        ["supervised-2-0", "finished", "before"],
    ]
    found = Comparison.from_json(Path("sweep/compare.json"))
    assert [row.variant for row in found.rows] == ["supervised", "gct"]
    assert found.rows[1].difference is not None
    assert found.rows[1].step_cost is not None


def test_a_wrong_key_is_refused_before_a_folder_is_made(
    command: Callable[..., Result], shared_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_sweep", lambda *given: pytest.fail("it trains"))
    given = ["train", "experiment=compare", "data=folder", f"data.root={shared_photos}", "run=sweep"]
    assert "unknown key method.nope" in command(*given, "compare.labels=[2]", "method.nope=1").error
    error = command(*given, "compare.labels=[4,99]").error
    assert "compare.labels=[4,99]: data.labels=99: only 8 labeled images are there" in error
    assert not Path("sweep").exists()
