"""Pictures for pages: predictions of several runs side by side, with flaw maps and real errors."""

import base64
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import encode_png

from semipix.batch import EvalSample
from semipix.methods.base import Method
from semipix.training.build import build_data, load_method
from semipix.training.run_folder import load_config, load_split


def png_uri(picture: Tensor, side: int = 160) -> str:
    """A picture (3, H, W) uint8 as a data address for HTML, enlarged to at least `side` pixels a side."""
    factor = max(1, round(side / min(picture.shape[-2:])))
    enlarged = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return "data:image/png;base64," + base64.b64encode(bytes(encode_png(enlarged.cpu()).tolist())).decode()


@torch.inference_mode()
def rows(runs: Mapping[str, Path], count: int = 6) -> list[dict[str, str]]:
    """Pictures of the first test images by column: image, label, then each run's prediction, flaw map and errors.

    Args:
        runs: run folders of one task and one data set, by title.
        count: images, at most.

    Returns:
        A row for each image, addresses of PNG pictures by column title.
    """
    methods = {title: load_method(run) for title, run in runs.items()}
    first = next(iter(runs.values()))
    data = build_data(load_config(first), load_split(first))
    samples = [data.test_dataloader().dataset[index] for index in range(min(count, len(data.split.test)))]
    return [_row(methods, sample) for sample in samples]


def _row(methods: Mapping[str, Method], sample: EvalSample) -> dict[str, str]:
    task = next(iter(methods.values())).task
    image, target = sample.image.unsqueeze(0), sample.target.unsqueeze(0)
    size = target.shape[-2:]
    photo = F.interpolate(image, size, mode="bilinear")[0]
    label = task.render(photo, task.encode(target)[0]) * task.valid(target)[0]  # black where it says nothing
    row = {"image": _grey_or_colour(photo[:3]), "label": png_uri(label)}
    for title, method in methods.items():
        evidence = method.evidence(image)
        flaw = evidence.flaw
        prediction = F.interpolate(evidence.predictions[0], size, mode="bilinear")
        row[title] = png_uri(task.render(photo, prediction[0]))
        if flaw is not None:
            row[f"flaw map of {title}"] = _grey_or_colour(F.interpolate(flaw, size, mode="bilinear")[0])
            row[f"errors of {title}"] = _grey_or_colour(task.wrong(prediction, target)[0].float())
    return row


def _grey_or_colour(picture: Tensor) -> str:
    """A picture (1 or 3, H, W) in [0, 1] as a data address."""
    return png_uri((picture.expand(3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8))
