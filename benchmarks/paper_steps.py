"""What does one training step of GCT take in the paper's own settings: its task models at its sizes?

One labeled and one unlabeled image, two task models of full width and the detector: all losses, one backward, all
optimizers. Each setting runs in a process of its own, whose largest resident memory is what it needed; on a GPU, the
memory that was allocated there. A first step also makes the optimizers' states and is told apart from the others.

    python benchmarks/paper_steps.py                                       all four settings, on the CPU or GPU
    python benchmarks/paper_steps.py --settings segmentation --size 65     a quick look
    python benchmarks/paper_steps.py --checkpointing --repeats 2 --json benchmarks/results/paper_steps.json
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from memory import peak_bytes  # the module beside this one

from semipix.report.comparison import environment

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
    import torch
    from step import step_of  # the script beside this one

    import semipix.conf
    from semipix.config import parameters, target_of
    from semipix.train import build_method, build_task

    setting = SETTINGS[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def node(group: str, option: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(
            (Path(semipix.conf.__file__).parent / group / f"{option}.yaml").read_text()
        )
        known = parameters(target_of(group, found))[0]
        return found | ({"checkpointing": True} if checkpointing and "checkpointing" in known else {})

    first_model, second_model = (node("model", option) for option in setting.models)
    task = build_task({"task": node("task", name)}, [str(index) for index in range(CLASSES)])
    method = build_method(
        {"seed": 0, "model": first_model, "second_model": second_model, "method": node("method", "gct")}, task
    ).to(device)
    kind = functools.partial(getattr(torch.optim, setting.optimizer), lr=1e-5)
    optimizers = method.optimizers(lambda model: kind(model.parameters()))

    batch = make_batch(task, size, device)

    take = step_of(method, optimizers, batch, precision)

    def step() -> float:
        began = time.perf_counter()
        losses = take()
        if device.type == "cuda":
            torch.cuda.synchronize()
        assert all(bool(term.isfinite()) for term in losses.values()), losses
        return time.perf_counter() - began

    first = step()
    seconds = statistics.median([step() for _ in range(repeats)] or [first])
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()
    return {
        "setting": name,
        "models": list(setting.models),
        "parameters": [sum(value.numel() for value in model.parameters()) for model in method.candidates().values()],
        "optimizer": setting.optimizer,
        "size": size,
        "images": len(batch.image),
        "precision": precision,
        "checkpointing": checkpointing,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "first_step_seconds": first,
        "repeats": repeats,
        "seconds": seconds,
        "images_per_second": len(batch.image) / seconds,
        "peak_memory_gib": peak / 2**30,
    }


def make_batch(task: Any, size: int, device: Any) -> Any:
    """Two images and the target of the first: numbers of no meaning, in the form that the task asks for."""
    import torch

    from semipix.batch import Batch

    image = torch.rand(2, task.in_channels, size, size, device=device)
    if task.classification:
        return Batch(image, torch.randint(0, task.channels, (1, size, size), device=device))
    if task.in_channels == 3:
        return Batch(image, torch.rand(1, task.channels, size, size, device=device))
    image[:, 3] = (3 * image[:, 3]).floor() / 2  # a trimap: 0, 1/2 or 1
    target = torch.rand(1, 8, size, size, device=device)  # alpha, unknown region, foreground and background colours
    target[:, 1] = (image[:1, 3] == 0.5).float()
    return Batch(image, target)


def in_a_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a setting in a new process.

    Raises:
        SystemExit: it failed; its own message has been printed.
    """
    size = options.size or SETTINGS[name].size
    command = [sys.executable, __file__, "--inside", "--settings", name, "--size", str(size)]
    command += ["--repeats", str(options.repeats), "--precision", options.precision]
    command += ["--checkpointing"] if options.checkpointing else []
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=surroundings)
    if done.returncode:
        raise SystemExit(f"{name}: the step failed with exit status {done.returncode}; -9 is for want of memory")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--size", type=int, help="side of the images instead of the paper's")
    parser.add_argument("--repeats", type=int, default=0, help="steps after the first")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="of the models that know it")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        (name,) = options.settings
        given = (options.size, options.repeats, options.precision, options.checkpointing)
        print(json.dumps(measure(name, *given)))
        return

    records = []
    for name in options.settings:
        record = in_a_process(name, options)
        records.append(record)
        print(
            f"{name:13} {' + '.join(record['models']):39} {record['size']}x{record['size']} {record['device']}: "
            f"{record['seconds']:7.2f} s a step, {record['peak_memory_gib']:5.2f} GiB",
            flush=True,
        )
    if options.json:
        told = environment(records[0]["device"], options.threads)
        options.json.write_text(json.dumps({**told, "records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
