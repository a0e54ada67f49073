"""The interface of a data source."""

from abc import ABC, abstractmethod
from typing import TypeAlias

from torchvision import tv_tensors

VOID = 255
"""The index that says nothing about a pixel in a segmentation mask."""

Target: TypeAlias = tv_tensors.Mask | tv_tensors.Image
"""A label: a mask of class indices, or an image for regression."""


class Source(ABC):
    """Where images and labels come from. A source knows nothing of label fractions, batches and methods.

    Names are unique strings such as "images/train/a.jpg" and come in sorted lists.

    Attributes:
        classes: class names in the order of their index; None for regression.
        target_fill: what padding writes into a target: `VOID` for segmentation.
    """

    classes: list[str] | None = None
    target_fill: float = VOID

    @abstractmethod
    def labeled(self) -> list[str]:
        """Names of the training images that have a label."""

    @abstractmethod
    def unlabeled(self) -> list[str]:
        """Names of the training images that have none."""

    @abstractmethod
    def val(self) -> list[str]:
        """Names of the validation images, all labeled; empty where the source sets none apart."""

    @abstractmethod
    def test(self) -> list[str]:
        """Names of the test images, all labeled; empty where the source has none."""

    @abstractmethod
    def image(self, name: str) -> tv_tensors.Image:
        """The named image, (3, H, W) float32 in [0, 1].

        Raises:
            SemipixError: the file cannot be read.
        """

    @abstractmethod
    def target(self, name: str) -> Target:
        """The named image's label: (H, W) int64 for classification, (C, H, W) float32 in [0, 1] for regression.

        Raises:
            SemipixError: the label cannot be read, or does not fit the image or the classes.
        """
