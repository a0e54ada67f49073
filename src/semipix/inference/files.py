"""Find the images to predict, and check that no result overwrites another one or an input."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from semipix.data.files.decode import ARRAY
from semipix.data.files.listing import is_image, walk
from semipix.data.files.opening import EXTENSIONS
from semipix.data.files.video import INSTALL, can_read_videos, is_video, load_av
from semipix.errors import SemipixError


@dataclass
class Images:
    """Images and videos to predict.

    Attributes:
        files: image files, each with its name relative to the given folder.
        videos: video files, in the same way.
        left_out: a line with a count for each kind of file that is not read.
    """

    files: list[tuple[Path, Path]] = field(default_factory=list)
    videos: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_images(
    paths: Sequence[Path], out: Path | None = None, *, arrays: bool = False, videos: bool = False
) -> Images:
    """List the image files in files and folders, by the rules for data folders.

    Args:
        paths: image files, or folders that are searched with their subfolders.
        out: a folder that is left out, since results may be written below the images.
        arrays: whether images may be `.npy` files.
        videos: list video files too. Without PyAV those in folders are left out, with a line.

    Raises:
        SemipixError: a path does not exist, a folder holds no image, or a video is given and cannot be read here.
    """
    images = Images()
    readable = EXTENSIONS | {ARRAY} if arrays else EXTENSIONS
    for path in paths:
        if path.is_file():
            if is_video(path.name) and not videos:
                raise SemipixError(f"{path}: a video, but images expected; take frames out by: semipix data frames")
            if is_video(path.name):
                load_av()
            (images.videos if is_video(path.name) else images.files).append((path, Path(path.name)))
            continue
        if not path.is_dir():
            raise SemipixError(f"{path}: no such file or folder; name image files or folders of images")
        walked = walk(path, without=out)
        names = [name for name in walked.files if is_image(name, arrays)]
        clips = [name for name in walked.files if videos and is_video(name)]
        if clips and not can_read_videos():
            several = "1 video is" if len(clips) == 1 else f"{len(clips)} videos are"
            line = f"{path}: {several} left out ({clips[0]}{', ...' if len(clips) > 1 else ''}), since PyAV is not"
            if not names:
                raise SemipixError(f"{line} installed, and there is no image; {INSTALL}")
            images.left_out.append(f"{line} installed; {INSTALL}")
        elif clips:
            images.videos += [(path / name, Path(name)) for name in clips]
        elif not names:
            raise SemipixError(f"{path}: no image found; expected files ending in {', '.join(sorted(readable))}")
        images.files += [(path / name, Path(name)) for name in names]
        read = {*names, *clips}
        images.left_out += walked.left_out(path, [name for name in walked.files if name not in read])
    return images


def refuse_collisions(files: Sequence[tuple[Path, Path]]) -> None:
    """Check that no two inputs have results of the same name.

    Raises:
        SemipixError: the results of two inputs have the same name.
    """
    seen: dict[Path, Path] = {}
    for file, name in files:
        other = seen.setdefault(name.with_suffix(""), file)
        if other != file:
            raise SemipixError(f"{file} and {other} would both be written as {name.with_suffix('.png')}; rename one")


class Results(Protocol):
    """An object that knows the files of results, such as a `Predictor`."""

    def outputs(self, name: Path) -> list[Path]:
        """Files that are written for an image of this name."""

    def inputs(self) -> list[Path]:
        """Files that are read in addition to the images."""


def refuse_overwriting(files: Sequence[tuple[Path, Path]], results: Results) -> None:
    """Check that no result would overwrite an input.

    Raises:
        SemipixError: a result would overwrite an input.
    """
    real = functools.cache(Path.resolve)
    inputs = {(real(file.parent), file.name): file for file in (*(file for file, _ in files), *results.inputs())}
    for _, name in files:
        for output in results.outputs(name):
            if found := inputs.get((real(output.parent), output.name)):
                raise SemipixError(f"{found}: a result would be written over this input; choose another --out")
