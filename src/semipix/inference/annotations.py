"""Write predictions as annotations that people correct in CVAT, Label Studio, labelme and tools that read COCO."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from semipix import __version__
from semipix.atomic import write_text, written
from semipix.batch import VOID
from semipix.data.annotations.drawing import load_coco_masks
from semipix.data.annotations.entries import BACKGROUND_NAMES
from semipix.data.files.decode_colours import Colour
from semipix.data.files.decode_masks import read_indices
from semipix.data.sources.colour_classes import voc_colour
from semipix.errors import SemipixError
from semipix.inference.annotations_brush import brush_code
from semipix.inference.annotations_outlines import outlines
from semipix.inference.predictor import Predictor, names_of_maps
from semipix.interruption import raise_if_interrupted
from semipix.tasks.base import Task

AnnotationFormat = Literal["coco", "labelme", "cvat", "labelstudio"]

ANNOTATION_FORMATS: tuple[AnnotationFormat, ...] = ("coco", "labelme", "cvat", "labelstudio")

FOLDER = "annotations"

WRITTEN = "semipix"
"""Key of a file of labelme with a hash of the shapes that semipix wrote; labelme keeps keys that it does not know."""

_DELAY = 1.0
"""Seconds after which a progress bar is shown."""


class Labels(NamedTuple):
    """The labels of one image.

    Args:
        file: the image's file.
        name: path of its results, with forward slashes and the image's extension.
        stem: the same without extension.
        values: class indices (H, W); 255 where nothing is annotated.
    """

    file: Path
    name: str
    stem: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Annotations:
    """Writes the predictions of a folder as annotations.

    Attributes:
        form: the format.
        classes: class names by index.
        uncertain: pixels whose probability of an error is above this are not annotated; None annotates all.
    """

    form: AnnotationFormat
    classes: Sequence[str]
    uncertain: float | None = None

    @classmethod
    def of(cls, form: AnnotationFormat, uncertain: float | None, predictor: Predictor) -> "Annotations":
        """The annotations of a predictor's results; checks before anything is predicted.

        Raises:
            SemipixError: the task is no classification, the share is out of range, there is no calibration for it, or a
                package is not installed.
        """
        task: Task = predictor.task
        if not task.classification:
            raise SemipixError(f"--write: found the task {type(task).__name__}, expected classes; leave --write out")
        if uncertain is not None and not 0 < uncertain < 1:
            raise SemipixError(f"--uncertain: {uncertain} found, a probability above 0 and below 1 expected")
        if uncertain is not None and predictor.calibration is None:
            raise SemipixError("--uncertain: the run has no calibration; make it first by semipix calibrate RUN")
        if form == "coco":
            load_coco_masks()
        if form == "labelme":
            outlines(np.zeros((1, 1), np.uint8), [0])
        names = getattr(task, "classes", None) or [str(index) for index in range(task.channels)]
        if form == "cvat" and (wrong := [name for name in names if ":" in name or name.startswith("#")]):
            raise SemipixError(
                f"--write cvat: found the class {wrong[0]!r}, which CVAT's labelmap.txt cannot hold; expected a name "
                "without colon that does not begin with #, take another format"
            )
        return cls(form, list(names), uncertain)

    def write(self, files: Sequence[tuple[Path, Path]], out: Path) -> list[str]:
        """Write the annotations of all images that were predicted, into `out/annotations`.

        An existing file is replaced when the new one is complete. Files of labelme that were changed since semipix
        wrote them are kept, since labelme saves corrections there.

        The class background is what is not annotated; with `uncertain` it is annotated, since what is not annotated is
        then uncertain.

        Args:
            files: image files, each with the name of its results.
            out: folder of the results, with `masks` and, for `uncertain`, `errors`.

        Returns:
            Lines about files that were kept.

        Raises:
            SemipixError: CVAT cannot hold the name of an image.
            OSError: a file cannot be written.
            KeyboardInterrupt: the user interrupted.
        """
        writers: dict[AnnotationFormat, Callable[[Iterator[Labels], Path], list[str]]] = {
            "coco": self._write_coco,
            "labelme": self._write_labelme,
            "cvat": self._write_cvat,
            "labelstudio": self._write_label_studio,
        }
        return writers[self.form](self._labels(files, out), out / FOLDER)

    def _labels(self, files: Sequence[tuple[Path, Path]], out: Path) -> Iterator[Labels]:
        for file, name in tqdm(files, "annotations", unit="image", disable=None, leave=False, delay=_DELAY):
            raise_if_interrupted()
            # Without a mask the image could not be predicted, and was named.
            found = next((each for each in names_of_maps(name) if (out / "masks" / each).is_file()), None)
            if found is None:
                continue
            values = read_indices(out / "masks" / found).numpy().astype(np.int32)
            if self.uncertain is not None:
                errors = read_indices(out / "errors" / found).numpy()
                values[errors > 255 * self.uncertain] = VOID
            stem = name.with_suffix("")
            yield Labels(file, stem.as_posix() + file.suffix, stem.as_posix(), values)

    def _is_background(self, index: int) -> bool:
        return self.classes[index].lower() in BACKGROUND_NAMES

    def _annotated(self, values: NDArray[Any]) -> list[int]:
        """The classes of an image that are annotated."""
        present = [int(index) for index in np.unique(values) if index != VOID]
        return [index for index in present if self.uncertain is not None or not self._is_background(index)]

    def _colour(self, index: int) -> Colour:
        """The colour of a class; black is what is not annotated, and background."""
        return (0, 0, 0) if self._is_background(index) else voc_colour(index + 1)

    def _write_coco(self, labels: Iterator[Labels], folder: Path) -> list[str]:
        """One file; a run-length code for each class of each image. The ids of the classes are their indices and 1."""
        coco = load_coco_masks()
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for number, item in enumerate(labels, 1):
            height, width = item.values.shape
            images.append({"id": number, "file_name": item.name, "width": width, "height": height})
            for index in self._annotated(item.values):
                rle = coco.encode(np.asfortranarray(item.values == index, np.uint8))
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": index + 1,
                        "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                        "area": int(coco.area(rle)),
                        "bbox": coco.toBbox(rle).tolist(),
                        "iscrowd": 1,  # a class of an image, and no single object
                    }
                )
        categories = [
            {"id": index + 1, "name": name}
            for index, name in enumerate(self.classes)
            if self.uncertain is not None or not self._is_background(index)
        ]
        info = {"description": f"semipix {__version__}"}
        content = {"info": info, "images": images, "annotations": objects, "categories": categories}
        write_text(folder / "coco.json", json.dumps(content))
        return []

    def _write_labelme(self, labels: Iterator[Labels], folder: Path) -> list[str]:
        """A file for each image; a polygon for each connected region, the larger ones first, since labelme draws so."""
        place, kept = folder / "labelme", []
        for item in labels:
            path = place / f"{item.stem}.json"
            if _is_corrected(path):
                kept.append(path)
                continue
            shapes = [
                {
                    "label": self.classes[outline.label],
                    "points": outline.points.round(2).tolist(),
                    "group_id": None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                }
                for outline in outlines(item.values, self._annotated(item.values))
            ]
            height, width = item.values.shape
            content = {
                "version": "5.5.0",
                WRITTEN: _digest(shapes),
                "flags": {},
                "shapes": shapes,
                "imagePath": Path(os.path.relpath(item.file.absolute(), path.parent.absolute())).as_posix(),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            write_text(path, json.dumps(content, indent=1), errors="surrogateescape")
        if not kept:
            return []
        several = "1 file" if len(kept) == 1 else f"{len(kept)} files"
        return [
            f"--write labelme: {several} kept, such as {kept[0]}, with other shapes than semipix wrote; move what "
            "shall be written again"
        ]

    def _write_cvat(self, labels: Iterator[Labels], folder: Path) -> list[str]:
        """An archive for CVAT's import as Segmentation mask 1.1.

        What is black in the masks of objects is not annotated, whatever the masks of classes say.
        """
        path = folder / "cvat.zip"
        stems = []
        classes = np.zeros((VOID + 1, 3), np.uint8)
        classes[: len(self.classes)] = [self._colour(index) for index in range(len(self.classes))]
        numbers = np.array([voc_colour(index) for index in range(VOID + 1)], np.uint8)
        with written(path) as file, zipfile.ZipFile(file, "w") as archive:
            for item in labels:
                try:
                    item.stem.encode()
                except UnicodeEncodeError:
                    raise SemipixError(f"{item.file}: its name is no UTF-8 text, which CVAT needs; rename it") from None
                stems.append(item.stem)
                objects = np.zeros(VOID + 1, np.uint8)
                for number, index in enumerate(self._annotated(item.values), 1):
                    objects[index] = number
                for place, pixels in (
                    ("SegmentationClass", classes[item.values]),
                    ("SegmentationObject", numbers[objects[item.values]]),
                ):
                    archive.writestr(f"{place}/{item.stem}.png", _png(pixels))
            lines = [f"{name}:{','.join(map(str, self._colour(index)))}::" for index, name in enumerate(self.classes)]
            if not any(self._is_background(index) for index in range(len(self.classes))):
                lines.insert(0, "background:0,0,0::")
            archive.writestr("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
            archive.writestr("ImageSets/Segmentation/default.txt", "".join(f"{stem}\n" for stem in stems))
        return []

    def _write_label_studio(self, labels: Iterator[Labels], folder: Path) -> list[str]:
        """A file of tasks with a brush stroke for each class, and the labels for the project's settings."""
        tasks: list[dict[str, Any]] = []
        for item in labels:
            height, width = item.values.shape
            strokes = [
                {
                    "id": f"{len(tasks)}-{index}",
                    "type": "brushlabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {
                        "format": "rle",
                        "rle": brush_code(item.values == index),
                        "brushlabels": [self.classes[index]],
                    },
                }
                for index in self._annotated(item.values)
            ]
            prediction = {"model_version": f"semipix {__version__}", "result": strokes}
            tasks.append(
                {
                    "data": {"image": f"/data/local-files/?d={quote(os.fsencode(item.name))}"},
                    "predictions": [prediction],
                }
            )
        named = [
            f"    <Label value={quoteattr(name)} background={quoteattr(_hexadecimal(self._colour(index)))}/>"
            for index, name in enumerate(self.classes)
            if self.uncertain is not None or not self._is_background(index)
        ]
        view = ["<View>", '  <Image name="image" value="$image"/>', '  <BrushLabels name="label" toName="image">']
        write_text(folder / "labelstudio.xml", "\n".join([*view, *named, "  </BrushLabels>", "</View>", ""]))
        write_text(folder / "labelstudio.json", json.dumps(tasks), errors="surrogateescape")
        return []


def _is_corrected(path: Path) -> bool:
    """Whether a file of labelme has other shapes than those that semipix wrote into it, or semipix did not write it."""
    try:
        content = json.loads(path.read_text("utf-8", errors="surrogateescape"))
        return bool(content.get(WRITTEN) != _digest(content["shapes"]))
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError, KeyError):  # no file of labelme
        return True


def _digest(shapes: list[dict[str, Any]]) -> str:
    """A short hash of the shapes of a file of labelme."""
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def _hexadecimal(colour: Colour) -> str:
    return f"#{''.join(f'{part:02x}' for part in colour)}"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="PNG")
        return file.getvalue()
