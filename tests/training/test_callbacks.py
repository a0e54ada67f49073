"""Which checkpoint is kept, and what the sample pictures show."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import Precision
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.io import read_image

from semipix.batch import EvalSample
from semipix.methods.large_images import LargeImages
from semipix.methods.tiles import Tiling
from semipix.training.callbacks import BestCheckpoint, SamplePictures
from tests.helpers.learners import make_learner
from tests.helpers.tiny import make_method

NAN = float("nan")


class Scripted(pl.LightningModule):
    """Validates after each step, with a given value each time."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.values = values

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/miou", self.values[self.global_step - 1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [NAN, 0.2, NAN, 0.1], 2),
        ("min", [NAN, 0.2, NAN, 0.1], 4),
        ("max", [0.3, NAN, 0.2], 1),
        ("max", [NAN, NAN], None),
    ],
)
def test_a_checkpoint_is_never_chosen_by_nan(mode: str, values: list[float], best: int | None, tmp_path: Path) -> None:
    fit(values, tmp_path, mode=mode)
    path = tmp_path / "best.ckpt"
    assert path.exists() == (best is not None)
    if best is not None:
        assert torch.load(path, weights_only=True)["global_step"] == best


def fit(
    values: list[float], folder: Path, mode: str = "max", steps: int | None = None, resumed: Path | None = None
) -> BestCheckpoint:
    """Train for some or all of the steps, and write `last.ckpt` and `best.ckpt` into a folder."""
    callback = BestCheckpoint(folder, filename="best", monitor="val/miou", mode=mode, enable_version_counter=False)
    data = DataLoader(torch.zeros(len(values), 1))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps or len(values),
        max_epochs=-1,
        val_check_interval=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Scripted(values), data, DataLoader(torch.zeros(1, 1)), ckpt_path=resumed, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return callback


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_was_moved_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    values, old, new = [0.1, 0.3, 0.2], tmp_path / "old", tmp_path / "new"
    fit(values, old, steps=2)
    old.rename(new)
    callback = fit(values, new, resumed=new / "last.ckpt")
    path = str(new / "best.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == 2
    assert callback.best_model_path == callback.kth_best_model_path == path
    assert callback.best_k_models == {path: torch.tensor(0.3)}
    assert callback.last_model_path == ""


def test_checkpoints_of_older_trainings_fit() -> None:
    given = {"monitor": "val/miou", "mode": "max"}
    assert BestCheckpoint(**given).state_key == ModelCheckpoint(**given).state_key


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (200, 96), (200, 40)])
def test_of_a_large_image_the_middle_is_shown(size: tuple[int, int], tmp_path: Path) -> None:
    learner = make_learner(make_method("supervised")).eval()
    learner.large = LargeImages(learner.method, tiling=Tiling(64, 0))
    seen: list[tuple[int, ...]] = []
    learner.method.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    label = torch.randint(3, size)
    image = (label / 4).expand(3, -1, -1)  # of class 1 are the pixels of 1/4
    target = label.repeat_interleave(2, 0).repeat_interleave(2, 1)
    samples = [EvalSample(image, target, "a")]
    trainer: Any = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        global_step=1,
        val_dataloaders=SimpleNamespace(dataset=samples),
        precision_plugin=Precision(),
    )
    SamplePictures(tmp_path, side=64).on_validation_end(trainer, learner)
    height, width = (min(side, 64) for side in size)
    assert seen == [(height, width)], "no more than what validation computes at once"
    rows = read_image(str(tmp_path / "step-000001.png"))
    shown, drawn = (rows[:, 2 : 2 + height, left : left + width] for left in (2, 68))  # in frames of 2 pixels

    def middle(maps: Tensor) -> Tensor:
        top, left = ((side - part) // 2 for side, part in zip(size, (height, width), strict=True))
        return maps[..., top : top + height, left : left + width]

    torch.testing.assert_close(shown.float(), middle(image) * 255, atol=1, rtol=0)
    expected = learner.method.task.render(middle(image), learner.method.task.encode(middle(label)[None])[0])
    torch.testing.assert_close(drawn.float(), expected.float(), atol=1, rtol=0)
