"""`semipix compare`: what it says of runs, and which runs it refuses.

Also tests report/comparison_runs.py, report/comparison_figures.py, report/comparison_statistics.py and
report/comparison_tables.py.
"""

import csv
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from semipix.errors import SemipixError
from semipix.functional.bootstrap import Interval
from semipix.report.comparison import Comparison, LabelsNeeded, Row
from semipix.report.comparison_command import compare, write
from semipix.report.comparison_statistics import _sentence
from semipix.report.comparison_tables import terminal_table
from semipix.training.image_figures import read_images
from tests.conftest import Result
from tests.helpers.compared import write_run

QUALITIES = {
    ("supervised", 8): 0.5,
    ("supervised", 16): 0.6,
    ("supervised", 32): 0.66,
    ("gct", 8): 0.63,
    ("gct", 16): 0.601,
    ("supervised_short", 8): 0.3,
    ("all_labels", 48): 0.683,
}
"""About the mIoU of each variant and number of labels."""


@pytest.fixture(scope="module")
def shared_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of each variant and number of labels; tests must not change them."""
    folder = tmp_path_factory.mktemp("compare") / "sweep"
    for (method, labels), quality in QUALITIES.items():
        for seed in range(3):
            wobble = quality + 0.004 * (seed - 1) * (1 if method == "supervised" else -1)
            summary = {"step_seconds": 2.5 if method == "gct" else 1.0}
            write_run(folder / f"{method}-{labels}-{seed}", method, labels, seed, wobble, **summary)
    return folder


@pytest.fixture
def sweep(shared_sweep: Path, tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(shared_sweep, tmp_path / "sweep"))


@pytest.fixture(scope="module")
def comparison(shared_sweep: Path) -> Comparison:
    return compare([shared_sweep])


def row_of(comparison: Comparison, variant: str, labels: int) -> Row:
    (found,) = [row for row in comparison.rows if (row.variant, row.labels) == (variant, labels)]
    return found


def test_ahead_is_said_where_the_interval_excludes_0_alone(comparison: Comparison) -> None:
    ahead, level = row_of(comparison, "gct", 8), row_of(comparison, "gct", 16)
    assert ahead.difference is not None and level.difference is not None
    assert ahead.difference.estimate == pytest.approx(0.13, abs=0.01)
    assert (ahead.ahead, level.ahead) == (True, None)
    assert level.difference.low < 0 < level.difference.high
    assert row_of(comparison, "supervised_short", 8).ahead is False
    supervised = row_of(comparison, "supervised", 8)
    assert (supervised.ahead, supervised.difference, supervised.efficiency) == (None, None, None)
    assert comparison.sentence.startswith("With 8 labels, gct is ahead of supervised by +13.")
    assert comparison.sentence.endswith(
        "mIoU on 30 test images and 3 seeds; for as much, supervised needs "
        f"{ahead.efficiency.text if ahead.efficiency else ''} labels."
    )


def test_where_lower_is_better_the_answer_says_so(comparison: Comparison) -> None:
    assert "lower" not in comparison.sentence
    assert "points of mIoU (lower is better) on" in _sentence(dataclasses.replace(comparison, higher_is_better=False))


def test_a_mean_has_its_seeds_deviation_and_interval(comparison: Comparison) -> None:
    row = row_of(comparison, "supervised", 8)
    assert (row.seeds, len(row.values)) == ([0, 1, 2], 3)
    assert row.mean.estimate == pytest.approx(sum(row.values) / 3)
    assert row.deviation is not None and row.deviation == pytest.approx(0.004, abs=0.003)
    assert row.mean.low < min(row.values) and row.mean.high > max(row.values)


def test_labels_are_read_from_the_supervised_curve_up_to_all_labels(comparison: Comparison) -> None:
    needed = row_of(comparison, "gct", 8).efficiency
    assert needed is not None and needed.labels is not None
    assert 16 < needed.labels < 32
    assert (needed.fewest, needed.most, needed.beyond) == (8, 48, "")
    short = row_of(comparison, "supervised_short", 8).efficiency
    assert short == LabelsNeeded(None, None, None, 8, 48, "below", [0, 1, 2], "at most 8")


def test_costs_are_relative_to_supervised(comparison: Comparison) -> None:
    row = row_of(comparison, "gct", 8)
    assert (row.step_cost, row.minutes, row.peak_memory_mib) == (Interval(2.5, 2.5, 2.5), Interval(2, 2, 2), 800)


def test_more_labels_are_forecast_from_three_numbers_of_labels(comparison: Comparison) -> None:
    supervised, gct = comparison.forecast
    assert (supervised.variant, supervised.labels, supervised.more) == ("supervised", 48, 48)
    assert supervised.gain is not None
    assert supervised.gain.low < supervised.gain.estimate < supervised.gain.high
    assert supervised.points[-1]["labels"] == 96
    assert gct.gain is None
    assert gct.text == "what more labels are worth cannot be told: 2 numbers of labels run, 3 needed"


def test_the_largest_number_of_labels_is_held_out_to_check_the_forecast(sweep: Path) -> None:
    (text,) = [each.text for each in compare([sweep]).forecast if each.variant == "supervised"]
    form = r"48 more labels: \+.*; 48 labels were forecast at (\d\d\.\d) to (\d\d\.\d) from fewer, and have (\d\d\.\d)"
    figures = re.fullmatch(form, text)
    assert figures is not None, text
    low, high, value = map(float, figures.groups())
    assert low < value < high
    for seed in range(3):
        shutil.rmtree(sweep / f"all_labels-48-{seed}")
        write_run(sweep / f"all_labels-48-{seed}", "all_labels", 48, seed, 0.9 + 0.004 * seed)
    (text,) = [each.text for each in compare([sweep]).forecast if each.variant == "supervised"]
    assert text.startswith("what 48 more labels are worth cannot be told")


@pytest.mark.parametrize(
    ("last", "gain"), [(0.6, "cannot be told"), (0.57, "no learning curve goes through"), (0.66, r"\+")]
)
def test_a_curve_that_is_level_or_falls_forecasts_no_gain(tmp_path: Path, last: float, gain: str) -> None:
    for labels, quality in ((8, 0.5), (16, 0.6), (32, last)):
        for seed in range(5):
            write_run(tmp_path / f"{labels}-{seed}", "supervised", labels, seed, quality + 0.004 * (seed - 2))
    (forecast,) = compare([tmp_path]).forecast
    assert re.search(gain, forecast.text), forecast.text
    assert forecast.gain is None or forecast.gain.low <= 0 or last > 0.6


def test_classes_have_their_own_intervals(comparison: Comparison) -> None:
    found = [each for each in comparison.per_class if (each.variant, each.labels) == ("gct", 8)]
    assert [each.name for each in found] == ["ground", "square"]
    mean = sum(each.iou.estimate for each in found) / 2
    assert mean == pytest.approx(row_of(comparison, "gct", 8).mean.estimate)
    assert all(each.difference is not None and each.difference.excludes() for each in found)


def test_files_and_table_have_the_same_figures(comparison: Comparison, tmp_path: Path) -> None:
    write(comparison, tmp_path)
    assert repr(Comparison.from_json(tmp_path / "compare.json")) == repr(comparison)
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], int(row["labels"])) for row in rows] == [(r.variant, r.labels) for r in comparison.rows]
    gct = next(row for row in rows if (row["variant"], row["labels"]) == ("gct", "8"))
    assert float(gct["difference"]) == pytest.approx(row_of(comparison, "gct", 8).difference.estimate)  # type: ignore[union-attr]
    assert gct["ahead"] == "true"
    table = terminal_table(comparison)
    line = next(line for line in table.splitlines() if line.startswith("gct") and " 8 " in line)
    assert f"{100 * row_of(comparison, 'gct', 8).mean.estimate:.1f} ±" in line and "ahead" in line and "2.50x" in line
    assert "one seed" not in line
    text = (tmp_path / "compare.md").read_text()
    assert comparison.sentence in text and "| variant | labels |" in text and "gct-8-0" in text


def test_of_one_seed_nothing_is_ahead(sweep: Path) -> None:
    found = compare([sweep / f"{method}-8-0" for method in ("gct", "supervised")])
    row = row_of(found, "gct", 8)
    assert (row.ahead, row.deviation) == (None, None)
    assert row.difference is not None and row.difference.excludes()
    assert found.sentence.endswith("on 30 test images, but one seed says nothing about other trainings.")
    assert any("over images alone" in note for note in found.notes)
    assert terminal_table(found).count("(one seed: images alone)") == 2


def test_a_difference_counts_the_seeds_that_both_have(sweep: Path) -> None:
    for seed in (1, 2):
        shutil.rmtree(sweep / f"supervised-8-{seed}")
    found = compare([sweep])
    row = row_of(found, "gct", 8)
    assert (row.seeds, row.paired, row.ahead) == ([0, 1, 2], [0], None)
    assert "but one seed that both have says nothing about other trainings" in found.sentence
    assert "(1 seed)" in terminal_table(found)


def test_a_number_of_labels_that_lacks_seeds_does_not_cost_the_others_theirs(sweep: Path) -> None:
    for seed in (1, 2):
        shutil.rmtree(sweep / f"all_labels-48-{seed}")
    found = compare([sweep])
    needed = row_of(found, "gct", 8).efficiency
    assert needed is not None and (needed.most, needed.seeds) == (32, [0, 1, 2])
    (forecast,) = [each for each in found.forecast if each.variant == "supervised"]
    assert (forecast.labels, forecast.seeds) == (32, [0, 1, 2])


def test_images_of_a_scene_count_as_one(sweep: Path) -> None:
    before = row_of(compare([sweep]), "gct", 16).mean
    for path in sweep.glob("*/evaluation-test.csv"):
        with path.open() as file:
            header, *rows = csv.reader(file)
        place = header.index("scene")
        with path.open("w") as file:
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(
                [*row[:place], f"scene{number // 10}", *row[place + 1 :]] for number, row in enumerate(rows)
            )
    found = compare([sweep])
    assert (found.images, found.scenes) == (30, 3)
    assert "on 30 test images of 3 scenes and 3 seeds" in found.sentence
    assert any("the intervals are over scenes" in note for note in found.notes)
    mean = row_of(found, "gct", 16).mean
    assert mean.estimate == pytest.approx(before.estimate)
    assert mean.high - mean.low > 1.3 * (before.high - before.low)

    for number, path in enumerate(sorted(sweep.glob("*/evaluation-test.csv"))):  # as evaluated before there were scenes
        with path.open() as file:
            header, *rows = csv.reader(file)
        if number % 3 == 0:
            rows = [[*row[:place], row[0], *row[place + 1 :]] for row in rows]
        if number % 3 == 1:  # and by an earlier version
            header, *rows = [[*row[:place], *row[place + 1 :]] for row in [header, *rows]]
        with path.open("w") as file:
            csv.writer(file).writerows([header, *rows])
    again = compare([sweep])
    assert (again.rows, again.scenes, again.sentence) == (found.rows, 3, found.sentence)


def test_a_class_in_few_images_is_named(sweep: Path) -> None:
    for path in sweep.glob("*/evaluation-test.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        for row in rows[3:]:
            row |= {"intersection/square": "0", "union/square": "0"}
        with path.open("w") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        path.with_suffix(".json").write_text(json.dumps({"miou": read_images(path).value}))
    (note,) = [note for note in compare([sweep]).notes if "fewer than 10" in note]
    assert note.startswith("in fewer than 10 images: square (3); ")


def test_labels_that_differ_by_seed_are_one_row(tmp_path: Path) -> None:
    for seed, labels in enumerate((34, 38, 33)):
        for method in ("gct", "supervised"):
            folder = write_run(tmp_path / f"{method}-{seed}", method, labels, seed, 0.6 if method == "gct" else 0.5)
            config = (folder / "config.yaml").read_text()
            (folder / "config.yaml").write_text(config.replace(f"labels: {labels}", "labels: 4"))
    row = row_of(compare([tmp_path]), "gct", 35)
    assert (row.seeds, row.paired, row.ahead) == ([0, 1, 2], [0, 1, 2], True)


def test_a_copy_takes_the_place_of_a_run_that_cannot_be_measured(sweep: Path) -> None:
    shutil.copytree(sweep / "gct-8-0", sweep / "z-again")
    shutil.copytree(sweep / "gct-8-1", sweep / "z-too")
    (sweep / "gct-8-0/evaluation-test.csv").unlink()
    (sweep / "gct-8-1/summary.json").unlink()
    assert row_of(compare([sweep], evaluate=False), "gct", 8).seeds == [0, 1, 2]
    shutil.copy(sweep / "z-again/evaluation-test.csv", sweep / "gct-8-0")
    (sweep / "gct-8-0/evaluation-test.json").write_text('{"miou": 0.1}')
    assert row_of(compare([sweep], evaluate=False), "gct", 8).seeds == [0, 1, 2]


def test_another_supervised_run_does_not_take_the_baseline_away(sweep: Path) -> None:
    write_run(sweep / "slow", "supervised", 8, 0, 0.4, changes={"optimizer": {"lr": 0.0001}})
    names = {row.variant for row in compare([sweep]).rows if row.labels == 8}
    assert names == {"supervised", "supervised (optimizer.lr=0.0001)", "supervised_short", "gct"}


def test_variants_are_told_apart_by_as_many_keys_as_it_takes(tmp_path: Path) -> None:
    for number, values in enumerate(((1, 1, 1, 1), (2, 2, 2, 1), (1, 1, 1, 2))):
        changes = {"method": dict(zip("abcd", values, strict=True))}
        write_run(tmp_path / str(number), "gct", 8, 0, 0.5 + 0.1 * number, changes=changes)
    assert {row.variant for row in compare([tmp_path]).rows} == {"gct (a=1, d=1)", "gct (a=2, d=1)", "gct (a=1, d=2)"}


def test_what_differs_beside_the_method_is_said(sweep: Path) -> None:
    for seed in range(3):
        shutil.rmtree(sweep / f"gct-8-{seed}")
        write_run(
            sweep / f"gct-8-{seed}", "gct", 8, seed, 0.63, changes={"model": {"encoder": "large"}}, device="a GPU"
        )
    for folder in sweep.glob("supervised-*"):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "device": "cpu"}))
    found = compare([sweep])
    assert (
        "gct (model.encoder=large) differs in more than its method: model.encoder=large (supervised: None)"
        in found.notes
    )
    assert "trained on a GPU and cpu: compare minutes and memory of one device alone" in found.notes
    assert row_of(found, "gct (model.encoder=large)", 8).step_cost is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config.replace("seed: 0", "seed: null"), "seed: None found, a whole number expected"),
        (lambda config: re.sub("batch_size: .*", "batch_size: many", config), "data.batch_size: many found"),
        (lambda config: re.sub(r"(?s)task:\n.*?(\n\w)", r"task: segmentation\1", config), "task: segmentation found"),
    ],
)
def test_a_damaged_configuration_costs_its_run_alone(sweep: Path, damage: Callable[[str], str], message: str) -> None:
    path = sweep / "gct-8-0/config.yaml"
    path.write_text(damage(path.read_text()))
    (left_out,) = [run for run in compare([sweep]).runs if not run.compared]
    assert message in left_out.reason


def test_without_supervised_the_answer_is_open(sweep: Path) -> None:
    found = compare([sweep / f"gct-8-{seed}" for seed in range(3)])
    assert found.sentence.startswith("Whether unlabeled images help is open: no run of supervised")
    assert (found.rows[0].difference, found.rows[0].efficiency) == (None, None)


def test_what_is_not_finished_is_named_and_the_rest_is_compared(sweep: Path) -> None:
    (sweep / "gct-8-0/summary.json").unlink()
    (sweep / "gct-8-1/summary.json").unlink()
    (sweep / "gct-8-1/checkpoints").mkdir()
    (sweep / "gct-8-1/checkpoints/last.ckpt").touch()
    (sweep / "gct-16-0/summary.json").unlink()
    (sweep / "gct-16-1/config.yaml").write_text("{")
    (sweep / "jobs").mkdir()
    record = {"folder": str(sweep / "gct-8-0"), "state": "failed", "reason": "a key is wrong"}
    (sweep / "jobs/gct-8-0.json").write_text(json.dumps(record))
    (sweep / "jobs/gct-9-9.json").write_text(json.dumps({**record, "folder": str(sweep / "gct-9-9")}))
    with FileLock(sweep / "gct-16-0/.lock"):
        found = compare([sweep])
    left_out = {Path(run.folder).name: run for run in found.runs if not run.compared}
    assert {name: run.state for name, run in left_out.items()} == {
        "gct-8-0": "failed",
        "gct-8-1": "interrupted",
        "gct-16-0": "running",
        "gct-16-1": "failed",
        "gct-9-9": "failed",
    }
    assert left_out["gct-8-0"].reason == left_out["gct-9-9"].reason == "a key is wrong"
    assert "semipix train resume=" in left_out["gct-8-1"].reason
    assert row_of(found, "gct", 8).seeds == [2]
    assert any(note.startswith("5 runs left out (") for note in found.notes)
    assert "gct with 8 labels lacks seeds 0, 1" in found.notes


def test_a_run_whose_method_is_not_chosen_yet_can_be_continued(sweep: Path) -> None:
    for name in ("auto", "auto-at-work"):
        (sweep / name / "pilots").mkdir(parents=True)
        shutil.copy(sweep / "gct-8-0/config.yaml", sweep / name / "pilots")
        (sweep / name / "pilots/supervised").mkdir()
        shutil.copy(sweep / "gct-8-0/config.yaml", sweep / name / "pilots/supervised")
    with FileLock(sweep / "auto-at-work/.lock"):
        found = compare([sweep])
    left_out = {Path(run.folder).parent.name: run for run in found.runs if not run.compared}
    assert {name: run.state for name, run in left_out.items()} == {"auto": "interrupted", "auto-at-work": "running"}
    assert left_out["auto"].reason.endswith(f"semipix train resume={sweep / 'auto'}")


def test_one_run_of_a_kind_counts_once(sweep: Path) -> None:
    shutil.copytree(sweep / "gct-8-0", sweep / "gct-8-0-again")
    found = compare([sweep, sweep / "gct-8-0"])
    assert row_of(found, "gct", 8).seeds == [0, 1, 2]
    (twin,) = [run for run in found.runs if not run.compared]
    assert twin.reason.endswith("gct-8-0") and twin.folder.endswith("gct-8-0-again")


def test_supervised_runs_with_all_labels_are_the_headroom_and_the_baseline_of_as_many(sweep: Path) -> None:
    for seed in range(3):
        path = sweep / f"all_labels-48-{seed}/config.yaml"
        path.write_text(path.read_text().replace("variant=all_labels", "method=supervised"))
        write_run(sweep / f"gct-48-{seed}", "gct", 48, seed, 0.9)
    found = compare([sweep])
    assert row_of(found, "all_labels", 48).difference is None
    assert row_of(found, "gct", 48).ahead is True


def test_variants_of_one_method_are_called_by_what_differs(sweep: Path) -> None:
    changes = {"method": {"lambda_dc": 3.0}, "seed": 0}
    write_run(sweep / "other", "gct", 8, 0, 0.55, changes=changes)
    names = {row.variant for row in compare([sweep]).rows}
    assert {"gct (lambda_dc=None)", "gct (lambda_dc=3.0)"} < names


def test_weighted_and_equal_classes_are_two_variants_whatever_the_weights(sweep: Path) -> None:
    for seed, weights in enumerate(([0.7, 1.4], [0.8, 1.3])):
        changes = {"task": {"class_weights": weights}, "seed": seed}
        write_run(sweep / f"weighted-{seed}", "gct", 8, seed, 0.55, changes=changes)
    found = compare([sweep])
    assert row_of(found, "gct (task.class_weights=auto)", 8).seeds == [0, 1]
    assert row_of(found, "gct (task.class_weights=None)", 8).seeds == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"_target_": "semipix.tasks.denoising.Denoising"}}, "different tasks: Segmentation and Denoising"),
        ({"task": {"classes": ["a", "b"]}}, "different classes: ground, square and a, b"),
        ({"data": {"_target_": "semipix.data.sources.voc.VOCSource"}}, "different data: FolderSource and VOCSource"),
        (
            {"data": {"mask_values": {0: 1, 1: 0}}},
            "different data: FolderSource and FolderSource with data.mask_values={0: 1, 1: 0}",
        ),
    ],
)
def test_a_run_of_something_else_is_left_out(sweep: Path, changes: dict[str, object], message: str) -> None:
    other = write_run(sweep / "zother", "gct", 8, 7, 0.5, changes=changes)
    found = compare([sweep])
    (left_out,) = [run for run in found.runs if not run.compared]
    assert re.fullmatch(rf".*all_labels-48-0 and .*zother: {re.escape(message)}", left_out.reason)
    assert row_of(found, "gct", 8).seeds == [0, 1, 2]
    with pytest.raises(SemipixError, match=rf"gct-8-0 and .*zother: {re.escape(message)}; compare runs of the same"):
        compare([sweep / "gct-8-0", other])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("labeled", "seed 0 means other (training|labeled) images in each"),
        ("val", "seed 0 means other validation images in each"),
        ("test", "different test images"),
    ],
)
def test_a_run_on_another_split_is_left_out(sweep: Path, part: str, message: str) -> None:
    path = sweep / "gct-8-0/split.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps({**split, part: [*split[part][1:], "elsewhere"]}))
    found = compare([sweep])
    (left_out,) = [run for run in found.runs if not run.compared]
    assert left_out.folder.endswith("gct-8-0") and re.search(message, left_out.reason)
    assert row_of(found, "gct", 8).seeds == [1, 2]
    with pytest.raises(SemipixError, match=rf"gct-8-0 and .*/supervised-8-0: {message}"):
        compare([sweep / "gct-8-0", sweep / "supervised-8-0"])


def test_a_run_on_images_of_another_size_is_left_out(sweep: Path) -> None:
    path = sweep / "gct-8-0/evaluation-test.csv"
    path.write_text(path.read_text().replace(",1000,", ",999,"))
    path.with_suffix(".json").write_text(json.dumps({"miou": read_images(path).value}))
    message = "1000 and 999 pixels count in test00; compare runs on the same data"
    (left_out,) = [run for run in compare([sweep]).runs if not run.compared]
    assert message in left_out.reason
    with pytest.raises(SemipixError, match="999 and 1000 pixels count in test00"):
        compare([sweep / "gct-8-0", sweep / "supervised-8-0"])


def test_figures_that_do_not_give_the_metric_are_left_out(sweep: Path) -> None:
    (sweep / "gct-8-0/evaluation-test.json").write_text('{"miou": 0.1}')
    (left_out,) = [run for run in compare([sweep]).runs if not run.compared]
    assert "miou 0.1, but the images of evaluation-test.csv give 0.6" in left_out.reason


def test_what_was_not_evaluated_is_said(sweep: Path) -> None:
    (sweep / "gct-8-0/evaluation-test.csv").unlink()
    path = sweep / "gct-8-1/evaluation-test.csv"
    path.write_text(path.read_text().replace(",last,", ',"last, unfinished",'))
    found = compare([sweep], evaluate=False)
    left_out = [run for run in found.runs if not run.compared]
    assert [Path(run.folder).name for run in left_out] == ["gct-8-0", "gct-8-1"]
    assert all("leave --no-evaluate out" in run.reason for run in left_out)
    left_out = [run for run in compare([sweep]).runs if not run.compared]
    assert all("/photos" in run.reason or "checkpoint" in run.reason for run in left_out), "its data are not there"


def test_runs_of_another_length_are_noted(sweep: Path) -> None:
    summary = json.loads((sweep / "gct-8-0/summary.json").read_text())
    (sweep / "gct-8-0/summary.json").write_text(json.dumps({**summary, "steps": 300, "stopped_early": "why"}))
    (note,) = [note for note in compare([sweep]).notes if "equally long" in note]
    assert note.startswith("gct with 8 labels was trained on 1200 images in all and supervised on 400 (seed 0, stopped")


def test_an_interval_that_cannot_be_computed_is_a_dash(tmp_path: Path) -> None:
    for method in ("gct", "supervised"):
        write_run(tmp_path / method, method, 8, 0, 0.5, images=1)
    found = compare([tmp_path])
    assert math.isnan(found.rows[0].mean.low)
    assert found.rows[0].ahead is None
    assert " - " in terminal_table(found)


def test_the_command_prints_and_writes(command: Callable[..., Result], sweep: Path) -> None:
    result = command("compare", sweep, "--out", "out")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("With 8 labels, gct is ahead of supervised by +13.")
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"compare.csv", "compare.html", "compare.json", "compare.md"}
    assert json.loads(command("compare", sweep, "--json").out) == json.loads(Path("out/compare.json").read_text())


def test_nothing_to_compare_is_one_line(command: Callable[..., Result], sweep: Path) -> None:
    Path("empty").mkdir()
    assert "empty: no run folder found" in command("compare", "empty").error
    assert "nowhere: no such folder" in command("compare", "nowhere").error
    (sweep / "gct-8-0/summary.json").unlink()
    assert "none of 1 runs is finished" in command("compare", sweep / "gct-8-0").error
    (sweep / "gct-8-1/evaluation-test.csv").unlink()
    message = command("compare", sweep / "gct-8-1", "--no-evaluate").error
    assert "none of 1 finished runs has figures of its test images" in message


def test_a_run_without_figures_is_evaluated(command: Callable[..., Result], finished: Path) -> None:
    result = command("compare", finished, "--trust", "--json")
    found = json.loads(result.out)
    kept = json.loads((finished / "evaluation-test.json").read_text())
    assert found["rows"][0]["mean"]["estimate"] == pytest.approx(kept["miou"], abs=1e-6)
    assert (found["rows"][0]["variant"], found["images"]) == ("gct", 2)
    (curve,) = found["curves"]
    summary = json.loads((finished / "summary.json").read_text())
    assert curve["steps"][-1] == summary["steps"]
    assert curve["values"][-1] == pytest.approx(summary["val/miou"])
    message = command("compare", finished).error
    assert "--trust" in message, "its model is of the tests"
