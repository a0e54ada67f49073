"""The page of a run has the figures of its files. Also tests report/page_sections.py."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.methods.tiles import Tiling
from semipix.report import page_run
from semipix.report.page_sections import (
    MeasuredRun,
    classes_section,
    error_maps_section,
    learning_section,
    metrics_table,
    read_measured,
)
from semipix.report.pictures import ImageRow, gallery
from semipix.training.image_figures import read_images
from tests.conftest import Result
from tests.helpers.html import ReadPage


def test_the_page_of_a_run_has_the_figures_of_its_files(
    command: Callable[..., Result], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = command("evaluate", finished, "--report")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == f"open {finished}/report-test.html"
    page = ReadPage((finished / "report-test.html").read_text())
    kept = json.loads((finished / "evaluation-test.json").read_text())

    figures = page.table("value")
    assert figures["mIoU"][0] == f"{kept['miou']:.4f}"
    low, high = map(float, figures["mIoU"][1].split(" to "))
    assert low <= kept["miou"] <= high
    assert (figures["pixel accuracy"], figures["first/miou"][0]) == (
        [f"{kept['accuracy']:.4f}", "-"],
        f"{kept['first/miou']:.4f}",
    )
    (answer,) = [line for line in page.text if line.startswith("gct learned from 4 labeled and ")]
    assert f"is {kept['miou']:.4f} (95 % interval over images {low:.4f} to {high:.4f}; one seed)." in answer

    classes = page.table("IoU")
    assert [classes[name][1] for name in "01"] == [f"{kept[f'iou/{name}']:.4f}" for name in "01"]
    (matrix,) = page.figures["Confusion matrix"]["data"]
    counts = [[cell[2] for cell in row] for row in matrix["customdata"]]
    assert counts == kept["confusion"]["pixels"]
    for name, row in page.table("AUROC").items():
        assert row[0] == f"{kept[f'errors/{name}/auroc']:.3f}"
    curves = json.loads((finished / "evaluation-test-curves.json").read_text())
    lines = {line["name"]: line for line in page.figures["ROC"]["data"]}
    assert lines["entropy"]["y"] == curves["entropy/roc"]["found"]
    assert {"Risk and coverage", "Reliability", "mIoU on the validation images"} <= page.figures.keys()

    alone = read_images(finished / "evaluation-test.csv").alone
    worst, best = sorted(alone, key=lambda name: alone[name])
    headings = [line for line in page.text if line.startswith(("worst: ", "median: ", "best: "))]
    assert headings == [f"{kind}: {name}, mIoU {alone[name]:.4g}" for kind, name in (("worst", worst), ("best", best))]
    assert [title for title, _ in page.images] == 2 * [
        *("image", "label", "finished", "errors of finished", "error map of finished")
    ]
    assert any("Measured on 2 test images, one training, seed 0." in line for line in page.text)

    elsewhere = finished.parent / "elsewhere/page.html"
    asked: list[Tiling | None] = []

    def asking(*given: Any, tiling: Tiling | None, **options: Any) -> list[ImageRow]:
        asked.append(tiling)
        return gallery(*given, tiling=tiling, **options)

    monkeypatch.setattr(page_run, "gallery", asking)
    assert command("evaluate", finished, "--split", "val", "--report", elsewhere, "--tile", "64").code == 0
    assert asked == [Tiling(64, 24)], "the pictures are of the predictions that were measured"
    assert "on 2 val images" in elsewhere.read_text()
    assert not (finished / "report-val.html").exists()


CURVE = {"removed": [0.0, 0.5], "error": [1.0, 0.6]}


def a_regression(folder: Path) -> MeasuredRun:
    figures = {"rmse": 0.25, "errors/map/ause": 0.125, "errors/map/correlation": math.nan}
    curves = {"map/sparsification": CURVE, "oracle/sparsification": {**CURVE, "error": [1.0, 0.2]}}
    return MeasuredRun("depth", folder, "test", figures, None, curves, None)


def test_regression_has_sparsification_and_no_classes(tmp_path: Path) -> None:
    run = a_regression(tmp_path)
    assert metrics_table(run).rows == [["RMSE", "0.2500", "-"]]
    assert classes_section([run], "").parts == []
    table, chart = error_maps_section([run], "on 3 images").parts
    assert (table.kind, chart.kind) == ("table", "chart")
    assert (table.columns, table.rows) == (  # type: ignore[union-attr]
        ["map", "AUSE", "correlation over pixels"],
        [["map", "0.125", "-"]],
    )
    drawn = {line["name"]: line["y"] for line in chart.figure["data"]}  # type: ignore[union-attr]
    assert drawn == {"map": [1.0, 0.6], "oracle": [1.0, 0.2]}
    assert chart.note.endswith("on 3 images")
    several = error_maps_section([run, dataclasses.replace(run, title="other")], "on 3 images", [run]).parts
    assert [part.kind for part in several] == ["table", "chart"], "figures of both, curves of one"
    assert [row[0] for row in several[0].rows] == [run.title, "other"]  # type: ignore[union-attr]


def test_learning_curves_join_the_tables_of_a_resumed_run(tmp_path: Path) -> None:
    for number, lines in enumerate((["0,9,0.5,", "0,19,0.6,1.5", "0,29,0.9,"], ["0,29,0.7,", "0,39,0.8,1.25", "0,4"])):
        folder = tmp_path / f"metrics/version_{number}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/miou,train/loss", *lines]))
    validation, losses = learning_section({"a": tmp_path}, "miou").parts
    (line,) = validation.figure["data"]  # type: ignore[union-attr]
    assert (line["x"], line["y"]) == ([10, 20, 30, 40], [0.5, 0.6, 0.7, 0.8]), "the later table counts"
    (loss,) = losses.figure["data"]  # type: ignore[union-attr]
    assert (loss["name"], loss["x"], loss["y"]) == ("loss", [20, 40], [1.5, 1.25])
    assert learning_section({"a": tmp_path / "nowhere"}, "miou").parts == []


def test_a_run_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"evaluation-test\.json: no such file; semipix evaluate writes it"):
        read_measured("a", tmp_path)
    (tmp_path / "evaluation-test.json").write_text("[")
    with pytest.raises(SemipixError, match=r"evaluation-test\.json: damaged, JSON with figures expected"):
        read_measured("a", tmp_path)
    (tmp_path / "evaluation-test.json").write_text('{"miou": null}')
    found = read_measured("a", tmp_path)
    assert math.isnan(found.figures["miou"])
    assert (found.confusion, found.curves, found.images) == (None, {}, None), "as an older version leaves it"
