"""Predict folders of images: masks of class indices or maps of values, pictures and flaw maps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from semipix import train
from semipix.batch import Batch
from semipix.data.decode import EXTENSIONS, read_image
from semipix.data.transforms import resize_image
from semipix.errors import SemipixError
from semipix.inference.trimaps import with_trimap
from semipix.methods.base import Method
from semipix.tasks.base import Task


def find_images(paths: Sequence[Path], out: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Image files of files and folders, each with its name relative to what was given.

    Args:
        paths: image files, or folders searched with their subfolders.
        out: a folder that is left out, for results may go below the images.

    Raises:
        SemipixError: a path does not exist, or a folder holds no image.
    """
    for path in paths:
        if path.is_file():
            yield path, Path(path.name)
            continue
        if not path.is_dir():
            raise SemipixError(f"{path}: no such file or folder; name image files or folders of images")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if out is not None:
            files = [file for file in files if out.resolve() not in file.resolve().parents]
        if not files:
            raise SemipixError(f"{path}: no image found; expected files ending in {', '.join(sorted(EXTENSIONS))}")
        for file in files:
            yield file, file.relative_to(path)


@torch.inference_mode()
def predict(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    checkpoint: str | None = None,
    skip_existing: bool = False,
    trimaps: Path | None = None,
) -> list[str]:
    """Predict images at their own size into `out/pictures` and, for methods with a detector, `out/flaw`.

    What a program goes on with is in `out/masks` for classification and in `out/predictions` for regression: one file
    an image, or one a channel, `NAME.0.png` and on, where they make no grey or colour picture.

    Args:
        run: run folder.
        paths: image files, or folders searched with their subfolders, which are kept in `out`.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best where validation chose one.
        skip_existing: leave images alone whose mask exists, to continue an interrupted prediction.
        trimaps: folder with a trimap for each image, of the same name but for the extension; for matting alone.

    Returns:
        One line for each image that could not be read; the others are predicted all the same.

    Raises:
        SemipixError: no run, no checkpoint, no images, two images of one name, or no folder of trimaps for a task
            that needs one.
    """
    files = list(find_images(paths, out))
    _refuse_collisions(files)
    config = train.load_config(run)
    method = train.load_method(run, checkpoint)
    _check_trimaps(run, method.task, trimaps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method.to(device)
    failures = []
    for file, name in tqdm(files, desc="predict", unit="image"):
        if skip_existing and all(path.exists() for path in _results(method.task, out, name.with_suffix(".png"))):
            continue
        try:
            image = read_image(file)
            if trimaps is not None:
                image = with_trimap(image, trimaps, name)
        except SemipixError as error:
            failures.append(str(error))
            continue
        try:
            _write(method, image.to(device), config["data"].get("resize"), out, name.with_suffix(".png"))
        except (RuntimeError, ValueError) as error:  # the network refuses this size, or memory is short
            size = f"{image.shape[-1]}x{image.shape[-2]}"
            failures.append(f"{file}: this image of {size} pixels could not be predicted: {str(error).splitlines()[0]}")
    return failures


def _refuse_collisions(files: list[tuple[Path, Path]]) -> None:
    """Refuse two inputs whose results would have one name."""
    seen: dict[Path, Path] = {}
    for file, name in files:
        other = seen.setdefault(name.with_suffix(""), file)
        if other != file:
            raise SemipixError(f"{file} and {other} would both be written as {name.with_suffix('.png')}; rename one")


def _check_trimaps(run: Path, task: Task, trimaps: Path | None) -> None:
    """Refuse a missing folder of trimaps, and one that the task has no use for."""
    name = type(task).__name__
    if task.trimap and trimaps is None:
        raise SemipixError(f"{run}: {name} needs a trimap for each image; give their folder by --trimaps DIR")
    if not task.trimap and trimaps is not None:
        raise SemipixError(f"--trimaps: {trimaps} found, but {name} takes no trimap; leave the option out")
    if trimaps is not None and not trimaps.is_dir():
        raise SemipixError(f"--trimaps: {trimaps} is no folder; name the folder that holds a trimap for each image")


def _results(task: Task, out: Path, name: Path) -> list[Path]:
    """Where the task's files of one prediction go: one, or one for each channel."""
    path = out / ("masks" if task.classification else "predictions") / name
    made = task.to_file(torch.zeros(task.channels, 1, 1))
    if made.ndim == 2 or (len(made) == 3 and made.dtype == torch.uint8):
        return [path]
    return [path.with_suffix(f".{channel}.png") for channel in range(len(made))]


def _write(method: Method, image: Tensor, resize: int | tuple[int, int] | None, out: Path, name: Path) -> None:
    """Predict one image (C, H, W) and write its files; the task's own last, since they mark the image as done."""
    task, size = method.task, image.shape[-2:]
    seen = resize_image(image, resize).unsqueeze(0)
    prediction = F.interpolate(task.activate(method(seen)), size, mode="bilinear")
    if task.trimap:  # at its own size it says more than resized
        prediction = task.activate(task.constrain(task.deactivate(prediction), image.unsqueeze(0)))
    prediction = prediction[0]
    _save(task.render(image, prediction).movedim(0, -1).cpu().numpy(), out / "pictures" / name)
    maps = method.maps(Batch(seen, torch.zeros(0, *size, dtype=torch.long, device=image.device)))
    if "flaw" in maps:
        flaw = F.interpolate(maps["flaw"], size, mode="bilinear")[0, 0]
        _save((flaw * 255).round().byte().cpu().numpy(), out / "flaw" / name)
    made, paths = task.to_file(prediction).cpu(), _results(task, out, name)
    if len(paths) > 1:
        for channel, path in zip(made, paths, strict=True):
            _save(channel.numpy(), path)
    else:
        _save((made.movedim(0, -1) if made.ndim == 3 else made).numpy(), paths[0])


def _save(pixels: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> None:
    """Write a PNG beside its place and rename it, so that what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        Image.fromarray(pixels).save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
