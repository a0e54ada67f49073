"""What Weights & Biases (offline) and MLflow (SQLite) really store: `make trackers` runs this with both packages.

Without them, as in `make test`, all of it is skipped; test_loggers.py has stand-ins for them.
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result

wandb = pytest.importorskip("wandb")
mlflow = pytest.importorskip("mlflow")

Train = Callable[..., Result]

QUICK = ("validations=1", "trainer.log_every_n_steps=1")
FIGURES = {"train/loss", "train/supervised", "val/miou", "val/errors/softmax/auroc"}
BLOCK, HEADER = 32768, 7


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()  # it keeps the settings of its first run in a process


def runs_of(store: Path | str) -> list[Any]:
    """The runs of an MLflow store, the oldest first."""
    client = mlflow.tracking.MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("semipix")
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.start_time)


def records_in(path: Path) -> list[Any]:
    """The records of an offline file of Weights & Biases: LevelDB's log format, each record a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts, found = path.read_bytes(), HEADER, b"", []
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def stored(folder: Path) -> list[tuple[str, dict[str, float], dict[str, Any]]]:
    """Name, figures and hyper-parameters of each run of Weights & Biases below a run folder."""
    runs = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        name, figures, settings = "", {}, {}
        for record in records_in(path):
            name = record.run.display_name or name
            for item in record.history.item:
                figures[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            for item in (*record.config.update, *record.run.config.update):
                settings[item.key] = json.loads(item.value_json)
        runs.append((name, figures, settings))
    return runs


def longer(steps: int) -> None:
    """Let a finished run go on, as if it had been interrupted."""
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("\nsteps: 2\n", f"\nsteps: {steps}\n"))
    Path("run/summary.json").unlink()


def test_mlflow_and_wandb_store_figures_and_hyper_parameters(train: Train, command: Train) -> None:
    assert train(*QUICK, "trainer.logger=[mlflow,wandb]").code == 0
    (run,) = runs_of(Path("run/mlflow.db").absolute())
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.metrics.keys() >= FIGURES
    assert {"method/_target_", "data/labels", "optimizer/lr", "steps", "seed"} <= run.data.params.keys()
    assert (run.data.params["data/labels"], run.data.params["steps"]) == ("4", "2")
    ((name, figures, settings),) = stored(Path("run"))
    assert name == "run"
    assert figures.keys() >= FIGURES
    assert figures["val/miou"] == pytest.approx(run.data.metrics["val/miou"])
    assert (settings["data"]["labels"], settings["steps"]) == (4, 2)

    longer(4)
    assert command("train", "resume=run").code == 0
    again = runs_of(Path("run/mlflow.db").absolute())
    assert [(each.info.run_name, each.info.status) for each in again] == [("run", "FINISHED")] * 2
    assert again[-1].data.params["steps"] == "4"
    assert sorted(found["trainer/global_step"] for _, found, _ in stored(Path("run"))) == [1, 3]


def test_a_second_training_of_a_process_has_a_run_of_its_own(train: Train) -> None:
    for name in ("first", "second"):
        assert train(*QUICK, "trainer.logger=wandb", f"run={name}").code == 0
        assert wandb.run is None
    assert [[name for name, *_ in stored(Path(folder))] for folder in ("first", "second")] == [["first"], ["second"]]


def test_a_run_that_the_user_has_begun_is_not_ended(train: Train, tmp_path: Path) -> None:
    with wandb.init(project="mine", dir=tmp_path) as own:
        assert train(*QUICK, "trainer.logger=wandb").code == 0
        assert wandb.run is own


def test_wandb_without_a_login_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    result = train(*QUICK, "trainer.logger=wandb")
    last = result.err.splitlines()[-1]
    assert "trainer.logger=wandb: does not begin (" in last
    assert last.endswith("set WANDB_MODE=offline, or set trainer.logger=none")
    assert result.code == 2
    assert "Traceback" not in result.err
    assert not Path("run").exists()


@pytest.mark.parametrize("store", ["http://127.0.0.1:9", "what://is.this"])
def test_a_store_of_mlflow_that_cannot_be_opened_is_refused(
    store: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    result = train(*QUICK, "trainer.logger=mlflow")
    assert "trainer.logger=mlflow: does not begin (" in result.err.splitlines()[-1]
    assert result.code == 2
    assert "Traceback" not in result.err
    assert not Path("run").exists()


def test_the_runs_of_a_sweep_share_a_store(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = tmp_path / "all.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    assert train("-m", *QUICK, "seed=0,1", "trainer.logger=[mlflow,wandb]", "run=sweep").code == 0
    runs = runs_of(store)
    assert sorted((run.info.run_name, run.data.params["seed"]) for run in runs) == [("seed_0", "0"), ("seed_1", "1")]
    assert [[name for name, *_ in stored(Path(f"sweep/seed_{seed}"))] for seed in (0, 1)] == [["seed_0"], ["seed_1"]]
