"""The page of a comparison has the figures of `compare.json`."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semipix.report.comparison import Comparison, Row, Run
from semipix.report.comparison_command import compare
from semipix.report.page_comparison import _chooser, write_comparison_page
from tests.conftest import Result
from tests.helpers.compared import write_run
from tests.helpers.html import ReadPage

QUALITIES = {("supervised", 8): 0.5, ("supervised", 16): 0.6, ("gct", 8): 0.63, ("all_labels", 48): 0.75}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("page") / "<i>sweep"
    for (method, labels), quality in QUALITIES.items():
        for seed in range(2):
            write_run(folder / f"{method}-{labels}-{seed}", method, labels, seed, quality + 0.01 * seed)
    return compare([folder])


def test_figures_are_those_of_the_comparison(comparison: Comparison, tmp_path: Path) -> None:
    file = write_comparison_page(comparison, tmp_path)
    assert file == tmp_path / "compare.html"
    page = ReadPage(file.read_text())
    assert comparison.sentence in page.text
    rows = page.tables[0][1:]
    assert [row[:2] for row in rows] == [[row.variant, str(row.labels)] for row in comparison.rows]
    for cells, row in zip(rows, comparison.rows, strict=True):
        assert cells[3].split(" ± ")[0] == f"{100 * row.mean.estimate:.1f}"
        assert cells[4] == f"{100 * row.mean.low:.1f} to {100 * row.mean.high:.1f}"
    titles, *costs = page.tables[1]
    assert titles[:4] == ["variant", "labels", "seeds", "minutes"]
    assert [cells[0] for cells in costs] == [row.variant for row in comparison.rows]
    assert "minutes" not in page.tables[0][0]
    lines = {line["name"]: line for line in page.figures["mIoU by number of labels"]["data"]}
    means = [row.mean for row in comparison.rows if row.variant == "supervised"]
    assert lines["supervised"]["x"] == [8, 16]
    assert lines["supervised"]["y"] == pytest.approx([100 * mean.estimate for mean in means])
    assert lines["supervised"]["error_y"]["array"] == pytest.approx(
        [100 * (mean.high - mean.estimate) for mean in means]
    )
    bars = {line["name"]: line for line in page.figures["IoU of each class, 8 labels"]["data"]}
    of_gct = [each for each in comparison.per_class if (each.variant, each.labels) == ("gct", 8)]
    assert bars["gct"]["x"] == [each.name for each in of_gct]
    assert bars["gct"]["y"] == pytest.approx([100 * each.iou.estimate for each in of_gct])
    colours = {line["name"]: line["line"]["color"] for line in lines.values()}
    assert {name: line["marker"]["color"] for name, line in bars.items()}.items() <= colours.items()
    assert page.table("left out because").keys() == {run.folder for run in comparison.runs}
    assert any(line.startswith("Measured on 30 test images, 2 seeds.") for line in page.text)


def test_pictures_that_cannot_be_made_cost_the_page_nothing_else(comparison: Comparison, tmp_path: Path) -> None:
    page = ReadPage(write_comparison_page(comparison, tmp_path).read_text())
    (remark,) = [line for line in page.text if line.startswith("Pictures are left out: ")]
    assert "/photos" in remark
    assert page.images == []


def test_one_number_of_labels_has_bars(comparison: Comparison, tmp_path: Path) -> None:
    rows = [row for row in comparison.rows if row.labels == 8]
    page = ReadPage(write_comparison_page(dataclasses.replace(comparison, rows=rows), tmp_path).read_text())
    (bars,) = page.figures["mIoU of each training"]["data"]
    assert bars["x"] == ["supervised, 8 labels", "gct, 8 labels"]
    assert bars["y"] == pytest.approx([100 * row.mean.estimate for row in rows])


def test_the_images_are_those_of_the_best_that_learns_from_unlabeled_ones() -> None:
    assert _chooser(["supervised", "supervised_short", "unimatch", "gct"]) == "unimatch"
    assert _chooser(["unimatch", "gct"]) == "unimatch"
    assert _chooser(["supervised", "gct", "gct_strong"]) == "gct_strong"
    assert _chooser(["supervised"]) == "supervised"


def test_the_page_says_which_intervals_are_over_images_alone(comparison: Comparison, tmp_path: Path) -> None:
    first = dataclasses.replace(comparison.rows[0], seeds=[0])
    some = dataclasses.replace(comparison, rows=[first, *comparison.rows[1:]])
    text = " ".join(ReadPage(write_comparison_page(some, tmp_path).read_text()).text)
    assert "Measured on 30 test images, 1 to 2 seeds each." in text
    assert "are over images and seeds; of one seed, over images alone." in text


def test_what_is_said_of_several_variants_is_said_once(comparison: Comparison, tmp_path: Path) -> None:
    page = ReadPage(write_comparison_page(comparison, tmp_path).read_text())
    (said,) = [rows for titles, *rows in page.tables if "what more labels would bring" in titles]
    assert sorted(name for names, _ in said for name in names.split(", ")) == sorted(
        {each.variant for each in comparison.forecast}
    )
    assert len({text for _, text in said}) == len(said) == len({each.text for each in comparison.forecast})


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_validation_is_no_curve(comparison: Comparison, tmp_path: Path, count: int) -> None:
    curves = [
        dataclasses.replace(each, steps=[10, 20][:count], values=[0.5, 0.6][:count]) for each in comparison.curves
    ]
    page = ReadPage(write_comparison_page(dataclasses.replace(comparison, curves=curves), tmp_path).read_text())
    assert ("mIoU on the validation images, 8 labels" in page.figures) == (count > 1)


def test_pictures_are_those_of_the_runs(
    command: Callable[..., Result], finished: Path, shared_photos: Path, comparison: Comparison, tmp_path: Path
) -> None:
    """Two variants with one and the same network: the worst image first, and no differences to be framed.

    An image that can no longer be read leaves a page without pictures that says why.
    """
    assert command("evaluate", finished).code == 0
    rows: list[Row] = [dataclasses.replace(row, seeds=[0]) for row in comparison.rows if row.labels == 8]
    runs = [Run(str(finished), row.variant, 8, 0, "finished", True) for row in rows]
    given = dataclasses.replace(comparison, rows=rows, runs=runs)
    page = ReadPage(write_comparison_page(given, tmp_path / "out", trust=True).read_text())
    kinds = ("", "errors of ", "error map of ")
    titles = [f"{kind}{title}" for title in ("supervised", "gct") for kind in kinds]
    assert [title for title, _ in page.images] == 2 * ["image", "label", *titles]
    addresses = dict(page.images)
    assert addresses["errors of gct"] == addresses["errors of supervised"]
    (pair,) = {(given["data-left"], given["data-right"]) for _, given in page.tags if given.get("class") == "pair"}
    assert pair == ("supervised", "gct")
    assert {"Confusion matrix of gct", "ROC of gct", "ROC of supervised"} <= page.figures.keys()

    root = Path(shutil.copytree(shared_photos, tmp_path / "photos"))
    for image in (root / "images/test").iterdir():
        image.write_bytes(b"no image")
    page = ReadPage(write_comparison_page(given, tmp_path / "out", root=root, trust=True).read_text())
    (remark,) = [line for line in page.text if line.startswith("Pictures are left out: ")]
    assert "images/test/" in remark and page.images == []
