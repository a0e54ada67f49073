"""docs/models.md agrees with the code."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import nn

from semipix.errors import SemipixError
from semipix.models.smp import ARCHITECTURES, SMP, options_of
from tests.helpers.pages import table_of
from tests.helpers.tiny import node_of, options
from tests.models.base import images

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

MODELS = options("model")

SMALL: dict[str, dict[str, Any]] = {
    "smp": {"decoder_channels": (16, 8, 8, 4, 4)},
    "unet": {"decoder_channels": (16, 8, 8, 4, 4)},
    "deeplab_v2": {"backbone": "resnet18"},
    "pspnet": {"encoder": "resnet18", "width": 16},
    "dhdn": {"width": 4},
    "didn": {"width": 8, "blocks": 1},
    "hdrnet": {"width": 4, "resolution": 64},
    "deep_image_matting": {"width": 4},
}


def kind_of(name: str) -> type[nn.Module]:
    """The class that a model's configuration names."""
    found: type[nn.Module] = get_object(node_of("model", name)["_target_"])
    return found


def make(name: str, in_channels: int, channels: int, **given: Any) -> nn.Module:
    """A model without pretrained weights."""
    if "pretrained" in inspect.signature(kind_of(name)).parameters:
        given["pretrained"] = False
    fixed = {key: value for key, value in node_of("model", name).items() if key != "_target_"}
    return kind_of(name)(in_channels=in_channels, channels=channels, **fixed, **given)


def rows(first: str) -> dict[str, list[str]]:
    """The rows of the table whose heading starts so, by model."""
    _, _, text = PAGE.read_text().partition(first)
    return {row[0].strip("`"): row[1:] for row in table_of(first + text.partition("\n\n")[0])}


def test_every_model_has_its_rows() -> None:
    assert sorted(rows("| model | of")) == sorted(rows("| model | keys")) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_page_has_the_number_of_parameters(name: str) -> None:
    number, _, channels = rows("| model | of")[name][2].partition(" (")
    before, after = (int(word) for word in channels.split() if word.isdigit())
    with torch.device("meta"):
        model = make(name, before, after)
    assert sum(value.numel() for value in model.parameters()) == int(number.replace(",", ""))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_has_every_key_with_its_default(name: str) -> None:
    (documented,) = rows("| model | keys")[name]
    fixed = {"in_channels", "channels", "band_mean", "band_std", "options"} | (
        {"architecture"} if name in ARCHITECTURES else set()
    )
    parameters = inspect.signature(kind_of(name)).parameters
    check_keys(
        documented.partition(", and those of the decoder")[0],
        {k: p.default for k, p in parameters.items() if k not in fixed},
    )


def check_keys(documented: str, expected: dict[str, Any]) -> None:
    pairs = [word.strip("` ,").partition("=") for word in documented.split("`, ")]
    assert [key for key, _, _ in pairs] == list(expected)
    for (key, _, value), default in zip(pairs, expected.values(), strict=True):
        assert yaml.safe_load(value) == (list(default) if isinstance(default, tuple) else default), key


def test_the_page_has_every_architecture_with_its_options() -> None:
    found = rows("| architecture | of")
    assert list(found) == list(ARCHITECTURES)
    for name, (_, parameters, whole, keys) in found.items():
        with torch.device("meta"):
            model = SMP(3, 21, name, "vit_tiny_patch16_224" if name == "dpt" else "resnet18", pretrained=False)
        assert f"{sum(value.numel() for value in model.parameters()):,}" == parameters, name
        assert {"yes": True, "no": False}[whole] == model.whole_image, name
        check_keys(keys, options_of(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_has_the_smallest_image(name: str) -> None:
    smallest = int(rows("| model | of")[name][4])
    model = make(name, 3, 2, **SMALL[name]).eval()
    with torch.no_grad():
        assert model(images(smallest, smallest + 3)).shape == (2, 2, smallest, smallest + 3)
        if smallest > 1:
            with pytest.raises(SemipixError, match=f"expects at least {smallest}x{smallest}"):
                model(images(smallest, smallest - 1))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_says_which_models_show_their_features(name: str) -> None:
    _, _, text = PAGE.read_text().partition("## Features")
    assert (f"`{name}`" in text) == callable(getattr(kind_of(name), "head", None))
