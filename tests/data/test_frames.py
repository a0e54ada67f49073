"""`semipix data frames`: frames of videos become images of a data folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semipix.data.check import check_folder
from semipix.data.frames import write_frames
from semipix.data.sources.scene_folders import SceneFolders
from semipix.errors import SemipixError
from tests.conftest import Result, write_pair
from tests.helpers.clips import cut, noise, pictures, write_clip

pytest.importorskip("av")

Command = Callable[..., Result]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4")


def test_frames_are_images_with_their_numbers_and_one_scene(clip: Path, tmp_path: Path) -> None:
    found = write_frames([clip], tmp_path / "root", every=5)
    assert names(tmp_path / "root") == [
        *("scenes.txt", "unlabeled/a/000001.png", "unlabeled/a/000006.png", "unlabeled/a/000011.png"),
    ]
    assert found.lines == [f"{clip}: 3 of 12 frames written to {tmp_path}/root/unlabeled/a"]
    assert found.problems == found.left_out == []
    image = np.asarray(Image.open(tmp_path / "root/unlabeled/a/000006.png")).astype(float)
    assert np.abs(image - pictures()[5])[4:-4, 4:-4].mean() < 3
    assert SceneFolders(tmp_path / "root").scene("images/val/a/000002.png") == "a"


def test_a_rate_and_jpeg(clip: Path, tmp_path: Path) -> None:
    write_frames([clip], tmp_path, fps=3, form="jpg")
    assert names(tmp_path / "unlabeled/a") == [f"{number:06d}.jpg" for number in (1, 5, 9)]
    assert Image.open(tmp_path / "unlabeled/a/000001.jpg").format == "JPEG"


def test_frames_that_another_part_has_are_left_out(clip: Path, tmp_path: Path) -> None:
    write_frames([clip], tmp_path, every=4, split="train")
    assert names(tmp_path / "images/train/a") == ["000001.png", "000005.png", "000009.png"]
    found = write_frames([clip], tmp_path, every=2)
    assert names(tmp_path / "unlabeled/a") == ["000003.png", "000007.png", "000011.png"]
    assert found.left_out == [f"{clip}: 3 frames are left out, since another part of {tmp_path} has them"]
    assert (tmp_path / "scenes.txt").read_text() == "a\n"


def test_a_folder_of_pairs_gets_inputs(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    write_frames([clip], tmp_path, every=12, split="train")
    assert names(tmp_path) == ["inputs/train/a/000001.png", "scenes.txt"]


def test_existing_frames_are_never_mixed_with_those_of_another_call(clip: Path, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "clips/sub/b.mp4")
    write_frames([clip], tmp_path, every=6)
    with pytest.raises(SemipixError, match="unlabeled/a: frames are there; remove the folder, or leave"):
        write_frames([clip, tmp_path / "clips"], tmp_path, every=6)
    found = write_frames([clip, tmp_path / "clips"], tmp_path, every=3, skip_existing=True)
    assert found.left_out == [f"{tmp_path}/unlabeled: 1 of 2 videos are left out, since frames are there"]
    assert found.lines == [f"{other}: 4 of 12 frames written to {tmp_path}/unlabeled/sub/b"]
    assert len(names(tmp_path / "unlabeled/a")) == 2
    assert (tmp_path / "scenes.txt").read_text() == "a\nsub/b\n"


def test_a_damaged_video_gives_what_can_be_decoded(clip: Path, tmp_path: Path) -> None:
    damaged = cut(write_clip(tmp_path / "b.mp4", noise(24), index_first=True))
    text = tmp_path / "c.mp4"
    text.write_text("no video")
    found = write_frames([damaged, text, clip], tmp_path / "root")
    assert len(found.problems) == 2
    assert " of 24 frames were read" in found.problems[0]
    assert f"{text}: not a readable video" in found.problems[1]
    assert sorted(path.name for path in (tmp_path / "root/unlabeled").iterdir()) == ["a", "b"]
    assert (tmp_path / "root/scenes.txt").read_text() == "a\nb\n"


def test_an_interruption_leaves_nothing_of_a_video(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("semipix.data.frames.raise_if_interrupted", interrupt)
    with pytest.raises(KeyboardInterrupt, match=f"interrupted in {clip}; continue with .* --skip-existing"):
        write_frames([clip], tmp_path / "root")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "--every: 0 found, a whole number from 1 expected"),
        ({"fps": float("nan")}, "--fps: nan found, a number above 0 expected"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=message):
        write_frames([clip], tmp_path / "root", **options)  # type: ignore[arg-type]


def test_inputs_that_are_no_videos(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match="no such file or folder; name video files"):
        write_frames([tmp_path / "missing.mp4"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SemipixError, match="empty: no video found; expected files ending in"):
        write_frames([tmp_path / "empty"], tmp_path)
    with pytest.raises(SemipixError, match="found a file, expected a data folder; name the folder last"):
        write_frames([tmp_path / "empty"], clip)


def test_the_command_makes_a_folder_to_train_on(clip: Path, command: Command, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(3):
        write_pair(root, "train", f"{number}.png", number)
    result = command("data", "frames", clip, root, "--every", "4")
    assert result.code == 0
    assert result.out == f"{clip}: 3 of 12 frames written to {root}/unlabeled/a\n"
    report = check_folder(root)
    assert report.problems == report.warnings == []
    assert report.unmasked["unlabeled"] == 3
    (tmp_path / "b.mp4").write_text("no video")
    assert "b.mp4: not a readable video" in command("data", "frames", tmp_path / "b.mp4", root).error
