"""How networks lie in memory and are run: in the layout and, if wanted, the compiled form that is fastest."""

from collections.abc import Iterator

import torch
from torch import nn

from semipix.models.flaw_detector import FlawDetector


def lay_out(networks: nn.Module, device: str, channels_last: bool) -> torch.memory_format:
    """Lay out all weights, in place.

    Channels last is faster on most hardware. On a CPU it is not for the flaw detector, whose 4x4 convolutions take a
    sixth longer so.

    Args:
        networks: a method or a single network.
        device: type of the device that they will run on, such as "cpu" or "cuda".
        channels_last: whether images and weights are laid out channels last where it pays.

    Returns:
        The layout that images are wanted in.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    networks.to(memory_format=layout)
    for module in networks.modules():
        if device == "cpu" and isinstance(module, FlawDetector):
            module.to(memory_format=torch.contiguous_format)
    return layout


def compile_networks(method: nn.Module) -> None:
    """Let every network of a method run through `torch.compile` from now on; names and weights stay as they are."""
    for network in _networks(method):
        network.compile()


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The children that are no lists, and those of the lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        else:
            yield child
