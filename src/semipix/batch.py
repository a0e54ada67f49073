"""The only data a method sees."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images of one training step, the labeled ones first.

    Attributes:
        image: (N, C_in, H, W) float in [0, 1]; the first `len(target)` images are labeled.
        target: labels of the first L images, L <= N: (L, H, W) int64 for classification,
            (L, C, H, W) float for regression.
        strong: (V (N - L), C_in, H, W) strong photometric views of the unlabeled images with the same geometry, the
            first view of all of them before the second; None where the method does not ask for them.
    """

    image: Tensor
    target: Tensor
    strong: Tensor | None = None

    @property
    def labeled(self) -> Tensor:
        """The labeled images, (L, C_in, H, W)."""
        return self.image[: len(self.target)]

    @property
    def unlabeled(self) -> Tensor:
        """The unlabeled images, (N - L, C_in, H, W)."""
        return self.image[len(self.target) :]
