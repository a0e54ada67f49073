"""The small siblings of the paper's tables: what is collected of their sweeps, and how grid_tables.py shows it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from benchmarks import grid_tables
from benchmarks.accuracy.paper_tables import GRIDS, collect, grid_of, key_of
from benchmarks.common import Record

from semipix.errors import SemipixError
from semipix.launch.compose import compose
from semipix.training.configuration import Configuration
from tests.helpers.pages import table_of

PAGE = Path(__file__).parents[2] / "docs/paper-tables.md"

GRID = "table3_enhancement_small"


def write_run(folder: Path, method: str, *overrides: str, seed: int = 0, psnr: float | None = 15.0) -> Path:
    """A finished run of the grid, without its training."""
    given = [
        "experiment=paper/enhancement_small",
        "data.root=dark",
        f"method={method}",
        "data.labels=4",
        f"seed={seed}",
    ]
    config = Configuration.parse(compose([*given, *overrides])).as_mapping()
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "versions": {"torch": "2"}, "command": "x"}))
    (folder / "summary.json").write_text(json.dumps({"steps": 200, "seconds": 1.5, "labeled": 4}))
    if psnr is not None:
        (folder / "evaluation-test.json").write_text(json.dumps({"psnr": psnr, "ssim": 0.5}))
    return folder


def test_runs_of_the_grid_are_collected_and_others_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "gct-4-0", "gct", psnr=16.5)
    write_run(tmp_path / "s4l-4-7", "s4l", seed=7)
    write_run(tmp_path / "advssl-4-0", "advssl", "steps=20", "data.labeled_per_batch=3")
    write_run(tmp_path / "supervised-4-0", "supervised", psnr=None)
    (write_run(tmp_path / "mean_teacher-4-0", "mean_teacher") / "summary.json").unlink()
    write_run(tmp_path / "consistency-4-0", "gct")  # of another grid in the same folder
    records, left_out = collect(GRID, tmp_path)
    assert [(each["name"], each["labels"], each["seed"], each["value"]) for each in records] == [
        ("gct", "4", 0, 16.5),
        ("s4l", "4", 7, 15.0),
    ]
    assert records[0].items() >= {"grid": GRID, "metric": "psnr", "split": "test", "steps": 200}.items()
    assert str(tmp_path) not in json.dumps(records)
    assert left_out == [
        "advssl-4-0: data.labeled_per_batch=3 instead of 4, steps=20 instead of 200",
        "mean_teacher-4-0: not finished; the same command trains what is missing",
        f"supervised-4-0: not measured; run semipix compare {tmp_path}",
    ]


def test_a_folder_without_runs_of_the_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=f"no run of experiment=paper/{GRID} found"):
        collect(GRID, tmp_path)
    with pytest.raises(SemipixError, match="no such folder"):
        collect(GRID, tmp_path / "none")


def record(name: str, labels: str, seed: int, value: float, grid: str = "table1_small") -> Record:
    return {"grid": grid, "name": name, "labels": labels, "seed": seed, "value": value, "metric": "miou"}


def test_a_table_has_means_intervals_and_paired_differences() -> None:
    values = {"supervised": (0.70, 0.72, 0.74), "gct": (0.71, 0.74, 0.77), "s4l": (0.6, 0.7)}
    records = [record(name, "8", seed, value) for name, found in values.items() for seed, value in enumerate(found)]
    records += [record("all_labels", "all", 0, 0.9), record("gct", "8", 0, 0.1, grid="fig5_segmentation_small")]
    rows = {row[0]: row[1:] for row in table_of(grid_tables.methods_table("table1", records))}
    assert rows["GCT (`gct`)"][:5] == ["67.19", "72.14", "73.62", "74.82", "75.73"]
    # Student's t with 2 degrees of freedom is 4.303: the deviations are 3 and 1, each over the root of 3
    assert rows["GCT (`gct`)"][5:7] == ["74.0 ± 7.5 (3)", "+2.0 ± 2.5"]
    assert rows["`supervised`, as many steps"][5:7] == ["72.0 ± 5.0 (3)", "-"]
    assert rows["S4L (`s4l`)"][5:7] == ["60.0, 70.0 (2)", "-10.0, -2.0"]
    assert rows["all labels"][5] == "90.0 (1)"
    assert rows["MT (`mean_teacher`)"][5:] == ["not measured", "-"] * 2


def test_the_order_is_said_where_all_of_the_papers_methods_are_measured() -> None:
    names = ["s4l", "gct", "advssl", "supervised_short"]
    records = [record(name, "8", 0, 0.9 - place / 10) for place, name in enumerate(names)]
    assert "Best first here" not in grid_tables.methods_table("table1", records)
    found = grid_tables.methods_table("table1", [*records, record("mean_teacher", "8", 0, 0.1)])
    assert found.endswith(
        "Best first in the paper, 1/16: GCT, MT, AdvSSL, S4L, SupOnly.\n"
        "Best first here, 8 labels: S4L, GCT, AdvSSL, SupOnly, MT."
    )


def test_a_metric_that_is_better_when_lower_is_not_shown_as_one_of_the_papers() -> None:
    """The order of the methods would be reversed."""
    with pytest.raises(ValueError, match="table1_small: mse found, miou or psnr expected"):
        grid_tables.methods_table("table1", [{**record("gct", "8", 0, 0.2), "metric": "mse"}])


def test_of_mattes_the_papers_metric_is_collected(tmp_path: Path) -> None:
    given = ["experiment=paper/matting_small", "data.root=mattes", "method=gct", "data.labels=4", "seed=0"]
    config = Configuration.parse(compose(given)).as_mapping()
    folder = tmp_path / "gct-4-0"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "versions": {"torch": "2"}, "command": "x"}))
    (folder / "summary.json").write_text(json.dumps({"steps": 150, "seconds": 1.5, "labeled": 4}))
    (folder / "evaluation-test.json").write_text(json.dumps({"mse": 0.2, "psnr": 8.5}))
    ((found,), left_out) = collect("table3_matting_small", tmp_path)
    assert (found["metric"], found["value"], left_out) == ("psnr", 8.5, [])


def test_both_parts_of_table_4_share_a_run() -> None:
    records = [
        record(name, "8", seed, value + seed / 100, grid="table4_small")
        for name, value in (("threshold_0.4", 0.7), ("rampup_10", 0.65))
        for seed in range(2)
    ]
    threshold, rampup = grid_tables.hyper_parameters(records).split("\n\n")
    assert [row[3] for row in table_of(threshold)] == ["72.14", "70.0, 71.0 (2)", "-"]
    assert [row[3] for row in table_of(rampup)] == ["72.14", "70.0, 71.0 (2)", "-"]
    assert [row[5] for row in table_of(rampup)] == ["71.95", "65.0, 66.0 (2)", "-5.0, -5.0"]


def test_the_tables_name_runs_of_the_grids() -> None:
    assert {table.small for table in grid_tables.TABLES.values()} | {"table4_small"} == {*GRIDS}
    for table in grid_tables.TABLES.values():
        grid = grid_of(table.small)
        assert {*grid.methods, *grid.changes} <= grid_tables.TITLES.keys()
        assert all(len(row) == len(table.columns) for row in (table.rows or {}).values())
    shown = {name for columns in grid_tables.TABLE_4.values() for name in columns}
    assert shown == grid_of("table4_small").changes.keys()


def test_the_page_agrees_with_the_experiments() -> None:
    text = PAGE.read_text()
    named = set(re.findall(r"experiment=paper/(\w+) data\.root", text))
    assert named == {*GRIDS, *(name.removesuffix("_small") for name in GRIDS)}
    section = text.partition("\n## In small\n")[2].partition("\n## ")[0]
    rows = {row[0]: row[1:] for row in table_of(section)}
    for place, task in enumerate(("segmentation", "denoising", "matting", "enhancement")):
        config = Configuration.parse(compose([f"experiment=paper/{task}_small", "data.root=x"]))
        data = config.data.options
        labeled = data["labeled_per_batch"]
        shown = f"{config.steps}, {labeled} + {data['batch_size'] - labeled}, {data['crop']}"
        assert rows["steps, images a step, crop"][place] == shown
        counts = {str(labels) for name in GRIDS if grid_of(name).experiment == f"paper/{task}_small"
                  for labels in grid_of(name).labels or ()}  # fmt: skip
        assert {*rows["labels"][place].split(" and ")} == counts


def test_a_record_is_known_by_grid_name_labels_and_seed() -> None:
    first, second = record("gct", "8", 0, 0.5), record("gct", "8", 1, 0.5)
    assert key_of(first) != key_of(second)
    assert key_of(first) == key_of({**first, "value": 0.6})
