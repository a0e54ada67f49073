"""The figures of each image: their sums give the metric of all images, whatever the task."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semipix.batch import VOID
from semipix.errors import SemipixError
from semipix.functional.bootstrap import ImageFigures, mean_ratio
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from semipix.training.image_figures import ImageRecords, MeasuredImages, read_images, with_shared_scenes
from tests.helpers.tiny import TinyRegression, rand, randint

IMAGES = 5


class AbsoluteError(Regression):
    """A regression whose best checkpoint has the smallest mean absolute error."""

    primary = "mae"


def labels() -> Tensor:
    """Masks of which a part is void, and that lack class 3."""
    target = randint(3, IMAGES, 12, 16)
    target[0, :6] = VOID
    target[1] = VOID
    return target


def maps(channels: int) -> Tensor:
    """Targets of which one image is ignored, and a part of another."""
    target = rand(IMAGES, channels, 12, 16, seed=3)
    target[0, :, :6] = torch.nan
    target[1] = torch.nan
    return target


def mattes() -> Tensor:
    return torch.cat([rand(IMAGES, 1, 12, 16, seed=4), randint(2, IMAGES, 7, 12, 16).float()], 1)


@pytest.mark.parametrize(
    ("task", "target"),
    [
        (Segmentation(["sky", "a,b", "miou", "never"]), labels()),
        (Regression(channels=2, low=-5, high=5), maps(2)),
        (AbsoluteError(channels=2, low=-5, high=5), maps(2)),
        (Denoising(), maps(3)),
        (Matting(), mattes()),
        (TinyRegression(), rand(IMAGES, 3, 12, 16, seed=3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_image_once_gives_the_metric_of_all(task: Task, target: Tensor, tmp_path: Path) -> None:
    channels = task.channels
    prediction = task.activate(rand(IMAGES, channels, 12, 16, seed=1) * 4 - 1.5)
    names = [f"{number}.png" for number in range(IMAGES)]
    metrics, records = task.metrics(), ImageRecords()
    for part in (slice(0, 2), slice(2, IMAGES)):
        metrics.update(prediction[part], target[part])
        records.add(names[part], task, prediction[part], target[part])
    records.write(tmp_path / "evaluation.csv", "best")
    found = read_images(tmp_path / "evaluation.csv")
    assert found.value == pytest.approx(float(metrics.compute()[task.primary]), rel=1e-5)
    assert (found.metric, found.checkpoint, found.figures.names) == (task.primary, "best", tuple(names))
    assert found.pixels == tuple(task.counted(target).flatten(1).sum(1).tolist())
    assert np.isfinite(found.figures.numerators).all()


def test_rows_of_a_large_image_add_up(tmp_path: Path) -> None:
    task, target = Segmentation(3), labels()[:1]
    prediction = rand(1, 3, 12, 16)
    whole, parts = ImageRecords(), ImageRecords()
    whole.add(["a"], task, prediction, target)
    for rows in (slice(0, 5), slice(5, 12)):
        parts.add(["a"], task, prediction[..., rows, :], target[..., rows, :])
    assert parts.rows == whole.rows


def test_the_row_of_an_image_has_its_own_metric(tmp_path: Path) -> None:
    task, records = Segmentation(["sky", "sea"]), ImageRecords(scene=lambda name: "field")
    target = torch.tensor([[[0, 0, 1, 1]], [[VOID] * 4]])
    prediction = torch.tensor([[[[0.9, 0.1, 0.1, 0.1]], [[0.1, 0.9, 0.9, 0.9]]]]).expand(2, -1, -1, -1)
    records.add(["z\udc80.png", "a.png"], task, prediction, target)
    records.write(tmp_path / "evaluation.csv", "last, unfinished")
    header, first, second = (tmp_path / "evaluation.csv").read_text(errors="surrogateescape").splitlines()
    assert header == "name,checkpoint,scene,pixels,miou,intersection/sky,intersection/sea,union/sky,union/sea"
    assert first == 'a.png,"last, unfinished",field,0,,0,0,0,0'
    assert second == f'z\udc80.png,"last, unfinished",field,4,{(1 / 2 + 2 / 3) / 2},1,2,2,3'
    found = read_images(tmp_path / "evaluation.csv")
    assert found.figures.numerators[:, 1].tolist() == [0, 2]
    assert (found.independent.names, found.of_part(1).numerators.tolist()) == (("field",), [[2]])


def test_files_of_earlier_versions_have_no_scenes(tmp_path: Path) -> None:
    (tmp_path / "evaluation.csv").write_text("name,checkpoint,pixels,mae,sum/mae,count/mae\nb,best,4,2.0,8,4\n")
    found = read_images(tmp_path / "evaluation.csv")
    assert (found.scenes, found.pixels, found.value, found.within) == (("b",), (4,), 2.0, (0.0, math.inf))


def test_images_of_one_scene_in_any_run_are_of_one_scene_in_all() -> None:
    names, ones = ("a", "b", "c", "d"), np.ones((4, 1))
    figures = ImageFigures(names, np.arange(4.0)[:, None], ones)
    runs = [
        MeasuredImages("mae", "best", ("mae",), scenes, (1,) * 4, figures, mean_ratio)
        for scenes in (names, ("x", "x", "c", "d"), ("a", "y", "y", "d"), ("b", "c", "d", "a"))
    ]
    assert len(set(with_shared_scenes([runs[0], runs[3]])[0].scenes)) == 4, "a scene may have the name of an image"
    runs = runs[:3]
    assert [found.independent.numerators.tolist() for found in with_shared_scenes(runs)] == 3 * [[[3], [3]]]
    assert [len(set(found.scenes)) for found in with_shared_scenes(runs[:2])] == [3, 3]
    assert with_shared_scenes(runs[:1])[0].independent.names == names


def test_a_prediction_that_is_not_finite_leaves_no_value(tmp_path: Path) -> None:
    task, target = Denoising(), rand(2, 3, 12, 16)
    prediction = target.clone()
    prediction[0, 0, 0, 0] = torch.nan
    records = ImageRecords()
    records.add(["a", "b"], task, prediction, target)
    records.write(tmp_path / "evaluation.csv", "best")
    assert np.isnan(read_images(tmp_path / "evaluation.csv").value)


@pytest.mark.parametrize(
    "text",
    ["", "name\n", "name,checkpoint,pixels,miou\n", "name,checkpoint,pixels,miou,sum/a,union/a\nx,best,1,1,1,1\n"],
)
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.csv").write_text(text)
    with pytest.raises(SemipixError, match=r"evaluation\.csv: damaged.*evaluate again"):
        read_images(tmp_path / "evaluation.csv")
    with pytest.raises(SemipixError, match=r"none\.csv: no such file; semipix evaluate writes it"):
        read_images(tmp_path / "none.csv")
