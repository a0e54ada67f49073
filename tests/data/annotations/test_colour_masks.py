"""Masks of colours: CVAT, Pascal VOC and folders of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semipix.data.annotations.convert import Conversion, convert
from semipix.data.sources.colour_classes import voc_colour
from semipix.errors import SemipixError
from tests.helpers.annotated import SIZE, filled, mask_of, save_photo

COLOURS = np.zeros((256, 3), np.uint8)
COLOURS[:4] = [(0, 0, 0), (250, 50, 83), (51, 221, 255), (9, 9, 9)]

LABELS = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:250,50,83::\nbug:51,221,255::\n"


def save(path: Path, values: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(COLOURS[np.asarray(values)]).save(path, **options)


def cvat(folder: Path, values: Any, annotated: Any = None, photo: int = 1) -> Path:
    """CVAT's folder with one image."""
    save_photo(folder / "JPEGImages/a.jpg", photo)
    save(folder / "SegmentationClass/a.png", values)
    if annotated is not None:
        save(folder / "SegmentationObject/a.png", annotated)
    (folder / "labelmap.txt").write_text(LABELS)
    return folder


def converted(source: Path, form: Any = "cvat", **options: Any) -> Conversion:
    return convert(source, source.parent / "root", form, **options)


def scene() -> Any:
    values = filled()
    values[:2, :3], values[4, 5] = 1, 2
    return values


def test_cvats_background_is_a_class_or_void(tmp_path: Path) -> None:
    values = scene()
    data = cvat(tmp_path / "data", values)
    found = converted(data, unannotated="background")
    assert (found.classes, mask_of(tmp_path / "root")) == (["background", "leaf", "bug"], values.tolist())
    (tmp_path / "root").rename(tmp_path / "first")
    found = converted(data, unannotated="ignore")
    assert found.classes == ["leaf", "bug"]
    assert mask_of(tmp_path / "root") == np.where(values == 0, 255, values - 1).tolist()


def test_masks_of_objects_say_which_background_was_annotated(tmp_path: Path) -> None:
    values, annotated = scene(), scene()
    annotated[7] = 3  # annotated as background
    found = converted(cvat(tmp_path / "data", values, annotated), unannotated="ignore")
    assert found.classes == ["background", "leaf", "bug"]
    assert mask_of(tmp_path / "root") == np.where(annotated == 0, 255, values).tolist()
    (tmp_path / "root").rename(tmp_path / "first")
    found = converted(cvat(tmp_path / "data", values, values), unannotated="ignore")
    assert found.classes == ["leaf", "bug"]


def test_parts_are_those_of_the_lists(tmp_path: Path) -> None:
    data = cvat(tmp_path / "data", scene())
    for name in "bcd":
        save_photo(data / f"JPEGImages/{name}.jpg")
    save(data / "SegmentationClass/b.png", scene())
    lists = data / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, stems in (("default", "a\nc\ngone\n"), ("val", "b\n"), ("trainval", "a\nb\n")):
        (lists / f"{name}.txt").write_text(stems)
    found = converted(data, unannotated="background")
    assert (found.masks, found.bare) == ({"train": 1, "val": 1}, {"train": 1, "unlabeled": 1})
    assert found.left_out == ["1 images of the lists are not there and are left out (gone)"]


@pytest.mark.parametrize("shown", [True, False])
def test_masks_of_a_photo_with_an_orientation_tag(tmp_path: Path, shown: bool) -> None:
    """CVAT shows photos turned by their tag, so its masks have the turned size; other tools' masks the stored one."""
    values = scene()
    cvat(tmp_path / "data", values if shown else np.rot90(values), photo=6)
    found = converted(tmp_path / "data", unannotated="background")
    assert mask_of(tmp_path / "root") == values.tolist()
    assert len(found.left_out) == (0 if shown else 1)


def test_voc(tmp_path: Path) -> None:
    """VOC's masks have a palette; the class is that of the colour."""
    values = filled()
    values[0, :4], values[1] = 15, 255
    save_photo(tmp_path / "data/JPEGImages/a.jpg")
    mask = Image.fromarray(values)
    mask.putpalette([part for index in range(256) for part in voc_colour(index)])
    (tmp_path / "data/SegmentationClass").mkdir()
    mask.save(tmp_path / "data/SegmentationClass/a.png")
    found = converted(tmp_path / "data", "voc")
    assert (len(found.classes), mask_of(tmp_path / "root")) == (21, values.tolist())
    assert found.objects == {"background": 1, "person": 1}


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    """Names of masks may all have the same ending."""
    for name in ("a", "b"):
        save_photo(tmp_path / f"photos/{name}.png")
    save(tmp_path / "drawn/a_mask.png", scene())
    (tmp_path / "drawn/classes.txt").write_text("ground 0 0 0\nleaf 250 50 83\nvoid 51 221 255\n")
    found = converted(tmp_path / "drawn", "colours", images=tmp_path / "photos")
    assert (found.classes, found.bare) == (["ground", "leaf"], {"unlabeled": 1})
    assert mask_of(tmp_path / "root") == np.where(scene() == 2, 255, scene()).tolist()


def test_colours_of_no_class_are_named_over_all_masks(tmp_path: Path) -> None:
    data = cvat(tmp_path / "data", np.full(SIZE, 3))
    save_photo(data / "JPEGImages/b.jpg")
    save(data / "SegmentationClass/b.png", np.full(SIZE, 3))
    with pytest.raises(SemipixError, match=r"a\.png: no class has the colour \(9 9 9\) at 80 .* and 1 more such"):
        converted(data, unannotated="background")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("labelmap.txt", "labelmap.txt: no such file"),
        ("SegmentationClass", "SegmentationClass: no such folder"),
        ("JPEGImages", "give their folder by --images DIR"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, left: str, message: str) -> None:
    data = cvat(tmp_path / "data", scene())
    (data / left).rename(tmp_path / "elsewhere")
    with pytest.raises(SemipixError, match=message):
        converted(data, unannotated="background")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match="annotations for an image of 3x2 pixels, but the image is 10x8"):
        converted(cvat(tmp_path / "data", filled(1, (2, 3))), unannotated="background")


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    """The last one was taken."""
    data = cvat(tmp_path / "data", scene())
    save(data / "SegmentationClass/a.bmp", filled())
    with pytest.raises(SemipixError, match=r"a\.png: the same name as a\.bmp up to the extension"):
        converted(data, unannotated="background")
