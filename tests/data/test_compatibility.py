"""Data that do not fit the task are refused before training begins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor

from semipix.data.compatibility import check_serves
from semipix.data.sources.scenes import ScenesSource
from semipix.data.targets import KINDS, data_for
from semipix.errors import SemipixError
from semipix.tasks.segmentation import Segmentation
from tests.conftest import QUICK, Result
from tests.helpers.tiny import TinyRegression, options
from tests.helpers.tiny_files import noise, save


class TinyMatting(TinyRegression):
    """A task that takes a trimap."""

    in_channels = 4
    trimap: ClassVar[bool] = True
    channels = 1


class TinyDepth(TinyRegression):
    """A task that predicts one channel."""

    channels = 1

    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        return super().render(image, prediction).expand(3, -1, -1)


TASKS = {
    "segmentation": Segmentation(6),
    "denoising": TinyRegression(),
    "enhancement": TinyRegression(),
    "matting": TinyMatting(),
    "regression": TinyDepth(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", KINDS)
def test_kinds(task: str, kind: str) -> None:
    source = ScenesSource(32, kind=kind)
    if TASKS[task] is TASKS[kind] or {task, kind} == {"denoising", "enhancement"}:
        check_serves(TASKS[task], source)
        check_serves(type(TASKS[task]), source)
        return
    with pytest.raises(SemipixError, match=r"^task: .*data: ScenesSource") as caught:
        check_serves(TASKS[task], source)
    assert "\n" not in str(caught.value)


def test_channels_that_are_not_known_are_not_refused() -> None:
    source = ScenesSource(32, kind="regression")
    source.channels = None
    check_serves(TinyRegression(), source)


def test_more_classes_than_the_task_has_are_refused() -> None:
    source = ScenesSource(32)
    count = len(source.classes or [])
    check_serves(Segmentation(count), source)
    check_serves(Segmentation(count + 1), source)
    check_serves(Segmentation, source)
    with pytest.raises(
        SemipixError, match=rf"^data: {count} classes \(.*\), but the task has 2 \(a, b\); give the data"
    ):
        check_serves(Segmentation(["a", "b"]), source)


def test_every_option_serves_something() -> None:
    serving = {kind: data_for(kind) for kind in KINDS}
    assert serving == {
        "segmentation": ["camvid", "folder", "scenes", "voc"],
        "denoising": ["pairs", "polyu", "scenes", "sidd"],
        "enhancement": ["lol", "pairs", "scenes"],
        "matting": ["matting", "pairs", "scenes"],
        "regression": ["pairs", "scenes"],
    }
    assert {name for names in serving.values() for name in names} == set(options("data"))


def test_a_training_is_refused_in_one_line(train: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("low", "normal"):
        for number in range(4):
            save(tmp_path / f"lol/train/{name}/{number}.png", noise(64, 64, 3, seed=number))
    message = train("data=lol", f"data.root={tmp_path / 'lol'}").error
    assert "task: Segmentation learns from masks of class indices, but data: LOLSource has images or maps" in message
    assert "set data=camvid|folder|scenes|voc" in message
    assert not Path("run").exists()


def test_the_kind_of_scenes_and_pairs_is_the_tasks(train: Callable[..., Result]) -> None:
    message = train("data=pairs", "data.root=nowhere").error
    assert (
        "data.kind=segmentation: expected denoising, enhancement, matting, regression; data for segmentation" in message
    )
    assert (
        "nowhere: found nothing, expected a data folder"
        in train("data=pairs", "data.root=nowhere", "data.kind=matting").error
    )


def test_a_regression_trains_on_scenes(command: Callable[..., Result]) -> None:
    scenes = ("data=scenes", "data.size=64", "data.train=8", "data.val=2", "data.test=2", "data.kind=regression")
    # This tiny task's loss counts every pixel, so nothing may be padded.
    quick = [*(item for item in QUICK if item != "data=folder"), "data.scale=[1,1]"]
    ended = command("train", *scenes, *quick, f"task._target_={__name__}.TinyDepth", "method=supervised", "run=run")
    assert ended.code == 0, ended.err
    assert "val/error" in json.loads(Path("run/summary.json").read_text())
