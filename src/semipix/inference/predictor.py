"""The parts of prediction that all engines use: read an image, compute a batch, write the results."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from semipix.atomic import written
from semipix.data.files.decode import image_size, unit_range
from semipix.data.files.mattes import MatteReader
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image
from semipix.data.files.sizes import Size, as_resize, resized_size
from semipix.errors import SemipixError
from semipix.inference.drawing import Drawing
from semipix.inference.trimaps import Trimaps
from semipix.methods.base import Method
from semipix.methods.slabs import Slabs
from semipix.models.memory_format import set_memory_format
from semipix.tasks.base import Task
from semipix.training.build import trained_method
from semipix.training.run_folder import load_config

PNG_COMPRESSION = 1
"""Level of compression; Pillow's default of 6 makes smaller files but takes more time."""


class Photo(NamedTuple):
    """An image that was read.

    Attributes:
        file: the image file.
        name: name of its results, with their subfolder.
        image: (C, H, W) at its own size, on the CPU: bytes, or float32 in [0, 1], depending on the file.
        seen: (C, h, w), the image resized for the network, of the same type.
    """

    file: Path
    name: Path
    image: Tensor
    seen: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both images; memory that they share is counted once."""
        shared = self.image.untyped_storage().data_ptr() == self.seen.untyped_storage().data_ptr()
        return self.image.nbytes + (0 if shared else self.seen.nbytes)


class Predictor:
    """A method in evaluation mode on this machine's device, and the folder for its predictions.

    Args:
        method: the trained method.
        out: folder to write to.
        reader: reads images in the same way as the run's training, with its `data.resize`.
        trimaps: the trimaps of the images; only for matting.
        channels_last: use the memory format channels last, which is faster on most hardware.

    Attributes:
        device: the GPU, or the CPU if there is none.
        slabs: computes images that are too large for one pass.
    """

    def __init__(
        self,
        method: Method,
        out: Path,
        reader: Reader | None = None,
        trimaps: Trimaps | None = None,
        channels_last: bool = True,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.method = method.eval().to(self.device)
        self.memory_format = set_memory_format(method, self.device.type, channels_last)
        self.slabs = Slabs(self.method, self.memory_format)
        self.task: Task = method.task
        self.out = out
        self.reader = reader or Reader()
        self.trimaps = trimaps

    def is_done(self, name: Path) -> bool:
        """Whether an image was predicted: whether the task's own files exist, which are written last."""
        return all(path.exists() for path in self._task_files(name.with_suffix(".png")))

    def outputs(self, name: Path) -> list[Path]:
        """Files of one prediction; the flaw map is written only if the method has a detector."""
        name = name.with_suffix(".png")
        return [*self._task_files(name), self.out / "pictures" / name, self.out / "flaw" / name]

    def inputs(self) -> list[Path]:
        """Files that are read in addition to the images: the trimaps."""
        return [] if self.trimaps is None else self.trimaps.files()

    def read(self, file: Path, name: Path) -> Photo:
        """Read an image, and its trimap if the task needs one, and resize both for the network.

        Raises:
            SemipixError: the image cannot be read, or its trimap is missing or cannot be read.
        """
        seen = self.reader.image(file)
        image = seen if self.reader.resize is None else self.reader.image(file, whole=True)
        if self.trimaps is not None:
            image = seen = self.trimaps.beside(unit_range(image), name, self.reader.max_pixels)
        resized = resize_image(tv_tensors.Image(seen), self.reader.resize)
        return Photo(file, name, image, resized.as_subclass(Tensor))

    def bytes_of(self, file: Path) -> int:
        """Approximate bytes of an image in memory, from the file's header; 0 if the header cannot be read."""
        try:
            size = image_size(file, max_pixels=self.reader.max_pixels)
        except (SemipixError, OSError):  # `read` will raise the error
            return 0
        own = math.prod(size) * (4 * self.task.in_channels if self.task.trimap else 3)
        if self.reader.resize is None:
            return own
        return own + 4 * self.task.in_channels * math.prod(resized_size(size, self.reader.resize))

    @torch.inference_mode()
    def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Network outputs (B, K, h, w) of a batch (B, C, h, w) and a detector's flaw maps (B, 1, h', w') or None.

        Both stay on the device, so that the next batch does not wait for a copy.
        """
        batch = seen.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return self._output_and_flaw(batch)

    def _output_and_flaw(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Network outputs (B, K, h, w) and flaw maps (B, 1, h', w') of images (B, C, h, w) on the device."""
        evidence = self.method.evidence(images)
        return evidence.output, evidence.flaw

    @torch.inference_mode()
    def draw_in_slabs(self, photo: Photo) -> Drawing:
        """Compute a large image in slabs of rows, so that its whole network output is never in memory."""
        drawing = Drawing(self.task, photo.image, _size(photo.seen))
        for output, flaw in self.slabs.compute(photo.seen, self._output_and_flaw):
            assert output is not None
            drawing.add_output(output)
            if flaw is not None:
                drawing.add_flaw(flaw)
        return drawing

    @torch.inference_mode()
    def write(self, photo: Photo, output: Tensor, flaw: Tensor | None) -> None:
        """Write one image's files at its own size.

        Args:
            photo: the image.
            output: its network output (K, h, w).
            flaw: its flaw map (1, h', w') or None.

        Raises:
            OSError: a file cannot be written.
        """
        drawing = Drawing(self.task, photo.image, _size(output), None if flaw is None else _size(flaw))
        drawing.add_output(output[None])
        if flaw is not None:
            drawing.add_flaw(flaw[None])
        self.save(photo, drawing)

    def save(self, photo: Photo, drawing: Drawing) -> None:
        """Write an image's files; the task's own files last, since they mark the image as done.

        Raises:
            OSError: a file cannot be written.
        """
        name = photo.name.with_suffix(".png")
        _save(drawing.picture.movedim(0, -1), self.out / "pictures" / name)
        if drawing.flaw is not None:
            _save(drawing.flaw, self.out / "flaw" / name)
        prediction, paths = drawing.prediction, self._task_files(name)
        if len(paths) > 1:
            for channel, path in zip(prediction, paths, strict=True):
                _save(channel, path)
        else:
            _save(prediction.movedim(0, -1) if prediction.ndim == 3 else prediction, paths[0])

    def _task_files(self, name: Path) -> list[Path]:
        """The task's files of one prediction."""
        path = self.out / ("masks" if self.task.classification else "predictions") / name
        return [path.with_suffix(f"{ending}.png") for ending in self.task.file_endings]


def load_predictor(
    run: Path,
    out: Path,
    checkpoint: str | None = None,
    trimaps: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
) -> Predictor:
    """Load the predictor of a run folder.

    Args:
        run: run folder.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best if there is one.
        trimaps: folder with a trimap for each image; only for matting.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, or the task needs
            a folder of trimaps.
    """
    configuration = load_config(run, trust)
    method = trained_method(configuration, run, checkpoint)
    _check_trimaps(run, method.task, trimaps)
    data = configuration.data.options
    reader = Reader(
        as_resize(data.get("resize")),
        reduced=method.task.classification,
        max_pixels=data.get("max_pixels", MAX_PIXELS) if max_pixels is None else max_pixels,
    )
    beside = None if trimaps is None else Trimaps(trimaps, *data.get("trimap_widths", MatteReader().widths))
    return Predictor(method, out, reader, beside, configuration.channels_last)


def _check_trimaps(run: Path, task: Task, trimaps: Path | None) -> None:
    """Check that a folder of trimaps is given if the task needs one, and only then."""
    name = type(task).__name__
    if task.trimap and trimaps is None:
        raise SemipixError(f"{run}: {name} needs a trimap for each image; give their folder by --trimaps DIR")
    if not task.trimap and trimaps is not None:
        raise SemipixError(f"--trimaps: {trimaps} found, but {name} takes no trimap; leave the option out")
    if trimaps is not None and not trimaps.is_dir():
        raise SemipixError(f"--trimaps: {trimaps} is not a folder; name the folder that holds a trimap for each image")


def _size(maps: Tensor) -> Size:
    """Height and width of maps (..., H, W)."""
    return maps.shape[-2], maps.shape[-1]


def _save(pixels: Tensor, path: Path) -> None:
    """Write pixels (H, W) or (H, W, 3) as a PNG file, which is renamed when it is complete."""
    array: NDArray[np.uint8] | NDArray[np.uint16] = pixels.cpu().numpy()
    with written(path) as file:
        Image.fromarray(array).save(file, format="PNG", compress_level=PNG_COMPRESSION)
