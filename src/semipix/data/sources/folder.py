"""Images and masks of class indices in folders."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.batch import VOID
from semipix.data.files.bands import Bands, Pairs
from semipix.data.files.decode import check_same_size
from semipix.data.files.decode_colours import ColourTable
from semipix.data.files.listing import MASKS, SPLITS, Layout, Listing, list_folder
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.reader import Reader
from semipix.data.source import Source
from semipix.data.sources.class_names import (
    CLASSES_FILE,
    binary_kinds_problems,
    binary_problem,
    check_same_classes,
    class_values_warnings,
    infer_classes,
    outside_problem,
    read_classes,
)
from semipix.data.sources.colour_classes import read_colour_table
from semipix.data.sources.scene_folders import SceneFolders
from semipix.data.survey import survey_masks
from semipix.errors import SemipixError


@dataclass
class MaskFindings:
    """The result of `check_masks`.

    Attributes:
        classes: class names; empty if a problem leaves them unknown.
        by_image: one line for each mask that cannot be used, by image name.
        of_all: one line for each problem of the training masks as a whole.
        warnings: one line for each thing that is unusual but may be intended.
        pixels: number of pixels by class index (255 is void) over all readable masks.
        unreadable: names of the images whose mask cannot be read.
    """

    classes: list[str]
    by_image: dict[str, str]
    of_all: list[str]
    warnings: list[str]
    pixels: Counter[int]
    unreadable: set[str]


class FolderSource(Source):
    """Images in `images/{train,val,test}` and masks of the same stems in `masks/{train,val,test}`.

    An image in `images/train` without a mask is unlabeled, and so is every image in the optional folder `unlabeled`.
    The optional file `classes.txt` contains the class names (see `read_classes`); without it the classes are counted in
    the training masks. A mask value of 255 is void. The optional file `scenes.txt` lists folders whose images show one
    scene (see `SceneFolders`).

    All masks are read once before training, so that training refuses the same masks as `semipix data check`.

    Args:
        root: the data folder.
        mask_values: class index (or 255) by stored mask value, e.g. `{0: 0, 255: 1}`; other values stay as they are.
        colours: masks are pictures whose colours are the classes, see `read_colour_table`.
        on_error: with skip, training masks that cannot be read raise no error.
        max_pixels: most pixels of a file that is read; the `data.max_pixels` setting.
        bands: images have any bands, of which these are read: their numbers from 0, or all. By default images have
            colours; with a range, all bands are read.
        range: the stored numbers that become 0 and 1: one pair for all bands, or one for each. By default the range of
            the file's type, which must be of 8 or 16 bits.
        mean: mean of each band, as a value from 0 to 1; by default it is measured on training images.
        std: standard deviation of each band.
        run_classes: class names of the run that uses the data; `classes.txt` must agree with them.
        needed_splits: parts whose masks are checked at once; if empty (and the classes are known), no mask is read
            before it is used.

    Raises:
        SemipixError: the folder is missing or has another layout, no training image has a mask, or a mask cannot be
            used.
    """

    layout: Layout = MASKS
    labels_by_scene: ClassVar[bool] = False

    def __init__(
        self,
        root: str | Path,
        mask_values: Mapping[int, int] | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        max_pixels: int = MAX_PIXELS,
        run_classes: Sequence[str] | None = None,
        needed_splits: Sequence[str] = SPLITS,
        colours: bool = False,
        bands: Sequence[int] | Literal["all"] | None = None,
        range: Pairs | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        check_keys(mask_values, colours)
        self.root = Path(root).expanduser()
        self.bands = Bands.of(bands, range, mean, std)
        if self.bands is not None:
            self.layout = replace(self.layout, image_arrays=True)
        self.reader = Reader(max_pixels=max_pixels, bands=self.bands)
        self._on_error = on_error
        self._table = lookup_table(mask_values) if mask_values else None
        self._stated = frozenset(map(int, mask_values or ()))
        self.listing = list_folder(self.root, self.layout)
        if self.listing.problems:
            raise SemipixError(self.listing.problems[0])
        self.left_out = self.listing.left_out
        self._scenes = SceneFolders(self.root)
        self._masks = {image: mask for masks in self.listing.labels.values() for image, mask in masks.items()}
        self._colours: ColourTable | None = None
        names: list[str] | None
        if colours:
            names, self._colours = read_colour_table(self.root)
        else:
            names = self.read_names()
        if run_classes is not None:
            if names is not None:
                origin = self._colours.origin if self._colours else self.root / CLASSES_FILE
                check_same_classes(run_classes, names, origin)
            names = list(run_classes)
        if names is not None and not needed_splits:
            self.classes: list[str] = names
            return
        findings = check_masks(
            self.root,
            self.listing,
            names,
            self._table,
            max_pixels,
            self.layout,
            self._colours,
            self.bands,
            self._stated,
        )
        if problems := self._serious(findings, needed_splits):
            raise SemipixError(problems[0])
        self.classes = findings.classes
        images = (name for names in self.listing.parts().values() for name in names)
        self.warnings = [*findings.warnings, *self._scenes.warnings(images)]

    def labeled(self) -> list[str]:
        return list(self.listing.labels["train"])

    def unlabeled(self) -> list[str]:
        return sorted([*self.listing.bare["train"], *self.listing.unlabeled])

    def val(self) -> list[str]:
        return list(self.listing.labels["val"])

    def test(self) -> list[str]:
        return list(self.listing.labels["test"])

    def scene(self, name: str) -> str:
        return self._scenes.scene(name)

    def files(self, extensions: Collection[str]) -> list[Path]:
        return self.listing.files(self.root, extensions)

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return self.reader.tensor(self.root / name)

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        return self.image(name, seed), self.target(name)

    def target(self, name: str) -> tv_tensors.Mask:
        """The mask of an image as checked class indices, (H, W)."""
        mask = self.root / self._masks[name]
        if self._colours is None:
            indices = self._class_indices(self.reader.mask(mask, self._stated))
        else:
            indices = self.reader.colour_mask(mask, self._colours)
        image = self.root / name
        check_same_size(image, mask, self.reader.header(image).size, tuple(indices.shape))
        check_indices(mask, indices, len(self.classes))
        return tv_tensors.Mask(indices)

    def _serious(self, findings: MaskFindings, needed_splits: Sequence[str]) -> list[str]:
        """The problems of the needed masks, except those that training skips."""
        general = findings.of_all if "train" in needed_splits else []
        needed = [name for split in needed_splits for name in self.listing.labels[split]]
        if self._on_error == "skip":
            skipped = findings.unreadable.intersection(self.listing.labels["train"])
            needed = [name for name in needed if name not in skipped]
        return [*(findings.by_image[name] for name in needed if name in findings.by_image), *general]

    def read_names(self) -> list[str] | None:
        """Class names by index; None if they have to be counted in the masks."""
        return read_classes(self.root)

    def _class_indices(self, values: Tensor) -> Tensor:
        """Class indices (H, W) from stored values, by `mask_values`."""
        if self._table is None:
            return values
        if values.dtype == torch.uint8:
            return torch.from_numpy(self._table[:256].byte().numpy()[values.numpy()])
        return self._table[values.long()]


def check_masks(
    root: Path,
    listing: Listing,
    names: Sequence[str] | None,
    table: Tensor | None = None,
    max_pixels: int = MAX_PIXELS,
    layout: Layout = MASKS,
    colours: ColourTable | None = None,
    bands: Bands | None = None,
    stated: Collection[int] = (),
) -> MaskFindings:
    """Read all masks of a folder and collect classes, problems and warnings.

    Args:
        root: the data folder.
        listing: its listing.
        names: class names; None to count the classes in the training masks.
        table: the result of `lookup_table`.
        max_pixels: the `data.max_pixels` setting.
        layout: names of the folders.
        colours: the class of each colour, for masks of colours.
        bands: the bands of the images.
        stated: the stored values that `data.mask_values` names.
    """
    folders = {split: root / layout.labels.format(split=split) for split in SPLITS}
    masks = {image: mask for part in listing.labels.values() for image, mask in part.items()}
    found = survey_masks(root, masks, table, max_pixels, colours, bands, stated)
    by_image, of_all, warnings = dict(found.problems), [], list(found.warnings)
    training = found.present(listing.labels["train"])
    classes = list(names or [])
    if training and colours is None and (problem := binary_problem(folders["train"], set(training))):
        of_all.append(problem)
    elif training and not names:
        try:
            classes = infer_classes(folders["train"], set(training))
        except SemipixError as error:
            of_all.append(str(error))
    if colours is None and table is None and not of_all:
        present_in = {image: set(pixels) for image, pixels in found.pixels.items()}
        files = {image: root / mask for image, mask in masks.items()}
        mixed = binary_kinds_problems(files, present_in, found.kinds)
        for images in listing.labels.values():  # one line for each part
            for image in [image for image in images if image in mixed][:1]:
                by_image.setdefault(image, mixed[image])
    if classes:
        for image, pixels in found.pixels.items():
            outside = {value: count for value, count in pixels.items() if value >= len(classes) and value != VOID}
            if outside:
                by_image.setdefault(image, outside_problem(root / masks[image], outside, len(classes)))
        present = {value for value in training if value != VOID}
        warnings += class_values_warnings(folders["train"], present, classes, named=bool(names))
    for split in ("val", "test"):
        pixels = found.present(listing.labels[split])
        if pixels and not set(pixels) - {VOID}:
            warnings.append(
                f"{folders[split]}: all pixels of the {len(listing.labels[split])} masks are void (255), so "
                "no metric can be computed; map the values with data.mask_values={VALUE:CLASS}"
            )
    pixels = found.present(masks)
    return MaskFindings(classes, by_image, of_all, warnings, pixels, found.unreadable)


def check_keys(mask_values: Mapping[int, int] | None, colours: bool) -> None:
    """Check that the keys do not contradict each other.

    Raises:
        SemipixError: both are set.
    """
    if mask_values and colours:
        raise SemipixError(
            "data.mask_values: found it beside data.colours=true; expected one of them, since masks hold values or "
            "colours, leave the other out"
        )


def check_indices(mask: Path, indices: Tensor, classes: int) -> None:
    """Check that a mask (H, W) contains only class indices below `classes`, and void.

    Raises:
        SemipixError: the mask contains other values.
    """
    outside = indices[(indices >= classes) & (indices != VOID)]
    if len(outside):
        raise SemipixError(outside_problem(mask, Counter(outside.tolist()), classes))


def lookup_table(mask_values: Mapping[int, int]) -> Tensor:
    """A table (65536,) int64 of the class index by stored mask value.

    Raises:
        SemipixError: a value is not from 0 to 65535, or a class not from 0 to 255.
    """
    table = torch.arange(65536)
    for value, index in mask_values.items():
        if not (0 <= int(value) < len(table) and 0 <= int(index) <= VOID):
            raise SemipixError(
                f"data.mask_values: found {value}:{index}, expected a value from 0 to 65535 and a class from 0 to 255"
            )
        table[int(value)] = int(index)
    return table
