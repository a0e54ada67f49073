"""What does one training step of GCT take in the paper's own settings: its task models at its sizes?

One labeled and one unlabeled image, two task models of full width and the detector: all losses, one backward, all
optimizers. Each setting runs in a process of its own. Prints seconds of a step and peak memory: the largest resident
memory of the process, on a GPU what was allocated there. The first step, which also makes the optimizers' states, is
reported separately.

    python -m benchmarks.speed.paper_steps                                       all four settings, on the CPU or GPU
    python -m benchmarks.speed.paper_steps --settings segmentation --size 65     a quick look
    python -m benchmarks.speed.paper_steps --checkpointing --repeats 2 --json benchmarks/results/paper_steps.json
"""

import argparse
import functools
import json
import os
import statistics
import time
from typing import Any, NamedTuple

import torch

from benchmarks.common import (
    Record,
    device,
    device_name,
    new_parser,
    output_of,
    run,
    wait_for_device,
    write_records,
)
from benchmarks.speed.memory import peak_bytes
from benchmarks.speed.step import step_of
from semipix.batch import Batch
from semipix.launch.compose import compose
from semipix.launch.variants import environment
from semipix.tasks.base import Task
from semipix.training.build import build_method, build_task
from semipix.training.configuration import Configuration

CLASSES = 21
"""Of Pascal VOC."""


class Setting(NamedTuple):
    """What the paper trains for one task; models are options of conf/model."""

    models: tuple[str, str]
    size: int
    optimizer: str


SETTINGS = {
    "denoising": Setting(("dhdn", "didn"), 256, "Adam"),
    "segmentation": Setting(("deeplab_v2", "deeplab_v2"), 321, "SGD"),
    "matting": Setting(("deep_image_matting", "deep_image_matting"), 320, "Adam"),
    "enhancement": Setting(("hdrnet", "hdrnet"), 512, "Adam"),
}
"""By option of conf/task."""


def measure(name: str, size: int, repeats: int, precision: str, checkpointing: bool) -> dict[str, Any]:
    """Take the steps in this process."""
    setting = SETTINGS[name]
    configuration = _configuration(name, checkpointing)
    task = build_task(configuration, [str(index) for index in range(CLASSES)])
    method = build_method(configuration, task).to(device())
    kind = functools.partial(getattr(torch.optim, setting.optimizer), lr=1e-5)
    optimizers = method.optimizers(lambda model: kind(model.parameters()))

    batch = make_batch(task, size, device())
    take = step_of(method, optimizers, batch, precision)

    def step() -> float:
        began = time.perf_counter()
        losses = take()
        wait_for_device()
        assert all(bool(term.isfinite()) for term in losses.values()), losses
        return time.perf_counter() - began

    first = step()
    seconds = statistics.median([step() for _ in range(repeats)] or [first])
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()
    return {
        "setting": name,
        "models": list(setting.models),
        "parameters": [sum(value.numel() for value in model.parameters()) for model in method.candidates().values()],
        "optimizer": setting.optimizer,
        "size": size,
        "images": len(batch.image),
        "precision": precision,
        "checkpointing": checkpointing,
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "first_step_seconds": first,
        "repeats": repeats,
        "seconds": seconds,
        "images_per_second": len(batch.image) / seconds,
        "peak_memory_gib": peak / 2**30,
    }


def _configuration(name: str, checkpointing: bool) -> Configuration:
    """GCT with a setting's models, with checkpointing where it is wanted and a model knows it."""
    first, second = SETTINGS[name].models
    chosen = [f"task={name}", "method=gct", f"model={first}", f"second_model={second}", "data=scenes"]
    found = Configuration.parse(compose(chosen))
    for group in ("model", "second_model"):
        if checkpointing and getattr(found, group).takes("checkpointing"):
            found = found.with_options(group, {"checkpointing": True})
    return found


def make_batch(task: Task, size: int, device: torch.device) -> Batch:
    """Two images and the target of the first: random numbers in the form that the task asks for."""
    image = torch.rand(2, task.in_channels, size, size, device=device)
    if task.classification:
        return Batch(image, torch.randint(0, task.channels, (1, size, size), device=device))
    if task.in_channels == 3:
        return Batch(image, torch.rand(1, task.channels, size, size, device=device))
    image[:, 3] = (3 * image[:, 3]).floor() / 2  # a trimap: 0, 1/2 or 1
    target = torch.rand(1, 8, size, size, device=device)  # alpha, unknown region, foreground and background colours
    target[:, 1] = (image[:1, 3] == 0.5).float()
    return Batch(image, target)


def in_a_process(name: str, given: argparse.Namespace) -> Record:
    """Measure a setting in a new process."""
    size = given.size or SETTINGS[name].size
    arguments = ["--inside", "--settings", name, "--size", str(size)]
    arguments += ["--repeats", str(given.repeats), "--precision", given.precision]
    arguments += ["--checkpointing"] if given.checkpointing else []
    printed = output_of("benchmarks.speed.paper_steps", arguments, surroundings={"OMP_NUM_THREADS": str(given.threads)})
    record: Record = json.loads(printed.splitlines()[-1])
    return record


def main() -> None:
    parser = new_parser("speed.paper_steps", __doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--size", type=int, help="side of the images instead of the paper's")
    parser.add_argument("--repeats", type=int, default=0, help="steps after the first")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="of the models that know it")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        (name,) = given.settings
        print(json.dumps(measure(name, given.size, given.repeats, given.precision, given.checkpointing)))
        return

    records = []
    for name in given.settings:
        record = in_a_process(name, given)
        records.append(record)
        print(
            f"{name:13} {' + '.join(record['models']):39} {record['size']}x{record['size']} {record['device']}: "
            f"{record['seconds']:7.2f} s a step, {record['peak_memory_gib']:5.2f} GiB",
            flush=True,
        )
    write_records(given.json, records, environment(records[0]["device"], given.threads))


if __name__ == "__main__":
    run(main)
