"""Predict folders of images: masks of class indices or maps of values, pictures, error maps and scores."""

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from semipix.data.files.rasters import TIFF, has_georeference, has_rasterio
from semipix.data.survey import SEVERAL_PAGES, further_parts, in_threads
from semipix.errors import SemipixError, one_line
from semipix.inference.annotations import AnnotationFormat, Annotations
from semipix.inference.files import find_images, refuse_collisions, refuse_overwriting
from semipix.inference.pipeline import Ended, Failure, predict_files
from semipix.inference.predictor import load_predictor
from semipix.inference.scores import ScoreTable
from semipix.interruption import Interrupted, deferred, number_of, raise_if_interrupted
from semipix.methods.tiles import Tiling
from semipix.training.run_folder import read_config

SECONDS = 30
"""Seconds after which the table of scores is written again. After a kill, images without one are predicted again."""


def predict(
    run: Path,
    paths: Sequence[Path],
    out: Path,
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

    Args:
        run: run folder.
        paths: image files, or folders that are searched with their subfolders; `out` has the same subfolders.
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

    Returns:
        A line for each image that could not be predicted; all others are predicted.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, there are no
            images, two images have the same name, a result would overwrite an input, the task needs a folder of
            trimaps, Ray is not installed, the calibration is damaged or belongs to other weights, the risk is out of
            range or there is no calibration for it, or annotations cannot be written (see `Annotations.of`).
        KeyboardInterrupt: the user interrupted; its message says how to continue. Existing results are complete.
    """
    # Whether arrays are images depends on the run, and loading it takes longer than listing the images.
    found = find_images(paths, out, arrays=_reads_bands(run, trust))
    files = found.files
    refuse_collisions(files)
    predictor = load_predictor(run, out, checkpoint, trimaps, max_pixels, trust, risk, tiling, tta, deploy)
    refuse_overwriting(files, predictor)
    if write is None and uncertain is not None:
        raise SemipixError("--uncertain: found it without --write, which it is for; name a format by --write")
    annotations = Annotations.of(write, uncertain, predictor) if write else None
    table = ScoreTable(out, predictor.task.classification) if predictor.calibration else None

    def is_done(name: Path) -> bool:
        return predictor.is_done(name) and (table is None or table.has(name.as_posix(), risk))

    if skip_existing:
        files = [pair for pair in files if not is_done(pair[1])]
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

        ended = predict_on_ray(run, out, checkpoint, trimaps, files, max_pixels, trust, risk, tiling, tta, deploy)
    else:
        ended = predict_files(predictor, files)
    failures, done = [], 0
    write_at = time.monotonic() + SECONDS
    try:
        # Ray's workers have many images at a time; an interrupted command does not wait for them.
        with deferred("batch") if engine == "local" else nullcontext(), closing(ended):
            for item in tqdm(ended, desc="predict", unit="image", total=len(files)):
                done += 1
                if isinstance(item, Failure):
                    failures.append(item)
                elif item is not None and table is not None:
                    table.add(item)
                    if time.monotonic() > write_at:
                        table.write()
                        write_at = time.monotonic() + SECONDS
                if done < len(files):
                    raise_if_interrupted()
    except KeyboardInterrupt as error:
        if engine == "ray":  # its workers report only complete blocks of images
            done = sum(is_done(name) for _, name in files)
        message = f"interrupted after {done} of {len(files)} images; continue with the same command and --skip-existing"
        raise Interrupted(number_of(error), message) from error
    finally:
        if table is not None:
            table.write()
    for line in predictor.large.lines():
        print(f"semipix: {line}", file=sys.stderr)
    if annotations is not None:
        try:
            annotations.write(found.files, out)
        except KeyboardInterrupt as error:
            message = "interrupted when annotations were written; continue with the same command and --skip-existing"
            raise Interrupted(number_of(error), message) from error
    return failures


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
