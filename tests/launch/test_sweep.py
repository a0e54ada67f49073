"""Sweeps whose jobs are killed, by every launcher; what is missing is done by the same command."""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from semipix.launch import sweep
from semipix.launch.sweep import Job, Record, primary, run_job
from semipix.training.run_folder import read_config
from tests.conftest import Result
from tests.helpers.tiny import TinyModel

Command = Callable[..., Result]

DEADLY = "tests.launch.test_sweep.Deadly"
STEPS = ("steps=6", "checkpoint_every=1", "validations=1")


class Deadly(TinyModel):
    """A model of width 5 ends its process, or the one that started it, in the third step that it trains.

    `KILL` in the environment says whom and, if only once, names a file by which it is known that it was.
    """

    def forward(self, image: Tensor) -> Tensor:
        whom, _, once = os.environ.get("KILL", "").partition(":")
        self.steps = getattr(self, "steps", 0) + self.training
        if whom and self.steps == 3 and self.last.in_channels == 5 and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            os.kill(os.getpid() if whom == "job" else os.getppid(), signal.SIGKILL)
        return super().forward(image)


def jobs(folder: str = "sweep") -> dict[str, dict[str, Any]]:
    """Records by the width of the job's model."""
    return {path.stem[-1]: json.loads(path.read_text()) for path in Path(folder, "jobs").glob("*.json")}


def written() -> list[int]:
    """When each job wrote its summary."""
    return [path.stat().st_mtime_ns for path in sorted(Path("sweep").glob("*/summary.json"))]


def test_a_killed_job_is_retried_and_the_same_command_does_what_is_missing(
    train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (f"model._target_={DEADLY}", "model.width=5,4", "-m", "run=sweep", *STEPS)
    monkeypatch.setenv("KILL", "job")
    result = train(*given)
    assert "1 of the sweep's runs failed: sweep/model.width_5: SIGKILL, see" in result.error
    assert "the same command with run=sweep does what is missing" in result.error
    assert result.out.splitlines()[0].split() == ["job", "state", "metric"]
    assert result.out.splitlines()[1].split()[:3] == ["model.width_4", "finished", "val/miou"]
    assert result.out.splitlines()[2].split() == ["model.width_5", "killed", "-"]
    assert {width: (job["state"], job["tries"]) for width, job in jobs().items()} == {
        "4": ("finished", 1),
        "5": ("killed", 2),
    }
    started = [path.name for path in sorted(Path("sweep/model.width_5/metrics").iterdir())]
    assert started == ["version_0", "version_1"], "the second try resumed the first"

    before = written()
    monkeypatch.delenv("KILL")
    result = train(*given)
    assert result.code == 0
    assert {width: job["state"] for width, job in jobs().items()} == {"4": "finished before", "5": "finished"}
    assert before[0] == written()[0]
    assert len(written()) == 2
    assert len(list(Path("sweep/model.width_5/metrics").iterdir())) == 3, "it was resumed, not trained again"


def test_ray_retries_a_job_whose_worker_dies(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("KILL", f"worker:{tmp_path / 'once'}")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray.init(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    try:
        result = train(
            f"model._target_={DEADLY}", "model.width=5,4", "-m", "run=sweep", *STEPS, "hydra/launcher=ray_cluster"
        )
    finally:
        ray.shutdown()
    assert (result.code, (tmp_path / "once").exists()) == (0, True), result.err
    assert {width: job["state"] for width, job in jobs().items()} == {"4": "finished", "5": "finished"}
    started = [path.name for path in sorted(Path("sweep/model.width_5/metrics").iterdir())]
    assert started == ["version_0", "version_1"], "the second worker resumed what the first had trained"


def test_submitit_goes_on_after_a_job_whose_launcher_dies(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("submitit.core.core")
    monkeypatch.setattr(core.Job, "_results_timeout_s", 1)  # seconds in which a job that is over writes its result
    monkeypatch.setenv("KILL", "launcher")
    given = (f"model._target_={DEADLY}", "model.width=5,4", "-m", "run=sweep", *STEPS, "hydra/launcher=submitit_local")
    message = train(*given).error
    assert "sweep/model.width_5: its process died" in message
    assert {width: job["state"] for width, job in jobs().items()} == {"4": "finished", "5": "running"}
    monkeypatch.delenv("KILL")
    assert train(*given).code == 0
    states = {width: job["state"] for width, job in jobs().items()}
    assert states["4"] == "finished before"
    assert states["5"] in ("finished", "finished before"), "a training that outlives its launcher may end by itself"
    assert {path.parent.name for path in Path("sweep").glob("*/summary.json")} == {"model.width_4", "model.width_5"}


def a_job(folder: Path, config: Mapping[str, Any]) -> Job:
    return Job(folder / "one", folder, "this", ["never=trained"], lambda: config, folder, [])


def test_a_folder_of_another_training_is_left_alone(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    finished.rename(tmp_path / "sweep/one")
    config, _ = read_config(tmp_path / "sweep/one", trust=True)
    same = {**config, "run": "elsewhere", "task": {"_target_": config["task"]["_target_"]}}
    assert run_job(a_job(tmp_path / "sweep", same)).state == "finished before"
    record = run_job(a_job(tmp_path / "sweep", {**config, "seed": 7}))
    assert record.state == "failed"
    assert record.reason.startswith("seed=0 found in its config.yaml, 7 expected: it holds another training")


@pytest.mark.parametrize(
    ("group", "key", "stored", "words"),
    [
        ("method", "flaw_threshold", 0.9, "++method.flaw_threshold=0.9"),
        ("data", "rotate", 90.0, "data.rotate=90"),
        ("data", "strong_blur", 0.25, "data.strong_blur=0.25"),
        ("trainer", "sync_batchnorm", True, "trainer=ddp"),
    ],
)
def test_a_key_that_only_the_earlier_command_had_is_missed(
    group: str, key: str, stored: Any, words: str, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    finished.rename(tmp_path / "sweep/one")
    path = tmp_path / "sweep/one/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"] = {"_target_": "semipix.models.smp.SMP"}
    now = {name: value for name, value in config.items() if name not in ("versions", "command")}
    now[group] = {name: value for name, value in config[group].items() if name != key}

    def record(command: str) -> Record:
        changed = {**config, group: {**config[group], key: stored}, "command": command}
        path.write_text(yaml.safe_dump(changed))
        return run_job(a_job(tmp_path / "sweep", now))

    missed = record(f"semipix train data=folder {words} run=one")
    assert missed.state == "failed"
    assert missed.reason.startswith(f"{group}.{key}={stored!r} found in its config.yaml, since its command had {group}")
    assert record("semipix train data=folder run=one").state == "finished before", "a default that has changed"
    assert record("semipix train 'data=folder").state == "finished before", "no command line"


def test_class_weights_that_a_job_computed_are_its_own(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    finished.rename(tmp_path / "sweep/one")
    path = tmp_path / "sweep/one/config.yaml"
    config, _ = read_config(tmp_path / "sweep/one", trust=True)
    assert isinstance(config["task"]["class_weights"], list)

    def state(weights: Any, **task: Any) -> str:
        given = {**config, "run": "elsewhere", "task": {**config["task"], **task, "class_weights": weights}}
        return run_job(a_job(tmp_path / "sweep", given)).state

    by_default = ["auto", "sqrt_balanced", "balanced", None, [1, 2]]
    finished_before = [weights for weights in by_default if state(weights) == "finished before"]
    assert finished_before == ["auto", "sqrt_balanced"], "two words of the same weights, which no word asked for"
    path.write_text(path.read_text().replace("command: ", "command: task.class_weights=balanced "))
    assert [state(weights) for weights in ("balanced", "auto")] == ["finished before", "failed"]

    def write(**task: Any) -> None:
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**content, "task": {**content["task"], **task}}))

    write(class_weights=None)
    assert [state(weights) for weights in (None, "auto")] == ["finished before", "failed"]
    write(loss="lovasz")
    assert state("auto", loss="lovasz") == "finished before", "this loss takes none"
    write(loss={"cross_entropy": 1.0, "lovasz": 0.5})
    assert state("auto", loss={"cross_entropy": 1.0, "lovasz": 0.5}) == "finished before"


def test_a_folder_that_is_trained_elsewhere_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PATIENCE", 0.0)
    (tmp_path / "jobs").mkdir()
    other = Record(str(tmp_path / "one"), "other", "running", 1)
    (tmp_path / "jobs/one.json").write_text(json.dumps(other.__dict__))
    with (tmp_path / "jobs/one.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_job(a_job(tmp_path, {})).state == "running elsewhere"
        assert [record.state for record in sweep.records(tmp_path, "this")] == ["running elsewhere"]
    assert sweep.records(tmp_path, "this") == []
    assert [record.state for record in sweep.records(tmp_path, "other")] == ["killed"], "nobody holds its lock"


def test_records_are_forgotten_where_all_jobs_were_refused(tmp_path: Path) -> None:
    def write(name: str, state: str) -> None:
        record = Record(str(tmp_path / name), "this", state)  # type: ignore[arg-type]
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / f"jobs/{name}.json").write_text(json.dumps(record.__dict__))

    write("one", "failed")
    write("two", "finished")
    assert sweep.forget_refused(tmp_path, "this") == []
    write("two", "failed")
    (tmp_path / "two").mkdir()  # it failed later, and its folder is there
    assert sweep.forget_refused(tmp_path, "this") == []
    assert len(sweep.records(tmp_path, "this")) == 2
    (tmp_path / "two").rmdir()
    assert [Path(record.folder).name for record in sweep.forget_refused(tmp_path, "this")] == ["one", "two"]
    assert not (tmp_path / "jobs").exists()


def test_the_table_has_the_metric_of_the_checkpoint_that_is_deployed(tmp_path: Path) -> None:
    task = {"_target_": "semipix.tasks.segmentation.Segmentation"}
    for summary, expected in (({"val/miou": 0.5, "best/miou": 0.625}, "0.6250"), ({"val/miou": 0.5}, "0.5000")):
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        assert primary(tmp_path, task) == f"val/miou {expected}"
