"""LOL: low-light and normal-light photographs (Wei et al., BMVC 2018)."""

from pathlib import Path
from typing import ClassVar

from semipix.data.files.listing import Remarks, stems
from semipix.data.files.names import composed
from semipix.data.sources.paired import PairedSource, check_root, matched, read_json, read_split
from semipix.errors import SemipixError

_OFFICIAL = {"train": ("our485/low", "our485/high"), "test": ("eval15/low", "eval15/high")}

_SHORT = {"train": ("train/low", "train/normal"), "test": ("test/low", "test/normal")}


class LOLSource(PairedSource):
    """Pairs in `our485/{low,high}` and `eval15/{low,high}`, or in `{train,test}/{low,normal}`.

    The optional file `split.json` contains lists of stems of the training folder: `train`, `val`, `scene_groups` (one
    list for each scene; labels are counted by scene) and `same_scene_as_a_test_image`. Without the file, `data.val`
    images are set aside.

    Args:
        root: the data folder.
        drop_test_scenes: whether to leave out the training images in the list `same_scene_as_a_test_image`.

    Raises:
        SemipixError: the folder has another layout.
    """

    kinds: ClassVar[tuple[str, ...]] = ("enhancement",)

    def __init__(self, root: str | Path, drop_test_scenes: bool = True) -> None:
        folder = check_root(root)
        layout = _OFFICIAL if (folder / "our485").is_dir() else _SHORT
        check_root(folder, *layout["train"])
        remarks = Remarks()
        train, test = ([stems(folder, name, remarks) for name in layout[part]] for part in ("train", "test"))
        if remarks.problems:
            raise SemipixError(remarks.problems[0])
        targets = matched(folder, train[0], train[1])
        path = folder / "split.json"
        lists = read_split(path, train[0], "train", "val", "same_scene_as_a_test_image") or {"train": list(train[0])}
        dropped = set(lists.pop("same_scene_as_a_test_image", [])) if drop_test_scenes else set()
        pairs = {
            part: {train[0][stem]: targets[train[0][stem]] for stem in lists.get(part, []) if stem not in dropped}
            for part in ("train", "val")
        }
        pairs["test"] = matched(folder, test[0], test[1])
        super().__init__(folder, "enhancement", pairs, scenes=_scene_groups(path, train[0]), left_out=remarks.left_out)


def _scene_groups(path: Path, names: dict[str, str]) -> dict[str, str]:
    """The scene of each image in a group: the first image of the group."""
    groups = read_json(path).get("scene_groups", []) if path.is_file() else []
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise SemipixError(
            f"{path}: scene_groups is no list of lists, expected the stems of each scene's images; fix the file"
        )
    groups = [[composed(stem) for stem in group] for group in groups]
    return {names[stem]: names.get(group[0], group[0]) for group in groups for stem in group if stem in names}
