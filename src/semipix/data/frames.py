"""`semipix data frames`: write frames of videos into a data folder, so that training can use them.

1. The frames of a video `CLIP.mp4` are written to `unlabeled/CLIP` or `images/train/CLIP`, by their numbers.
2. `scenes.txt` lists `CLIP`, so that frames of one video are never in both training and evaluation.
3. The folder has a random name until it is complete, so that an interruption leaves no part of a video behind.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from tqdm import tqdm

from semipix.atomic import write_text, written_folder
from semipix.data.files.listing import MASKS, PAIRS, SCENES_FILE, SPLITS, UNLABELED
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.video import Frame, Take, Video, at_rate, every_nth, find_videos, frame_name, load_av
from semipix.data.sources.scene_folders import add_scene
from semipix.errors import SemipixError
from semipix.interruption import Interrupted, deferred, number_of, raise_if_interrupted

Part = Literal["unlabeled", "train"]

FrameFormat = Literal["png", "jpg"]

WRITERS = 2
"""Threads that encode images."""

WAITING = 8
"""Most frames that wait to be encoded."""

JPEG_QUALITY = 95


@dataclass
class Frames:
    """What was written.

    Attributes:
        lines: a line for each video, with counts.
        left_out: lines, with counts, about what is not read or was left out.
        problems: a line for each video that could not be read, or not completely.
    """

    lines: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _NothingWritten(Exception):  # noqa: N818
    """Ends the writing of a folder, so that it is removed."""


def write_frames(
    clips: Sequence[Path],
    root: Path,
    *,
    every: int | None = None,
    fps: float | None = None,
    split: Part = "unlabeled",
    form: FrameFormat = "png",
    skip_existing: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Frames:
    """Write frames of videos into a data folder, with the numbers that they have in the video.

    Frames that another part of the data folder has already, such as labeled ones, are left out, and so are frames in
    which the decoder finds errors.

    Args:
        clips: video files, or folders that are searched with their subfolders.
        root: the data folder; it is made if it is missing.
        every: take each Nth frame, beginning with the first; by default all.
        fps: take this many frames of each second instead.
        split: the part: `unlabeled/`, or the images of training, `images/train/` or `inputs/train/`.
        form: the format of the images.
        skip_existing: leave videos out whose folder is there.
        max_pixels: most pixels of a frame.

    Returns:
        Counts and problems.

    Raises:
        SemipixError: there is no video, an option is out of range, frames of a video are there, or PyAV is not
            installed.
        OSError: an image cannot be written; nothing of this video is left behind.
        KeyboardInterrupt: the user interrupted; videos before this one are complete.
    """
    if every is not None and every < 1:
        raise SemipixError(f"--every: {every} found, a whole number from 1 expected")
    if fps is not None and not 0 < fps < float("inf"):
        raise SemipixError(f"--fps: {fps} found, a number above 0 expected")
    load_av()
    root = root.expanduser()
    if root.exists() and not root.is_dir():
        raise SemipixError(f"{root}: found a file, expected a data folder; name the folder last")
    videos, left_out = find_videos(clips)
    frames = Frames(left_out=left_out)
    part = root / _folder_of(root, split)
    there = {name for _, name in videos if _has_files(part / name.with_suffix(""))}
    if there and not skip_existing:
        first = part / min(there).with_suffix("")
        raise SemipixError(f"{first}: frames are there; remove the folder, or leave such videos out by --skip-existing")
    if there:
        frames.left_out.append(f"{part}: {len(there)} of {len(videos)} videos are left out, since frames are there")
    for file, name in videos:
        if name in there:
            continue
        take = every_nth(every or 1) if fps is None else at_rate(fps)
        try:
            _write_video(file, name.with_suffix(""), root, part, take, form, max_pixels, frames)
        except KeyboardInterrupt as error:
            message = f"interrupted in {file}; continue with the same command and --skip-existing"
            raise Interrupted(number_of(error), message) from error
    return frames


def _write_video(
    file: Path, name: Path, root: Path, part: Path, take: Take, form: FrameFormat, max_pixels: int, frames: Frames
) -> None:
    """Write the frames of one video, and count them."""
    elsewhere = _numbers_elsewhere(root, part, name)
    damaged = skipped = written = 0
    try:
        with (
            Video(file, max_pixels) as video,
            written_folder(part / name) as folder,
            deferred("frame"),
            _ImageWriter(form) as writer,
        ):
            for frame in _with_progress(video, take):
                raise_if_interrupted()
                if frame.damaged:
                    damaged += 1
                elif frame.moment.number in elsewhere:
                    skipped += 1
                else:
                    writer.add(frame, frame_name(folder, frame.moment.number).with_suffix(f".{form}"))
                    written += 1
            writer.finish()
            if problem := video.problem():
                frames.problems.append(problem)
            if not written:
                raise _NothingWritten
            write_text(root / SCENES_FILE, add_scene(root, name.as_posix()), "surrogateescape")
    except SemipixError as error:
        frames.problems.append(str(error))
        return
    except _NothingWritten:
        pass
    frames.lines.append(f"{file}: {written} of {video.count} frames written to {part / name}")
    if skipped:
        frames.left_out.append(f"{file}: {skipped} frames are left out, since another part of {root} has them")
    if damaged:
        frames.left_out.append(f"{file}: {damaged} frames are left out, since they are damaged")


class _ImageWriter:
    """Encodes images in threads, as a context manager.

    Args:
        form: the format.
    """

    def __init__(self, form: FrameFormat) -> None:
        self._options: dict[str, Any] = {"quality": JPEG_QUALITY} if form == "jpg" else {}
        self._pool = ThreadPoolExecutor(WRITERS)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_ImageWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, frame: Frame, path: Path) -> None:
        """Write a frame, after at most `WAITING` others.

        Raises:
            OSError: this or an earlier one cannot be written.
        """
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        image = Image.fromarray(frame.pixels.permute(1, 2, 0).numpy())
        self._waiting.append(self._pool.submit(image.save, path, **self._options))

    def finish(self) -> None:
        """Wait until all are written.

        Raises:
            OSError: one cannot be written.
        """
        while self._waiting:
            self._waiting.popleft().result()


def _with_progress(video: Video, take: Take) -> Iterator[Frame]:
    """Frames of a video; the bar counts all that are decoded."""
    with tqdm(desc=f"frames of {video.path.name}", total=video.expected, unit="frame") as progress:
        for frame in video.frames(take):
            progress.update(video.count - progress.n)
            yield frame
        progress.update(video.count - progress.n)


def _folder_of(root: Path, split: str) -> str:
    """The folder of a part of a data folder with masks or, if it holds inputs, with pairs."""
    if split == UNLABELED:
        return UNLABELED
    layout = PAIRS if (root / PAIRS.images.partition("/")[0]).is_dir() else MASKS
    return layout.images.format(split=split)


def _has_files(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _numbers_elsewhere(root: Path, part: Path, name: Path) -> set[int]:
    """The numbers of the frames of a video that other parts have."""
    folders = [root / _folder_of(root, split) / name for split in (UNLABELED, *SPLITS)]
    others = [folder for folder in folders if folder != part / name and folder.is_dir()]
    return {int(file.stem) for folder in others for file in folder.iterdir() if file.stem.isdecimal()}
