"""Folders whose images show one scene, such as the frames of a video: the optional file `scenes.txt`."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from semipix.data.files.listing import SCENES_FILE, SPLITS, UNLABELED
from semipix.data.files.names import composed
from semipix.errors import SemipixError

_PARTS = {UNLABELED: 1, **dict.fromkeys(("images", "inputs"), 2)}
"""For each folder of images below the root, how many folders of a name are the part that the image belongs to."""


class SceneFolders:
    """The folders of `scenes.txt`, one a line, relative to `images/train`, `unlabeled` and the folders of other parts.

    All images in a folder of the list, and in its subfolders, show one scene, in whichever part they are.

    Args:
        root: the data folder; without the file each image is a scene of its own.

    Raises:
        SemipixError: the file is no text, or UTF-16.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / SCENES_FILE
        self.folders: frozenset[str] = frozenset()
        if self.path.is_file():
            text = self.path.read_text("utf-8-sig", "surrogateescape")  # names of folders need not be UTF-8
            if "\0" in text:  # as in UTF-16
                raise SemipixError(f"{self.path}: not UTF-8 text; expected one folder a line")
            lines = text.split("\n")
            self.folders = frozenset(composed(line.strip().strip("/")) for line in lines if line.strip())

    def scene(self, name: str) -> str:
        """The scene of an image: its folder of the list, or its own name."""
        return self._folder(name) or name if self.folders else name

    def warnings(self, names: Iterable[str]) -> list[str]:
        """A line about folders of the list without any image, since they may be spelled wrong.

        Args:
            names: of all images.
        """
        missing = sorted(self.folders.difference(self._folder(name) for name in names)) if self.folders else []
        if not missing:
            return []
        several = f"folder {missing[0]}" if len(missing) == 1 else f"{len(missing)} folders ({missing[0]}, ...)"
        parts = f"images/{SPLITS[0]} and {UNLABELED}"
        return [f"{self.path}: no image in the {several}; expected names of folders as they are below {parts}"]

    def _folder(self, name: str) -> str | None:
        """The outermost folder of the list that holds an image."""
        path = PurePosixPath(composed(name))
        parts = path.parts[_PARTS.get(path.parts[0], 0) : -1]
        folders = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return next((folder for folder in folders if folder in self.folders), None)


def add_scene(root: Path, folder: str) -> str:
    """The text of `scenes.txt` with one more folder.

    Raises:
        SemipixError: the file is no text, or UTF-16.
    """
    folders = SceneFolders(root).folders | {composed(folder)}
    return "".join(f"{name}\n" for name in sorted(folders))
