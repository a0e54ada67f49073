"""Enhancement: an image taken at night to one of good exposure."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from semipix.errors import SemipixError, reason_of
from semipix.tasks.measures import ImageMean
from semipix.tasks.restoration import Restoration

SMALLEST = 64
"""Sides in pixels below which the network behind LPIPS has no map left."""


class Enhancement(Restoration):
    """Night RGB image to enhanced RGB image; the flaw target has mu = 1/3 and nu = 5 (Appendix A of GCT).

    Args:
        loss: `l2` or `l1`.
        lpips: also measure LPIPS (Zhang et al., CVPR 2018) by AlexNet, whose weights torchvision has to download or
            to have.

    Raises:
        SemipixError: another loss.
    """

    def __init__(self, loss: Literal["l1", "l2"] = "l2", lpips: bool = False) -> None:
        if loss not in ("l1", "l2"):
            raise SemipixError(f"task.loss: {loss!r} found, l1 or l2 expected")
        super().__init__(loss, nu=5)
        self.lpips = lpips

    def metrics(self) -> MetricCollection:
        """PSNR and SSIM, and LPIPS where it is asked for.

        Raises:
            SemipixError: LPIPS is asked for, and its network cannot be had.
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
                f"task.lpips: true found, but LPIPS's AlexNet cannot be had ({reason_of(error, 160)}); "
                "let torchvision download its weights once, or set task.lpips=false"
            ) from error


class Perceptual(ImageMean):
    """LPIPS, the mean over images; unknown pixels count as met, images too small for the network are left out.

    Args:
        task: says which pixels are known.
    """

    higher_is_better = False

    def __init__(self, task: Restoration) -> None:
        super().__init__(self._of_image)
        # A distributed training waits for gradients of whatever asks for them.
        self.network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).net.requires_grad_(False)
        self.task = task

    def _of_image(self, prediction: Tensor, target: Tensor) -> Tensor:
        if min(target.shape[-2:]) < SMALLEST:
            return prediction.new_tensor(torch.nan)
        wanted = torch.where(self.task.valid(target), self.task.encode(target), prediction)
        with torch.autocast(prediction.device.type, enabled=False):
            found: Tensor = self.network(prediction, wanted, normalize=True).squeeze()
        return found
