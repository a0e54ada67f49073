"""Data-loading workers, however they are started."""

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from semipix.data.batches import workers
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.cache import MemoryCache
from semipix.data.sources.folder import FolderSource
from semipix.errors import SemipixError
from semipix.training.learner import Learner
from tests.data.conftest import noise, save
from tests.helpers.tiny import make_data, make_method


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three labeled and three unlabeled images of noise."""
    for number in range(6):
        save(tmp_path / f"images/train/{number}.png", noise(40, 44, 3, seed=number))
        if number < 3:
            save(tmp_path / f"masks/train/{number}.png", noise(40, 44, seed=number, top=3))
    return tmp_path


def trained(root: Path, **given: Any) -> tuple[dict[str, Tensor], SemiSupervisedDataModule]:
    """Weights after two steps, and what read the images."""
    method = make_method("mean_teacher")
    data = make_data(method, FolderSource(root), **given)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Learner(method, optimizer=functools.partial(SGD, lr=0.01)), datamodule=data)
    return method.state_dict(), data


def test_a_fork_server_changes_no_weight(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = trained(root)
    monkeypatch.setenv(workers.CHOSEN, "forkserver")
    found, data = trained(root, workers=2, cache="memory", cache_limit=0.01)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert isinstance(data.source.reader.cache, MemoryCache)
    assert data.source.reader.cache._used[1] == 9  # what the workers have read is here too


@pytest.mark.filterwarnings("error:Got pickle error")
def test_a_source_that_cannot_be_sent_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(root)
    source.weight = lambda name: 1  # type: ignore[attr-defined]
    monkeypatch.setenv(workers.CHOSEN, "forkserver")
    loader = make_data(make_method("mean_teacher"), source, workers=1).train_dataloader()
    with pytest.raises(SemipixError, match=r"data: FolderSource cannot be sent .*<lambda>.*or set data\.workers=0"):
        next(iter(loader))
