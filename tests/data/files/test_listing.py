"""Listing a data folder."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semipix.data.files import listing as layout
from semipix.data.files.listing import Remarks, list_folder, stems, walk

Write = Callable[..., Path]


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.png", "b/two.png", "b/deep/three.png")
    (tmp_path / "a/link").symlink_to(tmp_path / "b")
    (tmp_path / "a/two.png").symlink_to(tmp_path / "b/two.png")
    (tmp_path / "b/deep/up").symlink_to(tmp_path / "b")
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    found = walk(tmp_path / "a")
    assert found.files == ["link/deep/three.png", "link/two.png", "one.png", "two.png"]
    assert found.circles == ["link/deep/up", "self"]


def test_hidden_is_left_out_and_a_folder_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".cache/b.png", "scan.tif/page.png")
    assert walk(tmp_path) == (["a.png", "scan.tif/page.png"], ["._a.png", ".cache"], [])


def test_a_folder_may_be_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png", "out.d/b.png")
    assert walk(tmp_path, without=tmp_path / "out").files == ["a.png", "out.d/b.png"]
    assert walk(tmp_path / "out", without=tmp_path / "out").files == []


def test_stems_are_composed_and_names_are_not(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    touch(tmp_path, f"images/{decomposed}.png")
    assert stems(tmp_path, "images", Remarks()) == {"é": f"images/{decomposed}.png"}
    touch(tmp_path, "images/é.jpg")
    remarks = Remarks()
    assert len(stems(tmp_path, "images", remarks)) == 1
    assert "same stem as" in remarks.problems[0]


def test_a_label_that_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/train/{name}.png" for name in "abc"), "masks/train/a.png")
    touch(tmp_path, "masks/train/a.json", "masks/train/b.json", "masks/train/notes.txt", "masks/train/c.npy")
    listing = list_folder(tmp_path)
    assert listing.problems == [
        f"{tmp_path}/masks/train/{name}: a label of a format that is not read, expected png, jpeg, webp, bmp, tiff or "
        "gif; convert it, or move it away if the image is to count as unlabeled"
        for name in ("b.json", "c.npy")
    ]
    assert listing.left_out == [
        f"{tmp_path}/masks/train: 2 files are not read (1 .json, 1 .txt); expected png, jpeg, webp, bmp, tiff or gif"
    ]


def test_files_beside_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.png", "masks/train/a.png", "images/b.png", "labels/a.png", "labels/b.png")
    touch(tmp_path, "images/valid/v.png", ".git/config", "README.txt", "classes.txt", "unlabeled/u.png")
    assert list_folder(tmp_path).left_out == [
        f"{tmp_path}/images/valid: a folder of 1 files that is not read; images/train, images/val, images/test are; "
        "rename the folder or move the files",
        f"{tmp_path}/images: 1 files directly in it are not read; images/train, images/val, images/test are; rename "
        "the folder or move the files",
        f"{tmp_path}/labels: a folder of 2 files that is not read; classes.txt, images, masks, unlabeled are",
    ]


def test_another_kind_of_folder_is_refused_without_listing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "usr/a.png", "home/b.png")
    scandir, listed = os.scandir, []

    def spy(folder: Path) -> Any:
        listed.append(Path(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", spy)
    assert list_folder(tmp_path).problems == [
        f"{tmp_path}/images/train: found no such folder, expected training images (png, jpeg, webp, bmp, tiff or gif); "
        "put them there or fix data.root"
    ]
    assert tmp_path not in listed
    assert tmp_path / "usr" not in listed


def test_a_large_folder_beside_is_not_counted_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_COUNTED", 20)
    touch(
        tmp_path, "images/train/a.png", "masks/train/a.png", *(f"other/{part}/{n}" for part in "abc" for n in range(9))
    )
    (line,) = list_folder(tmp_path).left_out
    assert line.startswith(f"{tmp_path}/other: a folder of 18 or more files that is not read; ")
