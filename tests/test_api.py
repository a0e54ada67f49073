"""`semipix.train`, `semipix.load` and `semipix.Run`: the commands in Python."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import semipix
from semipix.errors import SemipixError

QUICK = ("data.crop=64", "data.workers=0", "data.batch_size=4", "model._target_=tests.helpers.tiny.TinyModel")


def test_a_folder_from_training_to_prediction(shared_photos: Path, tmp_path: Path) -> None:
    run = semipix.train(
        shared_photos, *QUICK, "data.labels=4", method="supervised", steps=2, run=tmp_path / "run", scheduler=None
    )
    assert run.folder == tmp_path / "run"
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


def test_importing_semipix_imports_no_library() -> None:
    code = "import sys, semipix; assert semipix.__version__; print([n for n in ('torch', 'hydra') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = semipix.nothing
