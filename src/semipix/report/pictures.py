"""Pictures for pages: predictions of one or several runs side by side, with error maps and real errors.

As in the paper's Appendix D: the image, its label, and for each run its prediction; a red frame marks the part with the
largest differences. What a run is wrong in is shown beside it.
"""

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from semipix.batch import EvalSample
from semipix.data.batches.datasets import EvalDataset
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.functional.display import shown_colours
from semipix.functional.rows import RowResizer
from semipix.inference.drawing import decided_pixels
from semipix.inference.evaluate import written_map
from semipix.interruption import raise_if_interrupted
from semipix.methods.base import Evidence, Method
from semipix.methods.large_images import LargeImages
from semipix.methods.slabs import Maps
from semipix.methods.tiles import Tiling
from semipix.models.memory_format import set_memory_format
from semipix.tasks.base import Task
from semipix.tasks.regression import colour_map
from semipix.training.build import build_task, data_of_run, trained_method
from semipix.training.calibration import ErrorMap
from semipix.training.configuration import Configuration
from semipix.training.run_folder import load_config, load_split, with_root

LARGEST = 320, 480
"""Width and height to which pictures are reduced, so that a page stays small."""

SMALL = 192**2
"""Pixels of a picture that is compressed without loss, since it is shown enlarged."""

QUALITY = 80
"""Of the WebP compression of larger pictures."""

RED = 214, 40, 40
"""Colour of wrong pixels and of the frame."""

FRAME = 4
"""A frame has this part of a picture's height and width."""


class ImageRow(NamedTuple):
    """Pictures of one image.

    Attributes:
        heading: why it was chosen, such as `worst`, and its name.
        note: what the colours mean.
        pictures: addresses of the pictures by their captions: image, label, then of each run its prediction, its errors
            and, if there is one, its error map.
    """

    heading: str
    note: str
    pictures: dict[str, str]


class Trained(NamedTuple):
    """A trained run.

    Attributes:
        method: in evaluation mode.
        error_map: makes the map that `semipix predict` writes, or None where there is none.
        large: computes images that are too large for one pass.
    """

    method: Method
    error_map: Callable[[Evidence], ErrorMap | None]
    large: LargeImages


class Predicted(NamedTuple):
    """What a run makes of one image, at the label's size (H, W).

    Attributes:
        image: (3, H, W) uint8.
        label: (3, H, W) uint8, black where it says nothing.
        prediction: (3, H, W) uint8.
        error: (H, W), 1 at wrong pixels or, in regression, absolute errors in the units of the labels.
        error_map: (H, W) in the same units, 0 where the network decides nothing; or None.
    """

    image: Tensor
    label: Tensor
    prediction: Tensor
    error: Tensor
    error_map: Tensor | None


def chosen(figures: Mapping[str, float], higher_is_better: bool, metric: str, each: int = 1) -> dict[str, str]:
    """The worst, median and best images.

    Args:
        figures: the primary metric of each image by its name; images with NaN are left out.
        higher_is_better: whether a larger value is better.
        metric: its title, for the headings.
        each: how many of each kind; fewer where there are not enough images.

    Returns:
        Names by heading, the worst first; no image twice.
    """
    measured = {name: value for name, value in figures.items() if not math.isnan(value)}
    ordered = sorted(measured, key=lambda name: (measured[name] if higher_is_better else -measured[name], name))
    each = max(1, min(each, len(ordered) // 3))
    middle = (len(ordered) - each) // 2
    places = {"worst": range(each), "median": range(middle, middle + each), "best": range(-each, 0)}
    found: dict[str, str] = {}
    for kind, indices in places.items():
        for name in (ordered[index] for index in indices if -len(ordered) <= index < len(ordered)):
            if name not in found.values():
                found[f"{kind}: {name}, {metric} {measured[name]:.4g}"] = name
    return found


@torch.inference_mode()
def gallery(
    runs: Mapping[str, Path],
    names: Mapping[str, str],
    split: str = "test",
    *,
    checkpoint: str | None = None,
    root: Path | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
    tiling: Tiling | None = None,
) -> list[ImageRow]:
    """Pictures of some images, with what each run predicts.

    Each run sees an image as its own configuration reads it: at its `data.resize`, with its bands.

    Args:
        runs: run folders of one task and one data set, by title. The image and the label that are shown are read as by
            the first.
        names: images by heading, see `chosen`; those that the split of the first run lacks are left out.
        split: `test` or `val`.
        checkpoint: `best` or `last`; by default best if there is one.
        root: the data folder, if it was moved.
        max_pixels: largest number of pixels of an image; by default the run's `data.max_pixels`.
        trust: allow the run folders to name code outside of the known packages.
        tiling: compute all images that are larger than a tile in such tiles, as in the evaluation.

    Raises:
        SemipixError: a run or the data cannot be read.
        Interrupted: a signal was received.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = set(getattr(load_split(next(iter(runs.values()))), split))
    wanted = {heading: name for heading, name in names.items() if name in known}
    predicted: dict[str, list[Predicted]] = {heading: [] for heading in wanted}
    tasks: list[Task] = []
    data: SemiSupervisedDataModule | None = None
    data_of: Configuration | None = None
    with tqdm(total=len(runs) * len(wanted), desc="pictures", unit="image", leave=False, disable=None) as bar:
        for folder in runs.values():  # one network in memory at a time
            configuration = load_config(folder, trust)
            configuration = configuration if root is None else with_root(configuration, root)
            if max_pixels is not None:
                configuration = configuration.with_options("data", {"max_pixels": max_pixels})
            tasks.append(build_task(configuration))
            if data is None or data_of is None or not _same_data(configuration, data_of):
                data = data_of_run(configuration, folder, tasks[-1], ["test"] if split == "test" else ["train", "val"])
                data_of = configuration
            method = trained_method(configuration, folder, checkpoint).to(device)
            images = EvalDataset(data.source, list(wanted.values()), data.resize)
            memory_format = set_memory_format(method, device.type, configuration.channels_last)
            large = LargeImages(method, memory_format, tiling)
            trained = Trained(method, written_map(folder, method, checkpoint), large)
            for place, heading in enumerate(wanted):
                raise_if_interrupted()
                decided = _decided(method.task, data.source, images.names[place])
                predicted[heading].append(predict(trained, images.read(place), decided))
                bar.update()
    return [_row(heading, list(runs), predicted[heading], tasks[0]) for heading in wanted]


def _decided(task: Task, source: Source, name: str) -> Tensor | None:
    """The pixels (H, W) of an image that the network decides; None where these are all."""
    if not task.trimap and source.bands is None:
        return None
    return decided_pixels(task, source.image(name).as_subclass(Tensor))


def _same_data(first: Configuration, second: Configuration) -> bool:
    """Whether two configurations read an image and its label alike."""
    return first.data == second.data and first.task == second.task


def predict(trained: Trained, sample: EvalSample, decided: Tensor | None = None) -> Predicted:
    """What a run makes of one image; large images are computed in parts, as in evaluation.

    Args:
        trained: the run.
        sample: the image and its label.
        decided: (h, w) bool, the pixels that the network decides; the error map is 0 at others. By default all pixels.
    """
    method, large, target = trained.method, trained.large, sample.target.unsqueeze(0)
    task = method.task
    device = next(method.parameters()).device
    size, seen = (target.shape[-2], target.shape[-1]), (sample.image.shape[-2], sample.image.shape[-1])
    error_map: ErrorMap | None = None

    def outputs(image: Tensor) -> tuple[Tensor, ...]:
        """What the error map's means need, the output, the image and, if there is an error map, its scores."""
        nonlocal error_map
        evidence = method.evidence(image)
        error_map = trained.error_map(evidence)
        if error_map is None:
            return image[:, :0], evidence.output, image
        scores, for_means = error_map.parts(task, evidence, image)
        return for_means, evidence.output, image, scores

    parts: Iterator[Maps]
    if large.applies(seen):
        parts = large.compute(sample.image, outputs)
    else:
        whole = sample.image[None].to(device).contiguous(memory_format=large.slabs.memory_format)
        parts = iter([outputs(whole)])
    image, label, drawing = arrays = [torch.empty(3, *size, dtype=torch.uint8) for _ in range(3)]
    error, scored = torch.empty(size), torch.empty(size)
    sums = torch.zeros((), device=device)
    resizer: RowResizer | None = None
    for for_means, output, *others in parts:
        assert for_means is not None and output is not None
        sums = sums + for_means.float().sum((-2, -1))
        maps = torch.cat([task.activate(output), *(each for each in others if each is not None)], 1).float()
        resizer = resizer or RowResizer(seen, size, maps.shape[1])
        for rows, resized in resizer.push(maps):
            known = target[..., rows, :].to(device)
            prediction, photo = resized[:, : task.channels], resized[0, task.channels :][: task.in_channels]
            drawn_label = task.render(photo, task.encode(known)[0]) * task.valid(known)[0]
            drawn = (shown_colours(photo) * 255).clamp(0, 255).round(), drawn_label, task.render(photo, prediction[0])
            for array, part in zip(arrays, drawn, strict=True):
                array[:, rows] = part.expand(3, -1, -1).to("cpu", torch.uint8)
            found = (task.wrong if task.classification else task.error)(prediction, known)
            error[rows] = torch.where(task.counted(known), found, 0)[0, 0].float().cpu() * task.span
            if error_map is not None:
                scored[rows] = resized[0, -1].cpu()
    if error_map is None:
        return Predicted(image, label, drawing, error, None)
    constant = error_map.constant(sums / math.prod(seen))
    values = error_map.values(scored + constant.cpu()) * task.span
    if decided is not None:
        values = values * F.interpolate(decided[None, None].float(), size)[0, 0]
    return Predicted(image, label, drawing, error, values)


def _row(heading: str, titles: Sequence[str], runs: Sequence[Predicted], task: Task) -> ImageRow:
    """The pictures of one image, reduced, with a frame around the part in which runs differ most."""
    errors = [_reduced_values(run.error) for run in runs]
    maps = [None if run.error_map is None else _reduced_values(run.error_map) for run in runs]
    differences = [errors[0], *(abs(errors[0] - other) for other in errors[1:])]
    frame = differing_part(np.sum(differences[1:] or differences, 0))
    image = _reduced(runs[0].image)
    largest = max(float(each.max()) for each in [*errors, *maps] if each is not None)
    brightest = 1.0 if task.classification else largest or 1.0

    def framed(picture: Image.Image) -> str:
        return data_uri(picture if frame is None else with_frame(picture, frame))

    pictures = {"image": framed(image), "label": framed(_reduced(runs[0].label))}
    for number, title in enumerate(titles):
        shown = marked(image, errors[number]) if task.classification else coloured(errors[number] / brightest)
        pictures[title] = framed(_reduced(runs[number].prediction))
        pictures[f"errors of {title}"] = framed(shown)
        if (values := maps[number]) is not None:
            pictures[f"error map of {title}"] = framed(coloured(values / brightest))
    if task.classification:
        note = "Wrong pixels are red. An error map is yellow where an error is certain (1) and dark blue at 0."
    else:
        note = (
            f"Errors and error maps have one scale: dark blue is no error, yellow an absolute error of {brightest:.3g}."
        )
    if frame is not None:
        note += " The red frame marks the part " + (
            "with the most errors."
            if len(titles) == 1
            else f"in which the errors of {titles[0]} differ most from those of the others."
        )
    return ImageRow(heading, note, pictures)


def differing_part(weight: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """The window with the largest sum of a weight (H, W), a `FRAME`-th of its height and width.

    Returns:
        Top, left, bottom and right; None where the weight is 0 everywhere.
    """
    if not weight.any():
        return None
    height, width = (max(1, side // FRAME) for side in weight.shape)
    sums = F.avg_pool2d(torch.as_tensor(weight)[None, None].double(), (height, width), stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top, left, top + height, left + width


def with_frame(picture: Image.Image, part: tuple[int, int, int, int]) -> Image.Image:
    """A copy of a picture with a red frame."""
    framed = picture.copy()
    top, left, bottom, right = part
    thickness = max(1, min(picture.size) // 100)
    ImageDraw.Draw(framed).rectangle((left, top, right - 1, bottom - 1), outline=RED, width=thickness)
    return framed


def marked(image: Image.Image, wrong: NDArray[np.float32]) -> Image.Image:
    """A picture in grey, red where a share (H, W) of its pixels is wrong."""
    grey = np.asarray(image.convert("L"), np.float32)[..., None] * 0.6 + 60
    share = wrong[..., None]
    mixed = grey * (1 - share) + np.array(RED, np.float32) * share
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


def coloured(values: NDArray[np.float32]) -> Image.Image:
    """Values (H, W) in [0, 1] as colours, dark blue for 0 and yellow for 1."""
    colours = colour_map(torch.as_tensor(values)).movedim(0, -1)
    return Image.fromarray((colours * 255).round().to(torch.uint8).numpy())


def data_uri(picture: Image.Image) -> str:
    """A picture as an address for HTML that holds the picture itself."""
    file = io.BytesIO()
    small = math.prod(picture.size) <= SMALL
    picture.save(file, format="WEBP", lossless=small, quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _reduced(picture: Tensor) -> Image.Image:
    """A picture (3, H, W) uint8, reduced to at most `LARGEST`."""
    image = Image.fromarray(picture.movedim(0, -1).contiguous().numpy())
    return image.resize(_reduced_size(image.size), Image.Resampling.BOX)


def _reduced_values(values: Tensor) -> NDArray[np.float32]:
    """Values (H, W), reduced like `_reduced`: means of the pixels that become one."""
    image = Image.fromarray(values.float().numpy())
    return np.asarray(image.resize(_reduced_size(image.size), Image.Resampling.BOX))


def _reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, *(most / side for most, side in zip(LARGEST, size, strict=True)))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
