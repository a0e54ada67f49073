"""Read video files frame by frame with PyAV, which brings FFmpeg's decoders.

A video is decoded once from its beginning, and only the frames that are asked for are converted to RGB, so memory does
not grow with its length. `semipix predict` and `semipix data frames` read videos only here.
"""

import importlib
import importlib.util
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semipix.data.files.listing import split_extension, walk
from semipix.data.files.opening import MAX_PIXELS, SIDEWAYS, check_pixels, upright
from semipix.errors import SemipixError, UnreadableFileError, reason_of

EXTENSIONS = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
        *(".3gp", ".ogv"),
    }
)
"""Extensions of video files, in lower case."""

INSTALL = "install it by: pip install 'semipix[video]'"

_OPTIONS = {
    "format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,asf,flv,ogg",
    "protocol_whitelist": "file",
}
"""FFmpeg's formats of video files. Without the list it would also read playlists, which name other files."""

_TIME_BASE = 1_000_000
"""FFmpeg's units in a second for times of a whole file."""

Take = Callable[[int, float], bool]
"""Whether to read a frame, by its number and its time in seconds; called once for each frame, in their order."""


class Moment(NamedTuple):
    """Where a frame is in its video.

    Attributes:
        number: its number among all frames of the video, from 1, as `ffmpeg -i clip.mp4 -fps_mode passthrough %06d.png`
            and `semipix data frames` number images.
        seconds: time since the first frame.
        start: the same time in units of the video's time base.
        duration: how long it is shown, in the same units; 0 if the file does not say it.
    """

    number: int
    seconds: float
    start: int
    duration: int


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        moment: where it is in the video.
        pixels: (3, H, W) uint8, upright, in memory with channels last.
        damaged: whether the decoder has found errors in it; parts of it may be invented.
    """

    moment: Moment
    pixels: Tensor
    damaged: bool


class Video:
    """A video file that is open, as a context manager. It can be read once.

    Of several video streams FFmpeg's best one is read; covers of audio files are no video.

    Args:
        path: the file.
        max_pixels: most pixels of a frame; the `data.max_pixels` setting.

    Attributes:
        rate: frames a second, an average for a video whose rate varies.
        time_base: seconds in a unit of `Moment.start`.
        pixel_aspect: width of a pixel divided by its height, of the upright frame; 1 if the file does not say it.
        expected: number of frames by the file's header; None if it cannot be known before they are read.
        count: number of frames that were decoded so far, also of those that were not asked for.

    Raises:
        UnreadableFileError: the file is missing, no video, has no video stream, or its frames are too large.
        SemipixError: PyAV is not installed.
    """

    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction
    expected: int | None

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self.max_pixels = max_pixels
        self.count = 0
        self._av = load_av()
        self._errors: list[str] = []
        self._damaged = 0
        self._first = 0  # stored time of the first frame
        self._last: int | None = None  # `Moment.start` of the last frame
        self._end = 0.0  # seconds after which the last frame ends
        self._longest = 0.0  # seconds between two frames
        try:
            # The prefix keeps FFmpeg from reading a name such as "http:a.mp4" as an address.
            self._container = self._av.open(f"file:{path}", options=_OPTIONS)
        except FileNotFoundError:
            raise UnreadableFileError(f"{path}: no such file; restore it") from None
        except (self._av.FFmpegError, OSError) as error:
            raise _unreadable(path, _cause(error)) from None
        try:
            self._open()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def frames(self, take: Take | None = None) -> Iterator[Frame]:
        """The frames in the order in which they are shown, upright as a player turns them.

        A damaged file gives all frames that can be decoded; `problem` says what is missing. If the size changes within
        a video, later frames are scaled to the size of the first, as ffmpeg does.

        Args:
            take: which frames are converted and given; by default all.

        Raises:
            UnreadableFileError: a frame has more than `max_pixels` pixels.
        """
        orientation, width, height = 1, 0, 0
        for frame in self._decoded():
            self.count += 1
            if self.count == 1:
                width, height, orientation = frame.width, frame.height, _orientation(frame)
                check_pixels(self.path, (height, width), self.max_pixels)
                if orientation in SIDEWAYS:
                    self.pixel_aspect = 1 / self.pixel_aspect
            moment = self._moment(frame)
            damaged = bool(frame.is_corrupt)
            self._damaged += damaged
            if take is not None and not take(moment.number, moment.seconds):
                continue
            stored: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=height)
            pixels = np.ascontiguousarray(upright(stored, orientation))
            yield Frame(moment, torch.from_numpy(pixels).permute(2, 0, 1), damaged)

    def problem(self) -> str | None:
        """One line about what is damaged or missing, when all frames were read; None if nothing is."""
        interval = max(self._longest, float(1 / self.rate))
        missing = self._duration is not None and self._duration - self._end > 2 * interval
        if not (missing or self._errors or self._damaged or not self.count):
            return None
        of = f" of {self.expected}" if self.expected and self.expected > self.count else ""
        causes = list(dict.fromkeys(self._errors))[:1]
        if missing and self._duration is not None:
            causes.append(f"it ends after {self._end:.3g} of {self._duration:.3g} seconds")
        if self._damaged:
            causes.append(f"{self._damaged} of these frames are damaged")
        why = f" ({', '.join(causes)})" if causes else ""
        return f"{self.path}: corrupt or truncated video, {self.count}{of} frames were read{why}; replace the file"

    def _open(self) -> None:
        """Choose the stream and read its header."""
        container = self._container
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        best = container.streams.best("video")
        stream = best if best in streams else next(iter(streams), None)
        if stream is None:
            names = {"cover" if item.type == "video" else item.type for item in container.streams}
            others = ", ".join(sorted(names))
            if not others:
                raise _unreadable(self.path, "no stream found")
            raise UnreadableFileError(
                f"{self.path}: found no video stream (streams: {others}), expected one; remove the file"
            )
        if stream.codec_context is None:
            raise UnreadableFileError(
                f"{self.path}: its codec is unknown to PyAV's FFmpeg; convert it, such as to H.264"
            )
        if stream.width and stream.height:
            check_pixels(self.path, (stream.height, stream.width), self.max_pixels)
        stream.thread_type = "AUTO"
        self._stream = stream
        self.time_base = Fraction(stream.time_base or Fraction(1, _TIME_BASE))
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        self._duration = self._header_duration()
        self.expected = stream.frames or (round(self._duration * self.rate) if self._duration else None)

    def _header_duration(self) -> float | None:
        """Seconds of the video stream by the header; None if it does not say it."""
        stream = self._stream
        if stream.duration:
            return float(stream.duration * self.time_base)
        tag = str(stream.metadata.get("DURATION", "")).split(":")  # of Matroska
        with suppress(ValueError):
            return sum(float(part) * float(60**power) for power, part in enumerate(reversed(tag)))
        alone = len(self._container.streams) == 1  # else it may be that of a longer sound
        return float(self._container.duration / _TIME_BASE) if alone and self._container.duration else None

    def _decoded(self) -> Iterator[Any]:
        """PyAV's frames; errors are kept, and what follows them is decoded."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (self._av.FFmpegError, OSError) as error:
                self._errors.append(_cause(error))
                return
            if packet.is_corrupt:
                self._errors.append("a part of the data is missing")
            try:
                yield from packet.decode()
            except (self._av.FFmpegError, OSError) as error:
                self._errors.append(_cause(error))

    def _moment(self, frame: Any) -> Moment:
        """Where a frame is. In a damaged file times may be missing or not rise; they then follow the last frame."""
        if self._last is None:
            self._first = int(frame.pts or 0)
            start = 0
        else:
            step = max(1, round(1 / (self.rate * self.time_base)))
            start = self._last + step if frame.pts is None else max(int(frame.pts) - self._first, self._last + 1)
            self._longest = max(self._longest, float((start - self._last) * self.time_base))
        self._last = start
        duration, seconds = int(frame.duration or 0), float(start * self.time_base)
        self._end = seconds + float(duration * self.time_base if duration else 1 / self.rate)
        return Moment(self.count, seconds, start, duration)


def _unreadable(path: Path, cause: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: not a readable video ({cause}); it is damaged, was cut off before its index, or is no video; replace "
        "or remove the file"
    )


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video."""
    return split_extension(name)[1] in EXTENSIONS


def can_read_videos() -> bool:
    """Whether PyAV is installed; it is not imported."""
    return importlib.util.find_spec("av") is not None


def load_av() -> Any:
    """Import PyAV.

    Raises:
        SemipixError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise SemipixError(f"av: {error}; video files need PyAV, {INSTALL}") from None


def every_nth(every: int) -> Take:
    """Takes frames 1, 1 + N, 1 + 2 N ..."""
    return lambda number, seconds: (number - 1) % every == 0


def at_rate(rate: float) -> Take:
    """Takes the first frame of each interval of 1 / rate seconds; all frames if the video has fewer a second."""
    last = -1

    def take(number: int, seconds: float) -> bool:
        nonlocal last
        interval = int(seconds * rate + 1e-6)
        if interval == last:
            return False
        last = interval
        return True

    return take


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture of an audio file."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _orientation(frame: Any) -> int:
    """The orientation of a frame as an EXIF tag has it, 1 to 8, from the display matrix that phones write.

    The matrix maps a stored pixel (x, y) to (a x + c y, b x + d y); its numbers have 16 bits after the point.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return orientation_of(a, b, c, d)


def orientation_of(a: int, b: int, c: int, d: int) -> int:
    """The orientation tag of a display matrix; angles between are taken as the nearest multiple of 90 degrees."""
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[a >= 0, d >= 0]
    return {(True, True): 5, (True, False): 6, (False, False): 7, (False, True): 8}[b >= 0, c >= 0]


def _cause(error: BaseException) -> str:
    """What FFmpeg says about an error, without the numbers and names around it."""
    text = getattr(error, "strerror", None)
    return str(text) if text else reason_of(error, 80)


def frame_name(folder: Path, number: int) -> Path:
    """The name of an image of a frame: `000001.png` in the folder, as `semipix data frames` writes it.

    `ffmpeg -i clip.mp4 -fps_mode passthrough %06d.png` writes the same names. Without this mode it repeats and drops
    frames of a video whose rate varies, so that later numbers differ.
    """
    return folder / f"{number:06d}.png"


def find_videos(paths: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """The video files in files and folders, by the rules for data folders.

    Args:
        paths: video files, or folders that are searched with their subfolders.

    Returns:
        videos: each with its name relative to the given folder.
        left_out: lines, with counts, about what is not read.

    Raises:
        SemipixError: a path does not exist, a folder holds no video, or two videos have the same name.
    """
    videos: list[tuple[Path, Path]] = []
    left_out: list[str] = []
    for path in paths:
        if path.is_file():
            videos.append((path, Path(path.name)))
            continue
        if not path.is_dir():
            raise SemipixError(f"{path}: no such file or folder; name video files or folders of videos")
        walked = walk(path)
        names = [name for name in walked.files if is_video(name)]
        if not names:
            raise SemipixError(f"{path}: no video found; expected files ending in {', '.join(sorted(EXTENSIONS))}")
        videos += [(path / name, Path(name)) for name in names]
        left_out += walked.left_out(path, [name for name in walked.files if not is_video(name)], "videos")
    refuse_same_folders(videos)
    return videos, left_out


def refuse_same_folders(videos: Sequence[tuple[Path, Path]]) -> None:
    """Check that the frames of no two videos would be written to the same folder.

    Args:
        videos: files, each with the name that its folder is made of.

    Raises:
        SemipixError: two have the same name up to the extension.
    """
    seen: dict[Path, Path] = {}
    for file, name in videos:
        other = seen.setdefault(name.with_suffix(""), file)
        if other != file:
            raise SemipixError(f"{file} and {other} would both be written as {name.with_suffix('')}/; rename one")
