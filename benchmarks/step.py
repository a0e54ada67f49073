"""What does a training step of each method cost, beside the floor of two supervised steps on the same images?

Methods are interleaved in one run, since machines are noisy; the figure is the median.

    python benchmarks/step.py                          the default UNet, 4 + 4 images of 96x96, on the CPU or GPU
    python benchmarks/step.py --size 64 --precision bf16 --json benchmarks/results/step.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import get_object
from torch import nn

import semipix.conf
from semipix.batch import Batch
from semipix.methods.base import Method
from semipix.models.adapt import make_model
from semipix.models.unet import UNet
from semipix.report.comparison import environment
from semipix.tasks.segmentation import Segmentation

CLASSES = 6


def methods() -> dict[str, Callable[..., Method]]:
    """Every method of the configuration, by name; supervised first."""
    files = sorted((Path(semipix.conf.__file__).parent / "method").glob("*.yaml"))
    found = {file.stem: get_object(yaml.safe_load(file.read_text())["_target_"]) for file in files}
    return {"supervised": found.pop("supervised"), **found}


def make_step(method: Method, batch: Batch, precision: str) -> Callable[[], None]:
    """One step: all losses, one backward, all optimizers."""

    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-4)

    optimizers = method.optimizers(optimizer_of)
    device = batch.image.device

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses = method.losses(batch, epoch=1.0)
        torch.stack(list(losses.values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        method.after_step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each step, interleaved, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(repeats + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if round_number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    image = torch.rand(8, 3, options.size, options.size, device=device).contiguous(memory_format=torch.channels_last)
    labeled = Batch(image, torch.randint(0, CLASSES, (8, options.size, options.size), device=device))
    mixed = Batch(image, labeled.target[:4], torch.rand(8, 3, options.size, options.size, device=device))
    task = Segmentation(CLASSES)
    steps = {}
    for name, method_class in methods().items():
        method = method_class(task, lambda _: make_model(UNet, 3, CLASSES, pretrained=False))
        method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps[name] = make_step(method, mixed if method.uses_unlabeled else labeled, options.precision)
    seconds = measure(steps, options.repeats)
    floor = 2 * seconds["supervised"]
    for name, value in seconds.items():
        print(f"{name:18} {value:7.3f} s   {2 * value / floor:5.2f} x one, {value / floor:5.2f} x two supervised steps")
    if options.json:
        record: dict[str, Any] = {"size": options.size, "precision": options.precision, "seconds": seconds}
        options.json.write_text(json.dumps({**environment(), "records": [record]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
