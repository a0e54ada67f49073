"""A run folder that somebody has changed runs nothing: every place of its configuration, with every kind of payload."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from semipix.api import load
from semipix.cli import main
from semipix.config import target_of
from semipix.data.batches.shards import Shards, is_plain_pattern
from semipix.errors import SemipixError
from semipix.hub import save_run
from semipix.inference.evaluate import measured
from semipix.inference.export import export
from semipix.inference.predict import predict
from semipix.inference.predictor import load_predictor
from semipix.launch.sweep import Job, primary, run_job
from semipix.training.checkpoints import read_checkpoint
from semipix.training.configuration import KINDS
from semipix.training.run import resume
from semipix.training.run_folder import load_config, read_config
from semipix.training.trust import PACKAGES, refused
from tests.conftest import QUICK, Result, write_pair
from tests.helpers.processes import ROOT
from tests.helpers.tiny import node_of, options

TRAINER = "lightning.pytorch.Trainer"
CALLBACKS = "lightning.pytorch.callbacks."
LOGGER = "lightning.pytorch.loggers.CSVLogger"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trust") / "photos"
    for number in range(4):
        write_pair(root, "train", f"{number}.png", number)
    write_pair(root, "test", "test.png", 9)
    return root


@pytest.fixture(scope="module")
def trained(photos: Path) -> Path:
    """A run of a model of torch, cut off after its first checkpoint; not to be changed."""
    given = [item for item in QUICK if not item.startswith(("model", "steps", "data.labels"))]
    model = ("model._target_=torch.nn.Conv2d", "model.kernel_size=1")
    short = ("method=supervised", "validations=0", "steps=1", "checkpoint_every=1", "data.val=0")
    folder = photos.parent / "run"
    assert main(["train", *given, *model, *short, f"data.root={photos}", f"run={folder}"]) == 0
    (folder / "summary.json").unlink()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run in an empty folder, from where `evil` can be imported; importing or calling it leaves a file."""
    monkeypatch.chdir(tmp_path)
    mark = f"open({str(tmp_path / 'marker')!r}, 'w').close()"
    source = f"import torch\n{mark}\nclass Model(torch.nn.Conv2d): ...\ndef call(*given, **options):\n    {mark}\n"
    (tmp_path / "evil.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("evil", None)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def change(run: Path, changes: Mapping[str, Any]) -> None:
    """Write values by dotted keys into a run's configuration."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in changes.items():
        *groups, last = key.split(".")
        node = config
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


SYSTEM = {"_target_": "os.system", "command": "touch marker"}
"""What leaves a file when it is built."""

TAMPERED: dict[str, tuple[dict[str, Any], str]] = {
    # a foreign function, class or module in each place
    "model": ({"model": SYSTEM}, "model._target_: 'os.system' found, which is no class of semipix, torch,"),
    "second model": ({"second_model": SYSTEM}, "second_model._target_: 'os.system' found"),
    "task": ({"task": SYSTEM}, "task._target_: 'os.system' found"),
    "method": ({"method": SYSTEM}, "method._target_: 'os.system' found"),
    "data": ({"data._target_": "evil.call"}, "data._target_: 'evil.call' found"),
    "optimizer": ({"optimizer": SYSTEM}, "optimizer._target_: 'os.system' found"),
    "scheduler": ({"scheduler": SYSTEM}, "scheduler._target_: 'os.system' found"),
    "trainer": ({"trainer._target_": "evil.call"}, "trainer._target_: 'evil.call' found"),
    "foreign module of the right kind": ({"model._target_": "evil.Model"}, "'evil.Model' found"),
    "no text": ({"model._target_": ["os.system"]}, "model._target_: ['os.system'] found"),
    # through a known package
    "out of torch": ({"model._target_": "torch.os.system"}, "'torch.os.system' found, which is no class of"),
    "out of semipix": ({"model._target_": "semipix.launch.runner.subprocess.Popen"}, "which is no class of semipix"),
    "past a module": ({"model._target_": "torch.nn.Module.__init__.__globals__"}, "which is no class of semipix"),
    # known code that runs or unpickles what it is given
    "source text": (
        {
            "model": {
                "_target_": "torch.fx.graph_module.reduce_graph_module",
                "body": {"_code": "def forward(self): ..."},
                "import_block": "open('marker', 'w').close()\n",
            }
        },
        "'torch.fx.graph_module.reduce_graph_module' found, a torch.nn.Module class or model function of",
    ),
    "torch.load": ({"model": {"_target_": "torch.load", "f": "x", "weights_only": False}}, "'torch.load' found"),
    "torch.hub.load": ({"model._target_": "torch.hub.load"}, "'torch.hub.load' found, a torch.nn.Module"),
    "torch.jit.load": ({"model._target_": "torch.jit.load"}, "'torch.jit.load' found, a torch.nn.Module"),
    "from_pretrained": ({"model._target_": "segmentation_models_pytorch.from_pretrained"}, "from_pretrained' found"),
    "a class of another place": (
        {"model._target_": "lightning.pytorch.Trainer"},
        "a torch.nn.Module class or model function",
    ),
    "a method for a task": ({"task._target_": "semipix.methods.gct.GCT"}, "a semipix.tasks.base.Task class of semipix"),
    "any function": (
        {"optimizer._target_": "torch.optim.swa_utils.get_ema_avg_fn"},
        "a torch.optim.Optimizer class of torch.optim,",
    ),
    "weights": (
        {"model": {"_target_": "timm.create_model", "model_name": "resnet18", "checkpoint_path": "evil.pth"}},
        "model.checkpoint_path: 'evil.pth' found, from where weights would be loaded",
    ),
    "hub": (
        {"model": {"_target_": "segmentation_models_pytorch.Unet", "encoder_name": "tu-hf-hub:evil/evil"}},
        "model.encoder_name: 'tu-hf-hub:evil/evil' found, an address",
    ),
    # objects inside
    "in a model": ({"model.stride": SYSTEM}, "model.stride._target_: 'os.system' found, a plain value expected"),
    "in a list": ({"model.stride": [[SYSTEM]]}, "model.stride.0.0._target_: 'os.system' found"),
    "in a task": ({"task.classes": [SYSTEM]}, "task.classes.0._target_: 'os.system' found"),
    "in a known class": (
        {"data.crop": {"_target_": "semipix.tasks.denoising.Denoising"}},
        "data.crop._target_: 'semipix.tasks.denoising.Denoising' found, a plain value",
    ),
    "in no group": ({"seed": SYSTEM}, "seed._target_: 'os.system' found, a plain value expected here"),
    "in a callback": (
        {"trainer.callbacks": [{"_target_": f"{CALLBACKS}LambdaCallback", "on_fit_start": {**SYSTEM, "_partial_": 1}}]},
        "trainer.callbacks.0.on_fit_start._target_: 'os.system' found, a plain value expected",
    ),
    "callback": ({"trainer.callbacks": SYSTEM}, "trainer.callbacks._target_: 'os.system' found"),
    "plugin": ({"trainer.plugins": [{"_target_": "evil.call"}]}, "trainer.plugins.0._target_: 'evil.call' found"),
    "callback for a logger": (
        {"trainer.logger": [{"_target_": f"{CALLBACKS}Timer"}]},
        "a lightning.pytorch.loggers.Logger class of lightning, semipix expected",
    ),
    "profiler": ({"trainer.profiler": SYSTEM}, "trainer.profiler._target_: 'os.system' found"),
    "strategy": ({"trainer.strategy": SYSTEM}, "trainer.strategy._target_: 'os.system' found"),
    "Hydra's keys": ({"model._partial_": True}, "model._partial_: True found, expected no such key here"),
    "Hydra's keys inside": ({"optimizer.betas": {"_args_": [1]}}, "optimizer.betas._args_: [1] found"),
    # plain values
    "pipe": ({"data.shards": "pipe:touch marker"}, "data.shards: 'pipe:touch marker' found, files or addresses"),
    "pipe of braces": ({"data.shards": "{pipe,pipe}:touch marker"}, "data.shards: '{pipe,pipe}:touch marker' found"),
    "a quote for the shell": ({"data.shards": "a.tar::http://x/'; touch marker; '"}, 'data.shards: "a.tar::http'),
    "an unknown option": (
        {"trainer.logger": {"_target_": "lightning.pytorch.loggers.WandbLogger", "settings": {"_executable": "evil"}}},
        "trainer.logger.settings: an option found that its class does not name",
    ),
    "files elsewhere": (
        {"trainer.logger": {"_target_": LOGGER, "save_dir": "runs/../.."}},
        "trainer.logger.save_dir: 'runs/../..' found, a place outside of the run folder",
    ),
    "root elsewhere": ({"trainer.default_root_dir": "/elsewhere"}, "trainer.default_root_dir: '/elsewhere' found"),
}

COMMANDS: dict[str, Callable[..., Any]] = {
    "predict": lambda run, photos, trust=False: predict(run, [photos / "images/test"], Path("out"), trust=trust),
    "evaluate": lambda run, photos, trust=False: measured(run, trust=trust),
    "resume": lambda run, photos, trust=False: resume(run, trust=trust),
    "Run.predict": lambda run, photos, trust=False: load(run, trust=trust).predict(photos / "images/test/test.png"),
    "export": lambda run, photos, trust=False: export(run, Path("model.safetensors"), trust=trust),
    "publish": lambda run, photos, trust=False: save_run(run, Path("shared"), trust, None, "shared"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_changed_configuration_runs_nothing(name: str, run: Path, photos: Path) -> None:
    changes, line = TAMPERED[name]
    change(run, changes)
    before = sorted(Path.cwd().rglob("*"))
    for call in COMMANDS.values():
        with pytest.raises(SemipixError) as caught:
            call(run, photos)
        message = str(caught.value)
        assert message.startswith(f"{run}/config.yaml: ")
        assert line in message
        assert message.endswith("; add --trust to run code that this folder names")
        assert "\n" not in message
        assert len(message) - len(str(run)) < 300
    assert sorted(Path.cwd().rglob("*")) == before, "nothing ran, and nothing was written"
    assert "evil" not in sys.modules


@pytest.mark.parametrize("command", COMMANDS)
def test_trust_runs_it(command: str, run: Path, photos: Path) -> None:
    change(run, {"model._target_": "evil.Model"})
    COMMANDS[command](run, photos, trust=True)
    assert Path("marker").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_known_classes_needs_no_trust(command: str, run: Path, photos: Path) -> None:
    stop = {"_target_": f"{CALLBACKS}EarlyStopping", "monitor": "train/loss", "check_on_train_epoch_end": True}
    change(run, {"trainer.callbacks": [stop], "trainer.logger": {"_target_": LOGGER, "save_dir": "run"}})
    COMMANDS[command](run, photos)
    assert load_predictor(run, Path("out")).method is not None


def test_a_run_that_is_changed_after_it_was_loaded_runs_nothing(run: Path) -> None:
    loaded = load(run)
    change(run, {"model": SYSTEM})
    for call in (
        lambda: loaded.predict(np.zeros((8, 8, 3), np.uint8)),
        lambda: loaded.evaluate("val"),
        lambda: loaded.export("model.safetensors"),
        lambda: loaded.save_pretrained("shared"),
        lambda: loaded.push_to_hub("someone/portraits"),
    ):
        with pytest.raises(SemipixError, match=r"model\._target_: 'os\.system' found"):
            call()
    assert not Path("marker").exists()


def test_every_option_and_the_functions_of_known_packages_may_be_named() -> None:
    for group in set(KINDS) - {"second_model"}:
        for option in options(group):
            assert refused({group: node_of(group, option)}, KINDS) is None, option
    for name in (
        "torchvision.models.segmentation.fcn_resnet50",
        "timm.create_model",
        "segmentation_models_pytorch.FPN",
    ):
        assert refused({"second_model": {"_target_": name}}, KINDS) is None, name


def silent(pretrained: bool = False) -> Any:
    """Builds a module, and does not say so."""
    return nn.Identity()


def test_a_function_that_does_not_say_what_it_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    silent.__module__ = "timm.models.resnet"
    monkeypatch.setattr(timm, "silent", silent, raising=False)
    refusal = refused({"model": {"_target_": "timm.silent"}}, KINDS)
    assert "'timm.silent' found, a torch.nn.Module class or model function of semipix.models," in str(refusal)
    assert target_of("model", {"_target_": "timm.silent"}) is silent, "the command line may name it"


def test_a_target_that_is_not_there_is_one_line(run: Path) -> None:
    change(run, {"model._target_": "semipix.models.gone.Gone"})
    with pytest.raises(
        SemipixError, match=r"model\._target_: 'semipix.models.gone.Gone' cannot be imported: No module"
    ):
        load_config(run)


LAUGHS = ", ".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))


@pytest.mark.parametrize("text", ["&a [*a]", f"{{a0: &a0 [1, 1], {LAUGHS}}}"], ids=["itself", "many"])
def test_references_that_never_end(run: Path, text: str) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(f"more: {text}\n")
    for trust in (False, True):
        with pytest.raises(SemipixError, match="references to itself, or more than"):
            load_config(run, trust)


def test_yaml_makes_no_objects(run: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write("more: !!python/object/apply:os.system ['touch marker']\n")
    for trust in (False, True):
        with pytest.raises(SemipixError, match="not readable as YAML: could not determine a constructor"):
            load_config(run, trust)
    assert not Path("marker").exists()


@pytest.mark.parametrize("name", ["../../secret.png", "/secret.png", "images/test/../train/0.png"])
def test_a_split_reads_no_file_that_the_data_do_not_list(run: Path, name: str) -> None:
    split = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(json.dumps({**split, "test": [name]}))
    with pytest.raises(SemipixError, match=f"1 of its images are not in the data or lost their labels, e.g. {name}"):
        measured(run)


class Payload:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch marker",)


def test_checkpoints_unpickle_nothing(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = run / "checkpoints/last.ckpt"
    kept = read_checkpoint(path)
    torch.save({**kept, "more": Payload()}, path)
    for call in COMMANDS.values():
        with pytest.raises(SemipixError, match=r"last\.ckpt: damaged, or not a checkpoint of semipix train"):
            call(run, photos, trust=True)
    # What Lightning reads once more is read in the same way.
    change(run, {"steps": 2})
    monkeypatch.setattr("semipix.training.run.read_checkpoint", lambda path: kept)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        resume(run)
    assert not Path("marker").exists()


def test_a_folder_whose_name_looks_like_an_address_is_resumed(run: Path) -> None:
    change(run, {"steps": 2})
    run.rename("http")
    assert resume(Path("http"))["steps"] == 2


@pytest.mark.parametrize(
    "name", ["run/checkpoints/../../a.ckpt", "s3://b/a.ckpt", "photos", "run/checkpoints/link/a.ckpt"]
)
def test_a_checkpoint_names_no_file_to_remove(run: Path, name: str) -> None:
    path = run / "checkpoints/last.ckpt"
    state = read_checkpoint(path)
    (kept,) = (state["callbacks"][key] for key in state["callbacks"] if key.startswith("ModelCheckpoint"))
    assert kept["best_model_path"].endswith("/run/checkpoints/last.ckpt")
    kept["best_model_path"] = name
    torch.save(state, path)
    change(run, {"steps": 2})
    with pytest.raises(SemipixError, match=f"last.ckpt: '{name}' found in the state of"):
        resume(run)


def test_a_download_is_not_repeated(run: Path) -> None:
    change(run, {"data._target_": "semipix.data.sources.voc.VOCSource", "data.download": True})
    assert read_config(run)[0]["data"]["download"] is False
    assert read_config(run, trust=True)[0]["data"]["download"] is True


def test_shards_that_are_plain() -> None:
    for pattern in (
        "a/{000..123}.tar::b c/*.tar",
        "s3://b/{0..9}.tar",
        "https://h:80/a.tar?x=1&y=2",
        "i.json",
        "C:\\a.tar",
    ):
        assert is_plain_pattern(pattern), pattern
    for pattern in (
        "pipe:x",
        "a::pipe:x",
        "reference:x",
        "http://h/a b",
        "http://h/{:,x}:y",
        "${WDS_X}",
        "http://h/`x`",
    ):
        assert not is_plain_pattern(pattern), pattern


@pytest.mark.parametrize("url", ["pipe:touch marker", "reference::evil.json"])
def test_an_index_of_shards_runs_no_command(run: Path, url: str) -> None:
    Path("index.json").write_text(json.dumps({"shardlist": [{"url": url, "nsamples": 1}]}))
    with pytest.raises(SemipixError, match=f"data.shards=index.json: found '{url}' in the index"):
        Shards("index.json")


def semipix(*arguments: str) -> Result:
    """The real command, in the current folder, from which modules can be imported."""
    paths = os.pathsep.join(filter(None, [str(Path.cwd()), str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "semipix.cli", *arguments]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    return Result(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.slow
def test_the_command_refuses_and_trusts(run: Path, photos: Path) -> None:
    change(run, {"model._target_": "evil.Model"})
    arguments = ("predict", "run", str(photos / "images/test"), "--out", "out")
    assert semipix(*arguments).error == (
        "semipix: error: run/config.yaml: model._target_: 'evil.Model' found, which is no class of "
        f"{', '.join(PACKAGES[:-1])} or lightning; add --trust to run code that this folder names"
    )
    assert not Path("marker").exists()
    assert semipix(*arguments, "--trust").code == 0
    assert Path("marker").exists()


def test_trust_is_for_commands_that_read_a_run_folder(command: Callable[..., Result]) -> None:
    line = command("train", "--trust", "data=scenes").error
    assert "--trust: goes with resume=RUN, evaluate and predict, which read a run folder; leave it out" in line


def test_resume_takes_trust_beside_data(run: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(run, {"model._target_": "evil.Model"})
    assert main(["train", f"resume={run}", "--data", str(photos)]) == 2
    assert not Path("marker").exists()
    assert main(["train", "--trust", f"resume={run}", "--data", str(photos)]) == 0
    assert "next: semipix evaluate run --trust" in capfd.readouterr().out


class TestSweep:
    """The jobs of a sweep trust what its own command names, and nothing else that their folders name."""

    OWN: Mapping[str, Any] = {"_target_": "tests.helpers.tiny.TinyModel", "width": 4}

    def job(self, run: Path, asked: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[list[str]]]:
        """What became of a job that finds this run in its folder, and the commands that were started."""
        started = []

        def popen(command: list[str], **options: Any) -> Any:
            started.append(command)
            raise SemipixError("started")

        monkeypatch.setattr("semipix.launch.runner.subprocess.Popen", popen)
        given = Job(run, run.parent, "this", [], lambda: asked, run.parent, [])
        return run_job(given), started

    def test_what_the_command_names_is_trusted(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        change(run, {"model": self.OWN})
        asked, _ = read_config(run, trust=True)
        del asked["task"]["classes"]
        record, (started,) = self.job(run, asked, monkeypatch)
        assert record.reason == "started"
        assert started[-2:] == [f"resume={run}", "--trust"]

    def test_a_run_of_known_classes_is_not_trusted(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, _ = read_config(run, trust=True)
        _, (started,) = self.job(run, asked, monkeypatch)
        assert started[-1] == f"resume={run}"

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (
                {"model._target_": "evil.Model"},
                "model._target_='evil.Model' found in its config.yaml, 'tests.helpers.tiny.",
            ),
            ({"second_model": {"_target_": "evil.Model"}}, "second_model._target_='evil.Model' found, which this"),
            ({"model.evil": "marker"}, "model.evil='marker' found, which this command does not ask for, beside model"),
            ({"trainer.precision": [SYSTEM]}, "trainer.precision="),
            ({"task.classes": [SYSTEM]}, "task.classes="),
        ],
    )
    def test_what_it_does_not_name_is_refused(
        self, run: Path, changes: Mapping[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change(run, {"model": self.OWN})
        asked, _ = read_config(run, trust=True)
        asked["trainer"] = {**asked["trainer"], "precision": "auto"}
        del asked["task"]["classes"]
        change(run, changes)
        record, started = self.job(run, asked, monkeypatch)
        assert record.state == "failed"
        assert line in record.reason
        assert not started
        assert "evil" not in sys.modules

    def test_the_table_imports_nothing_that_a_folder_names(self, run: Path) -> None:
        asked, _ = read_config(run, trust=True)
        change(run, {"task._target_": "evil.call"})
        (run / "summary.json").write_text(json.dumps({"val/miou": 0.5}))
        assert primary(run, asked["task"]) == "val/miou 0.5000"
        assert "evil" not in sys.modules
