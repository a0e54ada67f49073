"""Matting: how much of each pixel is foreground, for the pixels that are unknown in a trimap."""

import functools
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.errors import SemipixError
from semipix.functional import matting_errors as matting
from semipix.functional.precision import at_least_float32
from semipix.functional.routing import masked_mean
from semipix.functional.similarity import psnr
from semipix.tasks.measures import ImageMean, ImageMeasure
from semipix.tasks.regression import Regression, charbonnier

ROOT_EPSILON = 1e-6
"""Epsilon of the loss, whose square keeps the root's gradient finite at 0 (Xu et al., CVPR 2017)."""

TRIMAP_TOLERANCE = 1 / 128
"""Trimap values that are at most so far from 0 or 1 count as background or foreground."""

GREEN = (0.10, 0.65, 0.30)
"""Colour of the background in pictures."""


class Matting(Regression):
    """RGB image and trimap to alpha in [0, 1]; the flaw target has mu = 1 and nu = 1 (Appendix A of GCT).

    The fourth channel of an image is its trimap: 0 is background, 1 is foreground, and values between are unknown.
    Known pixels are copied into the network's output. A label is (8, H, W): alpha, the unknown region (1 or 0),
    foreground colours and background colours; colours are NaN where they are not known. Loss, metrics and consistency
    terms count only the unknown region. The flaw detector is trained on all pixels.

    The loss is that of Deep Image Matting (Xu, Price, Cohen and Huang, CVPR 2017): sqrt(d^2 + 1e-12), with d the error
    of alpha (alpha loss) or the error of the colours that are composed by alpha (composition loss).

    Args:
        composition: weight of the composition loss, in [0, 1], at pixels with both colours; the alpha loss has the
            rest, and all of the weight at other pixels.

    Raises:
        SemipixError: the weight is out of range.
    """

    in_channels: int = 4
    primary: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    uncounted: ClassVar[tuple[str, str]] = "is unknown in its trimap", "check the trimaps and the mattes"
    trimap: ClassVar[bool] = True

    def __init__(self, composition: float = 0.5) -> None:
        if not 0 <= composition <= 1:
            raise SemipixError(f"task.composition: {composition} found, a number in [0, 1] expected")
        super().__init__(channels=1, mu=1.0, nu=1)
        self.composition = composition

    def encode(self, target: Tensor) -> Tensor:
        return super().encode(target[:, :1])

    def difference(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().difference(prediction, target[:, :1])

    def valid(self, target: Tensor) -> Tensor:
        return super().valid(target[:, :1])

    def unknown(self, target: Tensor) -> Tensor:
        """(L, 1, H, W) bool: the unknown region of labels (L, 8, H, W)."""
        return (target[:, 1:2] > 1 - TRIMAP_TOLERANCE) & self.valid(target)

    def counted(self, target: Tensor) -> Tensor:
        return self.unknown(target)

    def valid_of_all(self, target: Tensor, image: Tensor) -> Tensor:
        """The unknown region of a whole batch; elsewhere predictions are equal, which would lower the means."""
        unlabeled = image[len(target) :, 3:4]
        return torch.cat([self.unknown(target), (unlabeled > TRIMAP_TOLERANCE) & (unlabeled < 1 - TRIMAP_TOLERANCE)])

    def constrain(self, output: Tensor, image: Tensor) -> Tensor:
        trimap = image[:, 3:4]
        output = torch.where(trimap <= TRIMAP_TOLERANCE, 0.0, output)
        return torch.where(trimap >= 1 - TRIMAP_TOLERANCE, 1.0, output)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        error = at_least_float32(output) - self.encode(target)  # (L, 1, H, W)
        colours = at_least_float32(target[:, 2:5]) - at_least_float32(target[:, 5:8])
        coloured = colours.isfinite().all(1, keepdim=True)
        composed = error * colours.masked_fill(~coloured, 0.0)  # (L, 3, H, W): the error of alpha (F - B) + B
        weight = self.composition * coloured
        composed_error = charbonnier(composed, ROOT_EPSILON).mean(1, keepdim=True)
        pixels = (1 - weight) * charbonnier(error, ROOT_EPSILON) + weight * composed_error
        return masked_mean(pixels, self.unknown(target))

    def metrics(self) -> MetricCollection:
        measures: dict[str, ImageMeasure] = {
            "sad": functools.partial(self._over_unknown, matting.sum_of_absolute_differences),
            "mse": functools.partial(self._over_unknown, matting.mean_squared_error),
            "gradient": functools.partial(self._over_unknown, matting.gradient_error),
            "connectivity": functools.partial(self._over_unknown, matting.connectivity_error),
            "psnr": self._psnr,
        }
        return MetricCollection({name: ImageMean(measure) for name, measure in measures.items()}, compute_groups=False)

    def _alone(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.primary != "mse":
            return super()._alone(prediction, target)
        return self._over_unknown(matting.mean_squared_error, prediction, target)

    def _over_unknown(
        self, error: Callable[[Tensor, Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor
    ) -> Tensor:
        """An error over the unknown region of one image; NaN if no pixel is unknown."""
        unknown = self.unknown(target)[0, 0]
        if not unknown.any():
            return prediction.new_tensor(torch.nan)
        return error(prediction[0, 0], self.encode(target)[0, 0], unknown)

    def _psnr(self, prediction: Tensor, target: Tensor) -> Tensor:
        return psnr(prediction, self.encode(target), self.unknown(target))

    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        """The foreground on a green background."""
        green = torch.tensor(GREEN, dtype=torch.float32, device=image.device).view(3, 1, 1)
        shown = torch.lerp(green, image[:3].float().clamp(0, 1), prediction.float().clamp(0, 1))
        return (shown * 255).round().to(torch.uint8)
