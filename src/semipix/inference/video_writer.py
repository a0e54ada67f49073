"""Write pictures as a video with PyAV: H.264, or MPEG-4 if PyAV's FFmpeg has no encoder for it."""

from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from semipix.data.files.sizes import Size
from semipix.data.files.video import Moment, load_av
from semipix.errors import SemipixError, reason_of

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""FFmpeg's names of the encoders; the first one that there is is taken."""

QUALITY = 16
"""Constant rate factor of x264: colours of areas are within a few levels of the pictures', files are still small."""

_QUANTISER = 3
"""Quantiser of MPEG-4, from 1 (best) to 31."""

_MOST_UNITS = 65535
"""Largest number of units in a second that MPEG-4 can store."""

_MPEG4_UNIT = Fraction(1, 60000)

_BT709 = 1
"""FFmpeg's number for the colours of high definition, as matrix, primaries and transfer."""

_LIMITED = 1
"""FFmpeg's number for the range of luma from 16 to 235, which all players show."""


class VideoWriter:
    """Writes frames into an MP4 file, at the times that they have in the video that was read.

    All frames have the size of the first. Sides may be odd; H.264 then stores colours at full resolution, which most
    players but not all browsers show.

    Args:
        path: the file's name in messages.
        file: where to; it must be possible to seek in it.
        rate: frames a second, on average.
        time_base: seconds in a unit of the frames' times.
        pixel_aspect: width of a pixel divided by its height.

    Attributes:
        count: frames that were written.
    """

    def __init__(
        self, path: Path, file: IO[bytes], rate: Fraction, time_base: Fraction, pixel_aspect: Fraction = Fraction(1)
    ) -> None:
        self.path = path
        self.count = 0
        self._av = load_av()
        self._rate = rate.limit_denominator(10**6)
        self._time_base = self._unit = time_base
        self._pixel_aspect = pixel_aspect
        self._container: Any = self._av.open(file, "w", format="mp4")
        self._stream: Any = None
        self._last = -1  # time of the last frame; two frames at one time are refused by encoders

    def add(self, picture: NDArray[np.uint8], moment: Moment) -> None:
        """Write the next frame.

        Args:
            picture: (H, W, 3), or (H, W) for grey.
            moment: when and how long it is shown.

        Raises:
            SemipixError: FFmpeg cannot encode it.
            OSError: the file cannot be written.
        """
        try:
            if self._stream is None:
                self._start((picture.shape[0], picture.shape[1]))
            colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(colours), format="rgb24")
            frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=_BT709, dst_color_range=_LIMITED)
            frame.time_base = self._unit
            frame.pts = self._last = max(self._units(moment.start), self._last + 1)
            frame.duration = max(0, self._units(moment.start + moment.duration) - frame.pts)
            self._mux(frame)
        except self._av.FFmpegError as error:
            self._refuse(error)
        self.count += 1

    def finish(self) -> None:
        """Write what the encoder still holds, and the index.

        Raises:
            SemipixError: FFmpeg cannot encode it.
            OSError: the file cannot be written.
        """
        try:
            if self._stream is not None:
                self._mux(None)
            self._container.close()
        except self._av.FFmpegError as error:
            self._refuse(error)

    def _start(self, size: Size) -> None:
        """Choose the encoder, and begin a stream of this size."""
        height, width = size
        odd = bool(width % 2 or height % 2)
        usable = [name for name in ENCODERS if not (odd and name == "libopenh264")]  # it takes even sizes only
        name = next((name for name in usable if name in self._av.codecs_available), None)
        if name is None:
            raise SemipixError(
                f"{self.path}: PyAV's FFmpeg has no encoder for H.264 or MPEG-4; install PyAV's own wheel, or leave "
                "--video out"
            )
        stream = self._container.add_stream(name, rate=self._rate)
        context = stream.codec_context
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if name == "libx264" and odd else "yuv420p"
        if name == "mpeg4":
            context.qmin = context.qmax = _QUANTISER
            self._unit = self._time_base if self._time_base.denominator <= _MOST_UNITS else _MPEG4_UNIT
        else:
            context.options = {"crf": str(QUALITY)} if name == "libx264" else {}
        context.time_base = stream.time_base = self._unit
        context.sample_aspect_ratio = self._pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._stream = stream

    def _units(self, time: int) -> int:
        """A time in units of the encoder's time base."""
        return round(time * self._time_base / self._unit)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _refuse(self, error: Exception) -> None:
        """Raise an error of FFmpeg as one of the file system or of the user."""
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
        raise SemipixError(f"{self.path}: the video could not be written ({reason_of(error, 80)})") from error
