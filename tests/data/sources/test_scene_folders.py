"""Images of a folder that `scenes.txt` lists are never on both sides of a split."""

from pathlib import Path

import pytest

from semipix.data.check import check_folder
from semipix.data.sources.folder import FolderSource
from semipix.data.sources.pairs import PairsSource
from semipix.data.sources.scene_folders import SceneFolders, add_scene
from semipix.data.splits import check_overlap, make_split
from semipix.errors import SemipixError
from tests.conftest import write_pair


def write_videos(root: Path, *videos: str, frames: int = 4) -> Path:
    """A data folder with labeled frames, and the list of their folders."""
    for video in videos:
        for number in range(frames):
            (root / f"images/train/{video}").mkdir(parents=True, exist_ok=True)
            write_pair(root, "train", f"{video}/{number:06d}.png", number)
    (root / "scenes.txt").write_text("".join(f"{video}\n" for video in videos))
    return root


def test_the_scene_is_the_outermost_listed_folder_in_every_part(tmp_path: Path) -> None:
    (tmp_path / "scenes.txt").write_text("\ufeffclip/\na/b\n\nunlabeled\n", "utf-8")
    scene = SceneFolders(tmp_path).scene
    for part in ("images/train", "images/val", "images/test", "inputs/train", "unlabeled"):
        assert scene(f"{part}/clip/000001.png") == "clip"
        assert scene(f"{part}/clip/deeper/000001.png") == "clip"
        assert scene(f"{part}/a/b/c.png") == "a/b"
        assert scene(f"{part}/a/c.png") == f"{part}/a/c.png"
        assert scene(f"{part}/clip.png") == f"{part}/clip.png"
    (tmp_path / "scenes.txt").write_text("clip", "utf-16")
    with pytest.raises(SemipixError, match=r"scenes\.txt: not UTF-8 text; expected one folder a line"):
        SceneFolders(tmp_path)


def test_without_a_list_each_image_is_a_scene(tmp_path: Path) -> None:
    assert SceneFolders(tmp_path).scene("images/train/clip/000001.png") == "images/train/clip/000001.png"
    assert add_scene(tmp_path, "b") == "b\n"
    (tmp_path / "scenes.txt").write_text("c\nb\n")
    assert add_scene(tmp_path, "a") == "a\nb\nc\n"
    assert add_scene(tmp_path, "c") == "b\nc\n"


@pytest.mark.parametrize("pairs", [False, True])
def test_validation_takes_whole_videos_and_labels_count_images(pairs: bool, tmp_path: Path) -> None:
    root = write_videos(tmp_path, "a", "b", "c", "d")
    if pairs:
        (root / "images").rename(root / "inputs")
        (root / "masks").rename(root / "targets")
    source = PairsSource(root, "regression") if pairs else FolderSource(root)
    split = make_split(source, labels=5, val=0.25, seed=0)
    assert len({name.split("/")[2] for name in split.val}) == 1
    assert len(split.val) == 4
    assert len(split.labeled) == 5
    assert len(split.unlabeled) == 7
    check_overlap(split, source)


def test_a_video_in_training_and_evaluation_is_refused_by_train_and_by_check(tmp_path: Path) -> None:
    root = write_videos(tmp_path, "a", "b")
    assert check_folder(root).problems == []
    (root / "images/val").mkdir()
    (root / "masks/val/b").mkdir(parents=True)
    (root / "images/val/b").mkdir()
    for folder in ("images", "masks"):
        (root / folder / "train/b/000003.png").rename(root / folder / "val/b/000003.png")
    source = FolderSource(root)
    with pytest.raises(SemipixError, match="shows the scene b, and so does the training image") as found:
        check_overlap(make_split(source, "all", 0.1, 0), source)
    assert check_folder(root).problems == [str(found.value)]


def test_a_listed_folder_without_an_image_is_a_warning(tmp_path: Path) -> None:
    root = write_videos(tmp_path, "a", "b")
    assert FolderSource(root).warnings == []
    (root / "scenes.txt").write_text("a\nB\n")
    (line,) = FolderSource(root).warnings
    assert line.startswith(f"{root}/scenes.txt: no image in the folder B; expected names of folders")
    assert line in check_folder(root).warnings
