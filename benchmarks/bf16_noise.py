"""Where do outputs and gradients in bfloat16 leave those in float32?

Compares, on the same weights and photographs, the feature maps of a UNet and the gradients of its parts under autocast
to bfloat16 with those in float32: at the start of a training, batch norm by the batch's own statistics (as in training)
and by running ones. Figures are medians over batches.

    python benchmarks/bf16_noise.py --data ../shared/data/camvid --json benchmarks/results/bf16_noise.json
"""

import argparse
import json
import statistics
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bf16 import BFLOAT16, in_float32_units  # the script beside this one
from bf16_products import BFloat16Products  # the module beside this one
from torch import Tensor
from torchvision.transforms import v2

from semipix.data.folder import FolderSource
from semipix.errors import SemipixError
from semipix.models.smp import SMP
from semipix.report.comparison import environment
from semipix.tasks.segmentation import Segmentation

SIZE, CROP, BATCH = (120, 160), 96, 4
"""Those of the comparison on CamVid: `camvid_long` in `compare.py`."""

OUTPUT = "output"


def passes(model: SMP, image: Tensor, in_bfloat16: bool) -> dict[str, Tensor]:
    """Feature maps of the encoder by their stride, and the output, all (N, C, H, W)."""
    with ExitStack() as stack:
        if in_bfloat16:
            if in_float32_units(BFLOAT16):
                stack.enter_context(BFloat16Products())
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        features = model.features(image)
        output = model.head(features, image.shape[-2:])
    strides = [image.shape[-1] // feature.shape[-1] for feature in features]
    found = {f"encoder, stride {stride}": feature for stride, feature in zip(strides, features, strict=True)}
    return {**found, OUTPUT: output}


def distance(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, in standard deviations of a channel (N, C, H, W)."""
    channel_free = expected - expected.mean((0, 2, 3), keepdim=True)
    return float((found.float() - expected).norm() / channel_free.norm())


def gradients(model: SMP, task: Segmentation, image: Tensor, target: Tensor, in_bfloat16: bool) -> dict[str, Tensor]:
    """Gradients of the supervised loss, those of each part in one vector."""
    model.zero_grad()
    task.loss(passes(model, image, in_bfloat16)[OUTPUT].float(), target).backward()
    parts = defaultdict(list)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        parts[place_of(name)].append(parameter.grad.flatten())
    return {part: torch.cat(found) for part, found in parts.items()}


def place_of(name: str) -> str:
    """Part of the network that a parameter belongs to."""
    _, half, *rest = name.split(".")
    if half == "encoder":
        return f"encoder, stage {rest[2]}" if rest[1] == "blocks" else "encoder, stem"
    return f"decoder, stage {rest[1]}" if half == "decoder" else "head"


def compare(model: SMP, task: Segmentation, image: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """All figures of one batch."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for training in (True, False):
            model.train(training)
            full = passes(model, image, in_bfloat16=False)
            half = passes(model, image, in_bfloat16=True)
            statistics_of = "batch" if training else "running"
            found[f"error_{statistics_of}"] = {name: distance(half[name], full[name]) for name in full}
            model.load_state_dict(state)
    model.train()
    full_gradients = gradients(model, task, image, target, in_bfloat16=False)
    half_gradients = gradients(model, task, image, target, in_bfloat16=True)
    model.load_state_dict(state)
    found["gradient_cosine"] = {
        part: float(F.cosine_similarity(half_gradients[part], full_gradients[part], dim=0)) for part in full_gradients
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images and masks")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    try:
        source = FolderSource(options.data)
        names = source.labeled()
    except SemipixError as error:
        raise SystemExit(str(error)) from error
    names = names[:: max(1, len(names) // (options.batches * BATCH))][: options.batches * BATCH]
    task = Segmentation(classes=source.classes)
    torch.manual_seed(0)
    model = SMP(task.in_channels, task.channels).to(memory_format=torch.channels_last)
    prepare = v2.Compose([v2.Resize(SIZE), v2.RandomCrop(CROP), v2.ToDtype(torch.float32, scale=True)])
    pairs = [prepare(source.image(name), source.target(name)) for name in names]
    rounds = []
    for at in range(0, len(pairs), BATCH):
        images, targets = zip(*pairs[at : at + BATCH], strict=True)
        image = torch.stack([single.as_subclass(Tensor) for single in images])
        target = torch.stack([single.as_subclass(Tensor).long() for single in targets])
        rounds.append(compare(model, task, image.contiguous(memory_format=torch.channels_last), target))

    medians: dict[str, Any] = {
        figure: {name: round(statistics.median(each[figure][name] for each in rounds), 4) for name in rounds[0][figure]}
        for figure in rounds[0]
    }
    for figure, values in medians.items():
        print(figure)
        for name, value in values.items():
            print(f"  {name:22} {value:.4f}")
    if options.json:
        kept = {"data": options.data.name, "batches": len(rounds), "images": BATCH, "crop": CROP, "seed": 0, **medians}
        threads = torch.get_num_threads()
        options.json.write_text(json.dumps({**kept, **environment(threads=threads)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
