"""Quantise an exported network to 8 bits by onnxruntime, and measure what it costs."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from semipix.data.batches.augment import plain_tensor
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.decode import unit_range
from semipix.data.files.resize import resize_image
from semipix.errors import SemipixError, reason_of
from semipix.inference.export_check import Network, seconds
from semipix.interruption import raise_if_interrupted
from semipix.tasks.base import Task
from semipix.training.build import data_of_run
from semipix.training.configuration import Configuration

RANGE_IMAGES = 32
"""Most training images from which the ranges of the activations are read."""

QUANTISED = ["Conv"]
"""Operators that become 8-bit; those of an error of one pixel, such as softmax and resizing, stay as they are."""


def quantized(
    model: bytes, configuration: Configuration, run: Path, task: Task, timed: Tensor
) -> tuple[bytes, list[str]]:
    """An ONNX model with convolutions of 8 bits.

    The ranges of the activations are those of up to `RANGE_IMAGES` training images.

    Args:
        model: the float model.
        configuration: of the run.
        run: run folder.
        task: the run's task.
        timed: an image to time both models with.

    Returns:
        The model, and lines with its metrics on the validation images beside those of the float model.

    Raises:
        SemipixError: the data are missing or differ from the run's, there are no validation images, or onnxruntime
            cannot quantise the model.
    """
    from semipix.inference.export import onnx_session

    data = data_of_run(configuration, run, task, ["train", "val"])
    if not data.split.val:
        raise SemipixError(f"--int8: {run} has no validation images, on which the change is measured; leave --int8 out")
    content = _quantize(model, data)
    networks = onnx_session(model), onnx_session(content)
    before, after = _measured(networks, data, task)
    shown = [name for name in dict.fromkeys((task.primary, "psnr")) if name in before]
    figures = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in shown)
    times = [1000 * seconds(each, timed) for each in networks]
    return content, [
        f"int8: {figures} on {len(data.split.val)} validation images; {times[0]:.1f} -> {times[1]:.1f} ms, "
        f"{len(model) / 1e6:.1f} -> {len(content) / 1e6:.1f} MB"
    ]


def _quantize(model: bytes, data: SemiSupervisedDataModule) -> bytes:
    """The quantised model.

    Raises:
        SemipixError: onnxruntime cannot quantise it.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Training images, one at a time."""

        def __init__(self) -> None:
            self._images = _training_images(data)

        def get_next(self) -> dict[str, Any] | None:
            """The next image, or None."""
            image = next(self._images, None)
            return None if image is None else {"image": image[None].numpy()}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        try:
            quantize_static(
                source,
                target,
                Images(),
                op_types_to_quantize=QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        # onnxruntime asserts, say, that the ranges of all activations are finite.
        except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as error:
            raise SemipixError(
                f"--int8: onnxruntime cannot quantise this network: {reason_of(error, 120)}; leave --int8 out"
            ) from error
        return target.read_bytes()


def _training_images(data: SemiSupervisedDataModule) -> Iterator[Tensor]:
    """Up to `RANGE_IMAGES` images (C, h, w) that the run was trained with, labeled or not, without missing values."""
    names = [*data.split.labeled]
    if data.shards is None:
        names += random.Random(0).sample([*data.split.unlabeled], min(RANGE_IMAGES, len(data.split.unlabeled)))
    random.Random(0).shuffle(names)
    for name in tqdm(names[:RANGE_IMAGES], desc="ranges", unit="image"):
        raise_if_interrupted()
        image = plain_tensor(unit_range(resize_image(data.source.image(name), data.resize)))
        bands = data.source.reader.bands
        yield (image if bands is None else bands.filled(image)).contiguous()


def _measured(networks: tuple[Network, Network], data: SemiSupervisedDataModule, task: Task) -> list[dict[str, float]]:
    """The metrics of both models over the validation images, at the labels' size as `semipix evaluate` measures."""
    metrics = [task.metrics() for _ in networks]
    samples: Any = data.val_dataloader().dataset
    for index in tqdm(range(len(data.split.val)), desc="int8", unit="image"):
        raise_if_interrupted()
        sample = samples[index]
        if isinstance(sample, SemipixError):
            raise SemipixError(*sample.args)
        for network, metric in zip(networks, metrics, strict=True):
            prediction = network(sample.image[None].contiguous())[0]
            if prediction.shape[-2:] != sample.target.shape[-2:]:
                prediction = F.interpolate(prediction, sample.target.shape[-2:], mode="bilinear")
            metric.update(prediction, sample.target[None])
    with torch.no_grad():
        return [{name: float(value) for name, value in metric.compute().items()} for metric in metrics]
