"""Predictions as annotations for labeling tools.

Also tests inference/annotations_brush.py and inference/annotations_outlines.py.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from semipix.data.annotations.convert import convert
from semipix.errors import SemipixError
from semipix.inference.annotations import Annotations
from semipix.inference.annotations_brush import brush_code
from semipix.inference.annotations_outlines import LEAST_IOU, outlines
from tests.conftest import Result

CLASSES = ["sky", "Background", "road"]


def blobs(size: tuple[int, int] = (40, 60), seed: int = 0) -> Any:
    """Class indices in smooth regions with holes, islands and borders with each other."""
    noise = np.random.default_rng(seed).random((3, *size))
    smooth = np.stack([ndimage.gaussian_filter(part, 2.5) for part in noise])
    return smooth.argmax(0).astype(np.uint8)


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """The folder of a prediction of two images; the first rows are uncertain."""
    for number, name in enumerate(("a.jpg", "deep/b.png")):
        values = blobs(seed=number)
        errors = np.full_like(values, 50)
        errors[:5] = 200
        for folder, pixels in (
            ("masks", values),
            ("errors", errors),
        ):
            path = tmp_path / "out" / folder / Path(name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(tmp_path / "photos" / name)
    return tmp_path


def write(form: Any, folder: Path, uncertain: float | None = None) -> Path:
    files = [(folder / "photos" / name, Path(name)) for name in ("a.jpg", "deep/b.png", "c.png")]  # c has no mask
    assert Annotations(form, CLASSES, uncertain).write(files, folder / "out") == []
    names = {"coco": "coco.json", "cvat": "cvat.zip", "labelme": "labelme", "labelstudio": "labelstudio.json"}
    return folder / "out/annotations" / names[form]


def back(path: Path, form: Any, unannotated: Any, folder: Path) -> tuple[list[str], list[Any]]:
    """The classes and masks that the format's reader gives, for a and b."""
    root = folder / f"back-{form}"
    found = convert(path, root, form, images=folder / "photos", unannotated=unannotated)
    return found.classes, [np.asarray(Image.open(root / f"masks/train/{name}.png")) for name in ("a", "deep/b")]


def uncertain_void(values: Any) -> Any:
    values[:5] = 255
    return values


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_masks_come_back_as_they_were(predicted: Path, form: Any) -> None:
    if form == "coco":
        pytest.importorskip("pycocotools")
    classes, masks = back(write(form, predicted), form, "background", predicted)
    names = [classes[index].lower() for index in range(3)]
    order = np.array([names.index(name.lower()) for name in CLASSES])
    for seed, mask in enumerate(masks):
        assert (mask == order[blobs(seed=seed)]).all()


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_uncertain_pixels_are_not_annotated_and_background_is(predicted: Path, form: Any) -> None:
    if form == "coco":
        pytest.importorskip("pycocotools")
    classes, masks = back(write(form, predicted, 0.5), form, "ignore", predicted)
    assert classes == CLASSES
    for seed, mask in enumerate(masks):
        assert (mask == uncertain_void(blobs(seed=seed))).all()


def test_labelmes_polygons_keep_each_class(predicted: Path) -> None:
    for name in ("pycocotools", "contourpy", "shapely"):
        pytest.importorskip(name)
    path = write("labelme", predicted, 0.5)
    content = json.loads((path / "deep/b.json").read_text())
    assert (path / "deep" / content["imagePath"]).samefile(predicted / "photos/deep/b.png")
    classes, masks = back(path, "labelme", "ignore", predicted)
    for seed, mask in enumerate(masks):
        true = uncertain_void(blobs(seed=seed))
        for index, name in enumerate(CLASSES):
            ours, theirs = true == index, mask == classes.index(name)
            assert (ours & theirs).sum() >= 0.99 * (ours | theirs).sum()


def test_what_was_corrected_in_labelme_is_kept(predicted: Path) -> None:
    for name in ("contourpy", "shapely"):
        pytest.importorskip(name)
    path = write("labelme", predicted)
    corrected = json.loads((path / "a.json").read_text())
    corrected["shapes"] = corrected["shapes"][:1]
    (path / "a.json").write_text(json.dumps(corrected, ensure_ascii=False, indent=2))  # as labelme saves it
    before = (path / "deep/b.json").read_text()
    Image.fromarray(blobs(seed=5)).save(predicted / "out/masks/deep/b.png")  # a newer prediction
    files = [(predicted / "photos" / name, Path(name)) for name in ("a.jpg", "deep/b.png")]
    [line] = Annotations("labelme", CLASSES, None).write(files, predicted / "out")
    assert line.startswith(
        f"--write labelme: 1 file kept, such as {path / 'a.json'}, with other shapes than semipix wrote"
    )
    assert json.loads((path / "a.json").read_text()) == corrected
    assert (path / "deep/b.json").read_text() != before
    (path / "a.json").write_text("{}")
    assert len(Annotations("labelme", CLASSES, None).write(files, predicted / "out")) == 1


def test_outlines_have_few_corners_and_all_holes() -> None:
    for name in ("pycocotools", "contourpy", "shapely"):
        pytest.importorskip(name)
    y, x = np.mgrid[:200, :200]
    distance = np.hypot(y - 100, x - 100)
    ring = ((distance < 90) & (distance > 30)).astype(np.uint8)
    (outer,) = outlines(ring, [1])
    assert outer.area == ring.sum()
    assert len(outer.points) < 80
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semipix.inference.annotations_outlines.LEAST_IOU", 1.0)
        assert len(outlines(ring, [1])[0].points) > 200
    assert 0.99 < LEAST_IOU < 1


def decoded(code: Sequence[int], size: tuple[int, int]) -> Any:
    """A mask from Label Studio's code, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word, sizes = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        assert take(1) == 1  # runs alone
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length
    assert len(values) == total
    channels = np.array(values).reshape(*size, 4)
    assert (channels == channels[..., :1]).all()
    return channels[..., 3] == 255


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 60), (1, 40_000)])
def test_brush_codes(size: tuple[int, int]) -> None:
    """The last size has runs that are longer than the code can say at once."""
    draw = np.random.default_rng(0)
    for region in (draw.random(size) < 0.5, np.zeros(size, bool), np.ones(size, bool)):
        assert (decoded(brush_code(region), size) == region).all()


def test_label_studios_tasks(predicted: Path) -> None:
    path = write("labelstudio", predicted)
    tasks = json.loads(path.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=a.jpg",
        "/data/local-files/?d=deep/b.png",
    ]
    strokes = tasks[0]["predictions"][0]["result"]
    assert [stroke["value"]["brushlabels"] for stroke in strokes] == [["sky"], ["road"]]
    for stroke, index in zip(strokes, (0, 2), strict=True):
        assert (decoded(stroke["value"]["rle"], (40, 60)) == (blobs() == index)).all()
        assert (stroke["original_width"], stroke["original_height"]) == (60, 40)
    view = path.with_suffix(".xml").read_text()
    assert 'Label value="sky"' in view
    assert "Background" not in view


@pytest.mark.parametrize("name", ["a:b", "#a"])
def test_names_that_cvat_cannot_hold(name: str) -> None:
    predictor: Any = SimpleNamespace(task=SimpleNamespace(classification=True, classes=["sky", name]), calibration=None)
    with pytest.raises(SemipixError, match=r"labelmap\.txt cannot hold"):
        Annotations.of("cvat", None, predictor)
    assert Annotations.of("labelstudio", None, predictor).classes == ["sky", name]
    with pytest.raises(SemipixError, match=r"--uncertain: 1\.5 found"):
        Annotations.of("labelstudio", 1.5, predictor)


def test_values_have_no_annotations() -> None:
    predictor: Any = SimpleNamespace(task=SimpleNamespace(classification=False), calibration=None)
    with pytest.raises(SemipixError, match="--write: found the task SimpleNamespace, expected classes"):
        Annotations.of("cvat", None, predictor)


def test_predict_writes_annotations(finished: Path, shared_photos: Path, command: Callable[..., Result]) -> None:
    predict = ("predict", finished, shared_photos / "images/test", "--out", "out")
    assert "--uncertain: the run has no calibration" in command(*predict, "--write", "cvat", "--uncertain", "0.5").error
    assert "--uncertain: found it without --write" in command(*predict, "--uncertain", "0.5").error
    assert command(*predict, "--write", "labelstudio").code == 0
    assert len(json.loads(Path("out/annotations/labelstudio.json").read_text())) == 2
    assert command(*predict, "--write", "cvat", "--skip-existing").code == 0
    found = convert(
        Path("out/annotations/cvat.zip"),
        Path("root"),
        "cvat",
        images=shared_photos / "images/test",
        unannotated="ignore",
    )
    assert found.masks["train"] == 2
    shutil.copytree(shared_photos / "images/test", "photos")
    first, *_ = sorted(Path("photos").iterdir())
    first.write_bytes(b"no image any more")  # its older mask is of another image
    result = command("predict", finished, "photos", "--out", "out", "--write", "labelstudio")
    assert result.code == 2
    assert len(json.loads(Path("out/annotations/labelstudio.json").read_text())) == 1
    for path in Path("root/masks/train").iterdir():
        assert (np.asarray(Image.open(path)) == np.asarray(Image.open(Path("out/masks") / path.name))).all()
