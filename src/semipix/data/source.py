"""The interface of all data sources."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

from torchvision import tv_tensors

from semipix.batch import VOID
from semipix.data.files.bands import Bands
from semipix.data.files.reader import Reader
from semipix.data.targets import Target


class Source(ABC):
    """Where images and labels come from. Label fractions, batches and methods are handled elsewhere.

    Names are unique strings such as "images/train/a.jpg" and come in sorted lists.

    Attributes:
        kinds: the kinds of targets that sources of this class can have, out of `KINDS`.
        kind: the kind of targets that this source has.
        classes: class names in the order of their index; None for regression.
        channels: channels of a regression target; None if not known.
        target_fill: value of the padding of a mask.
        bands: which bands images have; None for colours.
        reader: reads files for `image` and `pair`; the data module sets its own.
        left_out: one line, with a count, for each kind of file that is not read.
        warnings: one line for each thing that is unusual but may be intended.
        labels_by_scene: whether `data.labels` counts scenes (all images of a scene are labeled together) or images.
    """

    kinds: ClassVar[tuple[str, ...]] = ("segmentation",)
    kind: str = "segmentation"
    classes: list[str] | None = None
    channels: int | None = None
    target_fill: float = VOID
    labels_by_scene: ClassVar[bool] = True
    left_out: Sequence[str] = ()
    warnings: Sequence[str] = ()
    bands: Bands | None = None
    reader: Reader = Reader()

    @abstractmethod
    def labeled(self) -> list[str]:
        """Names of the training images that have a label."""

    @abstractmethod
    def unlabeled(self) -> list[str]:
        """Names of the training images that have no label."""

    @abstractmethod
    def val(self) -> list[str]:
        """Names of the validation images, all labeled; empty if the source has no validation part."""

    @abstractmethod
    def test(self) -> list[str]:
        """Names of the test images, all labeled; empty if the source has no test part."""

    @abstractmethod
    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        """The named image, uint8 or float32 in [0, 1]: (3, H, W), (4, H, W) for matting, or a `BandImage` of bands.

        A fourth channel is the trimap: 0 background, 0.5 unknown, 1 foreground. A source of files uses its
        `reader`, which may already shrink an image to `data.resize`.

        Args:
            name: the image.
            seed: in training, seeds what a source varies (a trimap, a background); None gives the same image each time.

        Raises:
            SemipixError: the file is missing, corrupt or not an image.
        """

    @abstractmethod
    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, Target]:
        """A labeled image as `image` returns it, and its label at the label's own size.

        The label is (H, W) integers for classification, and (C, H, W) for regression (`Matte`: 8 channels): uint8 or
        float32 in [0, 1] if it is an image, float32 in the units of the data if it is a map. NaN marks pixels without a
        label.

        Args:
            name: the image.
            seed: in training, seeds what a source varies; None gives the same pair each time.

        Raises:
            SemipixError: a file cannot be read, or the label does not fit the image or the classes.
        """

    def target(self, name: str) -> Target:
        """The label that `pair` returns without a seed; sources override it to leave the image unread.

        Args:
            name: the image.

        Raises:
            SemipixError: see `pair`.
        """
        return self.pair(name)[1]

    def files(self, extensions: Collection[str]) -> list[Path]:
        """Image files with one of these extensions (in lower case); their headers are checked before training.

        Empty if images are not in files of their own.
        """
        return []

    def scene(self, name: str) -> str:
        """The scene that the image shows; by default each image is a scene of its own.

        No scene may be in both training and evaluation.
        """
        return name
