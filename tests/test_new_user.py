"""What a new user does, by the commands of README.md and docs/formats.md, from photographs to corrected labels."""

import csv
import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Result

Command = Callable[..., Result]

PAGES = Path(__file__).parents[1]

SIDE = 64

TINY = (
    *("model._target_=tests.helpers.tiny.TinyModel", "trainer.accelerator=cpu", "steps=2", "validations=1"),
    *("data.crop=64", "data.batch_size=4", "data.workers=0", "data.val=2"),
)
"""What the test adds to the command that trains, so that it takes seconds."""


def commands_of(page: str, heading: str) -> list[list[str]]:
    """The commands in the blocks of a section, without `semipix` and comments."""
    section = (PAGES / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("semipix ")]


def write_photos(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Noise with a brighter rectangle in each photograph; its box by the photograph's name."""
    folder.mkdir(parents=True)
    boxes = {}
    for number in range(24):
        draw = np.random.default_rng(number)
        left, top = (int(place) for place in draw.integers(0, SIDE // 2, 2))
        pixels = draw.integers(0, 100, (SIDE, SIDE, 3)).astype(np.uint8)
        pixels[top : top + 30, left : left + 24] += 120
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        boxes[f"{number:02d}.png"] = (left, top, 24, 30)
    return boxes


def write_coco(path: Path, boxes: dict[str, tuple[int, int, int, int]]) -> None:
    """The rectangles of some photographs as outlines of the class `square`."""
    path.parent.mkdir(exist_ok=True)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": SIDE, "width": SIDE} for number, name in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [[left, top, left + width, top, left + width, top + height, left, top + height]],
            }
            for number, (left, top, width, height) in enumerate(boxes.values())
        ],
    }
    path.write_text(json.dumps(content))


def rectangle(left: int, top: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.slow
def test_from_photographs_and_coco_to_corrected_labels(command: Command, tmp_path: Path) -> None:
    photos, root = tmp_path / "photos", tmp_path / "root"
    boxes = write_photos(photos)
    labeled, tested = list(boxes)[:10], list(boxes)[10:12]  # the others have no annotations
    write_coco(tmp_path / "source/instances_train.json", {name: boxes[name] for name in labeled})
    write_coco(tmp_path / "source/instances_test.json", {name: boxes[name] for name in tested})
    places = {
        "PHOTOS": str(photos),
        "SOURCE": str(tmp_path / "source"),
        "ROOT": str(root),
        "data.root=ROOT": f"data.root={root}",
    }

    def run(words: list[str], *more: str) -> Result:
        result = command(*(places.get(word, word) for word in words), *more)
        assert result.code == 0, f"semipix {shlex.join(words)}: {result.err}"
        return result

    convert = next(words for words in commands_of("docs/formats.md", "Reading") if "coco" in words)
    run(convert)
    for part, names in (("train", labeled), ("test", tested)):
        for name in names:
            assert (mask_of(root / f"masks/{part}/{name}") == rectangle(*boxes[name])).all()

    done = []
    for words in commands_of("README.md", "Your images"):
        step = " ".join(words[:2]) if words[0] == "data" else words[0]
        step = "resume" if step == "train" and words[1].startswith("resume=") else step
        done.append(step)
        more = {"train": TINY, "predict": ("--write", "coco")}.get(step, ())
        if step == "export" and importlib.util.find_spec("onnx") is None:
            words = [word.replace(".onnx", ".safetensors") for word in words]
        result = run(words, *more)
        if step == "data check":
            assert "  problems        0" in result.out.splitlines()
        elif step == "data pick":
            assert len(result.out.splitlines()) == 8
        elif step == "evaluate":
            assert "miou" in result.out
        elif step == "export":
            assert Path(words[words.index("--out") + 1]).stat().st_size > 1000
    assert done[:6] == ["data pick", "data check", "train", "resume", "evaluate", "predict"]
    assert done[6:] in ([], ["export"])

    predicted = Path("predicted")
    for folder in ("masks", "errors"):
        assert sorted(path.name for path in (predicted / folder).iterdir()) == list(boxes)
    with (predicted / "scores.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(boxes)

    # Somebody corrects the prediction of one photograph in a labeling tool.
    file = predicted / "annotations/coco.json"
    content = json.loads(file.read_text())
    (corrected,) = (image["id"] for image in content["images"] if image["file_name"].endswith("12.png"))
    others = [item for item in content["annotations"] if item["image_id"] != corrected]
    (category,) = (item["id"] for item in content["categories"] if item["name"] == "square")
    left, top, width, height = boxes["12.png"]
    outline = [left, top, left + width, top, left + width, top + height, left, top + height]
    fixed = {"id": 999, "image_id": corrected, "category_id": category, "iscrowd": 0, "area": width * height}
    fixed = {**fixed, "bbox": [left, top, width, height], "segmentation": [outline]}
    file.write_text(json.dumps({**content, "annotations": [*others, fixed]}))

    places.update(SOURCE=str(file), ROOT=str(tmp_path / "corrected"))
    run(convert, "--empty", "labeled")
    for name in boxes:
        expected = rectangle(*boxes[name]) if name == "12.png" else mask_of(predicted / "masks" / name)
        assert (mask_of(tmp_path / "corrected/masks/train" / name) == expected).all(), name
