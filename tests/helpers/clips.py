"""Small videos, written by PyAV itself."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SIZE = (48, 64)
"""Height and width."""

COUNT = 12
"""Frames."""

RATE = 12

MATRICES = {1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 8: (0, -1, 1, 0)}
"""The numbers a, b, c and d of the display matrix by orientation tag: (x, y) is shown at (a x + c y, b x + d y)."""


def pictures(count: int = COUNT, size: tuple[int, int] = SIZE) -> list[Picture]:
    """Frame N is grey of the level 15 N, with a red upper left quarter."""
    found = []
    for number in range(count):
        picture = np.full((*size, 3), 15 * number % 256, np.uint8)
        picture[: size[0] // 2, : size[1] // 2] = (200, 20, 20)
        found.append(picture)
    return found


def noise(count: int = COUNT, size: tuple[int, int] = SIZE) -> list[Picture]:
    """Pictures that take many bytes, so that a part of the file holds a part of the frames."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (*size, 3), np.uint8) for _ in range(count)]


def write_clip(
    path: Path,
    frames: Sequence[Picture] | None = None,
    *,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, RATE),
    index_first: bool = False,
) -> Path:
    """Write a video; `times` are in units of `unit`, and `index_first` makes a file that can be read when it is cut."""
    import av

    frames = pictures() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if codec == "libx264" and (width % 2 or height % 2) else "yuv420p"
        stream.codec_context.time_base = stream.time_base = unit
        if codec == "libx264":
            stream.codec_context.options = {"crf": "4"}
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (number if times is None else times[number]), unit
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def cut(path: Path, share: float = 0.6) -> Path:
    """Keep the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def turn(path: Path, orientation: int) -> Path:
    """Set the display matrix of an MP4 file, as a phone that was held in another way does."""
    a, b, c, d = (number << 16 for number in MATRICES[orientation])
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and, as its cover, a picture."""
    import av
    from av.stream import Disposition

    with av.open(str(path), "w") as file:
        sound, cover = file.add_stream("aac", rate=8000), file.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        file.mux([*sound.encode(frame), *sound.encode(None)])
        picture = av.VideoFrame.from_ndarray(pictures()[0], format="rgb24")
        picture.pts = 0
        file.mux([*cover.encode(picture), *cover.encode(None)])
    return path


def read_clip(path: Path) -> tuple[list[Picture], list[float]]:
    """The frames of a video with their times in seconds."""
    import av

    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [float(frame.time or 0) for frame in frames]
