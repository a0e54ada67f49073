"""Which images are predicted, and that no two of them share a result."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from semipix.data.files.listing import is_image, walk
from semipix.data.files.opening import EXTENSIONS
from semipix.errors import SemipixError


@dataclass
class Images:
    """Images to predict.

    Attributes:
        files: image files, each with its name relative to what was given.
        left_out: one line, with a count, for each kind of file that is not read.
    """

    files: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_images(paths: Sequence[Path], out: Path | None = None) -> Images:
    """Image files of files and folders, listed as a data folder is.

    Args:
        paths: image files, or folders searched with their subfolders.
        out: a folder that is left out, for results may go below the images.

    Raises:
        SemipixError: a path does not exist, or a folder holds no image.
    """
    images = Images()
    for path in paths:
        if path.is_file():
            images.files.append((path, Path(path.name)))
            continue
        if not path.is_dir():
            raise SemipixError(f"{path}: no such file or folder; name image files or folders of images")
        walked = walk(path, without=out)
        names = [name for name in walked.files if is_image(name)]
        if not names:
            raise SemipixError(f"{path}: no image found; expected files ending in {', '.join(sorted(EXTENSIONS))}")
        images.files += [(path / name, Path(name)) for name in names]
        images.left_out += walked.left_out(path, [name for name in walked.files if not is_image(name)])
    return images


def refuse_collisions(files: Sequence[tuple[Path, Path]]) -> None:
    """Refuse two inputs whose results would have one name.

    Raises:
        SemipixError: there are two.
    """
    seen: dict[Path, Path] = {}
    for file, name in files:
        other = seen.setdefault(name.with_suffix(""), file)
        if other != file:
            raise SemipixError(f"{file} and {other} would both be written as {name.with_suffix('.png')}; rename one")


class Results(Protocol):
    """What knows where results go, such as a `Predictor`."""

    def outputs(self, name: Path) -> list[Path]:
        """Files of one prediction."""

    def inputs(self) -> list[Path]:
        """Files that are read beside the images."""


def refuse_overwriting(files: Sequence[tuple[Path, Path]], results: Results) -> None:
    """Refuse results that would take the place of what they are made from.

    Raises:
        SemipixError: an input is where a result would be written.
    """
    real = functools.cache(Path.resolve)
    inputs = {(real(file.parent), file.name): file for file in (*(file for file, _ in files), *results.inputs())}
    for _, name in files:
        for output in results.outputs(name):
            if found := inputs.get((real(output.parent), output.name)):
                raise SemipixError(f"{found}: a result would be written over this input; choose another --out")
