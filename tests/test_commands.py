"""The commands as a user gives them, from training to prediction.

Also tests cli.py, launch/app.py, inference/evaluate.py,
training/opening.py and training/run.py.
"""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from semipix.inference.evaluate import measured
from semipix.methods.base import Evidence
from semipix.methods.gct import GCT
from semipix.training.build import load_method
from semipix.training.image_figures import read_images
from semipix.training.run_folder import read_config
from tests.conftest import Result

Command = Callable[..., Result]


def test_a_run_folder_holds_all_that_later_commands_need(shared_run: Path) -> None:
    files = {str(path.relative_to(shared_run)) for path in shared_run.rglob("*") if path.is_file()}
    expected = {
        *("config.yaml", "split.json", "summary.json", "metrics/version_0/metrics.csv"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/step-000002.png"),
    }
    assert expected <= files
    assert not [name for name in files if name.endswith(".partial")]
    config = yaml.safe_load((shared_run / "config.yaml").read_text())
    assert config["task"]["classes"] == ["0", "1"], "predicting needs no data"
    assert "${" not in (shared_run / "config.yaml").read_text()
    assert json.loads((shared_run / "summary.json").read_text())["steps"] == 2
    with (shared_run / "metrics/version_0/metrics.csv").open() as file:
        assert [row["val/miou"] for row in csv.DictReader(file)]


def test_training_says_what_to_do_next_and_shows_no_tips(train: Command) -> None:
    result = train("trainer.log_every_n_steps=1")
    assert result.code == 0
    assert result.out.splitlines() == [
        "task: segmentation, 2 classes: 0, 1; weights 0.8165, 1.414",
        "data: 4 labeled, 8 unlabeled (not used by this method), 4 labels hidden by data.labels=4, 2 held out for "
        "validation",
        "model: TinyModel, 190 parameters",
        "method: Supervised, 1 network of the model, 190 trained parameters in all",
        "length: 2 steps of 4 images, validated 2 times; writes run",
        "run: 2 steps, see run/summary.json; next: semipix evaluate run --trust",
    ]
    lines = result.err.replace("\r", "\n").splitlines()
    lines = [line for line in lines if not line.startswith("semipix: the last validation hardly finds")]  # in two steps
    assert [line for line in lines if line and not line.startswith("train:")] == []
    assert "2/2" in lines[-1]
    assert "loss=" in lines[-1]
    assert "val/miou=" in lines[-1]


def test_overrides_reach_every_constructor(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def remember(trainer: Any, learner: Any, **others: Any) -> None:
        made.update(trainer=trainer, learner=learner, optimizers=learner.configure_optimizers(), **others)
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", remember)
    result = train(
        *(
            "method=gct",
            "method.lambda_dc=7",
            "model.width=6",
            "data.flip=0.25",
            "optimizer=sgd",
            "optimizer.momentum=0.5",
        ),
        *("scheduler=cosine", "scheduler.eta_min=1e-5", "trainer.gradient_clip_val=1", "steps=9", "seed=3"),
        *("trainer.accumulate_grad_batches=2", "task.class_weights=[1,2]", "freeze_batch_norm=true"),
        *("second_model=deeplab_v2", "second_model.backbone=resnet18", "method.flaw_threshold=0.5"),
    )
    assert result.code == 130
    method = made["learner"].method
    assert (method.lambda_dc, method.flaw_threshold) == (7, 0.5)
    assert method.models[0].model.first.out_channels == 6
    assert type(method.models[1].model).__name__ == "DeepLabV2"
    assert made["datamodule"].flip == 0.25
    (optimizer,), (schedule,) = made["optimizers"]
    assert isinstance(optimizer.optimizers[0], torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert (schedule["scheduler"].T_max, schedule["scheduler"].eta_min) == (9, 1e-5)
    trainer = made["trainer"]
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches, trainer.max_steps) == (1, 2, 9)
    assert made["learner"].seed == 3


def test_second_model_is_trained_beside_the_first(train: Command) -> None:
    second = ["second_model._target_=tests.helpers.tiny.TinyModel", "second_model.width=8"]
    assert train("method=gct", *second).code == 0
    models = load_method(Path("run"), trust=True).models
    assert [model.model.first.out_channels for model in models] == [4, 8]  # type: ignore[union-attr]


def test_scheduler_may_be_left_out(train: Command) -> None:
    assert train("scheduler=null", "second_model=null").code == 0
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["lr_schedulers"] == []


def test_gradients_may_be_accumulated(train: Command) -> None:
    result = train("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1", "steps=3", "checkpoint_every=2")
    assert result.code == 0
    assert "length: 3 steps of 8 images, in 2 batches, validated 3 times" in result.out  # not 6 times
    with Path("run/metrics/version_0/metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["val/miou"]] == [0, 1, 2]
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 3
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 6


def test_an_epoch_with_fewer_batches_than_a_step_accumulates(train: Command) -> None:
    result = train("trainer.accumulate_grad_batches=5", "steps=3", "validations=3", "run=five")
    assert result.code == 0
    assert "length: 3 steps of 20 images, in 5 batches, validated 3 times" in result.out
    state = torch.load("five/checkpoints/last.ckpt", weights_only=True)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 15
    with Path("five/metrics/version_0/metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["val/miou"]] == [0, 1, 2]


def test_a_torchvision_model_trains_by_its_name(train: Command) -> None:
    target = "model._target_=torchvision.models.segmentation.lraspp_mobilenet_v3_large"
    assert train(target, "model.weights=null", "model.weights_backbone=null").code == 0


def test_a_model_from_a_users_file_trains(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_network.py").write_text(
        "from torch import nn\n"
        "class Network(nn.Module):\n"
        "    def __init__(self, in_channels, num_classes, width):\n"
        "        super().__init__()\n"
        "        layers = nn.Conv2d(in_channels, width, 3, stride=2), nn.Conv2d(width, num_classes, 1)\n"
        "        self.layers = nn.Sequential(*layers)\n"
        "    def forward(self, image):\n"
        "        return {'out': self.layers(image)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train("model._target_=users_network.Network", "model.width=3").code == 0
    assert Path("run/checkpoints/best.ckpt").exists()


def test_without_validation_the_last_checkpoint_serves(train: Command, command: Command, photos: Path) -> None:
    for split in ("images/val", "masks/val"):
        shutil.rmtree(photos / split)
    assert train(f"data.root={photos}", "data.val=0").code == 0
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["last.ckpt"]
    assert not Path("run/samples").exists()
    assert command("evaluate", "run").code == 0
    assert "run: its data has no val images" in command("evaluate", "run", "--split", "val").error
    assert "expected best.ckpt" in command("evaluate", "run", "--checkpoint", "best").error
    assert command("predict", "run", photos / "images/test", "--out", "out").code == 0


def test_a_sweep_has_a_run_folder_for_each_setting(train: Command) -> None:
    result = train("method=supervised,mean_teacher", "seed=0,1", "--multirun", "run=sweep")
    assert result.code == 0
    expected = {f"method_{method}-seed_{seed}" for method in ("supervised", "mean_teacher") for seed in (0, 1)}
    assert {path.parent.name for path in Path("sweep").glob("*/summary.json")} == expected
    for name in expected:
        config, records = read_config(Path("sweep") / name, trust=True)
        assert f"method_{config['method']['_target_'].split('.')[-2]}-seed_{config['seed']}" == name
        assert f"/sweep/{name}" in records["command"]


def test_a_sweep_goes_on_after_a_run_that_fails(train: Command) -> None:
    message = train("data.labels=100,4", "-m", "run=sweep").error
    assert "1 of the sweep's runs failed: sweep/data.labels_100: data.labels=100: only 8 labeled images" in message
    assert Path("sweep/data.labels_4/summary.json").exists()
    assert not Path("sweep/data.labels_100").exists()


def test_evaluation_prints_and_keeps_its_figures(command: Command, finished: Path) -> None:
    for split in ("test", "val"):
        result = command("evaluate", finished, "--split", split, "--checkpoint", "last")
        assert result.code == 0
        kept = json.loads((finished / f"evaluation-{split}.json").read_text())
        confusion = kept.pop("confusion")
        assert confusion["classes"] == ["0", "1"]
        diagonal = sum(row[index] for index, row in enumerate(confusion["pixels"]))
        pixels = sum(map(sum, confusion["pixels"]))
        assert pixels == 2 * 64 * 64
        assert kept["accuracy"] == pytest.approx(diagonal / pixels)
        by_label, by_prediction = map(sum, confusion["pixels"]), map(sum, zip(*confusion["pixels"], strict=True))
        for index, (label, prediction) in enumerate(zip(by_label, by_prediction, strict=True)):
            right = confusion["pixels"][index][index]
            assert kept[f"iou/{index}"] == pytest.approx(right / (label + prediction - right))
        curves = json.loads((finished / f"evaluation-{split}-curves.json").read_text())
        maps_with_curves = {name.partition("/")[0] for name in curves}
        assert maps_with_curves == {"map", "flaw", "softmax", "entropy", "disagreement"}
        images = read_images(finished / f"evaluation-{split}.csv")
        assert images.value == pytest.approx(kept["miou"], abs=1e-6), "each image once"
        assert (images.checkpoint, len(images.pixels)) == ("last", 2)
        metrics, _, maps = result.out.partition("\n\n")
        printed = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines()}
        assert {"miou", "accuracy", "iou/0", "first/miou", "second/miou"} <= printed.keys()
        title, *rows = maps.splitlines()
        measures = title.removeprefix("errors found by").split()
        assert measures == ["auroc", "aupr", "aurc", "risk80", "ece", "image_spearman"]
        assert [row.split()[0] for row in rows] == ["map", "flaw", "softmax", "entropy", "disagreement"]
        assert len({len(line) for line in (title, *rows)}) == 1, "columns are aligned"
        for name, *figures in (row.split() for row in rows):
            printed |= {f"errors/{name}/{key}": float(value) for key, value in zip(measures, figures, strict=True)}
        assert printed == {name: round(value, 4) for name, value in kept.items()}
    assert kept["miou"] == pytest.approx(json.loads((finished / "summary.json").read_text())["val/miou"], abs=1e-5)


def test_an_absent_class_is_absent(train: Command, command: Command, photos: Path) -> None:
    (photos / "classes.txt").write_text("ground\nsquare\nnowhere\n")
    assert train(f"data.root={photos}", "validations=2").code == 0
    for path in Path("run/checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        state["state_dict"]["method.model.model.last.bias"][2] = -99  # predicts that class nowhere
        torch.save(state, path)
    result = command("evaluate", "run")
    assert result.code == 0
    assert [line for line in result.err.replace("\r", "\n").splitlines() if line and "%|" not in line] == []
    printed = dict(line.split() for line in result.out.partition("\n\n")[0].splitlines())
    assert printed["iou/nowhere"] == "absent"
    text = Path("run/evaluation-test.json").read_text()
    assert "NaN" not in text
    kept = json.loads(text)
    assert kept["iou/nowhere"] is None
    assert kept["miou"] == pytest.approx((kept["iou/ground"] + kept["iou/square"]) / 2)


def test_a_validation_set_without_labels_chooses_nothing(train: Command, command: Command, photos: Path) -> None:
    for path in (photos / "masks/val").iterdir():
        Image.new("L", (64, 64), 255).save(path)
    result = train(f"data.root={photos}", "steps=4", "validations=2", "method=gct")
    assert result.code == 0
    lines = [line.strip() for line in result.err.replace("\r", "\n").splitlines()]
    message = [line for line in lines if line and not line.startswith("train:")]
    assert message == [
        f"semipix: warning: {photos}/masks/val: all pixels of the 2 masks are void (255), so no metric can be "
        "computed; map the values with data.mask_values={VALUE:CLASS}",
        "semipix: validation: no pixel of the 2 images has a label, so there is nothing to measure or choose by; check "
        "the masks, or set data.mask_values",
    ], "once, though validation ran twice"
    assert "NaN" not in Path("run/summary.json").read_text()
    assert "val/miou" not in json.loads(Path("run/summary.json").read_text())
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["last.ckpt"]
    assert command("evaluate", "run").code == 0, "by the last checkpoint"
    assert command("predict", "run", photos / "images/test", "--out", "out").code == 0
    assert "best.ckpt needs validation images with labels" in command("evaluate", "run", "--checkpoint", "best").error
    assert command("evaluate", "run", "--split", "val").error == (
        "semipix: error: run: val: no pixel of the 2 images has a label, so there is nothing to measure; check the "
        "masks, or set data.mask_values"
    )
    assert not Path("run/evaluation-val.json").exists()


def test_a_prediction_is_never_written_over_its_input(
    command: Command, finished: Path, shared_photos: Path, tmp_path: Path
) -> None:
    assert command("predict", finished, shared_photos / "images/test", "--out", "out").code == 0
    mask = Path("out/masks/test0.png")
    before = mask.read_bytes()
    message = command("predict", finished, mask, "--out", "out").error
    assert message == f"semipix: error: {mask}: a result would be written over this input; choose another --out"
    assert mask.read_bytes() == before
    shutil.copytree(shared_photos / "images/test", "photos")
    Path("other").mkdir()
    Path("other/pictures").symlink_to(tmp_path / "photos")
    message = command("predict", finished, "photos", "--out", "other").error
    assert "photos/test0.png: a result would be written over this input" in message
    assert not Path("other/masks").exists()


def test_the_longest_name_that_a_file_may_have(command: Command, finished: Path, shared_photos: Path) -> None:
    name = "x" * 251 + ".png"
    Path("photos").mkdir()
    shutil.copy(shared_photos / "images/test/test0.png", Path("photos") / name)
    assert command("predict", finished, "photos", "--out", "out").code == 0
    assert Path("out/masks", name).exists()


def test_figures_that_cannot_be_kept_are_printed(command: Command, finished: Path) -> None:
    place = finished / "evaluation-test.json"
    place.mkdir()
    result = command("evaluate", finished)
    assert result.error.startswith(
        f"semipix: error: {place}: the figures could not be kept in this file: Is a directory"
    )
    assert "miou" in dict(line.split() for line in result.out.partition("\n\n")[0].splitlines())
    assert not [path for path in finished.iterdir() if path.suffix == ".partial"]
    place.rmdir()
    again = command("evaluate", finished)
    assert (again.code, again.out) == (0, result.out)
    assert place.is_file()


def test_evaluation_is_in_float32_as_prediction_is(finished: Path) -> None:
    """Also of a run that was trained in another precision."""
    whole = measured(finished, trust=True).figures
    text = (finished / "config.yaml").read_text()
    config = yaml.safe_load(text)
    config["trainer"]["precision"] = "bf16-mixed"
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    assert measured(finished, trust=True).figures == pytest.approx(whole, rel=1e-6, nan_ok=True)


def test_prediction_keeps_sizes_subfolders_and_the_good_images(
    command: Command, finished: Path, tmp_path: Path
) -> None:
    images = tmp_path / "new"
    (images / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (66, 81, 3), np.uint8)
    for name in ("a.png", "deep/b.c.jpg", "deep/tiny.png"):
        Image.fromarray(noise[:3, :5] if "tiny" in name else noise).save(images / name)
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:200])

    result = command("predict", finished, images, "--out", images / "out")
    assert result.code == 2
    errors = [line for line in result.err.replace("\r", "\n").splitlines() if line.startswith("semipix: error:")]
    assert len(errors) == 1
    assert f"{images / 'broken.png'}: corrupt or truncated" in errors[0]
    for kind in ("masks", "pictures", "errors"):
        written = {str(path.relative_to(images / "out" / kind)) for path in (images / "out" / kind).rglob("*.*")}
        assert written == {"a.png", "deep/b.c.png", "deep/tiny.png"}
        assert Image.open(images / "out" / kind / "a.png").size == (81, 66)
        assert Image.open(images / "out" / kind / "deep/tiny.png").size == (5, 3)
    mask = np.asarray(Image.open(images / "out/masks/a.png"))
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}

    (images / "out/masks/a.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in (images / "out/masks").rglob("*.png")}
    (images / "broken.png").unlink()
    assert command("predict", finished, images, "--out", images / "out", "--skip-existing").code == 0
    assert (images / "out/masks/a.png").exists()
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_large_images_are_predicted_and_measured_in_tiles(command: Command, finished: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (66, 131, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    masks, maps = [], []
    for tiling in ([], ["--tile", "64", "--overlap", "32"]):
        result = command("predict", finished, tmp_path / "a.png", "--out", "out", *tiling)
        assert result.code == 0
        masks.append(np.asarray(Image.open("out/masks/a.png")))
        maps.append(np.asarray(Image.open("out/errors/a.png")).astype(int))
    line = "semipix: 1 image was computed in tiles of 64 pixels that overlap by 32, each as an image of its own"
    assert line in result.err.splitlines()
    assert masks[0].shape == masks[1].shape == (66, 131)
    assert (masks[0] == masks[1]).mean() > 0.7
    assert 0 < np.abs(maps[0] - maps[1]).mean() < 30
    assert command("evaluate", finished, "--tile", "64").code == 0
    result = command("predict", finished, tmp_path / "a.png", "--out", "out", "--overlap", "32")
    assert result.error == "semipix: error: --overlap: 32 found without --tile; give the side of a tile by --tile N"


def test_an_image_that_the_network_refuses_costs_only_itself(
    command: Command, finished: Path, shared_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = GCT.evidence

    def evidence(self: GCT, image: torch.Tensor) -> Evidence:
        if image.shape[-1] != 64:
            raise RuntimeError("kernel size can't be greater than actual input size\nat line 3")
        return whole(self, image)

    monkeypatch.setattr(GCT, "evidence", evidence)
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    result = command("predict", finished, tmp_path / "small.png", shared_photos / "images/test", "--out", "out")
    assert result.code == 2
    assert "small.png: this image of 9x9 pixels could not be predicted: kernel size can't be greater" in result.err
    assert len(list(Path("out/masks").iterdir())) == 2


def test_data_check(command: Command, photos: Path) -> None:
    good = command("data", "check", photos)
    assert good.code == 0
    assert "problems        0" in good.out
    (photos / "images/train/00.jpg").unlink()
    bad = command("data", "check", photos)
    assert bad.code == 2
    assert str(photos / "masks/train/00.png") in bad.out


def test_data_check_of_pairs(command: Command, tmp_path: Path) -> None:
    for part in ("inputs", "targets"):
        (tmp_path / part / "train").mkdir(parents=True)
        Image.new("L", (8, 6), 128).save(tmp_path / part / "train/a.png")
    assert "kind      regression" in command("data", "check", tmp_path).out
    for given in (["--kind", "matting"], ["data.kind=matting"], ["kind=matting", "--kind", "matting"]):
        result = command("data", "check", tmp_path, *given)
        assert (result.code, "kind      matting" in result.out) == (0, True)
    layout = "but the folder's layout says what reads it; leave it out"
    for given, message in (
        (["data.kind=denoising", "--kind", "matting"], "data.kind: 'denoising' found, but also --kind matting"),
        (["data=pairs"], f"data: 'pairs' found, {layout}"),
        (["data._target_=a.B"], f"data._target_: 'a.B' found, {layout}"),
        (["data.root=other"], "data.root: the folder is given already"),
    ):
        assert message in command("data", "check", tmp_path, *given).error
    missing = command("data", "check", tmp_path / "missing", "data.kind=regression")
    assert (missing.code, "missing: found nothing, expected a data folder" in missing.out) == (2, True)


HEAVY = {
    *("torch", "torchvision", "torchmetrics", "lightning", "timm", "segmentation_models_pytorch", "tensorboard"),
    *("numpy", "PIL", "pandas", "pyarrow", "sympy", "hydra", "omegaconf", "yaml", "ray", "submitit"),
    *("sklearn", "scipy"),
}
"""What help has no use for."""


def test_launchers_are_found_without_what_they_need() -> None:
    program = (
        "import sys; import semipix.launch.app\n"
        "from hydra.core.plugins import Plugins\n"
        "from hydra.plugins.launcher import Launcher\n"
        "found = {launcher.__name__ for launcher in Plugins.instance().discover(Launcher)}\n"
        "assert {'RayLauncher', 'SlurmLauncher', 'BasicLauncher'} <= found, found\n"
        "heavy = {'ray', 'submitit', 'timm', 'segmentation_models_pytorch', 'tensorboard'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_help_is_quick() -> None:
    program = (
        "import sys; from semipix.cli import main; assert main(['train', '--help']) == 0\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "second_model" in ended.stdout
    assert "predict" in ended.stdout
