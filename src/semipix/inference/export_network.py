"""The deployed network of a run as a plain module that can be exported for images of any size."""

import copy
import re
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from semipix.errors import SemipixError, reason_of
from semipix.methods.base import Method
from semipix.models.adapt import ModelShapeError
from semipix.models.smp import SMP
from semipix.tasks.base import Task
from semipix.training.calibration import ErrorMap, apply

SMALLEST_SIDES = (8, 16, 32, 33, 64, 128)
"""Sides that are tried, to find the smallest image that a network takes; smaller images are of no use."""

NEEDED_SIDE = re.compile(r"generated guard (\d+) <= ")
"""Finds in an error of `torch.export` the smallest sides for which a trace holds."""

HINT = re.compile(r"For more information, run with TORCH_LOGS=\S+\s*")
"""Advice in the same errors, which is none for a user of semipix."""

EXAMPLE = (2, 70, 101)
"""Images, height and width of the example that is traced; different numbers, of which none divides another."""


class Deployed(nn.Module):
    """What a run predicts: images in [0, 1] to predictions in [0, 1], and to their error map if one is given.

    Args:
        method: the trained method, in evaluation mode on the CPU.
        error_map: makes the error map; None leaves it out.

    Attributes:
        smallest: smallest side of an image in pixels.
    """

    def __init__(self, method: Method, error_map: ErrorMap | None = None) -> None:
        super().__init__()
        self.task: Task = method.task
        self.error_map = error_map
        self._name = method.deployed_name()  # read here, since an export cannot follow the value of a buffer
        self.network = method.deployed_network() if error_map is None else method
        if error_map is None and self.network is method and len(method.candidates()) > 1:
            self.network = Candidate(method, self._name)
        self.eval()
        self.smallest = _smallest_side(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images (N, C_in, H, W) to predictions (N, K, H, W) and, with an error map, to maps (N, 1, H, W).

        In classification a prediction has the probabilities of the classes, in regression values of which 0 and 1 are
        the ends of the data's range. Where the image decides the prediction, as the known part of a trimap does, the
        error map is 0.
        """
        if self.error_map is None:
            return (self.task.activate(self.network(image)),)
        method: Any = self.network
        evidence = method.evidences(image, [self._name])[self._name]
        errors = apply(self.error_map, self.task, evidence, image)
        return self.task.activate(evidence.output), errors * self.task.decided(image)


class Candidate(nn.Module):
    """One candidate of a method that is no network of its own, such as the fusion of a pair.

    Args:
        method: the method.
        name: of the candidate.
    """

    def __init__(self, method: Method, name: str) -> None:
        super().__init__()
        self.method = method
        self.name = name

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W)."""
        output: Tensor = self.method.evidences(image, [self.name])[self.name].output
        return output


def exported(network: Deployed) -> Any:
    """Trace a network with `torch.export`, for any number of images and any height and width.

    Args:
        network: the network. Its `smallest` is raised if the trace does not hold for images as small as that.

    Returns:
        The exported program. Its only argument is `image`.

    Raises:
        SemipixError: the network contains something that `torch.export` cannot trace for all sizes.
    """
    try:
        return _traced(network)
    except Exception as error:  # whatever a network does in Python may fail in any way
        text = HINT.sub("", str(error))
        needed = max(map(int, NEEDED_SIDE.findall(text)), default=0)
        if network.smallest < needed <= SMALLEST_SIDES[-1]:
            network.smallest = needed
            return exported(network)
        raise SemipixError(
            f"export: {name_of(network)} cannot be traced by torch.export: {reason_of(ValueError(text), 120)}; "
            "docs/export.md lists the models that can; --format safetensors writes the weights of any model"
        ) from error


def _traced(network: Deployed) -> Any:
    """What `exported` returns.

    Raises:
        Exception: of any kind, if the network cannot be traced.
    """
    from torch.fx.experimental import _config

    symbols: Any = _config
    count, height, width = EXAMPLE
    sides = max(height, network.smallest + 6), max(width, network.smallest + 37)
    image = torch.rand(count, network.task.in_channels, *sides, generator=torch.Generator().manual_seed(0))
    of_sides = {"min": network.smallest}
    dynamic = {0: torch.export.Dim("images", min=1), 2: torch.export.Dim("height", **of_sides)}
    dynamic[3] = torch.export.Dim("width", **of_sides)
    traced = made_traceable(copy.deepcopy(network))
    # Sizes of 1 are traced as any others. What cannot be proven of a size is checked when the program runs.
    with torch.no_grad(), symbols.patch(backed_size_oblivious=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            traced,
            (image,),
            dynamic_shapes={"image": dynamic},
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def name_of(network: Deployed) -> str:
    """The name of the network for messages: the class of its task model, or of the method."""
    inner = network.network
    return type(getattr(inner, "model", inner)).__name__


class StaticSame(nn.Conv2d):
    """TensorFlow's SAME convolution of maps whose sides the stride divides: its padding does not depend on the size."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to (N, C', H / stride, W / stride)."""
        pads: list[int] = []
        for kernel, stride, dilation in zip(*(each[::-1] for each in self._sides()), strict=True):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            pads += [total // 2, total - total // 2]
        padded = F.pad(features, pads)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _sides(self) -> tuple[tuple[int, ...], ...]:
        return self.kernel_size, self.stride, self.dilation


class PoolingByProducts(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling as products of matrices, for `torch.export`, which takes its parts for constants."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to their means (N, C, h, w) over h x w parts."""
        wanted: Any = self.output_size
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
        rows, columns = (_shares(*pair, features) for pair in zip((height, width), features.shape[-2:], strict=True))
        return rows @ features @ columns.mT


def _shares(parts: int, length: int, like: Tensor) -> Tensor:
    """How much each place of a side adds to the mean of each part, (parts, length); neighbouring parts may overlap."""
    part = torch.arange(parts, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)
    begin, end = part * length // parts, ((part + 1) * length + parts - 1) // parts
    return ((place >= begin) & (place < end)).to(like.dtype) / (end - begin)


def made_traceable(network: nn.Module) -> nn.Module:
    """Replace layers that `torch.export` cannot trace for all sizes by others that compute the same.

    These are adaptive pooling to more than one value, and timm's SAME convolutions in networks that pad their images:
    `SMP` pads images to sides that its encoder can divide, so that the stride divides the sides of every map.

    Args:
        network: changed in place.
    """
    for part in network.modules():
        if type(part) is nn.AdaptiveAvgPool2d and part.output_size not in (1, (1, 1)):
            part.__class__ = PoolingByProducts
        for layer in part.modules() if isinstance(part, SMP) else ():
            if type(layer) is Conv2dSame:
                layer.__class__ = StaticSame  # type: ignore[assignment]
    return network


@torch.no_grad()
def _smallest_side(network: Deployed) -> int:
    """The smallest side of an image, of those in `SMALLEST_SIDES`, that the network takes.

    Raises:
        SemipixError: it takes none of them.
    """
    refused: Exception | None = None
    for side in SMALLEST_SIDES:
        try:
            network(torch.zeros(1, network.task.in_channels, side, side))
            return side
        except (ModelShapeError, SemipixError, ValueError, RuntimeError) as error:
            refused = error
    raise SemipixError(
        f"export: {name_of(network)} takes no image of {SMALLEST_SIDES[-1]}x{SMALLEST_SIDES[-1]} pixels or fewer: "
        f"{reason_of(refused or ValueError(), 120)}; a network that takes only one size cannot be exported for any size"
    )
