"""The commands on regression tasks, from training to prediction.

Also tests inference/trimaps.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from semipix.batch import EvalSample
from semipix.errors import SemipixError
from semipix.inference.trimaps import Trimaps
from semipix.methods.large_images import LargeImages
from semipix.models import flaw_detector
from semipix.report import pictures
from semipix.training.build import load_method
from semipix.training.callbacks import SamplePictures
from tests.conftest import Result
from tests.helpers.html import ReadPage
from tests.helpers.labels import TASKS, LabelSource
from tests.helpers.tiny import rand

Command = Callable[..., Result]

QUICK = (
    *("data._target_=tests.helpers.labels.LabelSource", "data.scale=[1,1]", "data.batch_size=4", "data.labels=all"),
    *(
        "data.crop=64",
        "data.workers=0",
        "steps=2",
        "model._target_=tests.helpers.tiny.TinyModel",
        "trainer.accelerator=cpu",
    ),
    *("trainer.enable_progress_bar=false", "method=gct", "run=run", "validations=1"),
)

GIVEN = {"regression": ("task.channels=2", "task.low=-1", "task.high=3", "task.loss=smooth_l1")}
FIGURES = {
    "regression": {"mae", "rmse"},
    "denoising": {"psnr", "ssim"},
    "enhancement": {"psnr", "ssim"},
    "matting": {"sad", "mse", "gradient", "connectivity", "psnr"},
}
SIZE = (70, 90)
"""Height and width of the images that are predicted."""


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flaw_detector, "CHANNELS", (8, 8, 8, 8, 8, 8, 8, 1))


def write_images(folder: Path) -> None:
    """Two photos of noise."""
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.png")):
        pixels = (rand(*SIZE, 3, seed=number) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / name)


def write_trimap(path: Path, size: tuple[int, int] = SIZE, middle: int = 128) -> None:
    """Background on the left third, foreground on the right one."""
    pixels = np.full(size, middle, np.uint8)
    pixels[:, : size[1] // 3], pixels[:, -(size[1] // 3) :] = 0, 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def trained(command: Command) -> Callable[..., str]:
    """Train a task; what the training printed to standard error."""

    def run(task: str, *more: str) -> str:
        given = GIVEN.get(task, ())
        result = command("train", f"task={task}", f"data.kind={task}", *QUICK, *given, *more)
        assert result.code == 0
        return result.err

    return run


@pytest.mark.parametrize("task", TASKS)
def test_trains_evaluates_and_predicts(task: str, trained: Callable[..., str], command: Command) -> None:
    assert "task.low" not in trained(task, "data.resize=72")
    assert Path("run/samples/step-000002.png").is_file()
    summary = json.loads(Path("run/summary.json").read_text())
    assert {f"val/{name}" for name in FIGURES[task]} <= summary.keys()
    assert "val/diagnostics/flaw_auroc_first" in summary
    assert command("evaluate", "run", "--report").code == 0
    kept = json.loads(Path("run/evaluation-test.json").read_text())
    assert FIGURES[task] <= kept.keys()
    page = ReadPage(Path("run/report-test.html").read_text())
    assert {row[1] for row in page.tables[0][1:]} >= {f"{kept[name]:.4f}" for name in FIGURES[task]}
    assert {line["name"] for line in page.figures["Sparsification"]["data"]} == {
        "map",
        "flaw",
        "disagreement",
        "oracle",
    }
    assert not {"ROC", "Reliability", "Confusion matrix"} & page.figures.keys()
    assert {title for title, _ in page.images} == {
        *("image", "label"),
        *("run", "errors of run", "error map of run"),
    }

    write_images(Path("new"))
    trimaps = []
    if TASKS[task].trimap:
        write_trimap(Path("trimaps/a.png"))
        write_trimap(Path("trimaps/b.png"))
        trimaps = ["--trimaps", "trimaps"]
    assert command("predict", "run", "new", "--out", "out", *trimaps).code == 0
    names = {"a.0.png", "a.1.png", "b.0.png", "b.1.png"} if task == "regression" else {"a.png", "b.png"}
    made = sorted(Path("out/predictions").iterdir())
    assert {path.name for path in made} == names
    expected = {"regression": ("uint16", SIZE), "matting": ("uint16", SIZE)}.get(task, ("uint8", (*SIZE, 3)))
    pixels = np.asarray(Image.open(made[0]))
    assert (str(pixels.dtype), pixels.shape) == expected
    assert any(np.asarray(Image.open(path)).std() > 0 for path in made)
    for kind in ("pictures", "errors"):
        assert {path.name for path in Path("out", kind).iterdir()} == {"a.png", "b.png"}
    if task == "matting":  # at the image's own size, not the network's
        assert (pixels[:, : SIZE[1] // 3] == 0).all()
        assert (pixels[:, -(SIZE[1] // 3) :] == 65535).all()
        image = LabelSource(task).image("test/0").unsqueeze(0)
        known = image[:, 3:4] != 0.5
        with torch.no_grad():
            assert torch.equal(load_method(Path("run"), trust=True)(image)[known], image[:, 3:4][known])

    made[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in made[1:]}
    assert command("predict", "run", "new", "--out", "out", "--skip-existing", *trimaps).code == 0
    assert made[0].exists()
    untouched = [path for path in made[1:] if path.name.startswith("b")]
    assert all(path.stat().st_mtime_ns == times[path] for path in untouched)


class SilentSource(LabelSource):
    """Labels of validation and test images hold nothing that could be measured."""

    def target(self, name: str) -> tv_tensors.Image:
        target = super().target(name)
        if name.startswith(("val", "test")):
            target[:] = 0 if self.task.trimap else torch.nan  # in matting: known everywhere
        return target


@pytest.mark.parametrize("task", TASKS)
def test_labels_that_say_nothing_are_no_figure(task: str, command: Command) -> None:
    source = f"data._target_={__name__}.SilentSource"
    quick = [item for item in QUICK if not item.startswith(("data._target_", "validations"))]
    given = (f"task={task}", f"data.kind={task}", *GIVEN.get(task, ()), source, "validations=2")
    result = command("train", *quick, *given)
    assert result.code == 0
    does, check = (
        ("is unknown in its trimap", "trimaps and the mattes")
        if task == "matting"
        else (
            "has a known target",
            "targets",
        )
    )
    assert result.err.splitlines() == [
        f"semipix: validation: no pixel of the 2 images {does}, so there is nothing to measure or choose by; check the "
        f"{check}",
        "semipix: no error map was calibrated: calibrate: 0 val images with labels found, 2 or more expected, since "
        "each is measured by a map that was fitted on others",
    ]
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["last.ckpt"]
    assert f"error: run: test: no pixel of the 2 images {does}, so" in command("evaluate", "run").error
    assert not Path("run/evaluation-test.json").exists()


def test_trimaps_are_asked_for_and_checked(trained: Callable[..., str], command: Command) -> None:
    trained("matting", "validations=0", "method=supervised")
    write_images(Path("new"))
    predict = ("predict", "run", "new", "--out", "out")
    assert "Matting needs a trimap for each image; give their folder by --trimaps DIR" in command(*predict).error
    assert "--trimaps: nowhere is not a folder" in command(*predict, "--trimaps", "nowhere").error
    write_trimap(Path("trimaps/b.png"))
    result = command(*predict, "--trimaps", "trimaps")
    assert result.code == 2
    errors = [line for line in result.err.replace("\r", "\n").splitlines() if "error" in line]
    assert errors == [
        "semipix: error: trimaps/a.png: no such trimap; the folder of --trimaps needs a file with the name of each "
        "image, up to the extension"
    ]
    assert [path.name for path in Path("out/predictions").iterdir()] == ["b.png"]


def test_trimaps_are_refused_by_other_tasks(trained: Callable[..., str], command: Command) -> None:
    trained("denoising", "validations=0", "method=supervised")
    write_images(Path("new"))
    message = command("predict", "run", "new", "--out", "out", "--trimaps", "new").error
    assert "--trimaps: new found, but Denoising takes no trimap; leave the option out" in message


class TestTrimap:
    IMAGE = rand(3, *SIZE)

    @pytest.mark.parametrize("middle", [128, 127, 126, 130])
    def test_becomes_the_fourth_channel(self, middle: int, tmp_path: Path) -> None:
        write_trimap(tmp_path / "deep.er.png", middle=middle)
        made = Trimaps(tmp_path, 1, 25).beside(self.IMAGE, Path("deep.er.jpg"))
        assert torch.equal(made[:3], self.IMAGE)
        assert made[3, 0, [0, 45, 89]].tolist() == [0.0, 0.5, 1.0]

    def test_without_unknown_pixels_is_widened_as_in_training(self, tmp_path: Path) -> None:
        """By half-way between the widths, as evaluation makes trimaps; it is found in a linked folder, too."""
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 45:] = 255
        (tmp_path / "masks").mkdir()
        Image.fromarray(mask).save(tmp_path / "masks/a.png")
        (tmp_path / "trimaps").mkdir()
        (tmp_path / "trimaps/sub").symlink_to(tmp_path / "masks")
        row = Trimaps(tmp_path / "trimaps", 2, 6).beside(self.IMAGE, Path("sub/a.jpg"))[3, 0]
        assert row.tolist() == [0.0] * 41 + [0.5] * 8 + [1.0] * (SIZE[1] - 49)

    def test_of_another_size_is_reported(self, tmp_path: Path) -> None:
        write_trimap(tmp_path / "a.png", size=(70, 91))
        with pytest.raises(SemipixError, match=r"a\.png: trimap is 91x70 pixels, its image a\.png is 90x70"):
            Trimaps(tmp_path, 1, 25).beside(self.IMAGE, Path("a.png"))

    def test_of_other_values_is_reported(self, tmp_path: Path) -> None:
        write_trimap(tmp_path / "a.png", middle=137)
        with pytest.raises(SemipixError, match=r"a\.png: found trimap value 137 \(.*\), expected 0, 128 and 255"):
            Trimaps(tmp_path, 1, 25).beside(self.IMAGE, Path("a.png"))


def test_unknown_pixels_of_a_label_are_drawn_black(trained: Callable[..., str]) -> None:
    printed = trained("regression", "validations=0", "method=supervised", "task.high=1")
    assert "semipix: warning: task.low, task.high: " in printed
    source = LabelSource("regression")
    image, target = (tensor.as_subclass(torch.Tensor) for tensor in (source.image("test/0"), source.pair("test/0")[1]))
    method = load_method(Path("run"), trust=True)
    run = pictures.Trained(method, lambda _: None, LargeImages(method))
    with torch.inference_mode():
        predicted = pictures.predict(run, EvalSample(image, target, "test/0"))
    assert predicted.error_map is None
    label = predicted.label
    unknown = target.isnan().any(0)
    assert (label[:, unknown] == 0).all()
    drawn_whole = method.task.render(image, method.task.encode(target.unsqueeze(0))[0])
    assert torch.equal(label[:, ~unknown], drawn_whole[:, ~unknown])
    assert (drawn_whole[:, unknown] != 0).all(), "black differs from the smallest value"

    rows = SamplePictures(Path("samples"), side=max(target.shape))._row(SimpleNamespace(method=method), image, target)
    sample = rows[1][:, : target.shape[1], : target.shape[2]]
    torch.testing.assert_close(sample, label / 255.0)
