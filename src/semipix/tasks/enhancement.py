"""Enhancement: from an image taken at night to one of good exposure."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from semipix.errors import SemipixError, reason_of
from semipix.tasks.measures import ImageMean
from semipix.tasks.restoration import Restoration

LPIPS_SMALLEST_SIDE = 64
"""Pixels that both sides need for the network of LPIPS, which halves them several times."""


class Enhancement(Restoration):
    """Night RGB image to enhanced RGB image; the flaw target has mu = 1/3 and nu = 5 (Appendix A of GCT).

    Args:
        loss: `l2` or `l1`.
        lpips: also measure LPIPS (Zhang et al., CVPR 2018) with AlexNet, whose weights torchvision downloads.

    Raises:
        SemipixError: the loss is neither `l1` nor `l2`.
    """

    def __init__(self, loss: Literal["l1", "l2"] = "l2", lpips: bool = False) -> None:
        if loss not in ("l1", "l2"):
            raise SemipixError(f"task.loss: {loss!r} found, l1 or l2 expected")
        super().__init__(loss, nu=5)
        self.lpips = lpips

    def metrics(self) -> MetricCollection:
        """PSNR and SSIM, and LPIPS if it is enabled.

        Raises:
            SemipixError: LPIPS is enabled, and its network is not installed or its weights cannot be downloaded.
        """
        metrics = super().metrics()
        if self.lpips:
            metrics.add_metrics({"lpips": self._perceptual()})
        return metrics

    def _perceptual(self) -> "Perceptual":
        try:
            return Perceptual(self)
        except (ImportError, OSError, RuntimeError) as error:  # no package, no network, a broken download
            raise SemipixError(
                f"task.lpips: true found, but LPIPS's AlexNet cannot be loaded ({reason_of(error, 160)}); "
                "let torchvision download its weights once, or set task.lpips=false"
            ) from error


class Perceptual(ImageMean):
    """LPIPS, averaged over images.

    Ignored pixels count as predicted correctly. Images that are too small for the network are left out.

    Args:
        task: determines which pixels are valid.
    """

    higher_is_better = False

    def __init__(self, task: Restoration) -> None:
        super().__init__(self._of_image)
        # A distributed training would wait for the gradients of these weights.
        self.network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).net.requires_grad_(False)
        self.task = task

    def _of_image(self, prediction: Tensor, target: Tensor) -> Tensor:
        if min(target.shape[-2:]) < LPIPS_SMALLEST_SIDE:
            return prediction.new_tensor(torch.nan)
        wanted = torch.where(self.task.valid(target), self.task.encode(target), prediction)
        with torch.autocast(prediction.device.type, enabled=False):
            found: Tensor = self.network(prediction, wanted, normalize=True).squeeze()
        return found
