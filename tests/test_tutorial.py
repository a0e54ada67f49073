"""The tutorial's files and commands work as they stand, but for the length of its trainings."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Result

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"

SHORT = [
    *("data.size=64", "data.train=20", "data.val=4", "data.test=4", "data.crop=64", "data.workers=0", "steps=2"),
    *("data.batch_size=4", "validations=1", "model._target_=tests.helpers.tiny.TinyModel", "trainer.accelerator=cpu"),
]
"""What makes a training of the page take a second."""


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the page's files, on Python's path."""
    for block in (*blocks("python"), *blocks("yaml")):
        first, _, content = block.partition("\n")
        path = tmp_path / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_commands_train_and_measure_the_task(folder: Path, command: Callable[..., Result]) -> None:
    (script,) = blocks("bash")
    ran = []
    for line in script.splitlines():
        program, *arguments = line.split()
        if program == "export":
            continue
        assert program == "semipix"
        assert ("--trust" in arguments) == (arguments[0] == "evaluate"), "the run folder names depth.Depth"
        short = SHORT if arguments[0] == "train" else []
        result = command(*arguments, *short)
        assert result.code == 0, result.err
        ran.append(arguments[0])
    assert ran == ["train", "train", "evaluate"]
    measured = json.loads((folder / "runs/depth/evaluation-test.json").read_text())
    assert {"rmse", "mae", "within_25_percent"} <= measured.keys()
    assert 0 <= measured["within_25_percent"] <= 1
    assert "first/within_25_percent" in measured, "the pair was compared by the task's own figure"


def test_the_loss_forgives_scale_and_the_figure_counts_ratios(folder: Path) -> None:
    from depth import Depth  # type: ignore[import-not-found]

    strict, lenient = Depth(scale_invariance=0.0), Depth(scale_invariance=1.0)
    target = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1
    target[0, 0, :2] = torch.nan
    output = (1.5 * target.nan_to_num(0.2) - 0.05) / 0.95  # one factor everywhere
    l1 = super(Depth, strict).loss(output, target)
    torch.testing.assert_close(lenient.loss(output, target), l1, atol=1e-5, rtol=0)
    torch.testing.assert_close(strict.loss(output, target) - l1, torch.tensor(1.5).log().square())
    metrics = strict.metrics()
    metrics.update(output, target)
    assert metrics.compute()["within_25_percent"] == 0
    metrics.reset()
    metrics.update(strict.encode(target), target)
    assert metrics.compute()["within_25_percent"] == 1
