"""What does a training step cost: of GCT, of two supervised models, of the released recipe, of every method?

Prints seconds, peak memory and computing speed of each variant. The lower bound (`floor`) is two supervised steps on
the same images.

All variants take turns in one run, because the speed of a machine varies; seconds are medians of the turns. Peak memory
of each is measured in a process of its own, above what the process held before any network was made (on a GPU: what was
allocated). `flops` are the floating-point operations of a step's convolutions and matrix products, `matrix_share` is
their share of the device's measured throughput of matrix products. The file of `--json` holds a list of records. A
record of the same case, size, precision, device and threads is replaced; a record of all methods does not replace one
of only GCT's forms, because the networks of all methods are in memory together.

    python -m benchmarks.speed.step --case deeplab_v2                          321x321, 2 + 2 images, fp32
    python -m benchmarks.speed.step --case unet --methods all --precision bf16 --compile
    python -m benchmarks.speed.step --case unet --size 64 --json benchmarks/results/step.json
"""

import argparse
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from hydra.utils import get_object
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    Record,
    device,
    device_name,
    new_parser,
    node,
    options,
    output_of,
    records_in,
    run,
    wait_for_device,
    write_records,
)
from benchmarks.speed.memory import forget_peak, held_bytes, peak_bytes
from benchmarks.speed.released import ReleasedGCT
from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.launch.variants import environment
from semipix.methods.base import Method
from semipix.models.adapt import Adapter, make_model
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.models.dhdn import DHDN
from semipix.models.memory_format import compile_networks, set_memory_format
from semipix.models.smp import SMP
from semipix.processes import keep_freed_memory
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.segmentation import Segmentation
from semipix.training.optimizers import optimizer_maker

Step = Callable[[], object]


class Case(NamedTuple):
    """What is trained.

    Attributes:
        task: makes the task.
        model: makes a task model, from the channels of image and output.
        optimizer: of the task models.
        size: height and width of the images.
        images: labeled and unlabeled images of a step.
        blocks: whether the model knows `checkpointing`, so that memory=low works block by block.
    """

    task: Callable[[], Task]
    model: Callable[..., nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    size: tuple[int, int]
    images: tuple[int, int]
    blocks: bool


SGD = functools.partial(torch.optim.SGD, lr=1e-5, momentum=0.9)
ADAMW = functools.partial(torch.optim.AdamW, lr=1e-4)

CASES = {
    "deeplab_v2": Case(lambda: Segmentation(21), DeepLabV2, SGD, (321, 321), (2, 2), True),
    "unet": Case(lambda: Segmentation(6), functools.partial(SMP, pretrained=False), ADAMW, (96, 128), (4, 4), False),
    "dhdn": Case(Denoising, functools.partial(DHDN, width=16), ADAMW, (64, 64), (4, 4), True),
}
"""DeepLab-v2 in the paper's setting, the demo's UNet, a denoising model."""

MATRIX_PRODUCT = "matrix_product"
FLOOR, GCT, LITERAL, COMPILED = "floor", "gct", "literal", "gct_compiled"

GCT_FORMS: dict[str, dict[str, Any]] = {
    GCT: {"detector": "paper"},
    "gct_cues": {"detector": "cues"},
    "gct_features": {"detector": "features"},
    "gct_half_scale": {"detector": "paper", "detector_scale": 0.5},
    "gct_low_memory": {"detector": "paper", "low": True},
    "gct_contiguous": {"detector": "paper", "channels_last": False},
    COMPILED: {"detector": "paper", "compiled": True},
}
"""The paper's GCT, and with other detectors, its own at half size, memory=low, channels_last=false, compile=true."""


LITERAL_FORMS = {LITERAL: torch.contiguous_format, "literal_channels_last": torch.channels_last}
"""The released recipe in torch's own layout, as it is, and with the faster layout that semipix trains in."""


def method_classes() -> dict[str, Callable[..., Method]]:
    """Every method of the configuration, by name; supervised first."""
    found = {name: get_object(node("method", name)["_target_"]) for name in options("method") if name != "auto"}
    return {"supervised": found.pop("supervised"), **found}


def step_of(
    method: Method, optimizers: list[torch.optim.Optimizer], batch: Batch, precision: str
) -> Callable[[], dict[str, Tensor]]:
    """A training step, which returns its losses: all of them, one backward, all optimizers."""
    device = batch.image.device.type

    def step() -> dict[str, Tensor]:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            losses = method.losses(batch, epoch=10.0)
        torch.stack([term.float() for term in losses.values()]).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        method.after_step()
        return losses

    return step


class Bench:
    """One case at one size on one device, in one precision.

    Args:
        case: what is trained.
        size: height and width of the images.
        images: labeled and unlabeled images of a step.
        precision: `fp32` or `bf16`.
        device: where.
    """

    def __init__(
        self, case: Case, size: tuple[int, int], images: tuple[int, int], precision: str, device: torch.device
    ) -> None:
        self.case, self.precision, self.device = case, precision, device
        self.task = case.task()
        torch.manual_seed(0)
        labeled, unlabeled = images
        self.image = self._images(labeled + unlabeled, size)
        self.target = self._target(labeled + unlabeled, size)
        self.labeled = labeled
        self.strong = self._images(2 * unlabeled, size)

    def _images(self, count: int, size: tuple[int, int]) -> Tensor:
        image = torch.rand(count, self.task.in_channels, *size, device=self.device)
        return image.contiguous(memory_format=torch.channels_last)

    def _target(self, count: int, size: tuple[int, int]) -> Tensor:
        if self.task.classification:
            return torch.randint(0, self.task.channels, (count, *size), device=self.device)
        return torch.rand(count, self.task.channels, *size, device=self.device)

    def make(self, low: bool = False) -> Adapter:
        """A task model, which recomputes its activations where `low` is set."""
        options = {"checkpointing": True} if low and self.case.blocks else {}
        made = make_model(functools.partial(self.case.model, **options), self.task.in_channels, self.task.channels)
        made.recompute = low and not self.case.blocks
        return made

    def method_step(
        self,
        kind: Callable[..., Method],
        *,
        low: bool = False,
        compiled: bool = False,
        channels_last: bool = True,
        **options: Any,
    ) -> Step:
        """A step of a method: all losses, one backward, all optimizers; all labeled where it uses no others."""
        method = kind(self.task, lambda _: self.make(low), **options).to(self.device)
        layout = set_memory_format(method, self.device.type, channels_last)
        if compiled:
            compile_networks(method)
        optimizers = method.optimizers(optimizer_maker(self.case.optimizer))
        image, strong = (images.contiguous(memory_format=layout) for images in (self.image, self.strong))
        views = image[: min(method.labeled_views, self.labeled)]
        honest = torch.cat([views, views]).contiguous(memory_format=layout) if len(views) else None
        mixed = Batch(image, self.target[: self.labeled], strong, labeled_strong=honest)
        batch = mixed if method.uses_unlabeled else Batch(image, self.target)

        return step_of(method, optimizers, batch, self.precision)

    def floor(self) -> Step:
        """Two supervised steps on all images of a step."""
        steps = [self.method_step(method_classes()["supervised"]) for _ in range(2)]

        def step() -> None:
            for single in steps:
                single()

        return step

    def literal(self, layout: torch.memory_format) -> Step:
        """An iteration of the recipe as released, in a layout."""
        released = ReleasedGCT(
            self.task, lambda _: self.make(), lambda model: self.case.optimizer(model.parameters()), self.device, layout
        )
        batch = Batch(self.image.contiguous(memory_format=layout), self.target[: self.labeled])
        return lambda: released.step(batch, self.precision)

    def matrix_product(self) -> Step:
        """A large matrix product, to see what the device can do."""
        side = 8192 if self.device.type == "cuda" else 2048
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        left, right = torch.rand(2, side, side, device=self.device, dtype=dtype)
        return lambda: left @ right

    def step(self, name: str) -> Step:
        """The step of a variant by its name."""
        if name == MATRIX_PRODUCT:
            return self.matrix_product()
        if name == FLOOR:
            return self.floor()
        if name in LITERAL_FORMS:
            return self.literal(LITERAL_FORMS[name])
        classes = method_classes()
        if name in GCT_FORMS:
            return self.method_step(classes[GCT], **GCT_FORMS[name])
        return self.method_step(classes[name])


def gradient_flops(
    grad_shape: Sequence[int], image_shape: Sequence[int], weight_shape: Sequence[int], *given: Any, **_: Any
) -> int:
    """Operations of a convolution's gradients; torch counts those of grouped weights as if there was one group."""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = given[:8]
    places = image_shape if transposed else grad_shape
    return int(2 * places[0] * math.prod(places[2:]) * math.prod(weight_shape) * sum(wanted[:2]))


def take_turns(steps: dict[str, Step], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds and floating-point operations of each step, in turns.

    The first turn counts operations, and leaves out a method that refuses it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    flops: dict[str, int] = {}
    for name, step in steps.items():
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: gradient_flops})
        try:
            with nullcontext() if name == COMPILED else counter:
                step()
        except SemipixError as error:  # s4l takes only squares
            print(f"{name}: {error}", file=sys.stderr)
            del seconds[name]
            continue
        if name != COMPILED:  # which runs past the counter
            flops[name] = counter.get_total_flops()
    for turn in range(repeats):
        for name in seconds:
            wait_for_device()
            began = time.perf_counter()
            steps[name]()
            wait_for_device()
            seconds[name].append(time.perf_counter() - began)
            print(f"turn {turn + 1} of {repeats}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seconds.items()}, flops


def measure(bench: Bench, names: list[str], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds and operations of each variant's step; a method that does not serve the case is left out."""
    steps: dict[str, Step] = {}
    for name in names:
        try:
            steps[name] = bench.step(name)
        except SemipixError as error:  # cct and others serve only classification
            print(f"{name}: {error}", file=sys.stderr)
    return take_turns(steps, repeats)


def peak_of(bench: Bench, name: str) -> int:
    """Peak memory of two steps of a variant in this process, above what the process held before it was made."""
    before = held_bytes()
    forget_peak()
    step = bench.step(name)
    step()
    step()
    if bench.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return peak_bytes() - before


def peak_in_a_process(given: argparse.Namespace, name: str) -> int:
    """Peak memory of a variant's steps, measured in a new process."""
    arguments = ["--case", given.case, "--precision", given.precision, "--peak-of", name]
    arguments += ["--size", str(given.size)] if given.size else []
    arguments += ["--images", *map(str, given.images)] if given.images else []
    # By default the C library moves these thresholds, and what is freed would count in one run and not in another.
    fixed = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
    return int(output_of("benchmarks.speed.step", arguments, surroundings=fixed).splitlines()[-1])


def record_of(given: argparse.Namespace, bench: Bench, names: list[str], size: tuple[int, int]) -> Record:
    """Measure time and memory of all variants."""
    weighed = [name for name in names if name in (FLOOR, *LITERAL_FORMS, *GCT_FORMS)] if given.memory else []
    memory = {name: peak_in_a_process(given, name) for name in weighed}  # before this process holds all networks
    seconds, flops = measure(bench, names, given.repeats)
    throughput = flops.pop(MATRIX_PRODUCT) / seconds.pop(MATRIX_PRODUCT)
    record = {
        "case": given.case,
        "device": device_name(),
        "precision": given.precision,
        "size": list(size),
        "images": [bench.labeled, len(bench.image) - bench.labeled],
        "threads": torch.get_num_threads(),
        "repeats": given.repeats,
        "seconds": seconds,
        "bytes": memory,
        "images_per_second": {name: len(bench.image) / value for name, value in seconds.items()},
        "flops": flops,
        "matrix_flops_per_second": throughput,
        "matrix_share": {name: count / seconds[name] / throughput for name, count in flops.items()},
    }
    for name in (FLOOR, GCT, LITERAL):
        if name in seconds:
            record[f"{name}_s"] = seconds[name]
        if name in memory:
            record[f"{name}_bytes"] = memory[name]
    return {**record, "versions": environment()["versions"]}


def show(record: Record) -> None:
    """Print a record as a table."""
    print(f"{record['case']} {record['size']} {record['images']} {record['precision']} on {record['device']}")
    floor = record["seconds"].get(FLOOR)
    for name, value in record["seconds"].items():
        ratio = f"{value / floor:6.2f} x two supervised steps" if floor else ""
        memory = f"{record['bytes'][name] / 2**30:7.2f} GiB" if name in record["bytes"] else " " * 11
        share = f"  {100 * record['matrix_share'][name]:3.0f} % of a matrix product" if name in record["flops"] else ""
        print(f"{name:21} {value:8.3f} s  {ratio}{memory}{share}")


def identity(record: Record) -> tuple[Any, ...]:
    """What makes two records the same measurement: whether all methods shared the memory is part of it."""
    keys = ("case", "device", "precision", "size", "images", "threads")
    return (*(record[key] for key in keys), "supervised" in record["seconds"])


def main() -> None:
    parser = new_parser("speed.step", __doc__)
    parser.add_argument("--case", choices=CASES, default="unet")
    parser.add_argument("--size", type=int, help="side of the images instead of the case's")
    parser.add_argument("--images", type=int, nargs=2, help="labeled and unlabeled images instead of the case's")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--methods", nargs="*", default=[], help="more methods to measure, or all")
    parser.add_argument("--compile", action="store_true", help="also measure GCT through torch.compile")
    parser.add_argument("--no-literal", dest="literal", action="store_false", help="without the recipe as released")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="measure only seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()

    case = CASES[given.case]
    size = (given.size, given.size) if given.size else case.size
    images = tuple(given.images) if given.images else case.images
    bench = Bench(case, size, images, given.precision, device())
    if given.peak_of:
        print(peak_of(bench, given.peak_of))
        return

    keep_freed_memory()  # as every `semipix` command does
    names = [MATRIX_PRODUCT, FLOOR, *(name for name in GCT_FORMS if name != COMPILED or given.compile)]
    if given.literal and bench.task.classification:
        names += LITERAL_FORMS
    known = [name for name in method_classes() if name != GCT]
    names += known if given.methods == ["all"] else given.methods
    if unknown := sorted(set(given.methods) - {*known, "all"}):
        raise SemipixError(f"--methods {unknown[0]}: no such method; expected all, or some of {', '.join(known)}")
    before = records_in(given.json)
    record = record_of(given, bench, names, size)
    show(record)
    write_records(given.json, [*(other for other in before if identity(other) != identity(record)), record])


if __name__ == "__main__":
    run(main)
