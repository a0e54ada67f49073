"""Classes that a training does not find."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torchvision import tv_tensors

from semipix.data.class_balance import balanced_weights, class_pixels
from semipix.launch.compose import compose
from semipix.tasks.segmentation import Segmentation
from semipix.training import build
from semipix.training.configuration import Configuration
from semipix.training.learner import Learner
from semipix.training.missed_classes import LEAST_IOU, LabelCounts, advice, below
from tests.conftest import Result
from tests.helpers.learners import fit, make_learner
from tests.helpers.tiny import TinyModel, TinySource, make_data, make_method, predict_always, rand

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.*deprecated.*")


def test_a_class_counts_where_validation_has_it_and_its_iou_is_low() -> None:
    ious = {"sky": 0.9, "pole": 0.0, "sign": LEAST_IOU, "dog": 0.0}
    metrics = {f"val/iou/{name}": torch.tensor(iou) for name, iou in ious.items()}
    counts = torch.tensor([9, 4, 1, 0])
    assert below(metrics, counts, list(ious)) == {"pole": 0.0}
    assert below({}, counts, list(ious)) == {}


def test_counts_are_those_of_one_validation() -> None:
    counter, source = LabelCounts(), TinySource(val=3)
    pixels = torch.cat([source.target(name).flatten() for name in source.val()])
    options = {"limit_val_batches": 1.0, "num_sanity_val_steps": 1, "val_check_interval": 1}
    fit(make_learner(make_method("supervised")), source, callbacks=[counter], check_val_every_n_epoch=None, **options)
    assert counter.pixels[:3].tolist() == pixels.bincount().tolist()
    assert int(counter.pixels.sum()) == len(pixels)


def test_advice_leaves_out_what_is_set_already() -> None:
    method = make_method("supervised")
    data = make_data(method, TinySource(label=0))
    line = advice({"class 1": 0.012}, data, weights=None)
    assert (
        "hardly finds classes that its labels have (IoU below 0.05): class 1 (0.012); try task.class_weights=" in line
    )
    assert "task.class_weights=sqrt_balanced or balanced, a data.rare_share above 0.33, a smaller data.crop" in line
    assert line.endswith("no labeled training image has a pixel of class 1")
    line = advice({"class 0": 0.0}, make_data(method, TinySource(label=0), rare_share=1.0), weights=[0.3, 9.0])
    assert "balanced" not in line
    assert "rare_share" not in line
    assert line.endswith("or more labels with these classes")
    assert "try task.class_weights=balanced, a" in advice({"class 0": 0.0}, data, weights=[0.6, 3.16])


def never_finds(monkeypatch: pytest.MonkeyPatch, label: int) -> None:
    """Make each training end with a model that predicts the other class."""
    whole = TinyModel.forward

    def forward(self: TinyModel, image: torch.Tensor) -> torch.Tensor:
        if not self.training:
            predict_always(self, 1 - label)
        return whole(self, image)

    monkeypatch.setattr(TinyModel, "forward", forward)


def test_a_training_names_them(
    train: Callable[..., Result], command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    never_finds(monkeypatch, 1)
    result = train("validations=1")
    assert result.code == 0
    assert json.loads(Path("run/summary.json").read_text())["missed_classes"] == ["1"]
    assert (
        "semipix: the last validation hardly finds classes that its labels have (IoU below 0.05): 1 (0.000); try"
        in (result.err)
    )

    before = json.loads(Path("run/summary.json").read_text())
    Path("run/summary.json").unlink()  # as if it had been killed after its last checkpoint
    assert "1 (0.000); try" in command("train", "resume=run", "--trust").err
    again = json.loads(Path("run/summary.json").read_text())
    costs = {"seconds", "step_seconds", "peak_memory_mib"}
    assert {key: again[key] for key in again if key not in costs} == {key: before[key] for key in before.keys() - costs}


def test_weights_of_a_run_are_numbers_from_its_labels(
    train: Callable[..., Result], command: Callable[..., Result], photos: Path
) -> None:
    """Two of three classes are in the masks; the counts are those of the four labels of this run."""
    (photos / "classes.txt").write_text("ground\nsquare\nnothing\n")
    result = train("task.class_weights=balanced", f"data.root={photos}", "validations=0")
    assert result.code == 0, result.err
    names = json.loads(Path("run/split.json").read_text())["labeled"]
    masks = [torch.tensor(list(Image.open(photos / f"masks/train/{Path(name).stem}.png").tobytes())) for name in names]
    ground, square = torch.cat(masks).bincount().tolist()
    total = ground + square
    expected = [total / 2 / ground, total / 2 / square, 1.0]
    assert yaml.safe_load(Path("run/config.yaml").read_text())["task"]["class_weights"] == pytest.approx(
        expected, rel=1e-3
    )
    assert (
        "warning: task.class_weights=balanced: none of the 4 labeled images has a pixel of nothing, whose weight is 1"
        in result.err
    )
    for name in names:  # no label is needed any more
        (photos / f"masks/train/{Path(name).stem}.png").unlink()
    assert command("predict", "run", photos / "images/test", "--out", "out").code == 0


def weights_of_run(run: str) -> Any:
    return yaml.safe_load(Path(run, "config.yaml").read_text())["task"]["class_weights"]


def test_a_training_weights_classes_by_default(train: Callable[..., Result], photos: Path) -> None:
    """By the roots of balanced weights, without a line about a class without a label, and not where that cannot be."""
    (photos / "classes.txt").write_text("ground\nsquare\nnothing\n")
    root = f"data.root={photos}"
    found: dict[str, Any] = {}
    for word in ("auto", "sqrt_balanced"):
        result = train(f"task.class_weights={word}", root, "validations=0", f"run={word}")
        found[word] = weights_of_run(word)
        assert ("nothing, whose weight is 1" in result.err) == (word != "auto"), result.err
    assert train(root, "validations=0", "run=default").code == 0
    assert weights_of_run("default") == found["auto"] == found["sqrt_balanced"]
    assert min(found["auto"]) < 1 < max(found["auto"])
    assert train(root, "validations=0", "task.class_weights=null", "run=equal").code == 0
    assert weights_of_run("equal") is None
    assert train(root, "validations=0", "task.loss=[cross_entropy,lovasz]", "run=lovasz").code == 0
    assert weights_of_run("lovasz") is None


def test_of_many_labels_some_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MOST_COUNTED", 3)
    source = TinySource(labeled=7, unlabeled=0, val=1)
    read: list[str] = []
    whole = source.target
    monkeypatch.setattr(source, "target", lambda name: (read.append(name), whole(name))[1])
    data = make_data(make_method("supervised"), source)
    configuration = Configuration.parse(compose(["data=scenes", "task.classes=3"]))
    weights = build.with_class_weights(configuration, data).task.options["class_weights"]
    assert read == data.split.labeled[::3]
    assert weights == balanced_weights(class_pixels(source, [*read]), len(weights), 0.5)


class Field(TinySource):
    """Soil with weeds on 6 % of the pixels and crop plants on 2 %, which colours tell apart."""

    COLOURS = torch.tensor([[0.5, 0.4, 0.3], [0.35, 0.5, 0.3], [0.45, 0.6, 0.15]])

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        noise = rand(3, 96, 96, seed=self._number(name)) - 0.5
        return tv_tensors.Image(self.COLOURS[self.target(name).long()].permute(2, 0, 1) + 0.2 * noise)

    def target(self, name: str) -> tv_tensors.Mask:
        draw = torch.Generator().manual_seed(self._number(name))
        mask = torch.zeros(96, 96, dtype=torch.uint8)
        for label, plants, side in ((1, 9, 8), (2, 6, 5)):
            for y, x in torch.randint(90, (plants, 2), generator=draw).tolist():
                mask[y : y + side, x : x + side] = label
        return tv_tensors.Mask(mask)


@pytest.mark.slow
def test_a_rare_class_is_lost_and_found_with_both_settings() -> None:
    source = Field(labeled=3, unlabeled=0, val=2)
    pixels = class_pixels(source, source.labeled())
    assert pixels[2] < 0.02 * pixels.total()

    def iou(class_weights: list[float] | None, rare_share: float) -> float:
        """IoU of the crop plants after 60 steps."""
        task = Segmentation(3, class_weights)
        method = make_method("supervised", task=task)
        learner = Learner(method, optimizer=functools.partial(torch.optim.Adam, lr=0.01))
        fit(learner, source, {"crop": 24, "batch_size": 8, "rare_share": rare_share}, max_steps=60)
        metrics = task.metrics()
        for image, target in map(source.pair, source.val()):
            prediction = task.activate(method.eval()(torch.stack([image.as_subclass(torch.Tensor)])))
            metrics.update(prediction, torch.stack([target.as_subclass(torch.Tensor)]).long())
        return float(metrics.compute()["iou/2"])

    assert iou(None, 0.0) < LEAST_IOU
    assert iou(balanced_weights(pixels, 3), 1 / 3) > 0.3
