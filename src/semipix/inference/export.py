"""Export the deployed network of a run: ONNX, a program of `torch.export`, or its weights alone."""

import contextlib
import importlib.util
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semipix.atomic import written
from semipix.data.files.bands import Bands
from semipix.errors import SemipixError, one_line, reason_of
from semipix.inference.export_check import Network, compare, example, seconds
from semipix.inference.export_network import Deployed, exported, name_of
from semipix.inference.predictor import how_to_calibrate
from semipix.training.build import bands_of, deploy_candidate, trained_method
from semipix.training.calibration import ErrorMap, load, uncalibrated
from semipix.training.configuration import Configuration
from semipix.training.quiet import quiet
from semipix.training.run_folder import check_place, checkpoint_of, load_config, no_empty_folders, with_root
from semipix.training.versions import versions

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
"""Formats, each with the usual ending of its files."""

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Packages that formats need beside semipix's own; the extra `export` has them."""

RUNTIMES = {"onnx": "onnxruntime", "torch-export": "torch.export"}
"""What runs files of a format."""

TIMED_SIDE = 256
"""Height and width of the image that is timed."""

LIMIT = 2**31 - 2**20
"""Most bytes of weights in one ONNX file; the format cannot hold more."""


def export(
    run: Path,
    out: Path,
    format: str | None = None,
    *,
    with_error_map: bool = False,
    int8: bool = False,
    checkpoint: str | None = None,
    deploy: str | None = None,
    root: Path | None = None,
    trust: bool = False,
) -> list[str]:
    """Write the deployed network of a run into one file, after a comparison with the run's own network.

    ONNX files and programs take images (N, C, H, W), float32 in [0, 1], of any number and size, and return
    `prediction` (N, K, H, W) in [0, 1] and, if asked for, `error` (N, 1, H, W) in [0, 1]. Normalisation and padding are
    inside; `data.resize` is not, and stands in the metadata.

    Args:
        run: run folder.
        out: the file; an existing one is replaced when the new one is complete.
        format: a key of `FORMATS`; by default the one of the file's ending.
        with_error_map: also export the error map, with the networks that it needs.
        int8: quantise convolutions to 8 bits, and measure both networks on the validation images; only for ONNX.
        checkpoint: `best` or `last`; by default best if there is one.
        deploy: the candidate that is exported, instead of the one that validation chose.
        root: the data folder, if it was moved; only for `int8`, which reads images.
        trust: allow the run folder to name code outside of the known packages, see `load_config`.

    Returns:
        Lines that say what was written and how it compares.

    Raises:
        SemipixError: the format is unknown or a package is missing, options exclude each other, the run or the
            checkpoint does not exist, the network cannot be exported, or what was exported differs from it.
        OSError: the file cannot be written; an older one is kept.
    """
    quiet()
    format = _format_of(out, format)
    _check_options(format, with_error_map=with_error_map, int8=int8, root=root)
    if out.is_dir():
        raise SemipixError(f"--out: {out} is a folder, the name of a file expected, such as {out / 'model'}.onnx")
    check_place(out)
    configuration = load_config(run, trust)
    if root is not None:
        configuration = with_root(configuration, root)
    method = trained_method(configuration, run, checkpoint)
    deploy_candidate(method, deploy)
    source = checkpoint_of(run, checkpoint)
    error_map = _error_map(run, method, source) if with_error_map else None
    network = Deployed(method, error_map)
    if format == "safetensors":
        metadata = _metadata(configuration, network, source.stem)
        content, lines = _weights(network, {**metadata, **_architecture(configuration)})
    else:
        print(f"semipix: {name_of(network)} is traced, which takes up to some minutes", file=sys.stderr)
        program = exported(network)
        content = traced_file(network, program, format, _metadata(configuration, network, source.stem))
        lines = _compared(network, loaded(content, format), RUNTIMES[format])
        if int8:
            from semipix.inference.export_int8 import quantized

            content, more = quantized(content, configuration, run, method.task, example_of(network))
            lines += more
    with no_empty_folders(out.parent), written(out) as file:
        file.write(content)
    error = "" if error_map is None else f" with the error map ({error_map.name})"
    return [f"{out}: {name_of(network)} of {source.name} as {format}{error}, {len(content) / 1e6:.1f} MB", *lines]


def traced_file(network: Deployed, program: Any, format: str, metadata: Mapping[str, str]) -> bytes:
    """The content of a file that runs without semipix.

    Args:
        network: the deployed network.
        program: what `exported` made of it.
        format: `onnx` or `torch-export`.
        metadata: texts by name, which the file holds too.

    Raises:
        SemipixError: the format has no operator for something, or cannot hold weights of this size.
    """
    if format == "onnx":
        return _onnx(network, program, metadata)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"semipix.json": json.dumps(dict(metadata), indent=1)})
    return buffer.getvalue()


def loaded(content: bytes, format: str) -> Network:
    """The network in what `traced_file` returned."""
    if format == "onnx":
        return onnx_session(content)
    network = torch.export.load(io.BytesIO(content)).module()
    return lambda images: network(images)


def onnx_session(model: bytes) -> Network:
    """A function that runs an ONNX model by onnxruntime on the CPU, with as many threads as torch uses.

    Raises:
        SemipixError: onnxruntime cannot load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has errors of many classes
        raise SemipixError(
            f"--format onnx: onnxruntime cannot load this network: {reason_of(error, 120)}; take torch-export"
        ) from error

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {"image": images.numpy()})]

    return run


def example_of(network: Deployed) -> Tensor:
    """The image that is timed."""
    side = max(TIMED_SIDE, network.smallest)
    return example(network, 1, side, side, torch.Generator().manual_seed(0))


def _format_of(out: Path, format: str | None) -> str:
    """The format of a file, by its name or by its ending.

    Raises:
        SemipixError: it is none of `FORMATS`, or a package is missing.
    """
    if format is None:
        format = next((name for name, ending in FORMATS.items() if out.suffix.lower() == ending), None)
        if format is None:
            endings = ", ".join(FORMATS.values())
            raise SemipixError(f"--out: {out} has none of the endings {endings}; change it or add --format")
    if format not in FORMATS:
        raise SemipixError(f"--format: {format!r} found, {', '.join(FORMATS)} expected")
    missing = [name for name in PACKAGES.get(format, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise SemipixError(f"--format {format}: {', '.join(missing)} not installed; pip install 'semipix[export]'")
    return format


def _check_options(format: str, *, with_error_map: bool, int8: bool, root: Path | None) -> None:
    """Refuse options that do not go together.

    Raises:
        SemipixError: see `export`.
    """
    if int8 and format != "onnx":
        raise SemipixError(f"--int8: found with --format {format}, only onnx can be quantised; leave one of them out")
    if int8 and with_error_map:
        raise SemipixError(
            "--int8: found with --with-error-map, whose calibration is that of the float network; leave one of them out"
        )
    if with_error_map and format == "safetensors":
        raise SemipixError(
            "--with-error-map: found with --format safetensors, which has only the deployed network's weights; take "
            "onnx or torch-export, or Run.save_pretrained, which writes all networks and the calibration"
        )
    if root is not None and not int8:
        raise SemipixError(f"--data: {root} found without --int8, and nothing else reads images; leave it out")


def _error_map(run: Path, method: Any, checkpoint: Path) -> ErrorMap:
    """The error map that `semipix predict` writes.

    Raises:
        SemipixError: there is no calibration, and the run has no other map.
    """
    if (calibration := load(run, method, checkpoint.stem)) is not None:
        return calibration
    with torch.no_grad():
        side = max(Deployed(method).smallest, 64)
        evidence = method.evidence(torch.zeros(1, method.task.in_channels, side, side))
    found = uncalibrated(method, evidence)
    how = how_to_calibrate(run, checkpoint.stem)
    if found is None:
        raise SemipixError(f"--with-error-map: {run} has no error map of {checkpoint.name}; {how}")
    print(f"semipix: {one_line(f'no calibration of {checkpoint.name}; {how}')}", file=sys.stderr)
    return found


def _metadata(configuration: Configuration, network: Deployed, checkpoint: str) -> dict[str, str]:
    """What a user of the file has to know, as texts by name."""
    task = network.task
    classes = getattr(task, "classes", None)
    trimap = "; the fourth channel is the trimap: 0 background, 0.5 unknown, 1 foreground" if task.trimap else ""
    found = {
        "semipix": versions().get("semipix", ""),
        "torch": torch.__version__,
        "checkpoint": checkpoint,
        "task": type(task).__name__,
        "method": configuration.method.path,
        "model": configuration.model.path,
        "image": f"float32 (images, {task.in_channels}, height, width), {_values_of(bands_of(configuration))}{trimap}",
        "smallest_side": str(network.smallest),
        "resize": json.dumps(configuration.data.options.get("resize")),
        "prediction": f"float32 (images, {task.channels}, height, width) in [0, 1]: "
        + ("the probability of each class" if task.classification else "0 is the value low, 1 is the value high"),
    }
    if classes is not None:
        found["classes"] = json.dumps(list(classes))
    if not task.classification:
        low = float(getattr(task, "low", 0.0))
        high = float(getattr(task, "high", low + task.span))
        found |= {"low": repr(low), "high": repr(high)}  # all digits: predictions are scaled by them
    if network.error_map is not None:
        kind = "the probability that the pixel is wrong" if task.classification else "expected absolute error / range"
        found["error"] = f"float32 (images, 1, height, width) in [0, 1]: {kind}"
        found["error_map"] = network.error_map.name
    return found


def _values_of(bands: Bands | None) -> str:
    """What the channels of an image are."""
    if bands is None:
        return "RGB, 8-bit values divided by 255"
    chosen = "all bands" if bands.chosen is None else f"bands {', '.join(map(str, bands.chosen))} (from 0)"
    limits = "the range of the file's type"
    if bands.limits is not None:
        limits = ", ".join(
            f"{low!r} to {high!r}" for low, high in bands.limits
        )  # all digits: images are scaled by them
    missing = ", ".join(repr(value) for value in bands.mean or ())
    return f"{chosen}; {limits} is 0 to 1, and a missing value is the mean of its band ({missing})"


def _architecture(configuration: Configuration) -> dict[str, str]:
    """The class of the task model and its options, with which the network can be made again."""
    node = configuration.model
    return {"model": node.path, "model_options": json.dumps({**node.options})}


def _weights(network: Deployed, metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The weights of the deployed network under the names of its own class, and a line about them."""
    from safetensors.torch import load, save

    inner = getattr(network.network, "model", network.network)
    tensors = {name: value.detach().clone().contiguous() for name, value in inner.state_dict().items()}
    content: bytes = save(tensors, {**metadata, "class": type(inner).__name__})
    back = load(content)
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], value) for name, value in tensors.items())
    return content, [f"{len(tensors)} tensors of {type(inner).__module__}.{type(inner).__qualname__}"]


def _onnx(network: Deployed, program: Any, metadata: Mapping[str, str]) -> bytes:
    """An ONNX model of an exported program.

    Raises:
        SemipixError: ONNX has no operator for something, or the weights are too large for one file.
    """
    size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    if size > LIMIT:
        raise SemipixError(f"--format onnx: {size / 1e9:.1f} GB of weights, an ONNX file holds 2; take torch-export")
    outputs = ["prediction"] if network.error_map is None else ["prediction", "error"]
    try:
        with _silent():
            converted: Any = torch.onnx.export(
                program, dynamo=True, input_names=["image"], output_names=outputs, verbose=False
            )
            model = converted.model_proto
    except Exception as error:  # the converter raises errors of many classes
        raise SemipixError(
            f"--format onnx: {name_of(network)} cannot be converted: {_cause(error)}; docs/export.md lists the models "
            "that can, and torch-export takes more of them"
        ) from error
    _name_dimensions(model)
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    content: bytes = model.SerializeToString()
    return content


def _name_dimensions(model: Any) -> None:
    """Name the free dimensions of an ONNX model, and leave out the shapes of everything inside."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        sides = value.type.tensor_type.shape.dim
        for number, name in ((0, "images"), (2, "height"), (3, "width")):
            sides[number].dim_param = name


def _compared(network: Deployed, run: Network, by: str) -> list[str]:
    """Lines with the differences and the times of an exported network."""
    lines = [compare(network, run).line(by)]
    image = example_of(network)
    times = seconds(network, image), seconds(run, image)
    side = image.shape[-1]
    threads = torch.get_num_threads()
    lines.append(
        f"one image of {side}x{side} pixels on the CPU, {threads} thread{'s' if threads > 1 else ''}: "
        f"{1000 * times[0]:.1f} ms by the run, {1000 * times[1]:.1f} ms by {by}"
    )
    return lines


def _cause(error: BaseException) -> str:
    """The innermost reason of an error, whose outer ones say in many lines that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error, 120)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress what the converter prints, logs and warns of."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
