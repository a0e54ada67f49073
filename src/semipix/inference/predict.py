"""Predict folders of images and videos: masks of class indices or maps of values, pictures, error maps and scores."""

import sys
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from semipix.data.files.rasters import TIFF, has_georeference, has_rasterio
from semipix.data.files.video import load_av, refuse_same_folders
from semipix.data.survey import SEVERAL_PAGES, further_parts, in_threads
from semipix.errors import SemipixError, one_line
from semipix.inference.annotations import AnnotationFormat, Annotations
from semipix.inference.files import Images, find_images, refuse_collisions, refuse_overwriting
from semipix.inference.pipeline import Ended, Failure, predict_files
from semipix.inference.predictor import Predictor, load_predictor
from semipix.inference.scores import Score, ScoreTable
from semipix.inference.videos import VideoKind, Videos
from semipix.interruption import Interrupted, deferred, number_of, raise_if_interrupted
from semipix.methods.tiles import Tiling
from semipix.training.run_folder import read_config


def predict(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    checkpoint: str | None = None,
    skip_existing: bool = False,
    trimaps: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    max_pixels: int | None = None,
    trust: bool = False,
    risk: float | None = None,
    write: AnnotationFormat | None = None,
    uncertain: float | None = None,
    tiling: Tiling | None = None,
    tta: str | None = None,
    deploy: str | None = None,
    every: int = 1,
    video: Sequence[VideoKind] = (),
) -> list[str]:
    """Predict images at their own size into `out/pictures`, with error maps in `out/errors` and scores.

    The error map of a calibrated run is the probability that a pixel is wrong or, in regression, its expected absolute
    error. `out/scores.csv` has a line for each image with what these maps expect. Without a calibration, the error map
    is the best one that the run can offer otherwise, and there are no scores.

    The maps of a TIFF that says where it is are GeoTIFF files with the same reference, and those of other images are
    PNG files. Pictures always are.

    Exact predictions for further processing are in `out/masks` for classification and in `out/predictions` for
    regression: one file per image, or one file per channel, `NAME.0.png` and so on, if the channels are not gray or
    RGB.

    Each frame of a video `NAME.mp4` is predicted as an image `NAME/000001.png` would be.

    Args:
        run: run folder.
        paths: files of images and videos, or folders that are searched with their subfolders; `out` has the same
            subfolders.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best if there is one.
        skip_existing: skip images whose mask or prediction exists, to continue an interrupted prediction. This is safe,
            since files are renamed when they are complete, and an image's mask or prediction is written last.
        trimaps: folder with a trimap for each image, of the same name up to the extension; only for matting.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        engine: `local` predicts in this process, `ray` in the workers of a Ray cluster, which need access to the
            folders.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.
        risk: accept pixels of which at most this share is expected to be wrong on new images (in regression: whose mean
            absolute error is expected to be at most this, in the units of the labels), into `out/accepted`.
        write: also write all masks as annotations for a labeling tool, into `out/annotations`; see `Annotations`.
        uncertain: leave pixels whose probability of an error is above this out of the annotations.
        tiling: compute all images that are larger than a tile in such tiles; by default only images that are too large
            for one pass and for slabs of rows.
        tta: average the predictions of `flips` or `scales` of each image, see `AveragedViews`.
        deploy: the candidate that predicts, instead of the one that validation chose.
        every: of videos, predict only each Nth frame, beginning with the first.
        video: write a video of each of these kinds into `out/videos` instead of files for each frame, see `Videos`.

    Returns:
        A line for each image or video that could not be predicted, or not completely; all others are predicted.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, there are no
            images or videos, a video is given and PyAV is not installed or the engine is Ray, two images have the same
            name, a result would overwrite an input, the task needs a folder of trimaps, Ray is not installed, the
            calibration is damaged or belongs to other weights, the risk is out of range or there is no calibration for
            it, `out` has a table of scores of another kind, or annotations cannot be written (see `Annotations.of`).
        KeyboardInterrupt: the user interrupted; its message says how to continue. Existing results are complete.
    """
    # Whether arrays are images depends on the run, and loading it takes longer than listing the images.
    found = find_images(paths, out, arrays=_reads_bands(run, trust), videos=True)
    files, videos = found.files, Videos(every, video)
    if found.videos and engine == "ray":
        raise SemipixError(
            f"{found.videos[0][0]}: found a video, which --engine ray does not read; take --engine local"
        )
    if not found.videos and videos.given:
        load_av()  # without it videos are left out
        raise SemipixError(f"{videos.given}: found no video among the inputs; leave it out, or name a video")
    refuse_collisions(files)
    refuse_same_folders(found.videos)
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "trimaps": trimaps,
        "max_pixels": max_pixels,
        "trust": trust,
        "risk": risk,
        "tiling": tiling,
        "tta": tta,
        "deploy": deploy,
    }
    predictor = load_predictor(run, out, **options)
    refuse_overwriting(files, predictor)
    videos.refuse_overwriting(found.videos, files, predictor)
    videos.check(predictor)
    if write is None and uncertain is not None:
        raise SemipixError("--uncertain: found it without --write, which it is for; name a format by --write")
    annotations = _annotations(write, uncertain, predictor, found) if write else None
    table = ScoreTable(out, predictor.task.classification, predictor.calibration is not None)

    def is_done(name: Path) -> bool:
        return predictor.is_done(name) and table.has(name.as_posix(), risk)

    if skip_existing:
        files = [pair for pair in files if not is_done(pair[1])]
    annotated = {name for _, name in found.files} - {name for _, name in files}
    several = [file for file, _ in files if file.suffix.lower() in SEVERAL_PAGES]
    lines = [
        *found.left_out,
        *_unplaced([file for file, _ in files], predictor.reader.bands is not None),
        *further_parts(several, predictor.reader),
        *predictor.remarks,
    ]
    for line in lines:
        print(f"semipix: {one_line(line)}", file=sys.stderr)
    ended: Generator[Ended]
    if engine == "ray":
        from semipix.inference.on_ray import predict_on_ray

        place = trimaps and trimaps.resolve()  # a worker has another working folder
        ended = predict_on_ray(run, out, files, **{**options, "trimaps": place})
    else:
        ended = predict_files(predictor, files)
    failures, done = [], 0
    try:
        # Ray's workers have many images at a time; an interrupted command does not wait for them.
        with deferred("batch") if engine == "local" else nullcontext(), closing(ended):
            for item in tqdm(
                ended, desc="predict", unit="image", total=len(files), disable=not files and bool(found.videos)
            ):
                done += 1
                if isinstance(item, Failure):
                    failures.append(item)
                elif isinstance(item, Score):
                    annotated.add(Path(item.image))
                    table.add(item)
                    table.write_now_and_then()
                if done < len(files) or found.videos:
                    raise_if_interrupted()
    except KeyboardInterrupt as error:
        if engine == "ray":  # its workers report only complete blocks of images
            done = sum(is_done(name) for _, name in files)
        message = f"interrupted after {done} of {len(files)} images; continue with the same command and --skip-existing"
        raise Interrupted(number_of(error), message) from error
    finally:
        table.write()
    try:
        failures += videos.predict(predictor, found.videos, table, skip_existing)
    finally:
        table.write()
    for line in predictor.large.lines():
        print(f"semipix: {line}", file=sys.stderr)
    if annotations is not None:
        try:
            lines = annotations.write([pair for pair in found.files if pair[1] in annotated], out)
        except KeyboardInterrupt as error:
            message = "interrupted when annotations were written; continue with the same command and --skip-existing"
            raise Interrupted(number_of(error), message) from error
        for line in lines:
            print(f"semipix: {one_line(line)}", file=sys.stderr)
    return failures


def _annotations(form: AnnotationFormat, uncertain: float | None, predictor: Predictor, found: Images) -> Annotations:
    """The annotations of the images, and a line about videos, which have none.

    Raises:
        SemipixError: see `Annotations.of`, or there are videos only.
    """
    annotations = Annotations.of(form, uncertain, predictor)
    if found.videos:
        several = "1 video" if len(found.videos) == 1 else f"{len(found.videos)} videos"
        line = (
            f"--write: no annotations of {several}, since labeling tools need a file for each image; take frames out "
        )
        line += "by: semipix data frames"
        if not found.files:
            raise SemipixError(line)
        found.left_out.append(line)
    return annotations


def _reads_bands(run: Path, trust: bool) -> bool:
    """Whether the images of a run have bands.

    Raises:
        SemipixError: as `read_config`.
    """
    data = read_config(run, trust)[0]["data"]
    return isinstance(data, dict) and any(data.get(key) is not None for key in ("bands", "range"))


def _unplaced(files: Sequence[Path], bands: bool) -> list[str]:
    """A line about rasters whose maps do not say where they are.

    Args:
        files: the images.
        bands: whether they have bands; others are rasters only if they say where they are.
    """
    tiffs = [file for file in files if file.suffix.lower() in TIFF]
    placed = dict(zip(tiffs, in_threads(has_georeference, tiffs, "reading headers"), strict=True))
    if bands:
        without = [file for file in files if not placed.get(file, False)]
        why = "have no georeference, so that their maps are PNG files that do not say where they are"
    else:
        without = [] if has_rasterio() else [file for file in tiffs if placed[file]]
        why = (
            "have a georeference, which is lost in the PNG files of their maps, since rasterio is not installed; "
            "install it by: pip install 'semipix[geo]'"
        )
    more = f" ({without[0]}{', ...' if len(without) > 1 else ''})" if without else ""
    return [f"{len(without)} of {len(files)} images{more} {why}"] if without else []
