"""Pictures for pages: predictions of several runs side by side, with error maps and real errors."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import encode_png

from semipix.batch import EvalSample
from semipix.inference.evaluate import written_map
from semipix.methods.base import Evidence, Method
from semipix.training.build import build_data, load_method
from semipix.training.calibration import ErrorMap, apply
from semipix.training.run_folder import load_config, load_split


def png_uri(picture: Tensor, side: int = 160) -> str:
    """A picture (3, H, W) uint8 as a data address for HTML, enlarged to at least `side` pixels a side."""
    factor = max(1, round(side / min(picture.shape[-2:])))
    enlarged = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return "data:image/png;base64," + base64.b64encode(bytes(encode_png(enlarged.cpu()).tolist())).decode()


class Trained(NamedTuple):
    """A trained run.

    Attributes:
        method: in evaluation mode.
        error_map: makes the map that `semipix predict` writes, or None where there is none.
    """

    method: Method
    error_map: Callable[[Evidence], ErrorMap | None]


@torch.inference_mode()
def rows(runs: Mapping[str, Path], count: int = 6) -> list[dict[str, str]]:
    """Pictures of the first test images by column: image, label, then each run's prediction, error map and errors.

    Args:
        runs: run folders of one task and one data set, by title.
        count: images, at most.

    Returns:
        A row for each image, addresses of PNG pictures by column title.
    """
    trained = {}
    for title, run in runs.items():
        method = load_method(run)
        trained[title] = Trained(method, written_map(run, method, None))
    first = next(iter(runs.values()))
    data = build_data(load_config(first), load_split(first))
    samples = [data.test_dataloader().dataset[index] for index in range(min(count, len(data.split.test)))]
    return [_row(trained, sample) for sample in samples]


def _row(runs: Mapping[str, Trained], sample: EvalSample) -> dict[str, str]:
    task = next(iter(runs.values())).method.task
    image, target = sample.image.unsqueeze(0), sample.target.unsqueeze(0)
    size = (target.shape[-2], target.shape[-1])
    photo = F.interpolate(image, size, mode="bilinear")[0]
    label = task.render(photo, task.encode(target)[0]) * task.valid(target)[0]  # black where it says nothing
    row = {"image": _grey_or_colour(photo[:3]), "label": png_uri(label)}
    for title, run in runs.items():
        evidence = run.method.evidence(image)
        prediction = F.interpolate(evidence.predictions[0], size, mode="bilinear")
        row[title] = png_uri(task.render(photo, prediction[0]))
        if (error_map := run.error_map(evidence)) is not None:
            row[f"error map of {title}"] = _grey_or_colour(apply(error_map, task, evidence, image, size)[0])
            row[f"errors of {title}"] = _grey_or_colour(task.wrong(prediction, target)[0].float())
    return row


def _grey_or_colour(picture: Tensor) -> str:
    """A picture (1 or 3, H, W) in [0, 1] as a data address."""
    return png_uri((picture.expand(3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8))
