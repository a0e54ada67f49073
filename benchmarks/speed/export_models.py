"""Which models can be exported? Tries every model of conf/model, untrained, and every kind of error map.

Each is traced by torch.export and converted to ONNX for free sizes, and compared with its source over 20 sizes, as
`semipix export` does. With --json, records of the same models are replaced and others are kept; `python -m
benchmarks.tables` makes the table of docs/export.md of them.

    python -m benchmarks.speed.export_models                         all of them; large models at a small width
    python -m benchmarks.speed.export_models --only unet hdrnet      some of them
    python -m benchmarks.speed.export_models --formats torch-export  without ONNX
    python -m benchmarks.speed.export_models --json benchmarks/results/export.json
"""

import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.common import Record, new_parser, records_in, run, write_records
from semipix.errors import SemipixError
from semipix.functional.cues import feature_names
from semipix.inference import export
from semipix.inference.export_check import compare
from semipix.inference.export_network import Deployed, exported
from semipix.launch.compose import compose
from semipix.methods.base import Method
from semipix.training.build import build_method, build_task
from semipix.training.calibration import Calibration, ErrorMap, Uncalibrated, cues_of
from semipix.training.configuration import Configuration

SMP = "model=smp", "model.pretrained=false", "model.encoder=resnet18"
VIT = "model=smp", "model.pretrained=false", "model.architecture=dpt", "model.encoder=vit_tiny_patch16_224"

MODELS: dict[str, tuple[str, ...]] = {
    "unet": ("model=unet", "model.pretrained=false"),
    "pspnet": ("model=pspnet", "model.pretrained=false"),
    **{
        f"smp, {name}": (*SMP, f"model.architecture={name}")
        for name in ("unet", "unetplusplus", "manet", "linknet", "fpn", "deeplabv3", "deeplabv3plus", "pan", "upernet")
    },
    "smp, segformer on pvt_v2_b0": (*SMP[:2], "model.architecture=segformer", "model.encoder=pvt_v2_b0"),
    "smp, unet on convnext_atto": (*SMP[:2], "model.encoder=convnext_atto"),
    "smp, dpt on vit_tiny_patch16_224": VIT,
    "deeplab_v2": ("model=deeplab_v2", "model.backbone=resnet18"),
    "dhdn": ("task=denoising", "model=dhdn", "model.width=16"),
    "didn": ("task=denoising", "model=didn", "model.width=16", "model.blocks=2"),
    "hdrnet": ("task=enhancement", "model=hdrnet"),
    "deep_image_matting": ("task=matting", "model=deep_image_matting", "model.width=8"),
}
"""Overrides by the name in the table."""

DETECTORS = ("cues", "paper", "features")
"""Kinds of detectors, whose error maps are tried on a small model."""


def export_versions() -> dict[str, str]:
    """The versions of the packages that export and run."""
    return {name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", *export.PACKAGES["onnx"])}


def method_of(overrides: tuple[str, ...]) -> Method:
    """An untrained method; segmentation has five classes."""
    task = () if any(each.startswith("task=") for each in overrides) else ("task.classes=5",)
    config = compose(["data=scenes", "method=supervised", *task, *overrides])
    configuration = Configuration.parse(config)
    torch.manual_seed(0)
    return build_method(configuration, build_task(configuration), pretrained=False).eval()


def pair_of(detector: str) -> Method:
    """An untrained pair with a detector, on the default model."""
    return method_of(("method=gct", f"method.detector={detector}", *MODELS["smp, unet"]))


def calibration_of(method: Method) -> ErrorMap:
    """A map of all features with small random weights."""
    with torch.no_grad():
        image = torch.rand(1, method.task.in_channels, 64, 64)
        cues = list(cues_of(method.task, method.evidence(image), image))
    draw = torch.Generator().manual_seed(0)
    names = [name for names in feature_names(cues) for name in names]
    weights = {name: 0.1 * float(torch.randn((), generator=draw)) for name in names}
    knots = torch.linspace(-6, 6, 62).tolist(), torch.linspace(0.01, 0.9, 62).tolist()
    settings: dict[str, Any] = {
        "checkpoint": "best",
        "fingerprint": "",
        "kind": "probability",
        "cues": 1,
        "networks": 2,
    }
    measured: dict[str, Any] = {"split": "val", "images": 0, "pixels": 0, "features": "", "figures": {}, "squares": 1.0}
    return Calibration(
        **settings, weights=weights, intercept=0.0, knot_scores=knots[0], knot_values=knots[1], **measured,
        absent=[], thresholds=[], losses=[],
    )  # fmt: skip


def plain(overrides: tuple[str, ...]) -> Callable[[], Deployed]:
    """Makes a network without an error map."""
    return lambda: Deployed(method_of(overrides))


def tried(name: str, make: Callable[[], Deployed], formats: Sequence[str]) -> Iterator[Record]:
    """Export a network in some formats: the largest differences from its source, or the reason why it cannot be."""
    begin = time.process_time()
    program: Any = None
    for format in formats:
        record: Record = {"model": name, "format": format}
        try:
            if program is None:
                network = make()
                program = exported(network)
            content = export.traced_file(network, program, format, {})
            found = compare(network, export.loaded(content, format))
        except SemipixError as error:
            yield {**record, "refused": str(error)}
            continue
        record |= {"smallest": network.smallest, "sizes": found.sizes, "prediction": found.prediction}
        record |= {} if found.error is None else {"error": found.error}
        record["megabytes"] = round(len(content) / 1e6, 1)
        yield {**record, "processor": round(time.process_time() - begin, 1)}
        begin = time.process_time()


def shown(record: Record) -> str:
    """A cell of the table: the largest difference, or that there is no file."""
    if "refused" in record:
        return "refused"
    prediction, error = (f"{record[key]:.0e}" if record.get(key) else "0" for key in ("prediction", "error"))
    return f"{prediction}, of the error map {error}" if "error" in record else prediction


def main() -> None:
    parser = new_parser("speed.export_models", __doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names in the table; default: all")
    parser.add_argument("--formats", nargs="+", default=list(export.RUNTIMES), choices=list(export.RUNTIMES))
    flags = parser.parse_args()
    makers: dict[str, Callable[[], Deployed]] = {name: plain(overrides) for name, overrides in MODELS.items()}
    for detector in DETECTORS:

        def with_map(detector: str = detector) -> Deployed:
            method = pair_of(detector)
            return Deployed(method, calibration_of(method))

        makers[f"error map of detector={detector}"] = with_map
    makers["error map without calibration (softmax)"] = lambda: Deployed(
        method_of(MODELS["smp, unet"]), Uncalibrated("softmax")
    )
    if unknown := {*(flags.only or ())} - makers.keys():
        raise SemipixError(f"--only: {', '.join(sorted(unknown))} found, {'; '.join(makers)} expected")
    records = {(each["model"], each["format"]): each for each in records_in(flags.json)}
    for name in flags.only or makers:
        for record in tried(name, makers[name], flags.formats):
            records[name, record["format"]] = record
            print(f"{name}, {record['format']}: {record.get('refused') or shown(record)}", flush=True)
            write_records(flags.json, list(records.values()), {"versions": export_versions()})


if __name__ == "__main__":
    run(main)
