"""Which models can be exported? Tries every model of conf/model, untrained, and every kind of error map.

Each is traced by torch.export and converted to ONNX for free sizes, and compared with its source over 20 sizes, as
`semipix export` does. Prints a row of docs/export.md for each.

    python -m benchmarks.speed.export_models                         all of them; large models at a small width
    python -m benchmarks.speed.export_models --only unet hdrnet      some of them
    python -m benchmarks.speed.export_models --formats torch-export  without ONNX
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import Record, new_parser, run, write_records
from semipix.errors import SemipixError
from semipix.functional.cues import feature_names
from semipix.inference import export
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


def tried(name: str, make: Callable[[], Deployed], formats: list[str]) -> Record:
    """Export a network in some formats: what came out, or the reason why not."""
    record: Record = {"model": name}
    begin = time.perf_counter()
    try:
        network = make()
        program = exported(network)
    except SemipixError as error:
        return {**record, **dict.fromkeys(formats, str(error))}
    for format in formats:
        write = export.program_file if format == "torch-export" else export.onnx_file
        try:
            record[format] = write(network, program, {})[1][0].partition("sizes by ")[2]
        except SemipixError as error:
            record[format] = str(error)
    return {**record, "smallest": network.smallest, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    parser = new_parser("speed.export_models", __doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names in the table; default: all")
    parser.add_argument("--formats", nargs="+", default=["torch-export", "onnx"])
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
    records = []
    print("| model | smallest side |", " | ".join(flags.formats), "|", flush=True)
    print("|", " | ".join(["---"] * (2 + len(flags.formats))), "|", flush=True)
    for name, make in makers.items():
        if flags.only is None or name in flags.only:
            records.append(tried(name, make, flags.formats))
            shown = [str(records[-1].get(key, "-")) for key in ("smallest", *flags.formats)]
            print("|", " | ".join([name, *shown]), "|", flush=True)
    if flags.json is not None:
        write_records(flags.json, records)


if __name__ == "__main__":
    run(main)
