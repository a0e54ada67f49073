"""`semipix data check`.

Also tests data/survey.py.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semipix.data.check import BandRange, _joined, check_folder
from semipix.errors import SemipixError

Write = Callable[..., Path]


def test_a_good_folder(folder: Path, write_image: Write) -> None:
    write_image(folder / "unlabeled/wide.png", height=5, width=20)
    report = check_folder(folder)
    assert report.problems == []
    assert report.masked == {"train": 4, "val": 2, "test": 1}
    assert report.unmasked == {"train": 1, "val": 0, "test": 0, "unlabeled": 2}
    assert report.sizes == {(6, 8): 9, (5, 20): 1}
    assert report.classes == ["0", "1"]
    assert report.pixels == {0: 7 * 40, 1: 7 * 8}
    assert report.labeled_share == pytest.approx(4 / 7)
    assert report.void_share == 0


def test_the_text_contains_everything(folder: Path, write_image: Write, write_mask: Write) -> None:
    (folder / "classes.txt").write_text("sky\nroad\n")
    write_image(folder / "unlabeled/wide.png", height=5, width=20)
    for path in folder.glob("masks/*/*.png"):
        write_mask(path, [[0] * 3 + [1] * 3 + [255] * 2] * 6)
    write_mask(folder / "masks/train/lonely.png")
    text = "\n".join(check_folder(folder).lines())
    for words in (
        str(folder),
        "train           4 with mask       1 without",
        "unlabeled       0 with mask       2 without",
        "labeled     57.1% of the training images",
        "2 distinct, 8-20 wide, 5-6 high",
        "0 sky                   50.00%",
        "1 road                  50.00%",
        "void        25.0%",
        "left out        0",
        "problems        1",
        "lonely.png: mask without an image",
    ):
        assert words in text, words


def test_every_problem_is_reported(folder: Path, write_image: Write, write_mask: Write) -> None:
    (folder / "classes.txt").write_text("sky\nroad\n")
    (folder / "images/train/a.png").write_bytes(b"broken")
    write_image(folder / "masks/train/b.png")
    write_mask(folder / "masks/train/c.png", height=3, width=3)
    write_mask(folder / "masks/train/d.png", [[7] * 8] * 6)
    write_mask(folder / "masks/train/lonely.png")
    write_image(folder / "images/train/x.bmp")
    (folder / "masks/val/v.png").unlink()
    (folder / "masks/test/t.png").write_bytes(b"broken")
    (folder / "unlabeled/y.jpg").write_bytes(b"broken")
    problems = check_folder(folder).problems
    expected = [
        ("images/train/a.png", "not a readable image"),
        ("masks/train/b.png", "found a mask of colours"),
        ("masks/train/c.png", "mask is 3x3 pixels"),
        ("masks/train/d.png", "found mask value 7"),
        ("masks/train/lonely.png", "mask without an image"),
        ("images/train/x.png", "same stem as x.bmp"),
        ("images/val/v.png", "val image without a mask"),
        ("masks/test/t.png", "not a readable image"),
        ("unlabeled/y.jpg", "not a readable image"),
    ]
    for file, words in expected:
        assert [problem for problem in problems if file in problem and words in problem], (file, words)
    assert len(problems) == len(expected)
    assert not any("\n" in problem for problem in problems)


@pytest.mark.parametrize("named", [True, False])
def test_binary_masks_of_255(folder: Path, write_mask: Write, named: bool) -> None:
    if named:
        (folder / "classes.txt").write_text("sky\nroad\n")
    for path in folder.glob("masks/*/*.png"):
        write_mask(path, [[0] * 4 + [255] * 4] * 6)
    problems = check_folder(folder).problems
    assert len(problems) == 1
    assert "data.mask_values={0:0,255:1}" in problems[0]
    report = check_folder(folder, mask_values={0: 0, 255: 1})
    assert report.problems == []
    assert report.pixels == {0: 7 * 24, 1: 7 * 24}


def test_a_value_beyond_counted_classes_in_validation(folder: Path, write_mask: Write) -> None:
    write_mask(folder / "masks/val/v.png", [[5] * 8] * 6)
    assert [problem.split(": ", 1)[1][:41] for problem in check_folder(folder).problems] == [
        "found mask value 5 (48 pixels), expected "
    ]


def test_a_bad_class_file_does_not_end_the_check(folder: Path) -> None:
    (folder / "classes.txt").write_text("")
    (folder / "unlabeled/y.jpg").write_bytes(b"broken")
    problems = check_folder(folder).problems
    assert len(problems) == 2
    assert "classes.txt" in problems[0]
    assert "y.jpg" in problems[1]


def test_a_missing_folder_is_a_problem_too(tmp_path: Path) -> None:
    report = check_folder(tmp_path / "nowhere")
    assert len(report.problems) == 1
    assert "found nothing, expected a data folder" in report.lines()[-1]


def test_mask_values_out_of_range(folder: Path) -> None:
    with pytest.raises(SemipixError, match=r"data\.mask_values"):
        check_folder(folder, mask_values={0: 999})


def test_same_content_is_a_warning_not_a_problem(folder: Path, write_image: Write) -> None:
    for number, path in enumerate(sorted(folder.glob("images/*/*"))):
        write_image(path, value=number)
    assert check_folder(folder).warnings == []
    write_image(folder / "images/val/v.png", value=100)
    write_image(folder / "images/train/b.png", value=100)
    report = check_folder(folder)
    assert report.problems == []
    (warning,) = report.warnings
    assert warning.startswith(f"{folder / 'images/val/v.png'}: same content as images/train/b.png of another part;")
    assert warning in "\n".join(report.lines())


def test_copies_of_labeled_images_may_be_in_validation_and_training(folder: Path, write_image: Write) -> None:
    """`data.val` takes validation images from the labeled ones."""
    for number, path in enumerate(sorted(folder.glob("*/*/*.png"))):
        if "images" in path.parts:
            write_image(path, value=number)
    for part in ("images/val", "masks/val"):
        shutil.rmtree(folder / part)
    assert check_folder(folder).warnings == []
    shutil.copy(folder / "images/train/b.png", folder / "unlabeled/b2.png")
    shutil.copy(folder / "images/train/x.png", folder / "unlabeled/x2.png")
    (warning,) = check_folder(folder).warnings
    assert warning.startswith(f"{folder / 'unlabeled/b2.png'}: same content as images/train/b.png, which has a label")


def test_numbers_outside_are_a_share_of_the_numbers_there_are() -> None:
    """Images without any number hid those that are out of range."""
    known, nothing = BandRange(0, 9, 0.5, 0.2), BandRange(math.nan, math.nan, 1, 0)
    joined = _joined([(known, 200), (nothing, 800)])
    assert (joined.low, joined.high, joined.missing, joined.outside) == (0, 9, 0.9, pytest.approx(0.2))
