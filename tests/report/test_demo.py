"""`semipix demo`: its trainings made short, its page, and what it says of the figures."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.reliability import commands
from PIL import Image

from semipix.launch import runner, variants
from semipix.launch.runner import Ended
from semipix.report import demo
from semipix.report.page import write_page
from semipix.report.page_sections import MEASURES
from tests.conftest import Result
from tests.helpers.html import ReadPage

TINY = (
    *("data=scenes", "data.merge_classes=true", "data.size=64", "data.train=8", "data.val=2", "data.test=2"),
    *("data.labels=4", "data.batch_size=4", "data.crop=64", "data.workers=0"),
    *("model=unet", "model.encoder=test_efficientnet", "model.decoder_channels=[16,8,8,4,4]", "model.pretrained=false"),
    *("trainer.accelerator=cpu", "steps=2", "validations=1"),
)
TEST = 2
"""Test images."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of semipix that the demo starts; each is forked, which saves what a new Python imports."""
    names: list[str] = []

    def run(command: Sequence[str], log: Path, **options: Any) -> Ended:
        names.append(command[3])
        ended = commands.run(command[3:], Path.cwd(), limit=300)
        log.write_text(ended.out + ended.err)
        return Ended(1 if ended.code is None else ended.code, ended.err)

    for module in (runner, variants):
        monkeypatch.setattr(module, "run", run)
    return names


def test_the_demo_trains_and_writes_its_page(
    command: Callable[..., Result], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "COMMON", list(TINY))
    pages: list[str] = []
    monkeypatch.setattr(demo, "write_page", lambda page, path: (write_page(page, path), pages.append(path.read_text())))
    first = command("demo", "--out", "out")
    assert first.code == 0, first.err
    assert sorted(started) == ["evaluate"] * 3 + ["train"] * 3
    summary = json.loads(Path("out/summary.json").read_text())
    text = Path("out/index.html").read_text()
    page = ReadPage(text)
    assert "Objects in scenes: 4 labeled and 4 unlabeled images" in page.text
    assert any(line.startswith(f"Measured on {TEST} held-out scenes, one training each.") for line in page.text)

    rows = page.table("seconds")
    assert list(rows) == [demo.VARIANTS[name][0] for name in ("supervised_short", "supervised", "gct_strong")]
    for (name, figures), rate in zip(summary.items(), ("3e-3", "1e-3", "1e-3"), strict=True):
        measured = json.loads(Path(f"out/{name}/evaluation-test.json").read_text())
        assert figures["miou"] == pytest.approx(100 * measured["miou"], abs=0.005)
        row = rows[demo.VARIANTS[name][0]]
        assert row[:3] == [f"{figures['miou']:.1f}", f"{figures['accuracy']:.1f}", str(figures["steps"])]
        assert row[4] == rate
        assert f"mIoU {figures['miou']:5.1f} %" in first.out

    verdict = demo._verdict(summary)
    assert verdict in page.text
    assert verdict in first.out

    titles = ["supervised, equally long", "GCT on strong views"]
    columns = ["image", "label"]
    for title in titles:
        columns += [title, f"errors of {title}", f"error map of {title}"]
    assert [title for title, _ in page.images] == columns * TEST
    for _, address in page.images:
        assert Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).size == (64, 64)

    rows_of_maps = next(rows for rows in page.tables if "AUROC" in rows[0])[1:]
    expected = [*(("gct_strong", name) for name in ("map", "flaw", "softmax", "entropy", "disagreement"))]
    expected += [("supervised", name) for name in ("map", "softmax", "entropy")]
    assert [(row[0], row[1]) for row in rows_of_maps] == [(demo.VARIANTS[run][0], name) for run, name in expected]
    for (run, name), row in zip(expected, rows_of_maps, strict=True):
        measured = json.loads(Path(f"out/{run}/evaluation-test.json").read_text())
        measures = [measure for measure in MEASURES if f"errors/{name}/{measure}" in measured]
        figures = [measured[f"errors/{name}/{measure}"] for measure in measures]
        assert row[2:] == ["-" if figure is None else f"{figure:.3f}" for figure in figures]
    assert {"IoU of each class", *(f"ROC of {title}" for title in titles)} <= page.figures.keys()

    for number, early in enumerate(pages[:2], 1):
        assert f"{number} of 3 trainings are finished." in early
        assert len(ReadPage(early).images) == TEST * (2 + 3 * number)
    assert "first pictures: open out/index.html" in first.out

    diagnostics = page.table("diagnostic")
    assert len(diagnostics) >= 3
    assert all(0 <= float(value) <= 1 for (value,) in diagnostics.values())

    assert command("demo", "--out", "out").code == 0
    assert len(started) == 6, "what is there is not trained again"
    assert len(pages) == 6
    assert Path("out/index.html").read_text() == text


@pytest.mark.parametrize(
    ("gct", "supervised", "expected"),
    [
        (77.2, 71.0, "ends 6.2 points of mIoU above the equally long supervised run (one seed each)."),
        (
            70.0,
            71.5,
            "ends 1.5 points of mIoU below the equally long supervised run (one seed each). The diagnostics show",
        ),
        (70.01, 70.0, "ends with the mIoU of the equally long supervised run (one seed each)."),
        (70.0, 70.0, "ends with the mIoU of the equally long supervised run (one seed each)."),
    ],
)
def test_the_verdict_is_what_the_figures_say(gct: float, supervised: float, expected: str) -> None:
    verdict = demo._verdict({"gct_strong": {"miou": gct}, "supervised": {"miou": supervised}})
    assert verdict.startswith(f"GCT on strong views {expected}")
