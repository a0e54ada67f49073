"""Every method trains every task with every model, by the real command."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semipix.cli import main
from semipix.methods.pair import ModelPair
from semipix.models import flaw_detector
from tests.helpers.tiny import method_class, options, works_on_features

METHODS, TASKS = options("method"), options("task")
MODELS = [name for name in options("model") if name != "smp"]  # which makes unet and pspnet

SCENES = ["data=scenes", "data.size=64", "data.train=12", "data.val=4", "data.test=4", "data.labels=1/2"]
"""Built-in data, which serve every task in conf/task."""

SMALL = {
    "unet": ["pretrained=false", "decoder_channels=[16,8,8,4,4]"],
    "pspnet": ["pretrained=false", "encoder=resnet18", "width=16"],
    "deeplab_v2": ["pretrained=false", "backbone=resnet18", "output_stride=16"],
    "dhdn": ["width=4"],
    "didn": ["width=8", "blocks=2"],
    "deep_image_matting": ["width=4"],
    "hdrnet": ["width=4", "resolution=64"],
}
"""What makes a model in conf/model small; one that is not named here is taken as it is."""

TASK_OF = {
    "dhdn": "denoising",
    "didn": "denoising",
    "deep_image_matting": "matting",
    "hdrnet": "enhancement",
    "pspnet": "segmentation",
    "deeplab_v2": "segmentation",
}
"""The task that a model's paper is about; one that is not named here is trained for every task."""

QUICK = ["data.crop=64", "data.workers=0", "data.batch_size=4", "steps=2", "validations=1"]
QUIET = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]

WITHOUT_FEATURES = {"dhdn", "didn", "deep_image_matting", "hdrnet"}
"""Models that do not follow the feature protocol."""

WITHOUT_DROPOUT = {"feature_dropout": "0", "complementary_dropout": "false"}
"""Hyper-parameters with which a method needs no feature protocol."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the command line, which the command sets for Hydra, and narrow the detector for small checkpoints."""
    monkeypatch.setattr("sys.argv", ["semipix"])
    monkeypatch.setattr(flaw_detector, "CHANNELS", (16, 16, 16, 16, 16, 16, 16, 1))


def training(run: Path, method: str, task: str, model: str, *more: str) -> list[str]:
    """The command line of two steps."""
    small = [f"model.{option}" for option in SMALL.get(model, [])]
    groups = [f"method={method}", f"task={task}", f"model={model}", f"run={run}", *QUIET]
    return ["train", *groups, *SCENES, *small, *QUICK, *more]


def train(run: Path, method: str, task: str = "segmentation", model: str = "unet", *more: str) -> dict[str, Tensor]:
    """Train two steps and return the weights."""
    assert main(training(run, method, task, model, *more)) == 0
    state: dict[str, Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("method.")}


def check(run: Path) -> None:
    """A run folder of two steps with finite figures for every term and the validation."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2
    assert "train/loss" in summary
    assert any(key.startswith("val/") for key in summary)
    for part in ("config.yaml", "split.json", "checkpoints/best.ckpt", "samples/step-000002.png"):
        assert (run / part).is_file(), part


FAMILIES = [(task, model) for task in TASKS for model in MODELS if TASK_OF.get(model, task) == task]
"""Every task with every model that its papers or no paper in particular train for it."""


@pytest.mark.parametrize(("task", "model"), FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_trains(method: str, task: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if method_class(method).classification_only and task != "segmentation":
        assert refused(tmp_path, method, task, model, capsys).endswith("that docs/methods lists for regression")
        return
    if model in WITHOUT_FEATURES and works_on_features(method):
        assert "has no method 'features'" in refused(tmp_path, method, task, model, capsys)
        without = WITHOUT_DROPOUT.keys() & inspect.signature(method_class(method)).parameters.keys()
        if not without:
            return
        more = [f"method.{key}={WITHOUT_DROPOUT[key]}" for key in without]
        weights = train(tmp_path / "whole", method, task, model, *more)
    else:
        weights = train(tmp_path / "whole", method, task, model)
    check(tmp_path / "whole")
    assert all(value.isfinite().all() for value in weights.values())


def refused(tmp_path: Path, method: str, task: str, model: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with an error of the user."""
    assert main(training(tmp_path / "refused", method, task, model)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return next(line for line in reversed(lines) if line.startswith("semipix: error"))


@pytest.mark.parametrize("method", METHODS)
def test_trains_in_bfloat16(method: str, tmp_path: Path) -> None:
    weights = train(tmp_path, method, "segmentation", "unet", "trainer.precision=bf16-mixed")
    check(tmp_path)
    assert all(value.isfinite().all() for value in weights.values())
    assert all(value.dtype != torch.bfloat16 for value in weights.values())


@pytest.mark.parametrize("method", [name for name in METHODS if issubclass(method_class(name), ModelPair)])
def test_a_pair_of_two_architectures(method: str, tmp_path: Path) -> None:
    second = ["second_model=deeplab_v2", *(f"second_model.{option}" for option in SMALL["deeplab_v2"])]
    weights = train(tmp_path, method, "segmentation", "unet", *second)
    check(tmp_path)
    assert any(key.startswith("method.models.0.model.network.") for key in weights)
    assert any(key.startswith("method.models.1.model.backbone.") for key in weights)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_weights(method: str, tmp_path: Path) -> None:
    first, again, other = (
        train(tmp_path / name, method, "segmentation", "unet", "validations=0", f"seed={seed}")
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
    assert any(not torch.equal(value, other[key]) for key, value in first.items() if value.is_floating_point())


def test_an_error_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"run={tmp_path}", "method=gct", "method.lamda_dc=1", *SCENES]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "unknown key method.lamda_dc" in line
    assert "did you mean lambda_dc?" in line
    assert not (tmp_path / "config.yaml").exists()
