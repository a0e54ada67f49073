"""Kinds and types of labels."""

from importlib.resources import files
from typing import TypeAlias

import yaml
from torchvision import tv_tensors

from semipix.config import target_of
from semipix.errors import SemipixError

KINDS = ("segmentation", "denoising", "enhancement", "matting", "regression")
"""Kinds of targets: class indices; clean images; bright images; alpha mattes; maps of any channels and units."""

Target: TypeAlias = tv_tensors.Mask | tv_tensors.Image
"""A label: a mask of class indices, or an image or map for regression."""


class ImageTarget(tv_tensors.Image):  # type: ignore[misc]
    """A regression target (C, H, W) float32; ignored pixels and padding are NaN."""


class Matte(ImageTarget):
    """A matting target (8, H, W) float32.

    Channel 0 is alpha in [0, 1]. Channel 1 is 1 where the trimap is unknown and 0 elsewhere. Channels 2 to 4 are the
    foreground's colour and 5 to 7 the background's in [0, 1], NaN where a colour is not known. Padding has alpha 0, is
    not unknown, and has no colours.
    """


def data_for(*kinds: str) -> list[str]:
    """Options of the configuration group `data` whose targets can be of one of these kinds."""
    found = []
    for path in sorted(files("semipix.conf").joinpath("data").iterdir(), key=lambda path: path.name):
        source = target_of("data", yaml.safe_load(path.read_text("utf-8")))
        if set(kinds) & set(getattr(source, "kinds", ())):
            found.append(path.name.removesuffix(".yaml"))
    return found


def check_target_kind(kind: str, kinds: tuple[str, ...]) -> str:
    """Check that a source can have a kind of targets.

    Returns:
        The kind.

    Raises:
        SemipixError: the kind is none of the source's.
    """
    if kind in kinds:
        return kind
    others = (
        f"data for {kind}: {', '.join(data_for(kind))}" if kind in KINDS else "name the kind of your task's targets"
    )
    raise SemipixError(f"data.kind={kind}: expected {', '.join(kinds)}; {others}")
