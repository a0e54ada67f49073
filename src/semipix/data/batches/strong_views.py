"""Strong photometric views of unlabeled images, made on the batch's device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from semipix.data.batches.augment import augment
from semipix.data.batches.sampler import stable_seed

KERNEL = 13
"""Side of the blur's kernel in pixels: three times the largest sigma to each side."""


class StrongViews:
    """Colour jitter, grey and blur, drawn for each view of each image; the geometry is not changed.

    Each view depends only on its image's seed, so that it is the same on every device, in every process and after
    resuming. The strengths are those of UniMatch (Yang et al., CVPR 2023).

    Args:
        jitter: strength of the change of brightness, contrast and saturation; hue changes by half of it.
        jitter_probability: share of the views with colour jitter.
        grey_probability: share of the views without colour.
        blur_probability: share of the views with a Gaussian blur of sigma 0.1 to 2 pixels.
    """

    def __init__(
        self,
        jitter: float = 0.5,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
    ) -> None:
        self.jitter, self.grey_probability = jitter, grey_probability
        self.colour = [
            v2.RandomApply([v2.ColorJitter(jitter, jitter, jitter, min(jitter / 2, 0.5))], jitter_probability),
            v2.RandomGrayscale(grey_probability),
        ]
        self.blur_probability = blur_probability

    def __call__(self, image: Tensor, seeds: Sequence[int], views: int) -> Tensor:
        """Make strong views.

        Args:
            image: (B, C, H, W) in [0, 1]; red, green and blue come first, further channels are not changed.
            seeds: one seed for each image.
            views: number of views of each image.

        Returns:
            (views B, C, H, W), the first view of all images before the second.
        """
        # The blur uses reflection padding, which must be smaller than the sides of the image.
        kernel = min(KERNEL, 2 * min(image.shape[-2:]) - 1)
        blur = v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], self.blur_probability)
        transform = v2.Compose([*self.colour, blur])
        made = [
            augment(transform, stable_seed(seed, f"strong {view}"), single[:3].float())
            for view in range(views)
            for single, seed in zip(image, seeds, strict=True)
        ]
        colour = torch.stack(made).to(image.dtype)
        return torch.cat([colour, image[:, 3:].repeat(views, 1, 1, 1)], dim=1)
