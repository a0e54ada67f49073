"""The contact sheet of `semipix data pick`."""

from pathlib import Path

import pytest
from PIL import Image

from semipix.data import pick_sheet
from semipix.data.pick_sheet import write_sheet
from semipix.errors import SemipixError
from tests.helpers.tiny_files import save_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        save_image(tmp_path / f"{number}.png", 90, 120, value=20 * number)
    return tmp_path


def test_a_picture_has_a_row_for_each_picked_image(root: Path) -> None:
    write_sheet(root / "sheet.png", root, [["3.png", *(f"{number}.png" for number in range(4, 12))], ["1.png"]])
    with Image.open(root / "sheet.png") as sheet:
        step = sheet.height // 2
        row = pick_sheet._TITLE + 40
        shown = [sheet.getpixel((left, row)) for left in (20, 190, 190 + 5 * 128)]
        assert shown == [(60,) * 3, (80,) * 3, (220,) * 3]  # the picked image, the nearest and the farthest
        assert [sheet.getpixel((left, step + row)) for left in (20, 190)] == [(20,) * 3, (255,) * 3]


def test_a_page_names_the_images_safely(root: Path) -> None:
    save_image(root / "<b>.png")
    write_sheet(root / "sheet.html", root, [["<b>.png", "1.png"], ["2.png"]])
    page = (root / "sheet.html").read_text()
    assert "1. &lt;b&gt;.png: 2 images" in page
    assert "2. 2.png: 1 image<" in page
    assert "<b>" not in page
    assert page.count("data:image/jpeg;base64,") == 3


def test_rows_that_are_left_out_are_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pick_sheet, "MOST_ROWS", 2)
    write_sheet(root / "sheet.html", root, [[f"{number}.png"] for number in range(5)])
    assert "3 further picked images are not shown." in (root / "sheet.html").read_text()


def test_another_extension_is_refused(root: Path) -> None:
    with pytest.raises(SemipixError, match=r"--sheet .*sheet\.pdf: expected a name that ends in \.jpg"):
        write_sheet(root / "sheet.pdf", root, [])
