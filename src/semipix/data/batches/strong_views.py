"""Strong photometric views of unlabeled images, made on the batch's device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from semipix.batch import StrongLabels
from semipix.data.batches.augment import augment
from semipix.data.batches.sampler import stable_seed

KERNEL = 13
"""Side of the blur's kernel in pixels: three times the largest sigma to each side."""

COLOURS = 3
"""Channels of an image that change; a trimap follows them."""


class StrongViews:
    """Changes of colour and sharpness, and hidden parts, drawn for each view of each image; the geometry stays.

    The views are made in this order:

    1. Jitter, grey and blur. The label stays that of the image.
    2. Another order of the colour channels, and less brightness. The label changes in the same way.
    3. Patches and a colour channel are hidden: set to the mean of the channel. The label stays that of the whole image.

    Each view depends only on its image's seed, so that it is the same on every device, in every process and after
    resuming. The strengths of the first step are those of UniMatch (Yang et al., CVPR 2023).

    Args:
        jitter: strength of the change of brightness, contrast and saturation; hue changes by half of it.
        jitter_probability: share of the views with colour jitter.
        grey_probability: share of the views without colour.
        blur_probability: share of the views with a Gaussian blur of sigma 0.1 to 2 pixels.
        mask: share of the patches of each view that are hidden (masked image consistency, Hoyer et al., CVPR 2023).
        patch: side of the patches in pixels.
        drop_probability: share of the views in which one of the colour channels is hidden.
        permute_probability: share of the views with another order of the colour channels.
        gain: largest share of its brightness that a view loses.
        learn_hidden: whether hidden patches are compared with the label.
        bands: images have bands instead of colours: brightness and contrast of each band change alone, and there is
            neither saturation, hue nor grey. All bands change, and each may be hidden.
    """

    def __init__(
        self,
        jitter: float = 0.5,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        *,
        mask: float = 0.0,
        patch: int = 16,
        drop_probability: float = 0.0,
        permute_probability: float = 0.0,
        gain: float = 0.0,
        learn_hidden: bool = True,
        bands: bool = False,
    ) -> None:
        self.jitter, self.grey_probability, self.bands = jitter, grey_probability, bands
        change = BandJitter(jitter) if bands else v2.ColorJitter(jitter, jitter, jitter, min(jitter / 2, 0.5))
        self.colour = [v2.RandomApply([change], jitter_probability)]
        if not bands:
            self.colour.append(v2.RandomGrayscale(grey_probability))
        self.blur_probability = blur_probability
        self.mask, self.patch, self.drop_probability = mask, patch, drop_probability
        self.permute_probability, self.gain, self.learn_hidden = permute_probability, gain, learn_hidden

    def __call__(self, image: Tensor, seeds: Sequence[int], views: int) -> Tensor:
        """Make strong views.

        Args:
            image: (B, C, H, W) in [0, 1]; red, green and blue come first, further channels are not changed. With
                `bands`, all channels are.
            seeds: one seed for each image.
            views: number of views of each image.

        Returns:
            (views B, C, H, W), the first view of all images before the second.
        """
        # The blur uses reflection padding, which must be smaller than the sides of the image.
        kernel = min(KERNEL, 2 * min(image.shape[-2:]) - 1)
        blur = v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], self.blur_probability)
        transform = v2.Compose([*self.colour, blur])
        changed = self._changed(image)
        made = [
            augment(transform, stable_seed(seed, f"strong {view}"), single[:changed].float())
            for view in range(views)
            for single, seed in zip(image, seeds, strict=True)
        ]
        colour = torch.stack(made)
        if self.permute_probability or self.gain:
            order, gain = self._recoloured(image, seeds, views)
            colour = colour.gather(1, order[:, :, None, None].expand_as(colour)) * gain.view(-1, 1, 1, 1)
        if self.mask or self.drop_probability:
            colour = torch.where(self._hidden(image, seeds, views), colour.mean((2, 3), keepdim=True), colour)
        return torch.cat([colour.to(image.dtype), image[:, changed:].repeat(views, 1, 1, 1)], dim=1)

    def _changed(self, image: Tensor) -> int:
        """How many of the first channels of images (B, C, H, W) change."""
        return image.shape[1] if self.bands else COLOURS

    def labels(self, image: Tensor, seeds: Sequence[int], views: int) -> StrongLabels | None:
        """How the labels of the views that a call with these arguments makes follow from those of the images.

        Returns:
            None if the labels are the same.
        """
        compared = self.learn_hidden or not self.mask
        if compared and not self.permute_probability and not self.gain:
            return None
        recoloured = self.permute_probability or self.gain
        order, gain = self._recoloured(image, seeds, views) if recoloured else (None, None)
        if compared:
            visible = torch.ones_like(image[:, :1], dtype=torch.bool).repeat(views, 1, 1, 1)
        else:
            visible = ~self._masked(image, seeds, views)
        return StrongLabels(order, gain, visible)

    def _recoloured(self, image: Tensor, seeds: Sequence[int], views: int) -> tuple[Tensor, Tensor]:
        """Order of the colour channels (views B, 3) int64 and factor of the brightness (views B,) of each view."""
        orders, gains = [], []
        for generator in _generators("recoloured", seeds, views):
            permuted, lost = torch.rand(2, generator=generator).tolist()
            order = torch.randperm(COLOURS, generator=generator)
            orders.append(order if permuted < self.permute_probability else torch.arange(COLOURS))
            gains.append(1 - self.gain * lost)
        return _moved(torch.stack(orders), image.device), _moved(torch.tensor(gains), image.device)

    def _masked(self, image: Tensor, seeds: Sequence[int], views: int) -> Tensor:
        """(views B, 1, H, W) bool: the pixels of hidden patches, whose grid starts at a random pixel."""
        height, width = image.shape[-2:]
        rows, columns = (side // self.patch + 2 for side in (height, width))
        places, drawn = [], []
        for generator in _generators("masked", seeds, views):
            places.append(torch.randint(self.patch, (2,), generator=generator).tolist())
            drawn.append(torch.rand(rows, columns, generator=generator) < self.mask)
        patches = _moved(torch.stack(drawn), image.device)[:, :, None, :, None]
        pixels = patches.expand(-1, -1, self.patch, -1, self.patch).flatten(3).flatten(1, 2)
        parts = zip(pixels, places, strict=True)
        return torch.stack([mask[None, top : top + height, left : left + width] for mask, (top, left) in parts])

    def _hidden(self, image: Tensor, seeds: Sequence[int], views: int) -> Tensor:
        """(views B, 3 or C, H, W) bool: the values that are hidden, by a patch or because their channel is."""
        dropped, count = [], self._changed(image)
        for generator in _generators("dropped", seeds, views):
            drawn = float(torch.rand((), generator=generator)) < self.drop_probability
            channel = int(torch.randint(count, (), generator=generator))
            dropped.append(drawn & (torch.arange(count) == channel))
        channels = _moved(torch.stack(dropped), image.device)[:, :, None, None]
        return channels | self._masked(image, seeds, views)


class BandJitter(nn.Module):
    """Changes brightness and contrast of each band by factors of its own, as `ColorJitter` does for all colours.

    Args:
        strength: factors are drawn from [max(0, 1 - strength), 1 + strength].
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, image: Tensor) -> Tensor:
        """An image (C, H, W) in [0, 1] to the same shape, by random numbers of torch's global generator."""
        low = max(0.0, 1 - self.strength)
        drawn = low + (1 + self.strength - low) * torch.rand(2, len(image), 1, 1)
        brightness, contrast = drawn.to(image, non_blocking=True)
        bright = (image * brightness).clamp(0, 1)
        mean = bright.mean((1, 2), keepdim=True)
        changed: Tensor = ((bright - mean) * contrast + mean).clamp(0, 1)
        return changed


def _moved(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on a device that the CPU does not wait for."""
    return drawn.to(device, non_blocking=True)


def _generators(purpose: str, seeds: Sequence[int], views: int) -> list[torch.Generator]:
    """A generator on the CPU for each view of each image, the first view of all images before the second."""
    made = [stable_seed(seed, f"strong {purpose} {view}") for view in range(views) for seed in seeds]
    return [torch.Generator().manual_seed(seed) for seed in made]
