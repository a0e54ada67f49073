"""Frames of videos: their pixels, numbers, times and orientation, and what is said about damaged files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from semipix.data.files import video as reading
from semipix.data.files.video import Video, at_rate, every_nth, is_video, orientation_of, refuse_same_folders
from semipix.errors import SemipixError
from tests.helpers.clips import MATRICES, cut, noise, pictures, turn, write_clip, write_sound

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4")


def test_frames_have_the_pixels_numbers_and_times_of_the_video(clip: Path) -> None:
    with Video(clip) as video:
        frames = list(video.frames())
        assert video.problem() is None
        assert (video.expected, video.count, video.rate) == (12, 12, 12)
    for expected, frame in zip(pictures(), frames, strict=True):
        found = frame.pixels.permute(1, 2, 0).numpy().astype(int)
        assert found.shape == (48, 64, 3)
        assert np.abs(found - expected)[4:-4, 4:-4].mean() < 3
        assert not frame.damaged
    assert [frame.moment.number for frame in frames] == list(range(1, 13))
    assert [frame.moment.seconds for frame in frames] == pytest.approx([number / 12 for number in range(12)])


def test_pages_name_the_command_of_ffmpeg_that_neither_repeats_nor_drops_frames() -> None:
    """By default ffmpeg gives a video of a varying rate frames at a constant one, so that its numbers differ."""
    page = (Path(__file__).parents[3] / "docs/video.md").read_text()
    for text in (page, reading.frame_name.__doc__, reading.Moment.__doc__):
        assert "ffmpeg -i clip.mp4 -fps_mode passthrough %06d.png" in (text or "")
        assert "semipix data frames" in (text or "")


def test_only_frames_that_are_taken_are_given_with_their_own_numbers(clip: Path) -> None:
    with Video(clip) as video:
        assert [frame.moment.number for frame in video.frames(every_nth(5))] == [1, 6, 11]
        assert video.count == 12
    with Video(clip) as video:
        assert [frame.moment.number for frame in video.frames(at_rate(4))] == [1, 4, 7, 10]
    with Video(clip) as video:
        assert len(list(video.frames(at_rate(50)))) == 12, "no frame is made up"


def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path: Path) -> None:
    times = [0, 3000, 9000, 12000, 30000, 33000, 36000, 50000, 60000, 61000, 62000, 90001]
    with Video(write_clip(tmp_path / "a.mp4", times=times, unit=Fraction(1, 90000))) as video:
        moments = [frame.moment for frame in video.frames()]
        assert video.time_base == Fraction(1, 90000)
        assert [moment.start for moment in moments] == times
        assert moments[-1].seconds == pytest.approx(1.0, abs=1e-4)
        assert video.problem() is None


@pytest.mark.parametrize("orientation", MATRICES)
def test_frames_are_turned_as_players_turn_them(orientation: int, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    with Video(turn(path, orientation)) as video:
        frame = next(video.frames())
    red = frame.pixels[0].numpy() > 100
    height, width = red.shape
    assert (height, width) == ((64, 48) if orientation > 4 else (48, 64))
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 5: (0, 0), 6: (0, 1), 8: (1, 0)}[orientation]
    for y in (0, 1):
        for x in (0, 1):
            quarter = red[y * height // 2 :, x * width // 2 :][: height // 2, : width // 2]
            assert quarter.mean() > 0.9 if (y, x) == corner else quarter.mean() < 0.1


def test_display_matrices_that_are_turned_by_no_multiple_of_90_degrees_take_the_nearest() -> None:
    assert [orientation_of(*MATRICES[tag]) for tag in MATRICES] == list(MATRICES)
    assert orientation_of(0, -1, -1, 0) == 7
    assert orientation_of(1, 0, 0, -1) == 4
    assert orientation_of(60000, 5000, -5000, 60000) == 1
    assert orientation_of(5000, 60000, -60000, 5000) == 6


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_file_that_is_cut_off_gives_what_can_be_decoded(ending: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{ending}", noise(24), index_first=ending == "mp4")
    with Video(path) as video:
        assert len(list(video.frames())) == 24
        assert video.problem() is None
    with Video(cut(path)) as video:
        read = len(list(video.frames()))
        problem = video.problem()
    assert 8 < read < 20
    assert problem is not None
    assert problem.startswith(f"{path}: corrupt or truncated video, {read}")
    assert ("of 24 frames were read" in problem) == (ending != "ts")
    assert problem.endswith("); replace the file")


def test_frames_with_errors_are_given_and_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(24))
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, 2 * len(content) // 3, 2000):
        content[place] ^= 255
    path.write_bytes(content)
    with Video(path) as video:
        damaged = sum(frame.damaged for frame in video.frames())
        assert damaged > 0
        assert f"{damaged} of these frames are damaged" in str(video.problem())


@pytest.mark.parametrize("what", ["empty", "text", "playlist", "cut", "sound", "missing"])
def test_what_is_no_video_is_one_line(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    expected = "not a readable video ("
    if what in ("empty", "text"):
        path.write_text("no video " * 99 * (what == "text"))
    elif what == "playlist":
        write_clip(tmp_path / "b.ts")
        path.write_text("ffconcat version 1.0\nfile b.ts\n")
    elif what == "cut":
        cut(write_clip(path))
    elif what == "sound":
        write_sound(path)
        expected = "found no video stream (streams: audio, cover), expected one; remove the file"
    else:
        expected = "no such file"
    with pytest.raises(SemipixError) as found:
        Video(path)
    assert str(found.value).startswith(f"{path}: {expected}")


def test_a_name_is_no_address(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:a.mp4").write_bytes(clip.read_bytes())
    with Video(Path("http:a.mp4")) as video:
        assert len(list(video.frames())) == 12


def test_frames_above_max_pixels_are_refused(clip: Path) -> None:
    with pytest.raises(SemipixError, match=r"64x48 pixels, more than data\.max_pixels=3000"):
        Video(clip, max_pixels=3000)


def test_without_pyav_the_error_says_how_to_install_it(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(reading.importlib, "import_module", missing)
    with pytest.raises(SemipixError, match=r"pip install 'semipix\[video\]'"):
        Video(clip)


def test_names_of_videos() -> None:
    assert [name for name in ("a/b.MP4", "c.mov", "d.png", "mp4", "e.mp4.txt") if is_video(name)] == [
        "a/b.MP4",
        "c.mov",
    ]
    refuse_same_folders([(Path("x/a.mp4"), Path("a.mp4")), (Path("x/b/a.mov"), Path("b/a.mov"))])
    with pytest.raises(SemipixError, match=r"y/a\.mov and x/a\.mp4 would both be written as a/; rename one"):
        refuse_same_folders([(Path("x/a.mp4"), Path("a.mp4")), (Path("y/a.mov"), Path("a.mov"))])
