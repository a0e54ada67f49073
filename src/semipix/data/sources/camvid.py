"""CamVid, the SegNet version: 11 classes of driving video (Brostow et al. 2009; Badrinarayanan et al. 2017)."""

from collections.abc import Sequence
from pathlib import Path

from semipix.data.files.listing import SPLITS, Layout
from semipix.data.sources.folder import FolderSource

CAMVID_CLASSES = [
    *("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"),
]

_VOID = 11

_SEGNET = Layout("{split}", "{split}annot")


class CamVidSource(FolderSource):
    """Frames and masks in the folders of SegNet's tutorial (`train`, `trainannot`, ...), or in `images/` and `masks/`.

    The indices 11 and 255 are void. The official split is kept, although all its parts show the same drives.

    Args:
        root: the data folder.
        needed_splits: see `FolderSource`.

    Raises:
        SemipixError: the folder is missing or not laid out like this.
    """

    def __init__(self, root: str | Path, needed_splits: Sequence[str] = SPLITS) -> None:
        if (Path(root).expanduser() / "trainannot").is_dir():
            self.layout = _SEGNET
        super().__init__(root, {_VOID: 255}, needed_splits=needed_splits)

    def read_names(self) -> list[str]:
        return list(CAMVID_CLASSES)
