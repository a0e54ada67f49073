"""Random scale, flip, crop and rotation of an image together with its target."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from semipix.data.batches.rotation import reach, rotated
from semipix.data.class_balance import class_counts
from semipix.data.files.bands import BandImage, without_missing
from semipix.data.files.resize import MATTE_COLOURS, UNKNOWN, Window, resize_nearest, resize_to, scaled_window
from semipix.data.files.sizes import Size
from semipix.data.targets import ImageTarget, Matte


def train_transform(
    crop: Size,
    scale: tuple[float, float],
    flip: float,
    target_fill: float,
    at_unknown: bool = False,
    rare_share: float = 0.0,
    rotate: float = 0.0,
) -> "TrainTransform":
    """Joint augmentation of an image and its target: random scale, horizontal flip, crop and rotation.

    Args:
        crop: height and width of the result.
        scale: smallest and largest factor an image is scaled by, its aspect kept.
        flip: probability of a horizontal flip.
        target_fill: value of the padding of masks, for images that are smaller than the crop after scaling; images are
            padded with 0, regression targets with NaN.
        at_unknown: whether crops are centred at unknown pixels of the image's trimap.
        rare_share: share of the crops of an image with a mask that contain a pixel of a class that is rare in this
            mask, see `RareClassCrop`.
        rotate: largest rotation to both sides, in degrees.

    Returns:
        A transform that is called as `transform(image)` or `transform(image, target)` with tv_tensors of the same size.
        It draws from torch's global generator.
    """
    crops = RandomPaddedCrop(crop, target_fill)
    if at_unknown:
        crops = UnknownCrop(crop, target_fill)
    elif rare_share:
        crops = RareClassCrop(crop, target_fill, rare_share, turned=rotate > 0)
    return TrainTransform(RandomScale(scale), flip, crops, rotate)


class TrainTransform:
    """Random scale, horizontal flip, crop and rotation.

    The place of the crop is drawn first. Then only the pixels that the crop shows are converted to floats and scaled,
    so that the time depends on the size of the crop and not on that of the image. A rotated crop is turned about its
    centre, and shows the pixels around it in its corners.

    Args:
        scale: draws the size that the image is scaled to.
        flip: probability of a horizontal flip.
        crop: draws the place, and pads.
        rotate: largest rotation to both sides, in degrees.
    """

    def __init__(self, scale: "RandomScale", flip: float, crop: "RandomPaddedCrop", rotate: float = 0.0) -> None:
        self.scale = scale
        self.flip = flip
        self.crop = crop
        self.rotate = rotate

    def __call__(self, *inputs: Any) -> Any:
        """Transform an image, or an image and its target of the same size.

        Args:
            *inputs: tv_tensors: an image (C, H, W) of bytes or in [0, 1], a mask (H, W) of integers, or a regression
                target.

        Returns:
            The transformed image, or image and target: images float32 in [0, 1], masks int64.
        """
        outputs = self.with_inside(*inputs)[:-1]
        return outputs if len(outputs) > 1 else outputs[0]

    def with_inside(self, *inputs: Any) -> tuple[Any, ...]:
        """Transform an image, or an image and its target, and tell what part of the result is inside the image.

        Args:
            *inputs: see `__call__`.

        Returns:
            The transformed image, then the target if there is one, then (1, height, width) bool: False in the padding.
        """
        size = self.scale.make_params([inputs[0]])["size"]
        mirrored = bool(torch.rand(1) < self.flip)
        place = self.crop.place(size, inputs, mirrored)
        angle = math.radians(self.rotate) * (2 * torch.rand(()).item() - 1) if self.rotate else 0.0
        return *(self._cropped(inpt, size, mirrored, place, angle) for inpt in inputs), self._inside(size, place, angle)

    def _cropped(self, inpt: Any, size: Size, mirrored: bool, place: dict[str, Any], angle: float) -> Any:
        around = reach(self.crop.crop, angle)
        top, left, height, width = window = self.crop.window(size, place, around)
        if mirrored:
            window = (top, size[1] - left - width, height, width)
        part = _mirrored(scaled_window(inpt, size, window), mirrored)
        return rotated(self.crop.padded(tv_tensors.wrap(part, like=inpt), place, around), self.crop.crop, angle)

    def _inside(self, size: Size, place: dict[str, Any], angle: float) -> Tensor:
        """(1, height, width) bool: the pixels that are not padding."""
        around = reach(self.crop.crop, angle)
        _, _, height, width = self.crop.window(size, place, around)
        known = self.crop.padded(torch.ones(1, height, width).as_subclass(ImageTarget), place, around)
        return plain_tensor(rotated(known, self.crop.crop, angle)).isfinite()


class RandomScale(v2.Transform):  # type: ignore[misc]
    """Scale by a random factor; the aspect ratio is kept.

    Args:
        scale: smallest and largest factor.
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = self.scale
        factor = low + (high - low) * torch.rand(()).item()
        height, width = flat_inputs[0].shape[-2:]
        return {"size": (max(1, round(height * factor)), max(1, round(width * factor)))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return resize_to(inpt, params["size"])


class RandomPaddedCrop(v2.Transform):  # type: ignore[misc]
    """Crop at a random place. An image smaller than the crop is put at a random place in it and padded.

    Args:
        crop: height and width of the result.
        target_fill: padding of masks; images are padded with 0, regression targets with NaN.
    """

    def __init__(self, crop: Size, target_fill: float) -> None:
        super().__init__()
        self.crop = crop
        self.target_fill = target_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return self.place(tuple(flat_inputs[0].shape[-2:]), flat_inputs, mirrored=False)

    def place(self, size: Size, inputs: Sequence[Any], mirrored: bool) -> dict[str, Any]:
        """Draw where the crop starts in an image of this size, or where a smaller image starts in the crop.

        Args:
            size: height and width of the image, after scaling.
            inputs: the image and, if there is one, its target, before scaling and flipping; only subclasses read them.
            mirrored: whether the image is flipped.
        """
        spare = [have - want for have, want in zip(size, self.crop, strict=True)]
        # The same draw is used for both cases.
        return {"spare": spare, "start": [_below(abs(room) + 1) for room in spare]}

    def window(self, size: Size, place: dict[str, Any], around: Size = (0, 0)) -> Window:
        """The part of an image of this size that is inside the crop.

        Args:
            size: height and width of the image.
            place: what `place` returned.
            around: pixels by which the crop is extended above and below, and on both sides.
        """
        (top, bottom), (left, right) = (
            (max(0, first - more), min(side, first + want + more))
            for first, want, side, more in zip(_first(place), self.crop, size, around, strict=True)
        )
        return top, left, bottom - top, right - left

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self.padded(F.crop(inpt, *self.window(tuple(inpt.shape[-2:]), params)), params)

    def padded(self, part: Any, place: dict[str, Any], around: Size = (0, 0)) -> Any:
        """The crop, made by padding the part of the image inside it; place and around are those of `window`."""
        (top, bottom), (left, right) = (
            (before := max(0, more - first), want + 2 * more - before - side)
            for first, want, side, more in zip(_first(place), self.crop, part.shape[-2:], around, strict=True)
        )
        if not any((top, left, bottom, right)):
            return part
        fill = self.target_fill if isinstance(part, tv_tensors.Mask) else 0
        padded = F.pad(part, [left, top, right, bottom], fill=fill)
        if isinstance(part, ImageTarget):
            padding = torch.ones(padded.shape[-2:], dtype=torch.bool)
            padding[top : top + part.shape[-2], left : left + part.shape[-1]] = False
            padded[MATTE_COLOURS if isinstance(part, Matte) else slice(None), padding] = math.nan
        return padded


def _first(place: dict[str, Any]) -> list[int]:
    """Row and column of the image where the crop starts; negative where the image is smaller."""
    return [start if room > 0 else -start for room, start in zip(place["spare"], place["start"], strict=True)]


class UnknownCrop(RandomPaddedCrop):
    """Crop around a random unknown pixel of the trimap (the fourth channel); at a random place if there is none."""

    def place(self, size: Size, inputs: Sequence[Any], mirrored: bool) -> dict[str, Any]:
        params = super().place(size, inputs, mirrored)
        trimap = _mirrored(resize_nearest(inputs[0][3:4], size)[0], mirrored)
        unknown = (trimap == UNKNOWN).nonzero()
        if len(unknown) == 0:
            return params
        pixel = unknown[_below(len(unknown))].tolist()
        for axis, (room, side) in enumerate(zip(params["spare"], self.crop, strict=True)):
            if room > 0:
                params["start"][axis] = min(max(0, pixel[axis] - side // 2), room)
        return params


class RareClassCrop(RandomPaddedCrop):
    """Crop at a random place; a share of the crops contains a pixel of a rare class, if the image has a mask.

    A class is rare in a mask if it has less than an equal share of the mask's pixels that are not void: with three
    classes in the mask, less than a third. Pixels without a value in a band of the image count as void. One of the rare
    classes is drawn, each with the same probability, then one of its pixels, and then one of the crops that contain
    this pixel. nnU-Net, which knows a background, draws a third of its patches around a foreground class in the same
    way (Isensee et al., Nature Methods 2021).

    The scale, the flip and the places of all other crops are those of `RandomPaddedCrop` with the same seed.

    Args:
        crop, target_fill: see `RandomPaddedCrop`.
        share: probability that a crop has to contain a pixel of a rare class.
        turned: whether the crop is rotated about its centre afterwards. The pixel is then in the middle part, which no
            rotation moves out of the crop, unless the pixel is too near to the image's border.
    """

    def __init__(self, crop: Size, target_fill: float, share: float, turned: bool = False) -> None:
        super().__init__(crop, target_fill)
        self.share = share
        middle = min(crop) / math.sqrt(2)  # side of the square in the circle that every rotation shows
        self.margins = [math.ceil((side - middle) / 2) if turned else 0 for side in crop]

    def place(self, size: Size, inputs: Sequence[Any], mirrored: bool) -> dict[str, Any]:
        params = super().place(size, inputs, mirrored)
        masks = [inpt for inpt in inputs[1:] if isinstance(inpt, tv_tensors.Mask)]
        if not masks or max(params["spare"]) <= 0 or torch.rand(()) >= self.share:
            return params
        mask = masks[0].as_subclass(Tensor)
        if isinstance(inputs[0], BandImage):
            mask = without_missing(mask, inputs[0].as_subclass(Tensor), self.target_fill)
        pixel = _rare_pixel(mask)
        if pixel is None:
            return params
        for axis, (room, side, margin) in enumerate(zip(params["spare"], self.crop, self.margins, strict=True)):
            if room > 0:
                # The pixel of the scaled image that shows the centre of this pixel of the mask.
                shown = int((pixel[axis] + 0.5) * size[axis] / mask.shape[axis])
                if axis == 1 and mirrored:
                    shown = size[1] - 1 - shown
                first = min(max(0, shown - side + 1 + margin), room)
                last = max(first, min(shown - margin, room))
                params["start"][axis] = first + _below(last - first + 1)
        return params


def _rare_pixel(mask: Tensor) -> tuple[int, int] | None:
    """Row and column of a random pixel of a random rare class of a mask (H, W); None if it has no such class."""
    counts = class_counts(mask)
    rare = np.flatnonzero((counts > 0) & (counts * np.count_nonzero(counts) < counts.sum()))
    if not len(rare):
        return None
    pixels = np.flatnonzero(mask.as_subclass(Tensor).numpy() == rare[_below(len(rare))])
    row, column = divmod(int(pixels[_below(len(pixels))]), mask.shape[1])
    return row, column


def _below(limit: int) -> int:
    """A random whole number from 0 to below a limit, from torch's global generator."""
    return int(torch.randint(limit, ()).item())


def augment(transform: Callable[..., Any], seed: int, *tensors: Tensor) -> Any:
    """Run a transform with its own seed; torch's global generator is neither read nor changed."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would also seed the accelerators, whose generators are not restored by this fork_rng.
        torch.default_generator.manual_seed(seed)
        return transform(*tensors)


def plain_tensor(tensor: Tensor) -> Tensor:
    """A contiguous tensor without its tv_tensor type."""
    return tensor.as_subclass(torch.Tensor).contiguous()


def _mirrored(values: Tensor, mirrored: bool) -> Tensor:
    return values.flip(-1) if mirrored else values
