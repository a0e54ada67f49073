"""A loaded network equals the trained one, for any value of `pretrained` with which it was built.

Also tests training/build.py.
"""

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import VGG16_Weights, vgg16

from semipix.config import target_of
from semipix.signatures import parameters
from tests.helpers.tiny import node_of, options
from tests.models.base import images

SMALL: dict[str, dict[str, Any]] = {
    "deeplab_v2": {"backbone": "resnet18"},
    "smp": {"architecture": "fpn", "encoder": "resnet18"},
    "dhdn": {"width": 8},
    "didn": {"width": 8, "blocks": 2},
    "hdrnet": {"resolution": 64},
}
"""Arguments that make a network of the group small enough for a test."""


def fill(model: nn.Module, *_: object, **__: object) -> None:
    """Replaces timm's download: weights that differ from random ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))


@pytest.mark.parametrize("name", options("model"))
def test_the_state_dict_says_all_that_pretrained_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", fill)
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", lambda *_, **__: vgg16(weights=None).state_dict())
    node = node_of("model", name)
    fixed = {key: value for key, value in node.items() if key != "_target_"}
    make = functools.partial(target_of("model", node), **fixed)
    chosen = [{"pretrained": True}, {"pretrained": False}] if "pretrained" in parameters(make)[0] else [{}, {}]
    trained, loaded = (make(in_channels=3, channels=2, **SMALL.get(name, {}), **given).eval() for given in chosen)
    loaded.load_state_dict(trained.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded(images(64, 64)), trained(images(64, 64)), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_input_statistics_follow_from_the_encoder_and_are_in_the_checkpoint(name: str) -> None:
    node = node_of("model", name)
    make = functools.partial(target_of("model", node), **{key: node[key] for key in node if key != "_target_"})
    for pretrained in (True, False):
        state = make(in_channels=3, channels=2, pretrained=pretrained).state_dict()
        assert state["normalize.mean"].flatten().tolist() == pytest.approx([127 / 255] * 3)
        assert state["normalize.std"].flatten().tolist() == pytest.approx([128 / 255] * 3)
