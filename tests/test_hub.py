"""Published models: what is in their folder, what is not, and that they predict the same."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open

import semipix
from semipix import hub
from semipix.cli import main
from semipix.errors import SemipixError
from semipix.training.calibration import save, saved
from tests.conftest import QUICK, Result

Command = Callable[..., Result]

KNOWN = ("model._target_=torch.nn.Conv2d", "model.kernel_size=1", "calibrate=true")
"""A model that is loaded without trust."""


@pytest.fixture(scope="module")
def trained(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run of a network that anybody may load."""
    run = tmp_path_factory.mktemp("runs") / "run"
    usual = [each for each in QUICK if each.partition("=")[0] not in {each.partition("=")[0] for each in KNOWN}]
    assert main(["train", *usual, *KNOWN, f"data.root={shared_photos}", "method=cps", f"run={run}"]) == 0
    return run


@pytest.fixture
def known(trained: Path, tmp_path: Path, command: Command) -> Path:
    """A copy of it, beside the current folder's other files."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_published_model_predicts_the_same_and_names_nothing_of_this_machine(
    known: Path, shared_photos: Path, command: Command
) -> None:
    photo = shared_photos / "images/test/test0.png"
    run = semipix.load(known)
    wanted = run.predict(photo)
    folder = run.save_pretrained("shared")
    assert sorted(path.name for path in folder.iterdir()) == sorted(hub.FILES)
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".partial")] == []
    found = semipix.load("shared").predict(photo)
    assert np.array_equal(found.probabilities, wanted.probabilities)
    assert np.array_equal(found.error_map, wanted.error_map)
    assert found.expected_error == wanted.expected_error is not None
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            text = path.read_text()
            for private in (str(shared_photos), str(known), "data.root=", "u0.jpg"):
                assert private not in text, path
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {"models.0.model.weight", "models.1.model.weight"} <= set(weights.keys())
    assert command("predict", "shared", photo, "--out", "out").code == 0
    assert command("evaluate", "shared").error.startswith("semipix: error: shared: a published model, which does not")
    assert command("predict", "shared", photo, "--out", "out", "--checkpoint", "best").error.startswith(
        "semipix: error: shared/checkpoints: no checkpoint found, expected best.ckpt"
    )


def test_the_card_has_data_method_and_figures_and_leaves_the_licence_open(known: Path) -> None:
    run = semipix.load(known)
    figures = run.evaluate("test")
    run.save_pretrained("shared", repository="someone/portraits")
    card = (Path("shared") / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "semipix"
    assert "license" not in head
    assert "semi-supervised-learning" in head["tags"]
    assert f"| miou | {figures['miou']:.4f} |" in card
    assert 'semipix.load("someone/portraits")' in card
    assert "# portraits\n" in card
    assert "| data | FolderSource, 4 labeled training images, 8 unlabeled training images |" in card
    assert "| method | CPS, 2 steps |" in card
    assert "The author of this model has not filled in this section yet" in card
    run.evaluate("test", checkpoint="last")  # of other weights than those that are published
    run.save_pretrained("again")
    assert "On the test images" not in (Path("again") / "README.md").read_text()


def test_saving_again_replaces_the_files_and_touches_no_others(
    known: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = semipix.load(known)
    run.save_pretrained("shared")
    (Path("shared") / "README.md").write_text("old")
    (known / "calibration.json").unlink()
    run.save_pretrained("shared")
    assert (Path("shared") / "README.md").read_text() != "old"
    assert not (Path("shared") / "calibration.json").exists(), "it belongs to no run any more"
    capfd.readouterr()
    semipix.load("shared").predict(np.zeros((8, 9, 3), np.uint8))
    assert re.search(
        r"semipix: no calibration of model\.safetensors, so .*publish it again from a calibrated run",
        capfd.readouterr().err,
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("kept")
    with pytest.raises(SemipixError, match=r"mine: 1 other files such as notes\.txt found, a new or empty folder"):
        run.save_pretrained(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(SemipixError, match=r"model: cannot be written, since .*notes\.txt is a file; choose another"):
        run.save_pretrained(tmp_path / "mine/notes.txt/model")


def test_a_full_disk_leaves_an_earlier_model_as_it_was_and_nothing_of_a_new_one(
    known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = semipix.load(known)
    old = {path.name: path.read_bytes() for path in run.save_pretrained("shared").iterdir()}
    before = sorted(path.name for path in Path.cwd().iterdir())
    monkeypatch.setattr(os, "fdopen", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    for name in ("shared", "new/model"):
        with pytest.raises(OSError, match=f"No space left: '{name}'"):
            run.save_pretrained(name)
    assert {path.name: path.read_bytes() for path in Path("shared").iterdir()} == old
    assert sorted(path.name for path in Path.cwd().iterdir()) == before


def test_calibrations_of_averaged_views_are_published_too(known: Path, shared_photos: Path) -> None:
    (calibration,) = saved(known)
    save(known, replace(calibration, views="flips"))
    save(known, replace(calibration, checkpoint="last", fingerprint="of other weights"))
    semipix.load(known).save_pretrained("shared")
    assert [(each.checkpoint, each.views) for each in saved(Path("shared"))] == [("model", ""), ("model", "flips")]
    found = semipix.load("shared").predict(shared_photos / "images/test/test0.png", tta="flips")
    assert found.expected_error is not None


def test_a_published_folder_runs_no_code_without_trust(known: Path) -> None:
    semipix.load(known).save_pretrained("shared")
    config = Path("shared/config.yaml")
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "model": {"_target_": "os.system", "command": "touch run_it"}}))
    with pytest.raises(SemipixError, match=r"model\._target_: 'os\.system' found.*--trust"):
        semipix.load("shared")
    Path("shared/config.json").write_text('{"trust": true}')  # from where the mixin takes arguments
    assert hub.PublishedRun.from_pretrained("shared").trust is False
    config.write_text(yaml.safe_dump(settings))
    weights = Path("shared/model.safetensors")
    weights.write_bytes(b"\x80\x04cos\nsystem\n(S'touch run_it'\ntR.")
    with pytest.raises(SemipixError, match=r"model\.safetensors: damaged, or not the weights of a published model"):
        semipix.load("shared").predict(np.zeros((8, 8, 3), np.uint8))
    assert not Path("run_it").exists()


def test_uploading_sends_the_files_of_a_published_model(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            if repo_id == "somebody/else":
                raise TimeoutError("no answer")
            sent["private"] = options["private"]
            return type("Created", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path: Path, **options: Any) -> str:
            sent["files"] = sorted(path.name for path in folder_path.iterdir())
            sent["message"] = options["commit_message"]
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    run = semipix.load(known)
    with pytest.raises(SemipixError, match="no checkpoint found"):
        semipix.load(known).push_to_hub("someone/portraits", checkpoint="other")
    assert sent == {}, "no empty repository is made"
    assert run.push_to_hub("someone/portraits", private=True) == "https://hub/commit"
    assert sent["files"] == sorted(hub.FILES)
    assert sent["private"] is True
    assert sent["message"] == f"Upload by semipix {semipix.__version__}"
    with pytest.raises(SemipixError, match="somebody/else: not uploaded to the hub: no answer"):
        run.push_to_hub("somebody/else")
    with pytest.raises(SemipixError, match="portraits: no name of a model on the hub, OWNER/NAME expected"):
        run.push_to_hub("portraits")


def test_a_model_of_the_hub_is_fetched_by_its_name(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = semipix.load(known).save_pretrained("shared").absolute()
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        if name != "someone/portraits":
            raise ConnectionError("no network")
        return str(shared)

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **options: str(shared / "config.json"))
    run = semipix.load("someone/portraits", revision="v2")
    assert run.folder == shared
    assert asked["revision"] == "v2"
    assert set(asked["allow_patterns"]) == set(hub.FILES), "nothing else is loaded"
    with pytest.raises(SemipixError, match=r"someone/else: no such folder, and no model of the hub .*: no network"):
        semipix.load("someone/else")
    with pytest.raises(SemipixError, match=r"no config\.yaml found"):
        semipix.load("some/where/else")
