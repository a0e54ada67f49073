"""COCO files."""

import json
from pathlib import Path
from typing import Any

import pytest

from semipix.data.annotations.convert import Conversion, convert
from semipix.errors import SemipixError
from tests.helpers.annotated import SIZE, box, coco, filled, mask_of, save_photo

pytest.importorskip("pycocotools")

LEAF = {"category_id": 3, "segmentation": [box(1, 1, 4, 4)]}


def converted(source: Path, **options: Any) -> Conversion:
    root = (source if source.is_dir() else source.parent).parent / "root"
    return convert(source, root, "coco", **{"unannotated": "background", **options})


def test_polygons_and_codes_of_two_files(tmp_path: Path) -> None:
    """Instances and stuff of the same images are drawn together; classes are in the order of the ids."""
    data = tmp_path / "data"
    save_photo(data / "train2017/a.png")
    save_photo(data / "val2017/b.png")
    save_photo(data / "train2017/c.png")
    coco(data / "annotations/instances_train2017.json", [LEAF])
    sky = {"size": list(SIZE), "counts": [0, 80]}
    coco(
        data / "annotations/stuff_train2017.json",
        [{"category_id": 92, "segmentation": sky, "iscrowd": 0}],
        categories=[(92, "sky")],
    )
    coco(data / "annotations/instances_val2017.json", [LEAF], ["b.png"])
    coco(data / "annotations/captions_val2017.json", [], ["b.png"])
    (data / "settings.json").write_text("{}")
    found = converted(data)
    assert found.classes == ["background", "leaf", "bug", "sky"]
    expected = filled(3)
    expected[1:4, 1:4] = 1
    assert mask_of(tmp_path / "root") == expected.tolist()
    assert mask_of(tmp_path / "root", "val/b")[1] == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert (tmp_path / "root/unlabeled/c.png").exists()
    assert found.objects == {"leaf": 2, "sky": 1}
    assert [line[:29] for line in found.left_out] == ["1 JSON files have no outlines", "1 JSON files have no lists im"]


@pytest.mark.parametrize(("orientation", "stated"), [(6, SIZE), (6, SIZE[::-1]), (3, SIZE), (1, SIZE)])
def test_photos_with_an_orientation_tag(tmp_path: Path, orientation: int, stated: tuple[int, int]) -> None:
    """The size of the annotations says whether they were drawn on the turned photo or on its stored pixels."""
    save_photo(tmp_path / "data/a.jpg", orientation)
    source = coco(tmp_path / "data/x.json", [{**LEAF, "segmentation": [box(0, 0, 2, 1)]}], ["a.jpg"], size=stated)
    found = converted(source)
    expected = filled()
    if stated == SIZE:
        expected[0, :2] = 1
        assert found.left_out == [] if orientation != 3 else "taken as drawn on the photo" in found.left_out[0]
    else:
        expected[:2, 9] = 1
        assert "1 photos have an orientation tag" in found.left_out[0]
    assert mask_of(tmp_path / "root") == expected.tolist()


def test_the_user_says_what_the_size_does_not(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.jpg", 3)
    source = coco(tmp_path / "data/x.json", [{**LEAF, "segmentation": [box(0, 0, 2, 1)]}], ["a.jpg"])
    found = converted(source, orientation="stored")
    expected = filled()
    expected[7, 8:] = 1
    assert (mask_of(tmp_path / "root"), found.left_out) == (expected.tolist(), [])


def test_images_without_objects(tmp_path: Path) -> None:
    for name in "ab":
        save_photo(tmp_path / f"data/{name}.png")
    source = coco(tmp_path / "data/x.json", [LEAF], ["a.png", "b.png"])
    with pytest.raises(SemipixError, match=r"1 images have no object \(b\.png\): .* --empty labeled or"):
        converted(source)
    assert not (tmp_path / "root").exists()
    assert converted(source, empty="labeled").masks["train"] == 2
    (tmp_path / "root").rename(tmp_path / "first")
    assert converted(source, empty="unlabeled").bare["train"] == 1
    (tmp_path / "root").rename(tmp_path / "second")
    assert converted(source, unannotated="ignore").bare["train"] == 1  # all void: nothing to ask


def test_an_image_whose_object_is_damaged_is_unlabeled(tmp_path: Path) -> None:
    for name in "abc":
        save_photo(tmp_path / f"data/{name}.png")
    wrong = {"size": [3, 3], "counts": [9]}
    source = coco(
        tmp_path / "data/x.json",
        [
            LEAF,
            {**LEAF, "image_id": 1, "segmentation": wrong},
            {**LEAF, "image_id": 2, "segmentation": [[0, float("nan")] * 3]},
        ],
        ["a.png", "b.png", "c.png"],
    )
    found = converted(source)
    assert (found.masks["train"], found.bare["train"]) == (1, 2)
    assert any("2 images count as unlabeled: b.png, object 1: a run" in line for line in found.left_out)


def test_missing_images_and_stray_objects_are_counted(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/deep/a.png")
    source = coco(tmp_path / "data/x.json", [LEAF, {**LEAF, "image_id": 99}], ["C:\\photos\\a.png", "../../gone.png"])
    found = converted(source)
    assert found.masks["train"] == 1
    assert found.left_out == [
        "1 images that the annotations name are not there and are left out (../../gone.png)",
        "1 objects of images that the file does not list are left out (x.json, object 1)",
    ]


def test_annotations_of_a_missing_image_are_not_drawn_on_another(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/cam2/1.png")
    source = coco(tmp_path / "data/x.json", [LEAF, {**LEAF, "image_id": 1}], ["cam1/1.png", "cam2/1.png"])
    found = converted(source)
    assert found.objects == {"leaf": 1}
    assert found.left_out == ["1 images that the annotations name are not there and are left out (cam1/1.png)"]


def test_files_beside_their_images_do_not_share_them(tmp_path: Path) -> None:
    """Each camera has its own file, and the image of the first is lost."""
    save_photo(tmp_path / "data/cam2/1.png")
    for folder in ("cam1", "cam2"):
        source = coco(tmp_path / f"data/{folder}/x.json", [LEAF], ["1.png"])
    found = converted(source.parent.parent)
    assert found.objects == {"leaf": 1}
    assert "1 images that the annotations name are not there" in found.left_out[0]


def test_a_category_called_void_is_no_class(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.png")
    void = {"category_id": 0, "segmentation": [box(5, 0, 7, 2)]}
    source = coco(tmp_path / "data/x.json", [LEAF, void], categories=[(0, "void"), (3, "leaf")])
    assert converted(source).classes == ["background", "leaf"]
    assert mask_of(tmp_path / "root")[1] == [0, 1, 1, 1, 0, 255, 255, 0, 0, 0]


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.png")
    source = coco(tmp_path / "data/x.json", [{"category_id": 3, "segmentation": [], "bbox": [1, 1, 3, 3]}])
    with pytest.raises(SemipixError, match="all 1 objects have a box but no outline"):
        converted(source)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [(3, "leaf"), (3, "bug")]}, "category 3 is 'bug', but 'leaf' in"),
        ({"categories": [(3, "leaf"), (7, "leaf")]}, "categories 3 and 7 are both called 'leaf'"),
        ({"categories": [(7, "bug")]}, "1 objects have the category 3, which is not in the file's list"),
        ({"images": ["z.png"]}, "none of the images .* is there"),
        ({"size": (3, 3)}, "annotations for an image of 3x3 pixels, but the image is 10x8"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_photo(tmp_path / "data/a.png")
    source = coco(tmp_path / "data/x.json", [LEAF], **changes)
    with pytest.raises(SemipixError, match=message) as caught:
        converted(source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("number", [7, None])
def test_two_images_of_one_id_are_refused(tmp_path: Path, number: int | None) -> None:
    """As in files that were joined: all objects were drawn on the second image."""
    for name in "ab":
        save_photo(tmp_path / f"data/{name}.png")
    source = coco(tmp_path / "data/x.json", [{**LEAF, "image_id": number}], ["a.png", "b.png"])
    content = json.loads(source.read_text())
    source.write_text(json.dumps({**content, "images": [{**image, "id": number} for image in content["images"]]}))
    with pytest.raises(SemipixError, match=f"the images a.png and b.png both have the id {number}, by which"):
        converted(source, empty="labeled")


def test_ids_may_be_written_with_a_point(tmp_path: Path) -> None:
    """As by pandas: all objects were drawn on the last image."""
    for name in "ab":
        save_photo(tmp_path / f"data/{name}.png")
    source = coco(tmp_path / "data/x.json", [LEAF], ["a.png", "b.png"])
    text = source.read_text().replace('"image_id": 0', '"image_id": 0.0')
    source.write_text(text.replace('"id": 0, "file', '"id": 0.0, "file').replace('"id": 1, "file', '"id": 1.0, "file'))
    converted(source, empty="labeled")
    assert mask_of(tmp_path / "root")[1][:3] == [0, 1, 1]
    assert mask_of(tmp_path / "root", "train/b") == filled().tolist()


def test_truncated_and_other_json(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.png")
    source = coco(tmp_path / "data/x.json", [LEAF])
    source.write_text(source.read_text()[:-40])
    with pytest.raises(SemipixError, match=r"x\.json: no complete JSON"):
        converted(source)
    source.write_text("[1]")
    with pytest.raises(SemipixError, match="expected the lists images, annotations and categories"):
        converted(source)


def test_a_class_list_orders_the_classes(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.png")
    source = coco(tmp_path / "data/x.json", [LEAF])
    names = tmp_path / "names.txt"
    names.write_text("bug\nstem\nleaf\n")
    assert converted(source, classes=names, unannotated="ignore").classes == ["bug", "stem", "leaf"]
    assert mask_of(tmp_path / "root")[1][:3] == [255, 2, 2]
    names.write_text("bug\nstem\n")
    (tmp_path / "root").rename(tmp_path / "first")
    with pytest.raises(SemipixError, match=r"--classes: the annotations have 1 classes that it does not list: 'leaf'"):
        converted(source, classes=names)
