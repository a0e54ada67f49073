"""`semipix.train`, `semipix.load` and `semipix.Run`: the commands in Python."""

import contextlib
import doctest
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import semipix
from semipix import api
from semipix.errors import SemipixError

QUICK = ("data.crop=64", "data.workers=0", "data.batch_size=4", "model._target_=tests.helpers.tiny.TinyModel")


def test_a_folder_from_training_to_prediction(shared_photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run (1), a=b"
    run = semipix.train(
        shared_photos, *QUICK, "data.labels=4", method="supervised", steps=2, run=folder, scheduler=None
    )
    assert run.folder == folder
    assert run.evaluate("val")["miou"] >= 0
    assert (run.folder / "evaluation-val.json").is_file()
    photo = next((shared_photos / "images/val").iterdir())
    assert run.predict(photo, tmp_path / "out") == []
    with Image.open(tmp_path / f"out/masks/{photo.stem}.png") as mask, Image.open(photo) as image:
        assert mask.size == image.size
    assert run.resume()["steps"] == 2
    with pytest.raises(SemipixError, match=r"model\._target_: 'tests\.helpers\.tiny\.TinyModel' found.*--trust"):
        semipix.load(run.folder)
    assert semipix.load(run.folder, trust=True).evaluate("val") == run.evaluate("val")


def test_a_mistake_is_the_command_s_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=r"unknown key data\.corp; did you mean crop"):
        semipix.train("scenes", "data.corp=3", run=tmp_path / "run")
    with pytest.raises(SemipixError, match="nowhere: found nothing, expected a data folder"):
        semipix.train(tmp_path / "nowhere", run=tmp_path / "run")
    assert not any(tmp_path.iterdir())
    with pytest.raises(SemipixError, match=r"no config\.yaml found"):
        semipix.load(tmp_path)


@pytest.mark.parametrize(
    ("images", "out", "message"),
    [
        ([], None, "images: an empty list found, files and folders expected"),
        ([], "out", "images: an empty list found, files and folders expected"),
        (
            [np.zeros((4, 4), np.uint8)],
            None,
            "images: ndarray found in a list, files and folders expected; predict",
        ),
        (["a.png", b"b.png"], "out", "images: bytes found in a list"),
        (np.zeros((4, 4), np.uint8), "out", "out: out found with an image of type ndarray, and results are named like"),
        (b"a.png", "out", "out: out found with an image of type bytes"),
        (b"a.png", None, "the image: bytes found; a path, Pillow's image, a numpy array or a tensor expected"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(images: Any, out: str | None, message: str, shared_run: Path) -> None:
    with pytest.raises(SemipixError, match=f"^{message}"):
        semipix.load(shared_run, trust=True).predict(images, out)


def test_the_lines_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS").mkdir()
    Image.new("RGB", (70, 50), "green").save("PHOTOS/a.jpg")
    block = (Path(__file__).parents[1] / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 8
    small = '"data.labels=4", "data.train=8", "data.val=2", "model.pretrained=false"'
    block = block.replace('"data.labels=4"', small).replace("steps=20", "steps=1")
    exec(compile(block, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) >= 0
    assert sorted(path.parent.name for path in (tmp_path / "predicted").rglob("a.png")) == [
        *("errors", "masks", "pictures")
    ]


SMALL = "data.train=8", "data.val=2", "data.test=2", "data.labels=4", *QUICK[:3]
KNOWN = "model._target_=torch.nn.Conv2d", "model.kernel_size=1"
"""A model that is loaded without trust."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/python.md", "src/semipix/api.py"])
def test_the_examples_run(name: str, shared_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared_photos, "photos")
    Image.new("RGB", (70, 50), "green").save("photo.png")
    whole = api.train

    def small(data: str, *overrides: str, **keys: Any) -> semipix.Run:
        """The example's training with a tiny network, without processes that read, and without what it prints."""
        with contextlib.redirect_stdout(None):
            return whole(data, *QUICK[1:3], *KNOWN, *overrides, **keys)

    monkeypatch.setattr(api, "train", small)
    text = (Path(__file__).parents[1] / name).read_text()
    text = text if name.endswith(".md") else api.__doc__ or ""
    text = "\n".join("" if line.startswith("```") else line for line in text.splitlines())
    example = doctest.DocTestParser().get_doctest(text, {"SMALL": SMALL}, name, name, 0)
    assert len(example.examples) > 4
    found: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=found.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(found)


def test_importing_semipix_imports_no_library() -> None:
    code = (
        "import sys, time; begin = time.process_time(); import semipix; assert semipix.__version__; "
        "print([name for name in ('torch', 'hydra', 'numpy', 'huggingface_hub') if name in sys.modules]); "
        "print(time.process_time() - begin)"
    )
    loaded, seconds = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert loaded == "[]"
    assert float(seconds) < 0.2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = semipix.nothing
