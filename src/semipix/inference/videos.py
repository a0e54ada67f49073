"""Predict videos frame by frame: numbered masks, pictures and error maps, or videos of them.

1. One thread decodes the frames (`data.files.video`), so that memory does not grow with the length of the video.
2. They are computed in batches, as images are (`pipeline.predict_frames`).
3. One thread draws them, in their order, and writes a file for each, or encodes them (`VideoWriter`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from semipix.atomic import written
from semipix.data.files.video import Take, Video, every_nth, frame_name
from semipix.errors import SemipixError
from semipix.inference.drawing import Drawing
from semipix.inference.pipeline import Failure, predict_frames
from semipix.inference.predictor import Photo, Predictor
from semipix.inference.scores import Score, ScoreTable
from semipix.inference.video_writer import VideoWriter
from semipix.interruption import Interrupted, deferred, number_of, raise_if_interrupted
from semipix.tasks.segmentation import palette

VideoKind = Literal["overlay", "masks", "errors"]

VIDEO_KINDS: tuple[VideoKind, ...] = ("overlay", "masks", "errors")

FOLDER = "videos"

Name = tuple[Path, Path]
"""A video file, with its name relative to the given folder."""


@dataclass(frozen=True)
class Videos:
    """How videos are predicted.

    Attributes:
        every: only each Nth frame is predicted, beginning with the first.
        kinds: write videos of these kinds instead of files for each frame: `overlay`, the pictures; `masks`, the
            classes in the colours of the pictures; `errors`, the error map, where white is a certain error.

    Raises:
        SemipixError: `every` is below 1, or a kind is unknown.
    """

    every: int = 1
    kinds: Sequence[VideoKind] = ()

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SemipixError(f"--every: {self.every} found, a whole number from 1 expected")
        if wrong := [kind for kind in self.kinds if kind not in VIDEO_KINDS]:
            raise SemipixError(f"--video: {wrong[0]!r} found, expected {', '.join(VIDEO_KINDS)}")

    @property
    def given(self) -> str:
        """The first option that differs from its default, or an empty string."""
        return "--video" if self.kinds else "--every" if self.every > 1 else ""

    def check(self, predictor: Predictor) -> None:
        """Check before anything is predicted that the run can give these kinds.

        Raises:
            SemipixError: the task has no classes, and masks are asked for.
        """
        if "masks" in self.kinds and not predictor.task.classification:
            raise SemipixError(
                f"--video masks: found the task {type(predictor.task).__name__}, expected classes; take --video overlay"
            )

    def outputs(self, name: Path, out: Path) -> list[Path]:
        """The videos that are written for a video of this name."""
        return [out / FOLDER / kind / name.with_suffix(".mp4") for kind in self.kinds]

    def refuse_overwriting(self, videos: Sequence[Name], images: Sequence[Name], predictor: Predictor) -> None:
        """Check that no result of a video would be written over an input, or over the result of an image.

        Raises:
            SemipixError: it would.
        """
        inputs = {file.resolve(): file for file, _ in (*videos, *images)}
        folders = {file.resolve().parent: file for file, _ in images}
        names = {name.parent: file for file, name in images if name.stem.isdigit()}
        for file, name in videos:
            folder = name.with_suffix("")
            if other := names.get(folder):
                raise SemipixError(f"{file} and {other} would both be written to {folder}/; rename one")
            for output in self.outputs(name, predictor.out):
                if found := inputs.get(output.resolve()):
                    raise SemipixError(f"{found}: a result would be written over this input; choose another --out")
            for output in [] if self.kinds else predictor.outputs(frame_name(folder, 1))[:-1]:
                if found := folders.get(output.parent.resolve()):
                    raise SemipixError(f"{found}: results would be written to its folder; choose another --out")

    def predict(
        self, predictor: Predictor, videos: Sequence[Name], table: ScoreTable | None, skip_existing: bool = False
    ) -> list[Failure]:
        """Predict videos, one after another.

        Args:
            predictor: computes and writes.
            videos: the files.
            table: gets the scores of all frames.
            skip_existing: skip frames, or with `kinds` whole videos, that an earlier call has predicted.

        Returns:
            A line for each video that could not be read or predicted completely.

        Raises:
            OSError: results cannot be written.
            KeyboardInterrupt: the user interrupted; its message says how to continue.
        """
        failures = []
        for number, (file, name) in enumerate(videos, 1):
            first = frame_name(name.with_suffix(""), 1)
            paths = self.outputs(name, predictor.out)
            if skip_existing and paths and all(path.exists() for path in paths) and _has_score(predictor, table, first):
                continue
            prediction = _VideoPrediction(predictor, file, name, table, skip_existing and not paths)
            try:
                failures += prediction.run(self)
            except KeyboardInterrupt as error:
                where = f"{prediction.done} frames of {file} (video {number} of {len(videos)})"
                message = f"interrupted after {where}; continue with the same command and --skip-existing"
                raise Interrupted(number_of(error), message) from error
            finally:
                predictor.sink = None
        return failures


class _VideoPrediction:
    """The prediction of one video.

    Args:
        predictor: computes and writes.
        file: the video.
        name: its name relative to the given folder.
        table: gets the scores of its frames.
        skip: whether frames that were predicted are skipped.

    Attributes:
        done: number of frames that were predicted, or could not be.
    """

    def __init__(self, predictor: Predictor, file: Path, name: Path, table: ScoreTable | None, skip: bool) -> None:
        self.predictor = predictor
        self.file = file
        self.name = name
        self.table = table
        self.skip = skip
        self.done = 0

    def run(self, options: Videos) -> list[Failure]:
        """Predict all frames; lines about those that could not be read or predicted."""
        errors: list[Failure] = []
        try:
            with Video(self.file, self.predictor.reader.max_pixels) as video, ExitStack() as files:
                sink = None
                if options.kinds:
                    paths = options.outputs(self.name, self.predictor.out)
                    sink = _VideoSink(dict(zip(options.kinds, paths, strict=True)), video, options.every, files)
                self.predictor.sink = sink
                self._predict(video, options.every, errors)
                if self.table is not None:
                    self.table.write()  # before a video gets its name, by which it counts as predicted
                if sink is not None:
                    sink.finish()
                problem = video.problem()
        except SemipixError as error:
            return [str(error)]
        lines = [problem] if problem else []
        if errors:
            first = errors[0].removeprefix(f"{self.file}: ")
            lines.append(f"{self.file}: {len(errors)} of its frames could not be predicted; the first: {first}")
        return lines

    def _predict(self, video: Video, every: int, errors: list[Failure]) -> None:
        """Predict the frames that are asked for and collect their scores and errors."""
        total = None if video.expected is None else -(-video.expected // every)
        frames = self._photos(video, every_nth(every))
        with (
            deferred("batch"),
            closing(predict_frames(self.predictor, frames)) as ended,
            tqdm(ended, f"predict {self.file.name}", total, unit="frame") as progress,
        ):
            for item in progress:
                self.done += 1
                if isinstance(item, Failure):
                    errors.append(item)
                elif isinstance(item, Score) and self.table is not None:
                    self.table.add(item)
                    self.table.write_now_and_then()
                raise_if_interrupted()

    def _photos(self, video: Video, takes: Take) -> Iterator[Photo | Failure]:
        """The frames that are predicted, or the error of one."""
        folder = self.name.with_suffix("")

        def take(number: int, seconds: float) -> bool:
            return takes(number, seconds) and not (self.skip and self._is_done(frame_name(folder, number)))

        for frame in video.frames(take):
            try:
                yield self.predictor.read_frame(self.file, frame_name(folder, frame.moment.number), frame)
            except SemipixError as error:
                yield str(error)

    def _is_done(self, frame: Path) -> bool:
        return self.predictor.is_done(frame) and _has_score(self.predictor, self.table, frame)


class _VideoSink:
    """Takes the results of frames, in their order, and encodes them as videos, which begin with the first frame.

    Args:
        paths: the video to write of each kind.
        video: the video that is read.
        every: each how many frames one is written.
        files: gets the files, which are renamed when it is closed without an error.
    """

    def __init__(self, paths: Mapping[VideoKind, Path], video: Video, every: int, files: ExitStack) -> None:
        self.paths = paths
        self.video = video
        self.every = every
        self.files = files
        self._writers: dict[VideoKind, VideoWriter] = {}

    def __call__(self, photo: Photo, drawing: Drawing) -> None:
        assert photo.moment is not None
        pictures = {kind: _picture(kind, drawing) for kind in self.paths}
        moment = photo.moment._replace(duration=photo.moment.duration * self.every)
        for kind, picture in pictures.items():
            if kind not in self._writers:
                self._writers[kind] = self._open(self.paths[kind])
            self._writers[kind].add(picture, moment)

    def finish(self) -> None:
        """Complete the files."""
        for writer in self._writers.values():
            writer.finish()

    def _open(self, path: Path) -> VideoWriter:
        video = self.video
        file = self.files.enter_context(written(path))
        return VideoWriter(path, file, video.rate / self.every, video.time_base, video.pixel_aspect)


def _picture(kind: VideoKind, drawing: Drawing) -> NDArray[np.uint8]:
    """What a video of a kind shows of a frame, (H, W, 3) or (H, W).

    Raises:
        SemipixError: an error map is asked for, and there is none.
    """
    if kind == "overlay":
        array = drawing.picture.whole()
    elif kind == "masks":
        array = palette(drawing.task.channels)[drawing.prediction.whole().long()]
    elif drawing.errors is None:
        raise SemipixError("--video errors: this run has no error map; leave it out")
    else:
        array = drawing.errors.whole()
    pixels: NDArray[np.uint8] = array.numpy()
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _has_score(predictor: Predictor, table: ScoreTable | None, frame: Path) -> bool:
    """Whether the table has a frame, or there is no table."""
    return table is None or table.has(frame.as_posix(), predictor.risk)
