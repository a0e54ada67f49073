"""Data modules of sources in memory, and archives of images."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source


def module(source: Source, **options: Any) -> SemiSupervisedDataModule:
    """A data module for the tiny images, reading in the main process."""
    return SemiSupervisedDataModule(source, **{"labels": "all", "val": 0, "crop": 8, "workers": 0, **options})


def steps(data: SemiSupervisedDataModule) -> list[dict[str, Any]]:
    """The batches of an epoch."""
    return [batch for batch, _, _ in data.train_dataloader()]


def encoded(number: int, size: tuple[int, int] = (12, 16)) -> bytes:
    """A PNG of one value."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), number, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path: Path, files: dict[str, bytes]) -> Path:
    """Write a tar archive."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
