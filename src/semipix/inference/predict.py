"""Predict folders of images: index masks, colour pictures and flaw maps."""

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
from semipix.methods.base import Method


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
    run: Path, paths: Sequence[Path], out: Path, checkpoint: str | None = None, skip_existing: bool = False
) -> list[str]:
    """Predict images at their own size into `out/masks`, `out/pictures` and, for methods with a detector, `out/flaw`.

    Args:
        run: run folder.
        paths: image files, or folders searched with their subfolders, which are kept in `out`.
        out: folder to write to.
        checkpoint: `best` or `last`; by default best where validation chose one.
        skip_existing: leave images alone whose mask exists, to continue an interrupted prediction.

    Returns:
        One line for each image that could not be read; the others are predicted all the same.

    Raises:
        SemipixError: no run, no checkpoint, no images, or two images of one name.
    """
    files = list(find_images(paths, out))
    _refuse_collisions(files)
    config = train.load_config(run)
    method = train.load_method(run, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method.to(device)
    failures = []
    for file, name in tqdm(files, desc="predict", unit="image"):
        if skip_existing and (out / "masks" / name).with_suffix(".png").exists():
            continue
        try:
            image = read_image(file)
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


def _write(method: Method, image: Tensor, resize: int | tuple[int, int] | None, out: Path, name: Path) -> None:
    """Predict one image (C, H, W) and write its files; the mask last, since it marks the image as done."""
    size = image.shape[-2:]
    seen = resize_image(image, resize).unsqueeze(0)
    prediction = F.interpolate(method.task.activate(method(seen)), size, mode="bilinear")[0]
    _save(method.task.render(image, prediction).movedim(0, -1).cpu().numpy(), out / "pictures" / name)
    maps = method.maps(Batch(seen, torch.zeros(0, *size, dtype=torch.long, device=image.device)))
    if "flaw" in maps:
        flaw = F.interpolate(maps["flaw"], size, mode="bilinear")[0, 0]
        _save((flaw * 255).round().byte().cpu().numpy(), out / "flaw" / name)
    _save(prediction.argmax(0).byte().cpu().numpy(), out / "masks" / name)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG beside its place and rename it, so that what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        Image.fromarray(pixels).save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
