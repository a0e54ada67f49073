"""Prediction by the workers of a local Ray cluster."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Result

Command = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One of two cores, on this machine."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_workers_write_what_one_process_does_and_go_on_where_they_were(
    cluster: None, command: Command, finished: Path, shared_photos: Path, tmp_path: Path
) -> None:
    images = shared_photos / "images"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    linked = tmp_path / "linked.png"  # to a file whose name does not tell its format
    (tmp_path / "3f2a").write_bytes((images / "train/01.png").read_bytes())
    linked.symlink_to(tmp_path / "3f2a")
    given = ("predict", finished, images, linked, broken, "--out")
    result = command(*given, "by_ray", "--engine", "ray")
    assert result.code == 2
    errors = [line for line in result.err.replace("\r", "\n").splitlines() if "error:" in line]
    assert errors == [
        f"semipix: error: {broken}: not a readable image; expected {'png, jpeg, webp, bmp, tiff or gif'}, "
        "replace or remove the file"
    ]
    assert command(*given, "by_one").code == 2
    found = written(Path("by_ray"))
    assert len(found) == 3 * 17
    assert found == written(Path("by_one"))

    gone = Path("by_ray/masks/train/00.png")
    gone.unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("by_ray").rglob("*.png")}
    assert command("predict", finished, images, "--out", "by_ray", "--engine", "ray", "--skip-existing").code == 0
    assert written(Path("by_ray")) == found
    again = {str(path) for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {"by_ray/pictures/train/00.png", "by_ray/errors/train/00.png"}


def test_a_missing_ray_is_reported(
    command: Command, finished: Path, shared_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = command("predict", finished, shared_photos / "images/test", "--out", "out", "--engine", "ray")
    assert result.code == 2
    assert "pip install 'semipix[ray]'" in result.err
