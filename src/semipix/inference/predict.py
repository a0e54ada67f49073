"""Predict folders of images: masks of class indices or maps of values, pictures and flaw maps."""

import sys
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from semipix.data.survey import SEVERAL_PAGES, further_parts
from semipix.errors import one_line
from semipix.inference.files import find_images, refuse_collisions, refuse_overwriting
from semipix.inference.pipeline import Failure, predict_files
from semipix.inference.predictor import load_predictor
from semipix.interruption import Interrupted, deferred, number_of, raise_if_interrupted


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
) -> list[str]:
    """Predict images at their own size into `out/pictures` and, for methods with a detector, `out/flaw`.

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

    Returns:
        A line for each image that could not be predicted; all others are predicted.

    Raises:
        SemipixError: the run or the checkpoint does not exist, the run names code and is not trusted, there are no
            images, two images have the same name, a result would overwrite an input, the task needs a folder of
            trimaps, or Ray is not installed.
        KeyboardInterrupt: the user interrupted; its message says how to continue. Existing results are complete.
    """
    found = find_images(paths, out)
    files = found.files
    refuse_collisions(files)
    predictor = load_predictor(run, out, checkpoint, trimaps, max_pixels, trust)
    refuse_overwriting(files, predictor)
    if skip_existing:
        files = [pair for pair in files if not predictor.is_done(pair[1])]
    several = [file for file, _ in files if file.suffix.lower() in SEVERAL_PAGES]
    for line in [*found.left_out, *further_parts(several, predictor.reader.max_pixels)]:
        print(f"semipix: {one_line(line)}", file=sys.stderr)
    ended: Generator[Failure | None]
    if engine == "ray":
        from semipix.inference.on_ray import predict_on_ray

        ended = predict_on_ray(run, out, checkpoint, trimaps, files, max_pixels, trust)
    else:
        ended = predict_files(predictor, files)
    failures, done = [], 0
    try:
        # Ray's workers have many images at a time; an interrupted command does not wait for them.
        with deferred("batch") if engine == "local" else nullcontext(), closing(ended):
            for failure in tqdm(ended, desc="predict", unit="image", total=len(files)):
                done += 1
                if failure is not None:
                    failures.append(failure)
                if done < len(files):
                    raise_if_interrupted()
    except KeyboardInterrupt as error:
        if engine == "ray":  # its workers report only complete blocks of images
            done = sum(predictor.is_done(name) for _, name in files)
        message = f"interrupted after {done} of {len(files)} images; continue with the same command and --skip-existing"
        raise Interrupted(number_of(error), message) from error
    if line := predictor.slabs.line():
        print(f"semipix: {line}", file=sys.stderr)
    return failures
