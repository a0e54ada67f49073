"""Loggers beside the table of metrics."""

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result

Command = Callable[..., Result]

QUIET = ("validations=1", "trainer.log_every_n_steps=1")


class Recorder:
    """Replaces a package: keeps what its functions and classes are called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.metrics: dict[str, float] = {}
        self.settings: dict[str, Any] = {}

    def called(self, what: str, /, **given: Any) -> None:
        self.calls.append((what, given))


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A module `wandb` with what Lightning uses of it."""
    recorder = Recorder()

    class Run:
        config = types.SimpleNamespace(update=lambda settings, **_: recorder.settings.update(settings))
        step = 0

        def finish(self, exit_code: int) -> None:
            recorder.called("finish", exit_code=exit_code)

        def log(self, metrics: dict[str, float], **_: Any) -> None:
            recorder.metrics.update(metrics)

        def define_metric(self, *_: Any, **__: Any) -> None:
            pass

    def init(**given: Any) -> Run:
        recorder.called("init", **given)
        return Run()

    module = types.ModuleType("wandb")
    module.__dict__.update(init=init, run=None, Artifact=object, require=lambda *_: None)
    run = types.ModuleType("wandb.wandb_run")
    run.Run = Run  # type: ignore[attr-defined]
    parts = {name: types.ModuleType(f"wandb.{name}") for name in ("sdk", "sdk.lib")}
    parts["sdk"].lib = parts["sdk.lib"]  # type: ignore[attr-defined]
    parts["sdk.lib"].RunDisabled = type("RunDisabled", (), {})  # type: ignore[attr-defined]
    for name, part in {"wandb": module, "wandb.wandb_run": run, **{f"wandb.{n}": p for n, p in parts.items()}}.items():
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    return recorder


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A module `mlflow` with what Lightning uses of it."""
    recorder = Recorder()
    info = types.SimpleNamespace(run_id="1", artifact_uri="")

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            recorder.called("client", tracking_uri=tracking_uri)

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str, artifact_location: str | None) -> str:
            recorder.called("experiment", name=name, artifact_location=artifact_location)
            return "0"

        def create_run(self, experiment_id: str, tags: Any) -> Any:
            return types.SimpleNamespace(info=info)

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), **_: Any) -> None:
            recorder.settings.update({item["key"]: item["value"] for item in params})
            recorder.metrics.update({metric["key"]: metric["value"] for metric in metrics})

        def get_run(self, run_id: str) -> Any:
            return types.SimpleNamespace(info=types.SimpleNamespace(status="FINISHED"))

        def set_terminated(self, *_: Any) -> None:
            pass

    modules = {name: types.ModuleType(name) for name in ("mlflow", "mlflow.tracking", "mlflow.entities")}
    modules["mlflow"].set_tracking_uri = lambda uri: None  # type: ignore[attr-defined]
    modules["mlflow.tracking"].MlflowClient = Client  # type: ignore[attr-defined]
    for name in ("Metric", "Param"):
        setattr(modules["mlflow.entities"], name, dict)
    tags = types.ModuleType("mlflow.utils.mlflow_tags")
    tags.MLFLOW_RUN_NAME = "mlflow.runName"  # type: ignore[attr-defined]
    modules |= {"mlflow.utils": types.ModuleType("mlflow.utils"), "mlflow.utils.mlflow_tags": tags}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_SYNCHRONOUS_AVAILABLE", False)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._get_resolve_tags", lambda: lambda tags=None: tags)
    return recorder


def files() -> set[str]:
    return {path.name for path in Path("run").iterdir()}


@pytest.mark.parametrize("override", [[], ["trainer.logger=none"], ["trainer.logger=null"], ["trainer.logger=false"]])
def test_the_table_is_always_there_and_alone_by_default(override: list[str], train: Command) -> None:
    assert train(*QUIET, *override).code == 0
    assert Path("run/metrics/version_0/metrics.csv").exists()
    assert {"samples", "summary.json"} <= files()
    assert "tensorboard" not in files()


@pytest.mark.parametrize("override", ["tensorboard", "[tensorboard]"])
def test_tensorboard_beside_the_table(override: str, train: Command) -> None:
    pytest.importorskip("tensorboard")
    assert train(*QUIET, f"trainer.logger={override}").code == 0
    assert list(Path("run/tensorboard").glob("events*"))
    assert Path("run/metrics/version_0/metrics.csv").exists()


def test_wandb(fake_wandb: Recorder, train: Command) -> None:
    assert train(*QUIET, "trainer.logger=wandb").code == 0
    (name, given), end = fake_wandb.calls
    assert (name, given["project"], given["name"]) == ("init", "semipix", "run")
    assert end == ("finish", {"exit_code": 0})
    assert (fake_wandb.settings["steps"], fake_wandb.settings["data"]["labels"]) == (2, 4)
    assert Path(given["dir"]).resolve() == Path("run").resolve()
    assert {"train/loss", "val/miou"} <= fake_wandb.metrics.keys()
    assert Path("run/metrics/version_0/metrics.csv").exists()


def test_mlflow_keeps_its_store_in_the_run_folder(fake_mlflow: Recorder, train: Command, tmp_path: Path) -> None:
    assert train(*QUIET, "trainer.logger=mlflow").code == 0
    calls = dict(fake_mlflow.calls)
    assert calls["client"]["tracking_uri"] == f"sqlite:///{tmp_path}/run/mlflow.db"
    assert (fake_mlflow.settings["steps"], fake_mlflow.settings["data/labels"]) == ("2", "4")
    assert calls["experiment"] == {"name": "semipix", "artifact_location": f"file://{tmp_path}/run/mlflow"}
    assert {"train/loss", "val/miou"} <= fake_mlflow.metrics.keys()


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_of_a_logger_is_one_line(
    step: int, fake_wandb: Recorder, train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = type("CommError", (Exception,), {"__module__": "wandb.errors"})

    def fail(*_: Any, **__: Any) -> None:
        raise error("no network\nat all")

    if step:
        monkeypatch.setattr(sys.modules["wandb.wandb_run"].Run, "log", fail)
    else:
        monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    message = train(*QUIET, "trainer.logger=wandb").error
    if step:
        assert "run: trainer.logger=wandb failed at step 1 (no network at all); check its store" in message
        assert fake_wandb.calls[-1] == ("finish", {"exit_code": 1})
    else:
        assert "trainer.logger=wandb: does not begin (no network at all); log in with wandb login" in message
        assert "set WANDB_MODE=offline, or set trainer.logger=none" in message
        assert not Path("run").exists()


def test_mlflow_takes_the_store_of_the_environment(
    fake_mlflow: Recorder, train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert train(*QUIET, "trainer.logger=mlflow").code == 0
    calls = dict(fake_mlflow.calls)
    assert calls["client"]["tracking_uri"] == "http://example.org"
    assert calls["experiment"]["artifact_location"] is None


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_names_the_extra(name: str, train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    of_lightning = "fabric" if name == "tensorboard" else "pytorch"
    module = importlib.import_module(f"lightning.{of_lightning}.loggers.{name}")
    for flag in [key for key in vars(module) if key.startswith(f"_{name.upper()}") and key.endswith("_AVAILABLE")]:
        monkeypatch.setattr(module, flag, False)
    message = train(f"trainer.logger={name}").error
    assert f"trainer.logger={name}: its package cannot be imported" in message
    assert f"pip install 'semipix[{name}]'" in message
    assert not Path("run").exists()


def test_an_unknown_name_is_refused(train: Command) -> None:
    message = train("trainer.logger=tensorbord").error
    assert "trainer.logger: 'tensorbord' found, which is not a logger; did you mean tensorboard?" in message
    assert not Path("run").exists()


def test_a_logger_of_ones_own_is_added_to_the_table(train: Command) -> None:
    own = "{_target_:lightning.pytorch.loggers.CSVLogger,save_dir:own,name:logs}"
    assert train(*QUIET, f"trainer.logger={own}").code == 0
    theirs, ours = (Path(folder, "version_0/metrics.csv").read_text() for folder in ("own/logs", "run/metrics"))
    assert "val/miou" in ours
    assert sorted(theirs.splitlines()) == sorted(ours.splitlines())
