"""labelme's files."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semipix.data.annotations.convert import Conversion, convert
from semipix.errors import SemipixError
from tests.helpers.annotated import SIZE, filled, labelme, mask_of, save_photo

pytest.importorskip("pycocotools")


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


LEAF = shape("leaf", [[1, 1], [4, 1], [4, 4], [1, 4]])


def converted(source: Path, **options: Any) -> Conversion:
    root = source.parent / "root"
    return convert(source, root, "labelme", **{"unannotated": "background", **options})


def as_png(pixels: list[list[int]]) -> str:
    with io.BytesIO() as file:
        Image.fromarray(np.array(pixels, np.uint8) * 255).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode()


def test_all_shapes_with_an_area(tmp_path: Path) -> None:
    data = tmp_path / "data"
    save_photo(data / "a.png")
    labelme(
        data / "a.json",
        [
            LEAF,
            shape("bug", [[9, 2], [7, 0]], "rectangle"),
            shape("bug", [[7, 5], [8, 6]], "mask", mask=as_png([[1, 0], [1, 1]])),
            shape("eye", [[2, 6], [3, 6]], "circle"),
            shape("__ignore__", [[8, 7], [10, 7], [10, 8], [8, 8]]),
            shape("eye", [[1, 1], [9, 7]], "line"),
        ],
        "a.png",
    )
    found = converted(data)
    assert found.classes == ["background", "bug", "eye", "leaf"]
    expected = filled()
    expected[1:4, 1:4] = 3
    expected[0:2, 7:9] = 1
    expected[5, 7], expected[6, 7:9] = 1, 1
    expected[5:7, 1:3] = 2
    expected[7, 8:] = 255
    got = np.array(mask_of(tmp_path / "root"))
    assert got.tolist() == expected.tolist()
    assert found.left_out == [
        "1 shapes are lines or points, which have no area, and are left out (a.png, shape 6, line)"
    ]


def test_shapes_refer_to_the_photo_as_labelme_shows_it(tmp_path: Path) -> None:
    """labelme turns photos by their tag before it shows them, and stores the turned size."""
    save_photo(tmp_path / "data/a.jpg", 6)
    labelme(tmp_path / "data/a.json", [shape("leaf", [[0, 0], [2, 0], [2, 1], [0, 1]])], "a.jpg")
    converted(tmp_path / "data")
    expected = filled()
    expected[0, :2] = 1
    assert mask_of(tmp_path / "root") == expected.tolist()


def test_which_images_are_labeled(tmp_path: Path) -> None:
    """No shapes: annotated, and nothing is there. No file: unlabeled. A damaged file: unlabeled, with a line."""
    data = tmp_path / "data"
    for name in "abcd":
        save_photo(data / f"photos/{name}.png")
    labelme(data / "labels/a.json", [LEAF], "..\\photos\\a.png")
    labelme(data / "labels/b.json", [], "../photos/b.png")
    (data / "labels/c.json").write_text("{")
    labelme(data / "labels/e.json", [LEAF], "../photos/e.png")
    found = converted(data)
    assert (found.masks["train"], found.bare["unlabeled"]) == (2, 2)
    assert found.left_out == [
        "1 JSON files cannot be read, and their images count as unlabeled (labels/c.json)",
        "1 images of JSON files are not there and are left out (../photos/e.png)",
    ]


def test_an_image_inside_of_its_file(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "photo.png").read_bytes()
    path = labelme(tmp_path / "data/a.json", [LEAF], "gone.png")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "imageData": base64.b64encode(photo).decode()}))
    assert converted(tmp_path / "data").masks["train"] == 1
    assert next((tmp_path / "root/images/train").iterdir()).read_bytes() == photo


def test_an_image_of_the_same_name_elsewhere_is_another_one(tmp_path: Path) -> None:
    """The file's own image counts before one in another folder; without it the image is missing."""
    data = tmp_path / "data"
    photo = save_photo(tmp_path / "photo.png").read_bytes()
    save_photo(data / "cam2/1.png", size=(4, 4))
    path = labelme(data / "cam1/1.json", [LEAF], "1.png")
    path.write_text(json.dumps({**json.loads(path.read_text()), "imageData": base64.b64encode(photo).decode()}))
    assert converted(data).masks["train"] == 1
    assert next((tmp_path / "root/images/train/cam1").iterdir()).read_bytes() == photo
    (tmp_path / "root").rename(tmp_path / "first")
    labelme(data / "cam1/1.json", [LEAF], "1.png")
    labelme(data / "cam2/1.json", [LEAF], "1.png", (4, 4))
    found = converted(data)
    assert found.masks["train"] == 1
    assert found.left_out == ["1 images of JSON files are not there and are left out (1.png)"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("leaf", [[1, 1], [2]]), "shape 1: expected coordinates x, y"),  # type: ignore[list-item]
        (shape("", [[1, 1], [4, 1], [4, 4]]), "shape 1: has no label"),
        (shape("leaf", [[1, 1]], "circle"), "a circle of 1 points"),
        (shape("leaf", [[1, 1], [2, 2]], "mask", mask="?"), "its mask is no PNG in base64"),
        (shape("leaf", [], "mask", mask=as_png([[1]])), "shape 1: a mask without the place of its pixels"),
        (shape("leaf", [[float("inf"), 1]], "mask", mask=as_png([[1]])), "a mask without the place"),
    ],
)
def test_damaged_shapes(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    save_photo(tmp_path / "data/a.png")
    labelme(tmp_path / "data/a.json", [wrong], "a.png", SIZE)
    with pytest.raises(SemipixError, match=message):
        converted(tmp_path / "data")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("other", ["train/b.json", "val/a.json"])
def test_two_files_of_one_image_are_refused(tmp_path: Path, other: str) -> None:
    """Of two parts, the image was in both of them."""
    save_photo(tmp_path / "data/images/a.png")
    for name in ("train/a.json", other):
        labelme(tmp_path / "data" / name, [LEAF], "../images/a.png")
    with pytest.raises(SemipixError, match=r"images/a\.png: has two files of annotations, .*/train/a\.json and "):
        converted(tmp_path / "data")
