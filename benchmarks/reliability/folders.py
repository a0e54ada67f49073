"""What the sections share: a small data folder, short trainings, and comparisons of what they wrote."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.reliability.commands import run

SIDE = 96

DATA = (
    "data=folder",
    "data.labels=4",
    "data.batch_size=4",
    "data.crop=64",
    "data.workers=0",
    "trainer.accelerator=cpu",
)
SMALL = (*DATA, "method=mean_teacher", "model=dhdn", "model.width=2")
"""Overrides of a training that takes a second."""

DEFAULT = (*DATA, "method=gct", "method.rampup_epochs=1", "model=unet")
"""The default model and method."""


def write_photos(root: Path, labeled: int = 6, unlabeled: int = 6) -> Path:
    """A folder of noise with a brighter square, and the square's masks."""
    names = [("train", f"{number:02d}.{'png' if number % 2 else 'jpg'}", True) for number in range(labeled)]
    names += [("train", f"u{number}.jpg", False) for number in range(unlabeled)]
    names += [(split, f"{split}{number}.png", True) for split in ("val", "test") for number in range(2)]
    for seed, (split, name, masked) in enumerate(names):
        draw = np.random.default_rng(seed)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        y, x = draw.integers(0, SIDE // 2, 2)
        mask[y : y + SIDE // 2, x : x + SIDE // 2] = 1
        image = (draw.integers(0, 100, (SIDE, SIDE, 3)) + 120 * mask[..., None]).astype(np.uint8)
        for kind, pixels, file in (("images", image, name), ("masks", mask, f"{Path(name).stem}.png")):
            if kind == "images" or masked:
                path = root / kind / split / file
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def trained(folder: Path, *overrides: str) -> Path:
    """The run folder of an uninterrupted training, which is made in an empty folder.

    Raises:
        RuntimeError: the training failed, so that there is nothing to compare with.
    """
    folder.mkdir(parents=True)
    ended = run(["train", *overrides, "run=run"], folder, limit=300)
    if ended.code != 0:
        raise RuntimeError(f"the training to compare with ended with {ended.code}: {ended.err}")
    return folder / "run"


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested value, by their place."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(item, f"{name}/{key}")


def difference(first: Path, second: Path) -> str:
    """What differs first between the last checkpoints of two run folders; empty where they are equal bit by bit."""
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (first, second)]
    if states[0]["global_step"] != states[1]["global_step"]:
        return f"step {states[0]['global_step']} instead of {states[1]['global_step']}"
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        found = [dict(tensors(state[part])) for state in states]
        if found[0].keys() != found[1].keys():
            return f"other tensors in {part}"
        for name, value in found[0].items():
            if not torch.equal(value, found[1][name]):
                return f"{part}{name}"
    return ""


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by its relative path, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return found


def emptied(folder: Path) -> Path:
    """An empty folder; what was in it is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
