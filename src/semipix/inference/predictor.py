"""The parts of prediction that all engines use: read an image, compute a batch, write the results."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from semipix.atomic import written
from semipix.batch import VOID
from semipix.data.files.decode import unit_range
from semipix.data.files.mattes import MatteReader
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.data.files.rasters import Georeference, georeference
from semipix.data.files.reader import Reader
from semipix.data.files.resize import resize_image
from semipix.data.files.sizes import Size, as_resize, resized_size
from semipix.data.files.video import Frame, Moment
from semipix.errors import SemipixError
from semipix.inference.drawing import Drawing, largest_number
from semipix.inference.geotiff import write_geotiff
from semipix.inference.prediction import Prediction
from semipix.inference.row_array import RowArray
from semipix.inference.scores import FILE, Score
from semipix.inference.trimaps import Trimaps
from semipix.methods.base import Method
from semipix.methods.large_images import LargeImages
from semipix.methods.tiles import Tiling
from semipix.methods.views import AveragedViews
from semipix.models.memory_format import set_memory_format
from semipix.tasks.base import Task
from semipix.training.build import bands_of, deploy_candidate, trained_method
from semipix.training.calibration import Calibration, ErrorMap, load, uncalibrated
from semipix.training.checkpoints import PUBLISHED
from semipix.training.run_folder import checkpoint_of, load_config

Written = Score | Prediction
"""What `save` returns of an image: its score, or its prediction in memory."""


class Photo(NamedTuple):
    """An image that was read.

    Attributes:
        file: the image file.
        name: name of its results, with their subfolder.
        image: (C, H, W) at its own size, on the CPU: bytes, or float32 in [0, 1], depending on the file; NaN where a
            band has no value.
        seen: (C, h, w), the image resized for the network, of the same type, without NaN.
        place: where the image is, if its file says so.
        moment: where a frame is in its video; None for an image.
    """

    file: Path
    name: Path
    image: Tensor
    seen: Tensor
    place: Georeference | None = None
    moment: Moment | None = None

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
        calibration: of the method's error map; without one, an uncalibrated map is written if there is any.
        threshold: largest value of the calibrated map at which a pixel is accepted; None writes no accepted pixels.
        risk: the risk that the threshold is for, in the units of the labels.
        tiling: compute all images that are larger than a tile in such tiles.
        views: of each image that is predicted; by default the image alone.

    Attributes:
        device: the GPU, or the CPU if there is none.
        remarks: lines for the user about the error map.
        large: computes images that are too large for one pass.
        sink: takes the results of an image in place of its files, such as the writer of a video; by default None.
    """

    def __init__(
        self,
        method: Method,
        out: Path,
        reader: Reader | None = None,
        trimaps: Trimaps | None = None,
        channels_last: bool = True,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        risk: float | None = None,
        tiling: Tiling | None = None,
        views: AveragedViews | None = None,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.method = method.eval().to(self.device)
        self.memory_format = set_memory_format(method, self.device.type, channels_last)
        self.views = views or AveragedViews(method)
        self.large = LargeImages(self.method, self.memory_format, tiling, self.views.in_slabs)
        self.task: Task = method.task
        self.out = out
        self.reader = reader or Reader()
        self.trimaps = trimaps
        self.calibration = calibration
        self.threshold = threshold
        self.risk = risk
        self.remarks: list[str] = []
        self.sink: Callable[[Photo, Drawing], None] | None = None
        self._error_map: ErrorMap | None = calibration

    def is_done(self, name: Path) -> bool:
        """Whether an image was predicted: whether the task's own files exist, which are written last."""
        return any(all(path.exists() for path in self._task_files(each)) for each in names_of_maps(name))

    def outputs(self, name: Path) -> list[Path]:
        """Files of one prediction, and of all of them the table of scores; not all are written in each case."""
        found = [
            path
            for each in names_of_maps(name)
            for path in (*self._task_files(each), *(self.out / folder / each for folder in ("errors", "accepted")))
        ]
        return [*found, self.out / "pictures" / name.with_suffix(".png"), self.out / FILE]

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
        return self._photo(file, name, image, seen)

    def read_frame(self, file: Path, name: Path, frame: Frame) -> Photo:
        """A frame of a video, treated as `read` treats an image file with its pixels.

        Args:
            file: the video.
            name: name of the frame's results.
            frame: the frame.

        Raises:
            SemipixError: its trimap is missing or cannot be read.
        """
        image = seen = frame.pixels
        # By the reader, which resizes large images in a way of its own, and chooses and scales bands.
        if self.reader.resize is not None or self.reader.bands is not None:
            content = io.BytesIO()
            Image.fromarray(seen.permute(1, 2, 0).numpy()).save(content, "BMP")
            seen = self.reader.image(Encoded(str(file), content.getvalue()))
            image = image if self.reader.bands is None else seen
        return self._photo(file, name, image, seen)._replace(moment=frame.moment)

    def _photo(self, file: Path, name: Path, image: Tensor, seen: Tensor) -> Photo:
        """An image that was read, resized for the network and, if the task needs it, with its trimap."""
        if self.trimaps is not None:
            image = seen = self.trimaps.beside(unit_range(image), name, self.reader.max_pixels)
        return Photo(file, name, image, self.for_network(seen), georeference(file))

    def for_network(self, image: Tensor) -> Tensor:
        """An image (C, H, W) that `reader` returned as the network sees it: resized, and without missing values."""
        resized = resize_image(self.reader.wrap(image), self.reader.resize).as_subclass(Tensor)
        return resized if self.reader.bands is None else self.reader.bands.filled(resized)

    def bytes_of(self, file: Path) -> int:
        """Approximate bytes of an image in memory, from the file's header; 0 if the header cannot be read."""
        try:
            size = self.reader.header(file).size
        except (SemipixError, OSError):  # `read` will raise the error
            return 0
        floats = self.task.trimap or self.reader.bands is not None
        own = math.prod(size) * (4 * self.task.in_channels if floats else 3)
        if self.reader.resize is None:
            return own
        return own + 4 * self.task.in_channels * math.prod(resized_size(size, self.reader.resize))

    @torch.inference_mode()
    def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Network outputs (B, K, h, w) of a batch (B, C, h, w), and scores (B, 1, h, w) of the error map or None.

        Both stay on the device, so that the next batch does not wait for a copy.
        """
        batch = seen.to(self.device, non_blocking=True, memory_format=self.memory_format)
        output, scores, maps = self._output_and_scores(batch)
        if scores is None or maps is None or self._error_map is None:
            return output, None
        return output, scores + self._error_map.constant(maps.mean((-2, -1))).view(-1, 1, 1, 1)

    def _output_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Network outputs of images (B, C, h, w) on the device, and what `ErrorMap.parts` returns of them."""
        evidence = self.views.evidence(images)
        if self._error_map is None:
            self._error_map = uncalibrated(self.method, evidence)
        if self._error_map is None:
            return evidence.output, None, None
        return evidence.output, *self._error_map.parts(self.task, evidence, images)

    def new_drawing(self, photo: Photo, output: Size) -> Drawing:
        """An empty drawing of an image, of which the network output has this height and width."""
        return Drawing(self.task, photo.image, output, self.out)

    @torch.inference_mode()
    def draw_in_parts(self, photo: Photo) -> Drawing:
        """Compute a large image in parts, so that its whole network output is never in memory."""
        drawing = self.new_drawing(photo, _size(photo.seen))
        sums: Tensor | None = None
        for output, scores, maps in self.large.compute(photo.seen, self._output_and_scores):
            assert output is not None
            drawing.add_output(output)
            if scores is not None and maps is not None:
                drawing.add_scores(scores)
                part = maps.sum((-2, -1), dtype=torch.float64)
                sums = part if sums is None else sums + part
            del output, scores, maps  # before the next part is computed
        if self._error_map is not None and sums is not None:
            means = (sums / math.prod(_size(photo.seen))).float()
            drawing.finish(self._error_map, float(self._error_map.constant(means)), self.threshold)
        return drawing

    @torch.inference_mode()
    def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> Written:
        """Write one image's files at its own size.

        Args:
            photo: the image.
            output: its network output (K, h, w).
            scores: scores (1, h, w) of its error map or None.

        Returns:
            Its score.

        Raises:
            OSError: a file cannot be written.
        """
        drawing = self.new_drawing(photo, _size(output))
        drawing.add_output(output[None])
        if scores is not None and self._error_map is not None:
            drawing.add_scores(scores[None])
            drawing.finish(self._error_map, threshold=self.threshold)
        return self.save(photo, drawing)

    def save(self, photo: Photo, drawing: Drawing) -> Written:
        """Write an image's files, or give its results to the sink.

        Returns:
            Its score; without a calibration, one that expects nothing.

        Raises:
            OSError: a file cannot be written.
        """
        (self.sink or self._write_files)(photo, drawing)
        drawing.close()
        seconds = None if photo.moment is None else photo.moment.seconds
        if self.calibration is None or drawing.error is None:
            return Score(photo.name.as_posix(), None, None, self.risk, None, seconds)
        error = drawing.error * self.task.span
        return Score(photo.name.as_posix(), error, drawing.quality, self.risk, drawing.share, seconds)

    def _write_files(self, photo: Photo, drawing: Drawing) -> None:
        """Write an image's files; the task's own files last, since they mark the image as done.

        Files of an earlier call that this one does not make are removed, since they belong to another prediction: maps,
        and PNG files where GeoTIFFs are written, or the reverse.
        """
        name = photo.name.with_suffix(".png" if photo.place is None else ".tif")
        for folder, array in (("errors", drawing.errors), ("accepted", drawing.accepted)):
            for older in names_of_maps(photo.name):
                if array is None or older != name:
                    (self.out / folder / older).unlink(missing_ok=True)
        _save(drawing.picture, self.out / "pictures" / name.with_suffix(".png"))
        if drawing.errors is not None:
            largest = largest_number(drawing.errors)
            scale, nodata = self.task.span / largest, largest if drawing.nodata else None
            _save(drawing.errors, self.out / "errors" / name, photo.place, nodata=nodata, scale=scale)
        if drawing.accepted is not None:
            _save(drawing.accepted, self.out / "accepted" / name, photo.place)
        prediction, paths = drawing.prediction, self._task_files(name)
        nodata = largest_number(prediction) if drawing.nodata else None
        nodata = VOID if self.task.classification else nodata
        for channel, path in enumerate(paths):
            _save(prediction, path, photo.place, channel if len(paths) > 1 else None, nodata)
        for older in (each for each in names_of_maps(photo.name) if each != name):
            for path in self._task_files(older):
                path.unlink(missing_ok=True)

    def _task_files(self, name: Path) -> list[Path]:
        """The task's files of one prediction."""
        path = self.out / ("masks" if self.task.classification else "predictions") / name
        return [path.with_suffix(f"{ending}{name.suffix}") for ending in self.task.file_endings]


def load_predictor(
    run: Path,
    out: Path,
    *,
    checkpoint: str | None = None,
    trimaps: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    risk: float | None = None,
    tiling: Tiling | None = None,
    tta: str | None = None,
    deploy: str | None = None,
    kind: type[Predictor] = Predictor,
) -> Predictor:
    """Load the predictor of a run folder.

    Args:
        run: run folder.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best if there is one.
        trimaps: folder with a trimap for each image; only for matting.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.
        risk: largest expected error of the accepted pixels: a share of wrong ones or, in regression, a mean absolute
            error in the units of the labels. By default no pixels are accepted or rejected.
        tiling: compute all images that are larger than a tile in such tiles.
        tta: average the predictions of `flips` or `scales` of each image, see `AveragedViews`.
        deploy: the candidate that predicts, instead of the one that validation chose.
        kind: the class of predictors that is made.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, the task needs a
            folder of trimaps, the calibration is damaged or belongs to other weights, or the risk is out of range or
            there is no calibration for it.
    """
    configuration = load_config(run, trust)
    method = trained_method(configuration, run, checkpoint)
    deploy_candidate(method, deploy)
    data = configuration.data.options
    views = AveragedViews(method, tta, data.get("rotate", 0.0))
    _check_trimaps(run, method.task, trimaps)
    name = checkpoint_of(run, checkpoint).stem
    calibration = load(run, method, name, tta or "")
    threshold, remarks = _threshold(run, name, _options(deploy, tta), method.task, calibration, risk)
    reader = Reader(
        as_resize(data.get("resize")),
        reduced=method.task.classification,
        max_pixels=data.get("max_pixels", MAX_PIXELS) if max_pixels is None else max_pixels,
        bands=bands_of(configuration),
    )
    beside = None if trimaps is None else Trimaps(trimaps, *data.get("trimap_widths", MatteReader().widths))
    channels_last = configuration.channels_last
    predictor = kind(method, out, reader, beside, channels_last, calibration, threshold, risk, tiling, views)
    predictor.remarks = remarks
    return predictor


def _threshold(
    run: Path, checkpoint: str, options: str, task: Task, calibration: Calibration | None, risk: float | None
) -> tuple[float | None, list[str]]:
    """The threshold of the error map for a risk, and lines for the user.

    Raises:
        SemipixError: the risk is out of range, or there is no calibration for it.
    """
    how = how_to_calibrate(run, checkpoint, options)
    file = PUBLISHED if checkpoint == Path(PUBLISHED).stem else f"{checkpoint}.ckpt"
    if risk is not None and not 0 < risk < task.span:
        limit = "1" if task.classification else f"{task.span:g}, the range of the labels"
        raise SemipixError(f"--risk: {risk} found, a number above 0 and below {limit} expected")
    if calibration is None:
        what = f"{file} with{options}" if options else file
        if risk is not None:
            raise SemipixError(f"--risk: {run} has no calibration of {what}; {how}")
        instead = "1 - the largest probability" if task.classification else "the flaw map, or the pair's disagreement"
        return None, [
            f"no calibration of {what}, so that errors/ is not calibrated ({instead}) and scores.csv gets no line; "
            f"{how}"
        ]
    if risk is None:
        return None, []
    found = calibration.accepted(risk / task.span)
    remarks = []
    if found.needed is None:
        remarks.append(
            f"--risk: no pixel is accepted, since no part of the error map had a risk below {risk:g} on the "
            f"{calibration.fitted_on}"
        )
    elif not found.guaranteed:
        remarks.append(
            f"--risk: {risk:g} cannot be guaranteed by {calibration.fitted_on}, {found.needed} "
            f"{calibration.independent} with as few errors are needed; the pixels are accepted that are for the "
            "smallest risk that can be guaranteed"
        )
    if calibration.outside:
        remarks.append(
            f"--risk: {calibration.outside} of {calibration.pixels} labels that the map was fitted on are outside of "
            f"the range; an error of more than {task.span:g}, the whole range, counts as {task.span:g}"
        )
    return found.threshold, remarks


def _options(deploy: str | None, tta: str | None) -> str:
    """Options of a command, with a space before each."""
    return "".join(f" --{name} {value}" for name, value in (("deploy", deploy), ("tta", tta)) if value is not None)


def how_to_calibrate(run: Path, checkpoint: str, options: str = "") -> str:
    """What a user does about a missing calibration of `best`, `last` or the weights of a published model."""
    if (run / PUBLISHED).exists() and checkpoint == Path(PUBLISHED).stem:
        return "publish it again from a calibrated run"
    return f"make it by: semipix calibrate {run} --checkpoint {checkpoint}{options}"


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


def names_of_maps(name: Path) -> list[Path]:
    """The names of an image's maps: as PNG or, if its file says where it is, as GeoTIFF."""
    return [name.with_suffix(ending) for ending in (".png", ".tif")]


def _save(
    rows: RowArray,
    path: Path,
    place: Georeference | None = None,
    channel: int | None = None,
    nodata: int | None = None,
    scale: float | None = None,
) -> None:
    """Write pixels as a PNG file or, with a place, as a GeoTIFF, which is renamed when it is complete."""
    if place is not None:
        write_geotiff(path, rows, place, channel=channel, nodata=nodata, scale=scale)
        return
    with written(path) as file:
        rows.save(file, channel)
