"""Make data for regression from photographs: folders for the settings `mattes`, `noisy` and `dark` of `compare`.

python -m benchmarks.accuracy.make_data mattes PORTRAIT OUT    alphas from masks of persons, for data=matting
python -m benchmarks.accuracy.make_data noisy PORTRAIT OUT     noise of a camera, for data=pairs task=denoising
python -m benchmarks.accuracy.make_data dark PORTRAIT OUT      little, coloured light, for data=pairs task=enhancement

PORTRAIT has the layout of data=folder: `images/{train,test}` and, for mattes, `masks/{train,test}` with 1 for the
person. Another folder of photographs, such as CamVid's, serves `noisy` and `dark`. What is drawn for an image depends
only on its name, so the same photographs always give the same data.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from benchmarks.common import run
from semipix.atomic import ENDING, write_text, written
from semipix.data.drawing.camera import Colours, expose
from semipix.data.drawing.shapes import smooth_noise
from semipix.data.files.decode import check_label_size, read_image
from semipix.data.files.decode_masks import read_indices
from semipix.data.files.listing import Listing, list_folder
from semipix.data.files.mattes import make_trimap
from semipix.data.files.resize import resize_to
from semipix.errors import SemipixError

Degrade = Callable[[Colours, Generator], Colours]
"""Makes an input of a photograph (H, W, 3)."""

SOFTNESS = 1.5
"""Standard deviation in pixels of the blur that makes an alpha of a mask."""

TRIMAP_WIDTHS = (0.02, 0.12)
"""Range of the width of the unknown region inside and outside of the alpha's edge, in long sides of the image."""

SHOT, READ = (1e-4, 1e-1), (1e-3, 8e-2)
"""Ranges of both parts of the noise of `noisy`, from a good camera in daylight to a poor one at night."""

LIGHT, COLOUR = (0.03, 0.5), (0.5, 2.0)
"""Ranges of the factors on linear light in `dark`: of all colours, and of red and blue beside green."""


def noisy(photograph: Colours, generator: Generator) -> Colours:
    """A photograph with more or less noise; one label shows one level of noise only."""
    shot, read = (_log_uniform(generator, bounds) for bounds in (SHOT, READ))
    return expose(photograph, 1.0, shot, read, generator)


def dark(photograph: Colours, generator: Generator) -> Colours:
    """A photograph in little, uneven and coloured light; one label shows one light only."""
    uneven = 1 + 0.5 * smooth_noise(generator, 2, *photograph.shape[:2])
    colour = [_log_uniform(generator, COLOUR), 1.0, _log_uniform(generator, COLOUR)]
    light = _log_uniform(generator, LIGHT) * uneven[..., None] * np.array(colour, np.float32)
    return expose(photograph, light, 2e-4, 1e-3, generator)


DEGRADE: dict[str, Degrade] = {"noisy": noisy, "dark": dark}


def make_pairs(parts: dict[str, list[str]], root: Path, out: Path, size: int, degrade: Degrade) -> None:
    """Write the layout of data=pairs: degraded photographs in `inputs/`, the photographs in `targets/`."""
    for part, name in _progress(parts):
        photograph = _photograph(root / name, size)
        stem = Path(name).stem
        _write(out / "targets" / part / f"{stem}.png", photograph)
        # What a file of the target holds, so that the input is made of it exactly.
        clean = _bytes(photograph).astype(np.float32) / np.float32(255)
        _write(out / "inputs" / part / f"{stem}.png", degrade(clean, _generator(stem)))


def make_mattes(parts: dict[str, list[str]], masks: dict[str, str], root: Path, out: Path, size: int) -> None:
    """Write the layout of data=matting: `images/`, `alpha/`, `trimap1/` and `split.json`.

    Raises:
        SemipixError: an image has no mask, or a mask another size or other classes than 0 and 1.
    """
    if missing := [name for names in parts.values() for name in names if name not in masks]:
        raise SemipixError(f"{root / missing[0]}: found no mask; add it, or make noisy or dark data")
    for _, name in _progress(parts):
        stem = Path(name).stem
        alpha, trimap = _matte(root / name, root / masks[name], size, _generator(stem))
        _write(out / "images" / f"{stem}.png", _photograph(root / name, size))
        _write(out / "alpha" / f"{stem}.png", alpha)
        _write(out / "trimap1" / f"{stem}.png", trimap)
    write_text(out / "split.json", json.dumps({part: [Path(n).stem for n in names] for part, names in parts.items()}))


def chosen(listing: Listing, train: int, val: int, test: int) -> dict[str, list[str]]:
    """Names of the photographs of each part: evenly spread over those of `images/train`, and over `images/test`.

    Raises:
        SemipixError: there are too few photographs, or two that are chosen have the same stem.
    """
    names = listing.parts()
    trained, tested = (sorted(names[part]) for part in ("train", "test"))
    if len(trained) < train + val or len(tested) < test:
        raise SemipixError(
            f"--train {train} --val {val} --test {test}: found {len(trained)} photographs in images/train and "
            f"{len(tested)} in images/test; ask for at most as many"
        )
    first = _spread(trained, train + val)
    held = set(_spread(first, val))
    parts = {"train": [name for name in first if name not in held], "val": sorted(held), "test": _spread(tested, test)}
    by_stem: dict[str, str] = {}
    for name in itertools.chain(*parts.values()):
        if (other := by_stem.setdefault(Path(name).stem, name)) != name:
            raise SemipixError(f"{name}: same stem as {other}; expected one file a stem, rename one of them")
    return parts


def _spread(names: list[str], count: int) -> list[str]:
    return [names[index * len(names) // count] for index in range(count)]


def _matte(image: Path, mask: Path, size: int, generator: Generator) -> tuple[Colours, Colours]:
    """Alpha and trimap (H, W) in [0, 1]."""
    classes = read_indices(mask)
    check_label_size(image, mask, classes)
    if int(classes.max()) > 1:
        raise SemipixError(f"{mask}: found class {int(classes.max())}, expected 0 for the background and 1 for persons")
    whole = tv_tensors.Image(classes[None].float())
    smooth = gaussian_blur(resize_to(whole, _scaled(classes.shape[-2:], size)), [13, 13], [SOFTNESS, SOFTNESS])
    alpha = (smooth[0].as_subclass(torch.Tensor).clamp(0, 1) * 255).round() / 255
    low, high = (max(1, round(share * size)) for share in TRIMAP_WIDTHS)
    inner, outer = (int(reach) for reach in generator.integers(low, high + 1, 2))
    return alpha.numpy(), make_trimap(alpha, inner, outer).numpy()


def _photograph(path: Path, size: int) -> Colours:
    """A photograph (H, W, 3) whose long side has `size` pixels."""
    image = read_image(path)
    small = resize_to(tv_tensors.Image(image), _scaled(image.shape[-2:], size))
    return np.ascontiguousarray(small.permute(1, 2, 0).numpy())


def _scaled(sides: torch.Size, size: int) -> tuple[int, int]:
    height, width = (max(1, round(side * size / max(sides))) for side in sides)
    return height, width


def _log_uniform(generator: Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(generator.uniform(*np.log(bounds))))


def _generator(stem: str) -> Generator:
    return np.random.default_rng(zlib.crc32(stem.encode()))


def _bytes(values: Colours) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes; 0.5 becomes 128, as trimaps need it."""
    return np.floor(values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _write(path: Path, values: Colours) -> None:
    with written(path) as file:
        Image.fromarray(_bytes(values)).save(file, format="PNG")


def _progress(parts: dict[str, list[str]]) -> "tqdm[tuple[str, str]]":
    return tqdm([(part, name) for part, names in parts.items() for name in names], unit=" images", disable=None)


@contextlib.contextmanager
def _complete(out: Path) -> Iterator[Path]:
    """A folder to write to, which is renamed to `out` when it is complete, and removed if writing fails.

    Raises:
        SemipixError: `out` exists already.
    """
    if out.exists():
        raise SemipixError(f"{out}: exists already; remove it or choose another folder")
    unfinished = out.with_name(f".{out.name}{ENDING}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy.make_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=["mattes", *DEGRADE])
    parser.add_argument("source", type=Path, help="folder of the photographs")
    parser.add_argument("out", type=Path, help="folder that is written; it must not exist")
    parser.add_argument("--size", type=int, default=200, help="pixels of the long side (default: 200)")
    parser.add_argument("--train", type=int, default=600, help="training images (default: 600)")
    parser.add_argument("--val", type=int, default=40, help="validation images, from images/train (default: 40)")
    parser.add_argument("--test", type=int, default=100, help="test images (default: 100)")
    given = parser.parse_args()
    listing = list_folder(given.source)
    if listing.problems:
        raise SemipixError(listing.problems[0])
    parts = chosen(listing, given.train, given.val, given.test)
    masks = {name: mask for labels in listing.labels.values() for name, mask in labels.items()}
    with _complete(given.out) as out:
        if given.kind == "mattes":
            make_mattes(parts, masks, given.source, out, given.size)
        else:
            make_pairs(parts, given.source, out, given.size, DEGRADE[given.kind])


if __name__ == "__main__":
    run(main)
