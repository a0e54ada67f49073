"""Predict images for Python: files, Pillow's images and arrays to arrays, by the same steps as `semipix predict`."""

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile
from torch import Tensor

from semipix.data.files.decode import ARRAY, unit_range
from semipix.data.files.opening import Encoded
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError, one_line
from semipix.inference.drawing import Drawing
from semipix.inference.files import find_images
from semipix.inference.pipeline import Failure, failure_of, predict_files
from semipix.inference.prediction import Prediction
from semipix.inference.predictor import Photo, Predictor, Written

IN_MEMORY = "the image"
"""The name of an image without a file, in messages."""

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "F", "CMYK", "YCbCr")
"""Modes of Pillow's images that are read."""

NODATA = 42113
"""GDAL's tag of a TIFF for missing values."""

SCALES = {torch.uint8: 255, torch.uint16: 65535}
"""Types of arrays that hold whole numbers, with the number for 1."""


class MemoryPredictor(Predictor):
    """A predictor that returns its results and writes no file. Its arguments are those of `Predictor`."""

    def new_drawing(self, photo: Photo, output: Size) -> Drawing:
        """A drawing that keeps the exact predictions; see `Predictor.new_drawing`."""
        return Drawing(self.task, photo.image, output, None)

    def of_files(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Predict files and folders, as `semipix predict` does, not always in the order of the files.

        What is not read is printed to stderr, and so are images that cannot be predicted.

        Raises:
            SemipixError: there is no image.
        """
        found = find_images(paths, arrays=self.reader.bands is not None)
        for line in found.left_out:
            print(f"semipix: {one_line(line)}", file=sys.stderr)
        failed = 0
        for ended in predict_files(self, found.files):
            if isinstance(ended, Failure):
                failed += 1
                print(f"semipix: {one_line(ended)}", file=sys.stderr)
            else:
                yield _given(ended)
        if failed:
            print(f"semipix: {failed} of {len(found.files)} images could not be predicted", file=sys.stderr)

    def of_file(self, path: Path) -> Prediction:
        """Predict one file.

        Raises:
            SemipixError: it is missing, cannot be read, or the network refuses it.
        """
        [ended] = predict_files(self, find_images([path], arrays=self.reader.bands is not None).files)
        if isinstance(ended, Failure):
            raise SemipixError(ended)
        return _given(ended)

    def of_image(self, image: Any) -> Prediction:
        """Predict one image: Pillow's, or an array or tensor, see `semipix.Run.predict`.

        Raises:
            SemipixError: its type, shape or values are none of those, or the network refuses it.
        """
        if self.task.trimap and isinstance(image, Image.Image):
            raise SemipixError(
                f"{IN_MEMORY}: {type(self.task).__name__} needs a trimap beside the colours; give an array of four "
                "channels, of which the fourth is the trimap (0, 0.5 and 1), or files and trimaps=FOLDER"
            )
        if isinstance(image, Image.Image):
            encoded = _encoded(image, self.reader.bands is not None)
            pixels = self.reader.image(encoded, whole=True)
            seen = self.reader.image(encoded)
        elif self.reader.bands is not None:
            pixels = seen = self.reader.image(_stored(image))
        else:
            pixels = seen = _pixels(image, self.task.in_channels)
        resized = self.for_network(seen)
        photo = Photo(Path(IN_MEMORY), Path(), pixels, resized)
        try:
            if self.large.applies((resized.shape[-2], resized.shape[-1])):
                return self.save(photo, self.draw_in_parts(photo))
            outputs, scores = self.compute(torch.stack([unit_range(resized)]))
            return _given(self.write(photo, outputs[0], None if scores is None else scores[0]))
        except (RuntimeError, ValueError, MemoryError) as error:
            raise SemipixError(failure_of(photo, error)) from error

    def save(self, photo: Photo, drawing: Drawing) -> Prediction:
        """The arrays of a drawing, in place of files; see `Predictor.save`."""
        classification = self.task.classification
        assert drawing.maps is not None
        in_units = getattr(self.task, "in_units", None)
        array = drawing.prediction.whole()
        if array.ndim == 3 and len(self.task.file_endings) > 1:
            array = array.movedim(-1, 0)
        calibrated = self.calibration is not None
        values = drawing.maps if classification or in_units is None else in_units(drawing.maps)
        return Prediction(
            name=photo.name.as_posix() if photo.name.name else "",
            classes=tuple(getattr(self.task, "classes", ())),
            class_map=array.numpy() if classification else None,
            probabilities=drawing.maps.numpy() if classification else None,
            values=None if classification else values.numpy(),
            array=array.numpy(),
            picture=drawing.picture.whole().numpy(),
            error_map=None if drawing.error_values is None else drawing.error_values.numpy(),
            expected_error=None if drawing.error is None or not calibrated else drawing.error * self.task.span,
            expected_quality=drawing.quality if calibrated else None,
            accepted=None if drawing.accepted is None else drawing.accepted.whole().numpy() == 255,
        )


def _given(written: Written) -> Prediction:
    """The prediction that `MemoryPredictor.save` has returned."""
    assert isinstance(written, Prediction)
    return written


def _encoded(image: Image.Image, bands: bool) -> Encoded:
    """Pillow's image as a file in memory, upright, so that it is read as any other file.

    Args:
        image: the image.
        bands: whether it is read as bands.

    Raises:
        SemipixError: its mode has no colours that are known here, or its numbers mean what only the file says.
    """
    if image.mode not in MODES:
        raise SemipixError(f"{IN_MEMORY}: mode {image.mode} found, RGB or grey expected; call image.convert('RGB')")
    if isinstance(image, TiffImageFile) and (what := _said_by_tags(image, bands)):
        raise SemipixError(
            f"{getattr(image, 'filename', '') or IN_MEMORY}: Pillow's image of a TIFF with {what} found, which only "
            "the file says; give the path of the file, or an array"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("CMYK", "YCbCr"):
        upright = upright.convert("RGB")
    if upright.mode == "I" and (numbers := np.asarray(upright)).min() >= 0 and numbers.max() <= np.iinfo(np.uint16).max:
        upright = Image.fromarray(numbers.astype(np.uint16))  # as Pillow's earlier versions open 16-bit grey
    buffer = io.BytesIO()
    upright.save(buffer, "TIFF", exif=Image.Exif())
    return Encoded(str(getattr(image, "filename", "") or IN_MEMORY), buffer.getvalue())


def _said_by_tags(image: TiffImageFile, bands: bool) -> str:
    """What the tags of a TIFF say of its numbers that Pillow's image does not; empty if nothing."""
    tags = image.tag_v2
    bits, kinds = tags.get(BITSPERSAMPLE, (1,)), tags.get(SAMPLEFORMAT, (1,))
    if set(kinds) - {1, 3}:
        return "signed numbers"
    if 1 in kinds and (odd := set(bits) - {1, 2, 4, 8, 16}):
        return f"numbers of {min(odd)} bits"
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 and max(bits) > 8:
        return "0 for white"
    return "a number for missing values" if bands and NODATA in tags else ""


def _stored(image: Any) -> Encoded:
    """An array (H, W) or (H, W, C), or a tensor (C, H, W) or (1, C, H, W), as a file of numpy, so that its numbers are
    scaled by `data.range` as those of files are.

    Raises:
        SemipixError: it is neither.
    """
    if isinstance(image, Tensor):
        planes = image.detach().cpu()
        planes = planes[0] if planes.ndim == 4 and len(planes) == 1 else planes
        planes = planes.float() if planes.dtype == torch.bfloat16 else planes  # which numpy lacks
        image = planes.movedim(0, -1).numpy() if planes.ndim == 3 else planes.numpy()
    if not isinstance(image, np.ndarray):
        raise SemipixError(_no_image(image))
    buffer = io.BytesIO()
    np.save(buffer, _numbers(image), allow_pickle=False)
    return Encoded(f"{IN_MEMORY}{ARRAY}", buffer.getvalue())


def _numbers(image: NDArray[Any]) -> NDArray[Any]:
    """A copy of an array, as some are read-only, of numbers that torch has: in this machine's byte order.

    Raises:
        SemipixError: these are no real numbers.
    """
    if image.dtype.kind not in "fiub":
        raise SemipixError(f"{IN_MEMORY}: {image.dtype} found; uint8, uint16 or floats in [0, 1] expected")
    kind = np.float64 if image.dtype.itemsize > 8 else image.dtype.newbyteorder("=")
    return np.array(image, kind, order="C")


def _no_image(found: Any) -> str:
    return f"{IN_MEMORY}: {type(found).__name__} found; a path, Pillow's image, a numpy array or a tensor expected"


def _pixels(image: Any, channels: int) -> Tensor:
    """An array (H, W) or (H, W, C), or a tensor (C, H, W) or (1, C, H, W), as bytes or float32 in [0, 1], (C, H, W).

    Raises:
        SemipixError: it is none of these, has another number of channels, or values out of range.
    """
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        pixels = pixels[0] if pixels.ndim == 4 and pixels.shape[0] == 1 else pixels
        shapes = f"({channels}, H, W)"
    elif isinstance(image, np.ndarray):
        pixels = torch.from_numpy(_numbers(image))
        pixels = pixels.movedim(-1, 0) if pixels.ndim == 3 else pixels[None] if pixels.ndim == 2 else pixels
        shapes = f"(H, W, {channels})"
    else:
        raise SemipixError(_no_image(image))
    if pixels.ndim != 3 or 0 in pixels.shape or len(pixels) not in ({1, 3} if channels == 3 else {channels}):
        raise SemipixError(f"{IN_MEMORY}: shape {tuple(image.shape)} found, {shapes} expected; RGB, not BGR or RGBA")
    if pixels.dtype not in SCALES and not pixels.is_floating_point():
        raise SemipixError(f"{IN_MEMORY}: {pixels.dtype} found; uint8, uint16 or floats in [0, 1] expected")
    if pixels.dtype != torch.uint8:
        pixels = pixels.to(torch.float32) / SCALES.get(pixels.dtype, 1)
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise SemipixError(
                f"{IN_MEMORY}: values from {low:g} to {high:g} found, floats in [0, 1] expected; divide them, or give "
                "8-bit values as uint8"
            )
    return pixels.expand(3, -1, -1) if channels == 3 else pixels
