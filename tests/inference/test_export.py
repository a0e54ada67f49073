"""Exported files compute what the run computes. Also tests inference/export_check.py and inference/export_int8.py."""

import errno
import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import semipix
from semipix.data.files.bands import BandImage, Bands
from semipix.data.files.reader import Reader
from semipix.errors import SemipixError
from semipix.inference import export as export_module
from semipix.inference import export_check, export_int8
from semipix.inference.export import export
from semipix.inference.export_network import Deployed
from semipix.tasks.regression import Regression
from tests.conftest import Result
from tests.helpers.tiny import make_method
from tests.helpers.tiny_files import MemorySource

Command = Callable[..., Result]

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra export is not installed",
)


def test_a_program_with_its_error_map_gives_what_prediction_gives(
    finished: Path, shared_photos: Path, command: Command
) -> None:
    assert command("calibrate", finished).code == 0
    result = command("export", finished, "--out", "model.pt2", "--with-error-map")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert re.match(r"model\.pt2: .* as torch-export with the error map \(calibrated\), \d+\.\d MB", lines[0])
    assert re.match(r"checked: 20 sizes by torch\.export, largest difference of a prediction \d", lines[1])
    assert "256x256 pixels on the CPU, 1 thread:" in lines[2]
    extra = {"semipix.json": ""}
    network = torch.export.load("model.pt2", extra_files=extra).module()
    about = json.loads(extra["semipix.json"])
    assert json.loads(about["classes"]) == ["0", "1"]
    assert (about["task"], about["resize"], about["error_map"]) == ("Segmentation", "null", "calibrated")
    run = semipix.load(finished, trust=True)
    photo = shared_photos / "images/test/test0.png"
    pixels = torch.from_numpy(np.asarray(Image.open(photo)) / np.float32(255)).movedim(-1, 0)[None]
    for image in (pixels, pixels[..., :41, :]):
        prediction, error = network(image.contiguous())
        wanted = run.predict(image)
        assert np.allclose(prediction[0].detach(), wanted.probabilities, atol=1e-5)
        assert np.abs(error[0, 0].detach().numpy() - wanted.error_map).mean() < 1e-4


@needs_onnx
def test_the_example_of_the_documentation_runs_an_onnx_file(
    finished: Path, shared_photos: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    assert command("export", finished, "--out", "model.onnx").code == 0
    model = onnx.load("model.onnx")
    names = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert names == [["images", "", "height", "width"]]
    photo = shared_photos / "images/test/test0.png"
    with Image.open(photo) as image:
        image.crop((0, 0, 51, 38)).save("photo.jpg", quality=100)
    page = (Path(__file__).parents[2] / "docs/export.md").read_text()
    code = page.partition("## Run an ONNX file")[2].partition("```python\n")[2].partition("```")[0]
    assert "semipix" not in code and "torch" not in code
    exec(compile(code, "export.md", "exec"), {})
    wanted = semipix.load(finished, trust=True).predict("photo.jpg").class_map
    assert np.array_equal(np.asarray(Image.open("class_map.png")), wanted)
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()[-2:]] == ["0", "1"]


@needs_onnx
def test_8_bits_are_measured_on_the_validation_images(finished: Path, command: Command) -> None:
    wanted = semipix.load(finished, trust=True).evaluate("val")["miou"]
    result = command("export", finished, "--out", "small.onnx", "--int8")
    assert result.code == 0, result.err
    found = re.search(r"int8: miou (\S+) -> (\S+) on 2 validation images; .* ms, .* MB", result.out)
    assert found is not None
    assert float(found[1]) == pytest.approx(wanted, abs=1e-4), "as evaluate measures"
    assert 0 <= float(found[2]) <= 1
    import onnx

    assert "QuantizeLinear" in {node.op_type for node in onnx.load("small.onnx").graph.node}


def test_ranges_are_read_from_images_without_missing_values() -> None:
    """As the network sees them: a pixel without a value has the mean of its band."""
    image = torch.rand(2, 6, 8)
    image[0, 0, 0] = torch.nan
    source = MemorySource()
    source.reader = Reader(bands=Bands.of("all", None, [0.25, 0.5], [0.1, 0.1]))
    source.image = lambda name, seed=None: BandImage(image)  # type: ignore[method-assign]
    data = SimpleNamespace(
        source=source, shards=None, resize=None, split=SimpleNamespace(labeled=["a"], unlabeled=["b"])
    )
    for seen in export_int8._training_images(data):  # type: ignore[arg-type]
        assert seen[0, 0, 0] == 0.25
        assert seen.isfinite().all()


@needs_onnx
def test_a_network_that_onnxruntime_cannot_quantise_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime import quantization

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(quantization, "quantize_static", refuse)
    data = SimpleNamespace(split=SimpleNamespace(labeled=[], unlabeled=[]), shards=None)
    with pytest.raises(SemipixError, match="--int8: onnxruntime cannot quantise this network: AssertionError; leave"):
        export_int8._quantize(b"", data)  # type: ignore[arg-type]


def test_weights_have_the_names_of_the_model_s_own_class(finished: Path) -> None:
    lines = export(finished, finished / "model.safetensors", trust=True)
    assert lines[1].startswith("8 tensors of tests.helpers.tiny.TinyModel"), lines
    weights = torch.load(finished / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    deployed = int(weights["method.deployed"])
    with safe_open(finished / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("last.weight"), weights[f"method.models.{deployed}.model.last.weight"])
        assert file.metadata()["class"] == "TinyModel"
        assert file.metadata()["checkpoint"] == "best"
    for number, name in enumerate(("first", "second")):
        export(finished, finished / "model.safetensors", deploy=name, trust=True)
        with safe_open(finished / "model.safetensors", "pt") as file:
            assert torch.equal(file.get_tensor("last.weight"), weights[f"method.models.{number}.model.last.weight"])
    with pytest.raises(SemipixError, match=r"--deploy: third found, but .* has first, second"):
        export(finished, finished / "model.safetensors", deploy="third", trust=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "model.bin"}, r"--out: model\.bin has none of the endings \.onnx, \.pt2, \.safetensors; change it or"),
        ({"format": "tflite"}, "--format: 'tflite' found, onnx, torch-export, safetensors expected"),
        ({"out": ".", "format": "safetensors"}, r"--out: \. is a folder, the name of a file expected"),
        ({"out": "m.pt2", "int8": True}, "--int8: found with --format torch-export, only onnx can be quantised"),
        ({"out": "m.safetensors", "with_error_map": True}, "--with-error-map: found with --format safetensors"),
        ({"out": "m.pt2", "root": Path("data")}, "--data: data found without --int8"),
        ({"out": "m.pt2", "run": Path("nowhere")}, r"nowhere: no config\.yaml found"),
    ],
)
def test_wrong_options_are_one_line(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"run": Path("nowhere"), **options, "out": Path(options.get("out", "m.onnx"))}
    with pytest.raises(SemipixError, match=message):
        export(**given)
    assert not any(tmp_path.iterdir())


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SemipixError, match=r"--format onnx: onnx, onnxscript, .* pip install 'semipix\[export\]'"):
        export(Path("run"), Path("model.onnx"))


def test_nothing_is_left_where_it_cannot_be_written(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SemipixError, match=r"model\.safetensors: cannot be written, since .*config\.yaml is a file; ch"
    ):
        export(finished, finished / "config.yaml/model.safetensors", trust=True)
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda *_: False)  # as the administrator, a test may write everywhere
        with pytest.raises(SemipixError, match=r"model\.safetensors: cannot be written, since .*finished is read-only"):
            export(finished, finished / "model.safetensors", trust=True)
    old = finished / "out/model.safetensors"
    old.parent.mkdir()
    old.write_text("old")
    monkeypatch.setattr(os, "fdopen", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    for out in (old, finished / "new/model.safetensors"):
        with pytest.raises(OSError, match="No space left"):
            export(finished, out, trust=True)
    assert [path.name for path in old.parent.iterdir()] == ["model.safetensors"]
    assert old.read_text() == "old"
    assert not (finished / "new").exists()
    (finished / "checkpoints/best.ckpt").unlink()
    with pytest.raises(SemipixError, match=r"no checkpoint found, expected best\.ckpt"):
        export(finished, old, checkpoint="best", trust=True)


def test_the_range_of_values_has_all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "bands_of", lambda configuration: None)
    component = SimpleNamespace(path="m", options={})
    configuration = SimpleNamespace(method=component, model=component, data=component)
    task = Regression(low=1234567.8, high=1234577.9)
    network = SimpleNamespace(task=task, smallest=8, error_map=None)
    about = export_module._metadata(configuration, network, "best")  # type: ignore[arg-type]
    assert (float(about["low"]), float(about["high"])) == (1234567.8, 1234577.9)
    assert "; 1234567.8 to 1234577.9 is 0 to 1" in export_module._values_of(Bands.of("all", [1234567.8, 1234577.9]))


def test_a_network_that_differs_is_refused() -> None:
    network = Deployed(make_method("supervised").eval())

    def run(images: Tensor) -> list[Tensor]:
        found = network(images)[0].clone()
        if images.shape[-1] > network.smallest + 20:
            found[..., -1] += 0.01
        return [found]

    assert export_check.compare(network, network).prediction == 0
    with pytest.raises(SemipixError, match=r"differs from the run's by 0\.01 for images .*at most 0\.001 expected"):
        export_check.compare(network, run)
    with pytest.raises(SemipixError, match="returns maps of another size"):
        export_check.compare(network, lambda images: [network(images)[0][..., :-1]])
    with pytest.raises(SemipixError, match="refuses images 1x3x8x8: at least 9"):
        export_check.compare(network, lambda images: (_ for _ in ()).throw(RuntimeError("at least 9\nmore")))


def test_examples_are_of_many_sizes_and_trimaps_have_three_values() -> None:
    network = Deployed(make_method("supervised").eval())
    shapes = [tuple(images.shape) for images in export_check.examples(network)]
    assert len(set(shapes)) == 20
    assert shapes[0] == (1, 3, 8, 8)
    assert {shape[0] for shape in shapes} == {1, 2, 3}
    assert len({shape[2] % 32 for shape in shapes}) > 8
