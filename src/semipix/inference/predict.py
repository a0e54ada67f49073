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
from semipix.interruption import Interrupted, check, deferred, number_of


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

    What a program goes on with is in `out/masks` for classification and in `out/predictions` for regression: one file
    an image, or one a channel, `NAME.0.png` and on, where they make no grey or colour picture.

    Args:
        run: run folder.
        paths: image files, or folders searched with their subfolders, which are kept in `out`.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best where validation chose one.
        skip_existing: leave images alone whose mask exists, to continue an interrupted prediction. Every file is
            renamed into place when it is whole, the mask after the others.
        trimaps: folder with a trimap for each image, of the same name but for the extension; for matting alone.
        max_pixels: most pixels of an image that is read; by default the run's `data.max_pixels`.
        engine: `local` predicts in this process, `ray` in the workers of a Ray cluster that share these folders.
        trust: run code that the run folder names outside of the known packages, see `train.load_config`.

    Returns:
        One line for each image that could not be read; the others are predicted all the same.

    Raises:
        SemipixError: no run, no checkpoint, a run that could run code and is not trusted, no images, two images of one
            name, an input that a result would overwrite, no folder of trimaps for a task that needs one, or no Ray.
        KeyboardInterrupt: the user interrupted; its message says how to continue. Results that are there are whole.
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
        # A worker of Ray has many images at a time, for which nobody waits.
        with deferred("batch") if engine == "local" else nullcontext(), closing(ended):
            for failure in tqdm(ended, desc="predict", unit="image", total=len(files)):
                done += 1
                if failure is not None:
                    failures.append(failure)
                if done < len(files):
                    check()
    except KeyboardInterrupt as error:
        if engine == "ray":  # whose workers report when a whole block of images is done
            done = sum(predictor.is_done(name) for _, name in files)
        message = f"interrupted after {done} of {len(files)} images; continue with the same command and --skip-existing"
        raise Interrupted(number_of(error), message) from error
    if line := predictor.slabs.line():
        print(f"semipix: {line}", file=sys.stderr)
    return failures
