"""Two processes with half of each batch take one step by the mean of their gradients."""

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import SGD

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.training.learner import Learner
from tests.helpers.data import encoded, write
from tests.helpers.processes import ROOT, free_port
from tests.helpers.tiny import TinySource, make_data, make_method, method_class, options

EPOCHS, IMAGES = 2, 16
"""Passes over the pool of shards, and its images."""

STEPS = 3
"""Mean Teacher's teacher equals its student during the first two."""
SECONDS = 240
"""Longest wait for the two processes; they take a tenth of it."""

ROUNDING = 3e-5
"""Largest difference of weights: in three steps, means of two halves are rounded differently from means of all."""

REPEATABLE = [name for name in options("method") if not method_class(name).draws_numbers]
"""Methods that draw no random numbers within a step; with the others each process draws its own."""

DETECTING = ("gct", "gct_strong")
"""Methods whose detector learns from some of the labeled images of each process."""

FACTORY = functools.partial(SGD, lr=0.01, momentum=0.9)
"""All optimizers are SGD, since Adam can turn a rounding error into a full step."""


def make(name: str) -> tuple[Learner, SemiSupervisedDataModule]:
    """A method with one SGD for all networks, and eight images a step, all of one size and without void.

    Running statistics are frozen, for each process would normalise by its own half.
    """
    # Each process has this many labeled images for its detector, so all of them are taken. It learns so slowly that
    # its probabilities stay around the threshold of `test_options`, and each term takes part.
    every_image = {"detection_images": 8, "lambda_detection": 0.01} if name in DETECTING else {}
    method = make_method(name, **method_class(name).test_options, **every_image)
    method.optimizers = lambda make: [make(method)]  # type: ignore[method-assign]
    learner = Learner(method, optimizer=FACTORY, freeze_batch_norm=True)
    source = TinySource(labeled=8, unlabeled=8, size=(64, 72))
    return learner, make_data(method, source, batch_size=8, crop=64, scale=(1.0, 1.0))


def make_trainer(**given: Any) -> pl.Trainer:
    """A trainer that neither measures nor writes."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        **given,
    )


def train(name: str, **given: Any) -> dict[str, Tensor]:
    """Weights after three steps by the trainer."""
    learner, data = make(name)
    make_trainer(max_steps=STEPS, **given).fit(learner, datamodule=data)
    return learner.method.state_dict()


def epoch_of_rank(data: SemiSupervisedDataModule, epoch: int, rank: int) -> list[dict[str, Any]]:
    """The batches of one epoch that one of two processes trains."""
    data._place = lambda: (rank, 2)  # type: ignore[method-assign]
    loader = data.train_dataloader()
    for stream in loader.flattened:
        stream.sampler.set_epoch(epoch)
    return [batch for batch, _, _ in loader]


def simulate(name: str) -> dict[str, Tensor]:
    """Weights after three steps by hand, each one by the mean gradient of two halves that draw numbers of their own."""
    learner, data = make(name)
    method = learner.method
    trained = {key: value for key, value in method.named_parameters() if value.requires_grad}
    learner.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))  # type: ignore[assignment]
    learner.setup("fit")
    optimizer = FACTORY(trained.values())
    seeds = set()
    for step in range(STEPS):
        epoch, index = divmod(step, data.batches_per_epoch)
        gradients = []
        for rank in range(2):
            batch = epoch_of_rank(data, epoch, rank)[index]
            learner.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)  # type: ignore[assignment]
            learner.on_train_batch_start(batch, index)
            seeds.add(torch.initial_seed())
            half = learner._assemble(batch)
            assert len(half.image) == 4
            losses = method.losses(half, epoch + index / data.batches_per_epoch)
            gradients.append(torch.autograd.grad(sum(losses.values()), list(trained.values()), allow_unused=True))
        for (key, value), first, second in zip(trained.items(), *gradients, strict=True):
            assert first is not None and second is not None, f"{key}: two processes would wait for its gradient"
            value.grad = (first + second) / 2
        optimizer.step()
        method.after_step()
    silent = {term for term, loss in losses.items() if not loss > 0}
    assert not silent, f"{silent} take no part in the last step"
    assert len(seeds) == 2 * STEPS, "every process draws its own numbers in every step"
    return method.state_dict()


class Seen(Callback):
    """Notes the unlabeled images of each epoch of this process."""

    def __init__(self) -> None:
        self.epochs: list[list[str]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self.epochs[-1] += [Path(name).stem for name in batch["unlabeled"].names]


def train_on_shards(pool: Path, **given: Any) -> list[list[str]]:
    """Two epochs of a method whose unlabeled images come from shards: the images of each epoch."""
    method = make_method("mean_teacher")
    shards = {"shards": f"{pool}/pool-{{0..2}}.tar", "shard_buffer": 3, "workers": 2}
    data = make_data(method, TinySource(labeled=8, size=(64, 72)), batch_size=8, crop=64, **shards)
    seen = Seen()
    trainer = make_trainer(max_epochs=EPOCHS, callbacks=[seen], **given)
    trainer.fit(Learner(method, optimizer=FACTORY, freeze_batch_norm=True), datamodule=data)
    return seen.epochs


def write_pool(folder: Path) -> None:
    """Three shards of 16 images in all, each named by its number."""
    numbers = iter(range(IMAGES))
    for shard, count in enumerate((7, 3, 6)):
        files = {f"{number:02d}.png": encoded(number, (64, 72)) for number in itertools.islice(numbers, count)}
        write(folder / f"pool-{shard}.tar", files)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has trained and seen."""
    folder = tmp_path_factory.mktemp("ddp")
    write_pool(folder)
    settings = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "tests.training.test_ddp", str(folder)]
    logs = [folder / f"{rank}.log" for rank in range(2)]
    running = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            environment = {**settings, "LOCAL_RANK": str(rank)}
            running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
    try:
        codes = [process.wait(SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def of_two(processes: list[dict[str, Any]]) -> dict[str, dict[str, Tensor]]:
    """Weights of every method, trained by two processes."""
    states: list[dict[str, dict[str, Tensor]]] = [process["states"] for process in processes]
    for name in states[0]:
        for key, value in states[0][name].items():
            assert torch.equal(value, states[1][name][key]), f"{name}: the processes differ in {key}"
    return states[0]


def assert_same_steps(name: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Same weights, and steps that are larger than the tolerance."""
    start = make_method(name, **method_class(name).test_options).state_dict()
    assert found.keys() == expected.keys() == start.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key], value, rtol=0, atol=ROUNDING, msg=lambda message, key=key: f"{key}: {message}"
        )
    moved = max(float((value - start[key]).abs().max()) for key, value in expected.items() if value.is_floating_point())
    assert moved > 1e-3, "the steps are larger than the tolerance"


@pytest.mark.parametrize("name", options("method"))
def test_two_processes_step_by_their_mean_gradient(name: str, of_two: dict[str, dict[str, Tensor]]) -> None:
    assert_same_steps(name, of_two[name], simulate(name))


@pytest.mark.filterwarnings("ignore:.*isinstance.*deprecated.*", "ignore:.*in eval mode at the start.*")
@pytest.mark.parametrize("name", REPEATABLE)
def test_two_processes_step_as_one_with_the_whole_batch(name: str, of_two: dict[str, dict[str, Tensor]]) -> None:
    assert_same_steps(name, of_two[name], train(name))


def test_two_processes_share_a_pass_over_shards(processes: list[dict[str, Any]]) -> None:
    first, second = (process["images"] for process in processes)
    assert len(first) == len(second) == EPOCHS
    everything = {f"{number:02d}" for number in range(IMAGES)}
    for mine, others in zip(first, second, strict=True):
        assert len(mine) == len(others) == IMAGES // 2
        assert {*mine, *others} == everything, "each image once"
    assert first[0] != first[1] and set(first[0]) != set(first[1]), "shards are dealt out again in another order"


def main(folder: Path) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    states = {name: train(name, strategy="ddp", devices=2) for name in options("method")}
    images = train_on_shards(folder, strategy="ddp", devices=2)
    torch.save({"states": states, "images": images}, folder / f"{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
