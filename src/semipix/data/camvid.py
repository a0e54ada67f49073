"""CamVid, the SegNet version: 11 classes of driving video (Brostow et al. 2009; Badrinarayanan et al. 2017)."""

from pathlib import Path

from semipix.data.folder import FolderSource
from semipix.data.layout import Layout

CLASSES = [
    *("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"),
]

_VOID = 11
_SEGNET = Layout("{split}", "{split}annot")


class CamVidSource(FolderSource):
    """Frames and masks as SegNet's tutorial has them (`train`, `trainannot`, ...), or in `images/` and `masks/`.

    Index 11 and 255 are void. The official split is kept; its frames come from the same drives in all parts.

    Args:
        root: the data folder.
        survey_masks: whether to look the masks through; not needed for a run that was trained on them.

    Raises:
        SemipixError: the folder is missing or not laid out like this.
    """

    def __init__(self, root: str | Path, survey_masks: bool = True) -> None:
        if (Path(root).expanduser() / "trainannot").is_dir():
            self.layout = _SEGNET
        super().__init__(root, {_VOID: 255}, survey_masks=survey_masks)

    def read_names(self) -> list[str]:
        return list(CLASSES)
