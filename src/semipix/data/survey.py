"""Check masks and headers of a data folder.

Training and `semipix data check` both use these functions, so that they refuse the same files with the same message.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from semipix.data.files.bands import Bands
from semipix.data.files.decode import Header, check_same_size
from semipix.data.files.decode_colours import ColourTable, read_colour_mask
from semipix.data.files.decode_masks import GREY_PALETTE, read_mask_file
from semipix.data.files.opening import MAX_PIXELS, SIDEWAYS
from semipix.data.files.reader import Reader
from semipix.errors import SemipixError, UnreadableFileError

T = TypeVar("T")
R = TypeVar("R")

SEVERAL_PAGES = frozenset({".tif", ".tiff", ".gif", ".webp"})
"""Extensions of formats that may hold several pages, or further bands beside the colours."""

_READING_DELAY = 2.0
"""Seconds after which reading a folder shows a progress bar."""

Colour = tuple[int, int, int]


class MaskCounts(NamedTuple):
    """The contents of one mask file.

    Attributes:
        pixels: number of pixels by class index, after `data.mask_values`.
        palette: colours of the indices that occur, for a mask with a palette.
        warning: what is unusual about the mask in comparison with its image.
        kind: see `MaskFile`.
        nodata: see `MaskFile`.
    """

    pixels: Counter[int]
    palette: Mapping[int, Colour] | None = None
    warning: str | None = None
    kind: str = "grey"
    nodata: int | None = None


@dataclass
class Survey:
    """The contents of all masks of a folder.

    Attributes:
        pixels: number of pixels by class index for each image whose mask can be read.
        problems: one line for each mask that cannot be used, by image name.
        unreadable: names of the images whose mask cannot be read at all; they are in `problems` too.
        kinds: what the values of each readable mask are in its file, see `MaskFile`.
        warnings: one line for each thing that is unusual but may be intended.
    """

    pixels: dict[str, Counter[int]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def present(self, names: Iterable[str]) -> Counter[int]:
        """Number of pixels by class index over the masks of these images."""
        return sum((self.pixels[name] for name in names if name in self.pixels), Counter())


def survey_masks(
    root: Path,
    masks: Mapping[str, str],
    table: Tensor | None = None,
    max_pixels: int = MAX_PIXELS,
    by_colour: ColourTable | None = None,
    bands: Bands | None = None,
    stated: Collection[int] = (),
) -> Survey:
    """Read all masks, and only the headers of their images.

    Args:
        root: the data folder.
        masks: names of the masks by name of their image.
        table: class index by stored value, from `data.mask_values`.
        max_pixels: the `data.max_pixels` setting.
        by_colour: the class of each colour, for masks of colours.
        bands: the bands of the images.
        stated: the stored values that `data.mask_values` names.
    """
    reader = Reader(max_pixels=max_pixels, bands=bands)

    def look(image: str) -> MaskCounts | SemipixError:
        try:
            return _look(root / image, root / masks[image], table, reader, by_colour, stated)
        except SemipixError as error:
            return error

    found = Survey()
    colours: dict[int, tuple[Colour, Path]] = {}
    turned, emptied = [], []
    for image, result in zip(masks, in_threads(look, list(masks), "reading masks"), strict=True):
        if isinstance(result, SemipixError):
            found.problems[image] = str(result)
            if isinstance(result, UnreadableFileError):
                found.unreadable.add(image)
            continue
        found.pixels[image] = result.pixels
        found.kinds[image] = result.kind
        if result.nodata is not None:
            emptied.append(
                f"{root / masks[image]}: {result.nodata} is the file's nodata and counts as void; if it is a class, "
                f"set data.mask_values={{{result.nodata}:CLASS}}"
            )
        if result.warning:
            turned.append(result.warning)
        if problem := _palette_problem(root / masks[image], result.palette or {}, colours):
            found.problems[image] = problem
    found.warnings += first_and_count(turned, "masks") + first_and_count(emptied, "masks")
    found.problems |= _gif_problem(root, masks, found.kinds)
    return found


def first_and_count(lines: Sequence[str], several: str) -> list[str]:
    """The first of several similar lines, with the number of the others; an empty list for no lines."""
    more = f"; and {len(lines) - 1} more such {several}" if len(lines) > 1 else ""
    return [lines[0] + more] if lines else []


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterable[R]:
    """Call a function for each item in up to 8 threads, with a progress bar; results come in the order of the items."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(function, items)
        # disable=None shows the bar only on a terminal.
        yield from tqdm(results, desc=what, total=len(items), leave=False, disable=None, delay=_READING_DELAY)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # do not wait for the other items after an interruption


def turned_warning(
    image: Path, label: Path, header: Header, orientation: int, size: Sequence[int], word: str = "mask"
) -> str | None:
    """A warning if a photo has an orientation tag but its label has none and may need one; None otherwise.

    Args:
        image: the photo's file.
        label: the label's file.
        header: the header of the photo.
        orientation: the label's own tag.
        size: height and width of the label.
        word: what the label is called.
    """
    # If the label has another size than the stored pixels of the photo, it was made from the upright photo.
    stored = header.size[::-1] if header.orientation in SIDEWAYS else header.size
    if header.orientation == 1 or orientation != 1 or tuple(size) != stored:
        return None
    return (
        f"{label}: has no orientation tag, but its image {image.name} has one (orientation {header.orientation}); "
        f"if the {word} was made from the pixels as they are stored, turn it or give it the same tag"
    )


def further_parts(files: Sequence[Path], reader: Reader) -> list[str]:
    """Lines, each with a count, about pages and bands of image files that are not used.

    Only headers are read. Files that cannot be read are ignored here.

    Args:
        files: image files with an extension in `SEVERAL_PAGES`.
        reader: reads the images.
    """

    def look(path: Path) -> Header | None:
        try:
            return reader.header(path)
        except SemipixError:
            return None

    pages, bands = [], []
    for path, header in zip(files, in_threads(look, files, "reading headers"), strict=True):
        if header is not None and header.pages > 1:
            pages.append(path)
        if header is not None and header.dropped_bands:
            bands.append(path)
    return [
        f"{len(paths)} image files {what} ({paths[0]}{', ...' if len(paths) > 1 else ''}); {advice}"
        for paths, what, advice in (
            (pages, "hold several pages, of which only the first is read", "save each page as a file to use it"),
            (bands, "hold further bands; only red, green and blue are read", "set data.bands=all to read the others"),
        )
        if paths
    ]


def _look(
    image: Path,
    path: Path,
    table: Tensor | None,
    reader: Reader,
    by_colour: ColourTable | None,
    stated: Collection[int],
) -> MaskCounts:
    if by_colour is None:
        mask = read_mask_file(path, stated, max_pixels=reader.max_pixels)
    else:
        mask = read_colour_mask(path, by_colour, max_pixels=reader.max_pixels)
    try:
        header = reader.header(image)
    except SemipixError:  # reported when the image itself is read
        header = None
    if header is not None:
        check_same_size(image, path, header.size, mask.values.shape)
    pixels = _by_class(_counts(mask.values), table)
    warning = header and turned_warning(image, path, header, mask.orientation, mask.values.shape)
    return MaskCounts(pixels, mask.palette, warning, mask.kind, mask.nodata)


def _counts(values: Tensor) -> Counter[int]:
    """Number of pixels by stored value."""
    array = values.numpy()
    # Pillow counts bytes ten times as fast as numpy does.
    as_bytes = array.dtype == np.uint8
    counts = np.array(Image.fromarray(array).histogram()) if as_bytes else np.bincount(array.ravel())
    return Counter({int(value): int(counts[value]) for value in counts.nonzero()[0]})


def _by_class(counts: Counter[int], table: Tensor | None) -> Counter[int]:
    if table is None:
        return counts
    mapped: Counter[int] = Counter()
    for value, count in counts.items():
        mapped[int(table[value])] += count
    return mapped


def _gif_problem(root: Path, masks: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, str]:
    """A problem, by name of its image, if some GIFs are read by indices and others by grey values."""
    gifs: dict[str, str] = {}
    for image, kind in kinds.items():
        if masks[image].lower().endswith(".gif"):
            gifs.setdefault(kind, image)
    if len(gifs) < 2:
        return {}
    image, other = gifs[GREY_PALETTE], gifs["palette"]
    return {
        image: f"{root / masks[image]}: a GIF whose palette is grey, which is read by its grey values, but "
        f"{root / masks[other]} has a palette of colours, which is read by its indices; save all masks as PNG with the "
        "class index as value"
    }


def _palette_problem(path: Path, palette: Mapping[int, Colour], seen: dict[int, tuple[Colour, Path]]) -> str | None:
    """A problem if an index has another colour than in an earlier mask: it may then be another class."""
    for index, colour in palette.items():
        earlier, where = seen.setdefault(index, (colour, path))
        if earlier != colour:
            return (
                f"{path}: index {index} of its palette is the colour {colour}, but {earlier} in {where}; their "
                "palettes differ, so the same index may mean two classes; save the masks with one palette, or as 8-bit "
                "grey with the class index as value"
            )
    return None
