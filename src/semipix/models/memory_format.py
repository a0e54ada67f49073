"""Set the memory format of networks, and compile them."""

from collections.abc import Iterator

import torch
from torch import nn

from semipix.models.flaw_detector import FlawDetector


def set_memory_format(networks: nn.Module, device: str, channels_last: bool) -> torch.memory_format:
    """Change the memory format of all weights, in place.

    Channels last is faster on most hardware. The flaw detector on a CPU is the exception: its 4x4 convolutions are
    about 17 % slower in channels last.

    Args:
        networks: a method or a single network.
        device: type of the device that they will run on, such as "cpu" or "cuda".
        channels_last: whether to use channels last where it is faster.

    Returns:
        The memory format that images should have.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    networks.to(memory_format=memory_format)
    for module in networks.modules():
        if device == "cpu" and isinstance(module, FlawDetector):
            module.to(memory_format=torch.contiguous_format)
    return memory_format


def compile_networks(method: nn.Module) -> None:
    """Compile every network of a method in place with `torch.compile`; names and weights stay as they are."""
    for network in _networks(method):
        network.compile()


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The networks among the children, looking inside ModuleLists and ModuleDicts."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        elif next(child.parameters(), None) is not None:  # otherwise it is no network, but a part that keeps figures
            yield child
