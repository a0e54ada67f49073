"""Draw the strip at the top of the README: test images, labels, predictions and error maps of a run.

python -m benchmarks.accuracy.strip runs/demo/gct_strong --out docs/images/strip.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semipix.inference.evaluate import written_map
from semipix.training.build import build_data, load_method
from semipix.training.calibration import apply
from semipix.training.run_folder import load_config, load_split

TITLES = ("image", "label", "prediction", "error map")
SIDE, GAP, TEXT = 192, 6, 24
"""Pixels of a picture's side, between two of them, and of the line of titles."""


@torch.inference_mode()
def pictures(run: Path, numbers: list[int]) -> list[list[Tensor]]:
    """A row for each test image: uint8 RGB (3, H, W) for each of `TITLES`."""
    method = load_method(run)
    made = written_map(run, method, None)
    data = build_data(load_config(run), load_split(run))
    dataset = data.test_dataloader().dataset
    found = []
    for number in numbers:
        sample = dataset[number]
        image, target, task = sample.image[None], sample.target[None], method.task
        evidence = method.evidence(image)
        error_map = made(evidence)
        if error_map is None:
            raise SystemExit(f"{run}: a run with an error map expected, such as one of gct_strong")
        errors = apply(error_map, task, evidence, image)[0].expand(3, -1, -1)
        photo, probable = ((part.clamp(0, 1) * 255).byte() for part in (image[0, :3], errors))
        label = task.render(image[0], task.encode(target)[0])
        found.append([photo, label, task.render(image[0], evidence.predictions[0][0]), probable])
    return found


def strip(found: list[list[Tensor]]) -> Image.Image:
    """The rows below their titles, on white."""
    size = (len(TITLES) * (SIDE + GAP) - GAP, TEXT + len(found) * (SIDE + GAP) - GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    for column, title in enumerate(TITLES):
        draw.text((column * (SIDE + GAP) + SIDE / 2, TEXT / 2), title, "black", font, anchor="mm")
    for row, parts in enumerate(found):
        for column, part in enumerate(parts):
            tile = Image.fromarray(np.ascontiguousarray(part.permute(1, 2, 0).numpy())).resize((SIDE, SIDE))
            canvas.paste(tile, (column * (SIDE + GAP), TEXT + row * (SIDE + GAP)))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--images", type=int, nargs="+", default=[0, 3], help="numbers of test images; default: 0 3")
    parser.add_argument("--out", type=Path, default=Path("docs/images/strip.png"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    strip(pictures(options.run, options.images)).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
