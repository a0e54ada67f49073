"""The base of denoising and enhancement: from images to images in [0, 1]."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from semipix.functional.similarity import psnr, ssim
from semipix.tasks.measures import ImageMean
from semipix.tasks.regression import Penalty, Regression
from semipix.tasks.strong_changes import StrongChanges


class Restoration(Regression):
    """RGB images to RGB images; metrics are the means over images of PSNR and SSIM.

    The target shows the colours and the sharpness of the image, so colour jitter, grey and blur would need another
    target. An image with its colour channels in another order has the target in that order.

    Args:
        loss: the supervised loss, a key of `PENALTIES`.
        nu: dilations of the flaw target; its mu is 1/3 (Appendix A).
    """

    primary: ClassVar[str] = "psnr"
    higher_is_better: ClassVar[bool] = True
    # A hidden pixel can only be guessed. The error of the guess is many times that of a visible pixel, and the loss
    # would teach little but guessing.
    strong_changes: ClassVar[StrongChanges] = StrongChanges(
        jitter=None, grey=None, blur=None, permute=0.5, learn_hidden=False
    )

    def __init__(self, loss: Penalty, nu: int) -> None:
        super().__init__(channels=3, loss=loss, nu=nu)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"psnr": ImageMean(self._psnr), "ssim": ImageMean(self._ssim)}, compute_groups=False)

    def _alone(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self._psnr(prediction, target) if self.primary == "psnr" else super()._alone(prediction, target)

    def _psnr(self, prediction: Tensor, target: Tensor) -> Tensor:
        return psnr(prediction, self.encode(target), self.valid(target))

    def _ssim(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ssim(prediction, self.encode(target), self.valid(target))

    @property
    def file_endings(self) -> tuple[str, ...]:
        return ("",)

    def to_file(self, prediction: Tensor) -> Tensor:
        """An 8-bit RGB image."""
        return (prediction.clamp(0, 1) * 255).round().to(torch.uint8)
