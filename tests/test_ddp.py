"""Two processes with half of each batch take the steps that one process takes with the whole batch."""

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from semipix.learner import Learner
from tests.tiny import TinySource, make_data, make_method, options

STEPS = 3
"""Mean Teacher's teacher equals its student during the first two."""
SECONDS = 240
"""Longest wait for the two processes; they take a tenth of it."""

GIVEN = {"gct": {"flaw_threshold": 0.5, "rampup_epochs": 0}}


def train(name: str, **given: Any) -> dict[str, Tensor]:
    """Weights after three steps of a method on eight images each, all of one size and without void.

    Running statistics are frozen, for each process would normalise by its own half. All optimizers are SGD, for Adam
    makes a step of full length out of a rounding error.
    """
    method = make_method(name, **GIVEN.get(name, {}))
    method.optimizers = lambda make: [make(method)]  # type: ignore[method-assign]
    factory = functools.partial(SGD, lr=0.01, momentum=0.9)
    learner = Learner(method, optimizer=factory, freeze_batch_norm=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        **given,
    )
    source = TinySource(labeled=8, unlabeled=8, size=(64, 72))
    data = make_data(method, source, batch_size=8, crop=64, scale=(1.0, 1.0))
    trainer.fit(learner, datamodule=data)
    assert all(value > 0 for value in trainer.callback_metrics.values()), "every term takes part"
    return method.state_dict()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """Weights of every method, trained by two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    settings = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "tests.test_ddp", str(folder)]
    root = Path(__file__).parents[1]
    logs = [folder / f"{rank}.log" for rank in range(2)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            environment = {**settings, "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, cwd=root, env=environment, stdout=file, stderr=file))
    try:
        codes = [process.wait(SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    states: list[dict[str, dict[str, Tensor]]] = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    for name in states[0]:
        for key, value in states[0][name].items():
            assert torch.equal(value, states[1][name][key]), f"{name}: the processes differ in {key}"
    return states[0]


@pytest.mark.filterwarnings("ignore:.*isinstance.*deprecated.*", "ignore:.*in eval mode at the start.*")
@pytest.mark.parametrize("name", options("method"))
def test_two_processes_step_as_one(name: str, of_two: dict[str, dict[str, Tensor]]) -> None:
    start = make_method(name, **GIVEN.get(name, {})).state_dict()
    expected = train(name)
    for key, value in expected.items():
        torch.testing.assert_close(of_two[name][key], value, rtol=0, atol=1e-5)
    moved = max(float((value - start[key]).abs().max()) for key, value in expected.items() if value.is_floating_point())
    assert moved > 1e-3, "the steps are larger than the tolerance"


def main(folder: Path) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    states = {name: train(name, strategy="ddp", devices=2) for name in options("method")}
    torch.save(states, folder / f"{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
