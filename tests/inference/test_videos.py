"""Masks of each frame of a video, and videos of them.

Also tests inference/video_writer.py.
"""

import csv
import importlib.util
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semipix.data.files import video as reading
from semipix.data.files.bands import Bands
from semipix.data.files.video import Moment, Video
from semipix.errors import SemipixError
from semipix.inference import video_writer
from semipix.inference.predictor import Predictor
from semipix.inference.scores import ScoreTable
from semipix.inference.video_writer import VideoWriter
from semipix.inference.videos import Videos
from semipix.methods.supervised import Supervised
from semipix.tasks.segmentation import Segmentation, palette
from tests.conftest import Result
from tests.helpers.clips import COUNT, cut, noise, pictures, read_clip, turn, write_clip, write_sound

pytest.importorskip("av")

Command = Callable[..., Result]


GREY = 82.5 / 255
"""Halfway between the levels of two frames."""


class Bright(nn.Module):
    """Class 1 where red exceeds green by far, class 2 where an image is bright, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        red = image[:, :1] - image[:, 1:2] - 0.3
        maps = torch.cat([torch.zeros_like(red), 2 * red, image[:, 1:2] - GREY], 1)
        return self.scale * maps


def predictor_of(out: Path) -> Predictor:
    """A predictor whose masks are known; it has no calibration."""
    return Predictor(Supervised(Segmentation(3), lambda number: Bright()), out)


def labels(number: int) -> np.ndarray:
    """The mask of frame `number`, from 1, of `pictures()`."""
    mask = np.full((48, 64), 2 if 15 * (number - 1) > 255 * GREY else 0, np.uint8)
    mask[:24, :32] = 1
    return mask


def inside(picture: np.ndarray) -> np.ndarray:
    """The pixels away from the edges of areas, where codecs mix colours."""
    keep = np.zeros(picture.shape[:2], bool)
    for rows in (slice(4, 20), slice(28, 44)):
        for columns in (slice(4, 28), slice(36, 60)):
            keep[rows, columns] = True
    return picture[keep]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4")


def test_each_frame_has_a_mask_with_its_number(clip: Path, tmp_path: Path) -> None:
    assert Videos().predict(predictor_of(tmp_path), [(clip, Path("b/a.mp4"))], None) == []
    for folder in ("masks", "pictures", "errors"):
        files = sorted(path.name for path in (tmp_path / folder / "b/a").iterdir())
        assert files == [f"{number:06d}.png" for number in range(1, COUNT + 1)]
    for number in range(1, COUNT + 1):
        found = np.asarray(Image.open(tmp_path / f"masks/b/a/{number:06d}.png"))
        assert (inside(found) == inside(labels(number))).all(), number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors", "masks", "pictures"]


@pytest.mark.parametrize("bands", [None, Bands.of([2, 0, 1], [0, 200], [0.5] * 3, [0.2] * 3)])
def test_a_frame_gives_the_mask_of_an_image_file_of_it(bands: Bands | None, clip: Path, tmp_path: Path) -> None:
    """Also if the run resizes images, which the reader of files does in a way of its own, or chooses bands."""
    predictor = predictor_of(tmp_path)
    predictor.reader.resize, predictor.reader.bands = 20, bands
    with Video(clip) as video:
        frame = next(video.frames())
    Image.fromarray(frame.pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    expected = predictor.read(tmp_path / "a.png", Path("a.png"))
    found = predictor.read_frame(clip, Path("a/000001.png"), frame)
    assert torch.equal(found.seen, expected.seen)
    assert torch.equal(found.image, expected.image)
    assert found.seen.shape[-2:] == (15, 20)
    assert found.moment == frame.moment


def test_every_nth_frame_keeps_its_number_and_existing_ones_are_skipped(clip: Path, tmp_path: Path) -> None:
    predictor, videos = predictor_of(tmp_path), [(clip, Path("a.mp4"))]
    Videos(every=5).predict(predictor, videos, None)
    folder = tmp_path / "masks/a"
    assert sorted(path.name for path in folder.iterdir()) == ["000001.png", "000006.png", "000011.png"]
    Image.new("L", (64, 48), 77).save(folder / "000006.png")
    Videos().predict(predictor, videos, None, skip_existing=True)
    assert len(list(folder.iterdir())) == COUNT
    assert np.asarray(Image.open(folder / "000006.png")).min() == 77
    Videos().predict(predictor, videos, None)
    assert np.asarray(Image.open(folder / "000006.png")).max() < 3


def test_videos_have_the_colours_of_the_classes_at_the_times_of_the_frames(tmp_path: Path) -> None:
    times = [0, 3000, 9000, 12000, 30000, 33000, 36000, 50000, 60000, 61000, 62000, 90001]
    clip = write_clip(tmp_path / "in/a.mp4", times=times, unit=Fraction(1, 90000))
    videos = Videos(kinds=("overlay", "masks", "errors"))
    assert videos.predict(predictor_of(tmp_path), [(clip, Path("a.mp4"))], None) == []
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if "in/" not in str(path))
    assert files == ["videos/errors/a.mp4", "videos/masks/a.mp4", "videos/overlay/a.mp4"]
    predictor = predictor_of(tmp_path / "files")
    Videos().predict(predictor, [(clip, Path("a.mp4"))], None)
    for kind, folder in (("overlay", "pictures"), ("masks", "masks"), ("errors", "errors")):
        found, seconds = read_clip(tmp_path / f"videos/{kind}/a.mp4")
        assert seconds == pytest.approx([time / 90000 for time in times], abs=1e-6)
        assert len(found) == COUNT
        for number, picture in enumerate(found, 1):
            expected = np.asarray(Image.open(tmp_path / f"files/{folder}/a/{number:06d}.png"))
            expected = palette(3).numpy()[expected] if kind == "masks" else expected
            expected = expected if expected.ndim == 3 else expected[..., None]
            assert np.abs(inside(picture).astype(float) - inside(expected)).mean() < 3, (kind, number)


@pytest.mark.parametrize("encoders", [video_writer.ENCODERS, ("mpeg4",)])
def test_odd_sides_and_turned_videos_keep_their_size(
    encoders: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_writer, "ENCODERS", encoders)
    clip = turn(
        write_clip(tmp_path / "a.mp4", pictures(size=(47, 63)), unit=Fraction(1, 90000), times=range(0, 90000, 7500)), 6
    )
    assert Videos(kinds=("masks",)).predict(predictor_of(tmp_path), [(clip, Path("a.mp4"))], None) == []
    frames, seconds = read_clip(tmp_path / "videos/masks/a.mp4")
    assert len(frames) == COUNT
    assert frames[0].shape == (63, 47, 3)
    assert seconds == sorted(seconds)
    red = palette(3).numpy()[1].astype(float)
    assert np.abs(frames[0][4:28, 28:43] - red).mean() < 6, "the red quarter is at the upper right"


def test_a_video_of_each_nth_frame_lasts_as_long(clip: Path, tmp_path: Path) -> None:
    Videos(every=3, kinds=("overlay",)).predict(predictor_of(tmp_path), [(clip, Path("a.mp4"))], None)
    with Video(tmp_path / "videos/overlay/a.mp4") as video:
        moments = [frame.moment for frame in video.frames()]
        assert video.rate == 4
    assert [moment.seconds for moment in moments] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert float(moments[-1].duration * video.time_base) == pytest.approx(0.25)


def test_damaged_videos_give_what_can_be_decoded_and_one_line(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "b.mp4")
    clips = [
        cut(write_clip(tmp_path / "a.mp4", noise(24), index_first=True)),
        write_sound(tmp_path / "c.mp4"),
        whole,
    ]
    names = [(path, Path(path.name)) for path in clips]
    for options in (Videos(), Videos(kinds=("masks",))):
        lines = options.predict(predictor_of(tmp_path / "out"), names, None)
        assert len(lines) == 2
        assert "a.mp4: corrupt or truncated video, " in lines[0]
        assert "c.mp4: found no video stream" in lines[1]
    count = len(list((tmp_path / "out/masks/a").iterdir()))
    assert f" {count} of 24 frames were read" in lines[0]
    assert len(read_clip(tmp_path / "out/videos/masks/a.mp4")[0]) == count > 8
    assert len(read_clip(tmp_path / "out/videos/masks/b.mp4")[0]) == COUNT
    assert sorted(path.name for path in (tmp_path / "out/videos/masks").iterdir()) == ["a.mp4", "b.mp4"]


def test_frames_that_the_network_refuses_are_counted_once(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Bright, image: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("too small")

    monkeypatch.setattr(Bright, "forward", refuse)
    (line,) = Videos(kinds=("masks",)).predict(predictor_of(tmp_path), [(clip, Path("a.mp4"))], None)
    assert line.startswith(f"{clip}: {COUNT} of its frames could not be predicted; the first: this image of 64x48")
    assert not list(tmp_path.rglob("*.*")), "no video without a frame"


def test_an_interruption_leaves_no_half_video_and_the_call_can_be_repeated(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, videos = VideoWriter.add, [(clip, Path("a.mp4")), (clip, Path("b.mp4"))]

    def interrupted(self: VideoWriter, picture: np.ndarray, moment: Moment) -> None:
        if "b.mp4" in str(self.path) and moment.number == 5:
            raise KeyboardInterrupt
        add(self, picture, moment)

    monkeypatch.setattr(VideoWriter, "add", interrupted)
    predictor, options = predictor_of(tmp_path), Videos(kinds=("masks",))
    with pytest.raises(KeyboardInterrupt, match=r"frames of .*a\.mp4 \(video 2 of 2\); continue .* --skip-existing"):
        options.predict(predictor, videos, None)
    assert [path.name for path in (tmp_path / "videos/masks").iterdir()] == ["a.mp4"]
    first = (tmp_path / "videos/masks/a.mp4").stat()
    monkeypatch.setattr(VideoWriter, "add", add)
    assert options.predict(predictor, videos, None, skip_existing=True) == []
    assert sorted(path.name for path in (tmp_path / "videos/masks").iterdir()) == ["a.mp4", "b.mp4"]
    assert (tmp_path / "videos/masks/a.mp4").stat().st_ino == first.st_ino, "it was complete"


def test_a_full_disk_is_an_error_of_the_file_system() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"), full.open("r+b", buffering=0) as file:
        writer = VideoWriter(Path("a.mp4"), file, Fraction(12), Fraction(1, 12))
        for number, picture in enumerate(noise(60, (480, 640))):
            writer.add(picture, Moment(number + 1, number / 12, number, 1))
        writer.finish()


def test_options_that_fit_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match="--every: 0 found"):
        Videos(every=0)
    with pytest.raises(SemipixError, match="--video: 'mask' found, expected overlay, masks, errors"):
        Videos(kinds=("mask",))  # type: ignore[arg-type]


def test_results_are_not_written_over_inputs(tmp_path: Path) -> None:
    predictor, clip = predictor_of(tmp_path), tmp_path / "videos/masks/a.mp4"
    with pytest.raises(SemipixError, match="a result would be written over this input"):
        Videos(kinds=("masks",)).refuse_overwriting([(clip, Path("a.mp4"))], [], predictor)
    image = (tmp_path / "masks/a/000001.png", Path("000001.png"))
    with pytest.raises(SemipixError, match="results would be written to its folder"):
        Videos().refuse_overwriting([(clip, Path("a.mp4"))], [image], predictor)
    image = (tmp_path / "in/a/000001.png", Path("a/000001.png"))
    with pytest.raises(SemipixError, match="would both be written to a/; rename one"):
        Videos().refuse_overwriting([(clip, Path("a.mp4"))], [image], predictor)
    Videos().refuse_overwriting([(clip, Path("a.mp4"))], [(tmp_path / "in/a.png", Path("a.png"))], predictor)


def test_the_command_predicts_images_and_videos_with_scores(finished: Path, command: Command, tmp_path: Path) -> None:
    assert command("calibrate", finished).code == 0
    write_clip(tmp_path / "in/clip.mp4")
    Image.fromarray(pictures()[0]).save(tmp_path / "in/photo.png")
    result = command("predict", finished, "in", "--out", "out", "--every", "6")
    assert result.code == 0, result.err
    assert sorted(str(path.relative_to("out/masks")) for path in Path("out/masks").rglob("*.png")) == [
        *("clip/000001.png", "clip/000007.png", "photo.png"),
    ]
    with Path("out/scores.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert {name: row["seconds"] for name, row in rows.items()} == {
        "clip/000001.png": "0.000",
        "clip/000007.png": "0.500",
        "photo.png": "",
    }
    assert all(0 <= float(row["expected_error"]) <= 1 for row in rows.values())
    table = ScoreTable(Path("out"), classification=True)
    assert table.has("clip/000007.png", None), "a table with times is read again"
    result = command("predict", finished, "in/clip.mp4", "--out", "out", "--video", "overlay", "--skip-existing")
    assert result.code == 0
    assert result.out == "out: see errors, masks, pictures, videos\n"
    assert len(read_clip(Path("out/videos/overlay/clip.mp4"))[0]) == COUNT


def test_the_command_names_what_it_cannot_do_with_videos(
    finished: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in/clip.mp4")
    Image.fromarray(pictures()[0]).save(tmp_path / "photo.png")
    found = command("predict", finished, "in", "--out", "out", "--engine", "ray")
    assert "in/clip.mp4: found a video, which --engine ray does not read; take --engine local" in found.error
    found = command("predict", finished, "in", "--out", "out", "--write", "coco")
    assert "--write: no annotations of 1 video" in found.error
    found = command("predict", finished, "photo.png", "--out", "out", "--video", "masks")
    assert "--video: found no video among the inputs; leave it out, or name a video" in found.error
    found = command("predict", finished, "in", "--out", "out", "--every", "0")
    assert "--every: 0 found, a whole number from 1 expected" in found.error
    real = importlib.util.find_spec
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None if name == "av" else real(name))
    found = command("predict", finished, "in", "--out", "out")
    assert "1 video is left out (clip.mp4), since PyAV is not installed, and there is no image" in found.error
    assert not Path("out").exists()
    (tmp_path / "photo.png").rename(tmp_path / "in/photo.png")
    found = command("predict", finished, "in", "--out", "out")
    assert found.code == 0
    assert "semipix: in: 1 video is left out (clip.mp4), since PyAV is not installed; install it by: " in found.err
    assert [path.name for path in Path("out/masks").iterdir()] == ["photo.png"]
