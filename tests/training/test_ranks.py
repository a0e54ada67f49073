"""When one of two processes of a training is killed, both end, and the training can be resumed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from semipix.training.checkpoints import read_checkpoint
from tests.helpers.processes import ROOT, free_port
from tests.helpers.tiny import TinyModel

SECONDS = 900
"""Longest wait for two processes; they take a fiftieth of it on a machine of their own."""

TRAINING = (
    *("train", "data=scenes", "data.size=64", "data.train=12", "data.val=2", "data.test=0", "data.labels=1/2"),
    *("data.crop=64", "data.workers=0", "data.batch_size=8", "method=mean_teacher"),
    *("model._target_=tests.training.test_ranks.Deadly", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    *("trainer.sync_batchnorm=false", "steps=4", "validations=0", "checkpoint_every=1", "run=run"),
)
BY_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1")


class Deadly(TinyModel):
    """A model that ends its process in the third step, in the rank that `KILL_RANK` in the environment names."""

    def forward(self, image: Tensor) -> Tensor:
        self.steps = getattr(self, "steps", 0) + self.training
        if self.steps == 3 and os.environ.get("KILL_RANK") == os.environ.get("LOCAL_RANK", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(image)


def run(folder: Path, command: Sequence[str], kill: str = "none") -> tuple[int, str]:
    """Exit status and output, which ends when the last process has ended that writes there."""
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "MASTER_PORT")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "KILL_RANK": kill}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=SECONDS)[0]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.mark.parametrize(("started_by", "killed"), [("lightning", "1"), ("torchrun", "0")])
def test_a_killed_rank_ends_all_and_the_training_resumes(started_by: str, killed: str, tmp_path: Path) -> None:
    torchrun = [*BY_TORCHRUN, f"--master-port={free_port()}", "-m", "semipix.cli"]
    command = torchrun if started_by == "torchrun" else [sys.executable, "-m", "semipix.cli"]
    code, output = run(tmp_path, [*command, *TRAINING], kill=killed)
    assert code != 0, output
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == 2
    assert not (tmp_path / "run/summary.json").exists()
    code, output = run(tmp_path, [*command, "train", "resume=run", "--trust"])
    assert code == 0, output
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 4
    assert "run: 4 steps, see run/summary.json" in output
    assert output.count("run: 4 steps") == 1, "one process reports"


def test_a_killed_first_rank_ends_the_one_that_it_started(tmp_path: Path) -> None:
    code, output = run(tmp_path, [sys.executable, "-m", "semipix.cli", *TRAINING], kill="0")
    assert code == -signal.SIGKILL, output
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == 2
