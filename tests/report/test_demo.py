"""`semipix demo`: its trainings made short, its page, and what it says of the figures."""

import base64
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.reliability import commands
from PIL import Image

from semipix.launch import runner, variants
from semipix.launch.runner import Ended
from semipix.report import demo
from tests.conftest import Result

TINY = (
    *("data=scenes", "data.merge_classes=true", "data.size=64", "data.train=8", "data.val=2", "data.test=2"),
    *("data.labels=4", "data.batch_size=4", "data.crop=64", "data.workers=0", "model=unet", "model.pretrained=false"),
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


def cells(page: str) -> list[list[str]]:
    """The rows of the first table."""
    table = page.partition("<table>")[2].partition("</table>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr>")[2:]]
    return [[html.unescape(cell) for cell in row] for row in rows]


def error_rows(page: str) -> list[list[str]]:
    """The rows of the table of error maps."""
    table = page.partition("Which map finds the errors")[2].partition("</table>")[0]
    return [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr>")[2:]]


def test_the_demo_trains_and_writes_its_page(
    command: Callable[..., Result], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "COMMON", list(TINY))
    first = command("demo", "--out", "out")
    assert first.code == 0, first.err
    assert sorted(started) == ["evaluate"] * 3 + ["train"] * 3
    summary = json.loads(Path("out/summary.json").read_text())
    page = Path("out/index.html").read_text()
    assert "<h1>Objects in scenes: 4 labeled and 4 unlabeled images</h1>" in page
    assert f"Measured on {TEST} held-out scenes." in page

    assert [row[0] for row in cells(page)] == [
        demo.VARIANTS[name][0] for name in ("supervised_short", "supervised", "gct_strong")
    ]
    for (name, figures), rate in zip(summary.items(), ("3e-3", "1e-3", "1e-3"), strict=True):
        measured = json.loads(Path(f"out/{name}/evaluation-test.json").read_text())
        assert figures["miou"] == pytest.approx(100 * measured["miou"], abs=0.005)
        row = next(row for row in cells(page) if row[0] == demo.VARIANTS[name][0])
        assert row[1:4] == [f"{figures['miou']:.1f}", f"{figures['accuracy']:.1f}", str(figures["steps"])]
        assert row[5] == rate
        assert f"mIoU {figures['miou']:5.1f} %" in first.out

    verdict = html.unescape(re.findall(r'<p class="verdict">(.*?)</p>', page)[0])
    assert verdict == demo._verdict(summary)
    assert verdict in first.out

    titles = ["supervised, equally long", "GCT on strong views"]
    columns = ["image", "label", *titles, f"flaw map of {titles[1]}", f"errors of {titles[1]}"]
    pictures = re.findall(r'<img src="data:image/png;base64,(.*?)" alt="(.*?)">', page)
    assert [title for _, title in pictures] == columns * TEST
    assert page.count("<img") == len(pictures)
    assert {Image.open(io.BytesIO(base64.b64decode(data))).size for data, _ in pictures} == {(128, 128)}

    rows = [[html.unescape(cell) for cell in row] for row in error_rows(page)]
    expected = [*(("gct_strong", name) for name in ("map", "flaw", "softmax", "entropy", "disagreement"))]
    expected += [("supervised", name) for name in ("softmax", "entropy")]
    assert [(row[0], row[1]) for row in rows] == [(demo.VARIANTS[run][0], name) for run, name in expected]
    for (run, name), row in zip(expected, rows, strict=True):
        measured = json.loads(Path(f"out/{run}/evaluation-test.json").read_text())
        figures = [measured[f"errors/{name}/{measure}"] for measure in demo.MEASURES]
        assert row[2:] == ["-" if figure is None else f"{figure:.3f}" for figure in figures]

    diagnostics = page.partition("What the flaw detector knows")[2].partition("</table>")[0]
    assert len(re.findall(r"<td>(?:0|1)\.\d{3}</td>", diagnostics)) >= 3

    assert command("demo", "--out", "out").code == 0
    assert len(started) == 6, "what is there is not trained again"
    assert Path("out/index.html").read_text() == page


@pytest.mark.parametrize(
    ("gct", "supervised", "expected"),
    [
        (77.2, 71.0, "ends 6.2 points of mIoU above the equally long supervised run."),
        (70.0, 71.5, "ends 1.5 points of mIoU below the equally long supervised run. The diagnostics show"),
        (70.01, 70.0, "ends with the mIoU of the equally long supervised run."),
        (70.0, 70.0, "ends with the mIoU of the equally long supervised run."),
    ],
)
def test_the_verdict_is_what_the_figures_say(gct: float, supervised: float, expected: str) -> None:
    verdict = demo._verdict({"gct_strong": {"miou": gct}, "supervised": {"miou": supervised}})
    assert verdict.startswith(f"GCT on strong views {expected}")
