"""Which images are predicted, and that no two of them share a result."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from semipix.data.decode import EXTENSIONS
from semipix.errors import SemipixError


def find_images(paths: Sequence[Path], out: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Image files of files and folders, each with its name relative to what was given.

    Args:
        paths: image files, or folders searched with their subfolders.
        out: a folder that is left out, for results may go below the images.

    Raises:
        SemipixError: a path does not exist, or a folder holds no image.
    """
    for path in paths:
        if path.is_file():
            yield path, Path(path.name)
            continue
        if not path.is_dir():
            raise SemipixError(f"{path}: no such file or folder; name image files or folders of images")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if out is not None:
            files = [file for file in files if out.resolve() not in file.resolve().parents]
        if not files:
            raise SemipixError(f"{path}: no image found; expected files ending in {', '.join(sorted(EXTENSIONS))}")
        for file in files:
            yield file, file.relative_to(path)


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
