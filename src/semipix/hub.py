"""Share runs as models of the Hugging Face hub: weights as safetensors, and nothing that names the user's files."""

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from semipix import __version__
from semipix.atomic import write_text, written
from semipix.errors import SemipixError, reason_of
from semipix.training.build import trained_method
from semipix.training.calibration import CALIBRATION, load, save
from semipix.training.checkpoints import PUBLISHED
from semipix.training.configuration import Configuration
from semipix.training.run_folder import CONFIG, RECORDS, SUMMARY, WIDTH, checkpoint_of, load_config, read_config

FILES = (CONFIG, PUBLISHED, CALIBRATION, SUMMARY, "config.json", "README.md")
"""Files of a published model; no others are loaded from the hub."""

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""Names of models on the hub: of the owner and of the model."""

ELSEWHERE = "ROOT"
"""What a published configuration has instead of a path of the user's machine."""

KEPT_OF_TRAINER = ("_target_", "accelerator", "precision")
"""Keys of the trainer that are published; others name folders, projects and machines."""

CARD = """---
{{ card_data }}
---

# {{ title }}

A model for {{ task }} of pixels, trained by semipix {{ version }}.
{{ classes }}
| | |
| --- | --- |
| data | {{ data }} |
| method | {{ method }} |
| model | {{ model }} |
| error map | {{ error_map }} |

## Use

```python
import semipix

run = semipix.load("{{ repository }}")
prediction = run.predict("photo.jpg")
```

`semipix predict` and `semipix export` take the folder of `semipix.load(...).folder` too.

## Measured
{{ metrics }}
## Licence and limits

The author of this model has not filled in this section yet: the licence of the weights (`license` at the top of this
page), the licence of the images, and for which images the model is meant.
"""
"""Template of the model card (jinja2)."""


class PublishedRun(
    ModelHubMixin,  # type: ignore[misc, unused-ignore]
    library_name="semipix",
    tags=["semi-supervised-learning", "pixel-wise-prediction"],
    model_card_template=CARD,
):
    """A run as a model of the hub.

    Args:
        run: the run folder.
        trust: run code that the folder names outside of the known packages, as `--trust` does.
        checkpoint: `best` or `last`; by default best where validation chose one.
    """

    def __init__(self, run: Path, trust: bool = False, checkpoint: str | None = None) -> None:
        self.run = run
        self.trust = trust
        self.checkpoint = checkpoint
        self._hub_mixin_config = None

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write everything but the model card; see `save`."""
        from safetensors.torch import save as serialized

        configuration = load_config(self.run, self.trust)
        method = trained_method(configuration, self.run, self.checkpoint)
        calibration = load(self.run, method, checkpoint_of(self.run, self.checkpoint).stem)
        weights = {name: value.detach().clone().contiguous() for name, value in method.state_dict().items()}
        with written(save_directory / PUBLISHED) as file:
            file.write(serialized(weights, {"format": "pt", "semipix": __version__}))
        if calibration is not None:
            save(save_directory, replace(calibration, checkpoint=Path(PUBLISHED).stem))
        _, records = read_config(self.run, self.trust)
        content = {**published(configuration), **dict(zip(RECORDS, (records["versions"], "published"), strict=True))}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=WIDTH)
        write_text(save_directory / CONFIG, text)
        if (summary := _json(self.run / SUMMARY)) is not None:
            write_text(save_directory / SUMMARY, json.dumps(summary, indent=2))
        facts = {"library": "semipix", **_facts(configuration)}
        write_text(save_directory / "config.json", json.dumps(facts, indent=2))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        trust: bool = False,
        **model_kwargs: Any,
    ) -> "PublishedRun":
        """The model of a folder, or of the hub."""
        folder = Path(model_id)
        if not folder.is_dir():
            options: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
            options |= {"force_download": force_download, "local_files_only": local_files_only}
            folder = Path(snapshot_download(model_id, allow_patterns=list(FILES), **options))
        return cls(folder, trust)

    def card(self, repository: str) -> dict[str, str]:
        """What the model card says of this run, by the names in `CARD`."""
        configuration = load_config(self.run, self.trust)
        facts, summary = _facts(configuration), _json(self.run / SUMMARY) or {}
        calibration = self.run / CALIBRATION
        images = [f"{summary[key]} {key}" for key in ("labeled", "unlabeled") if key in summary]
        return {
            "title": repository.rpartition("/")[2],
            "repository": repository,
            "version": __version__,
            "task": facts["task"].lower(),
            "classes": f"\nClasses: {', '.join(facts['classes'])}.\n" if facts.get("classes") else "",
            "data": ", ".join([facts["data"], *(f"{each} training images" for each in images)]),
            "method": f"{facts['method']}, {summary['steps']} steps" if "steps" in summary else facts["method"],
            "model": facts["model"],
            "error_map": "calibrated on held-out images" if calibration.exists() else "not calibrated",
            "metrics": _measured(self.run),
        }


def save_run(run: Path, folder: Path, trust: bool, checkpoint: str | None, repository: str) -> None:
    """Write a published model into a folder, completely or not at all.

    Args:
        run: run folder.
        folder: new, empty, or an earlier published model, whose files are replaced.
        trust: see `PublishedRun`.
        checkpoint: see `PublishedRun`.
        repository: the model's name in the model card.

    Raises:
        SemipixError: the run or the checkpoint does not exist, or the folder holds other files.
        OSError: the folder cannot be written.
    """
    others = sorted(item.name for item in folder.iterdir() if item.name not in FILES) if folder.is_dir() else []
    if others or folder.is_file():
        found = f"{len(others)} other files such as {others[0]}" if others else "a file"
        raise SemipixError(f"{folder}: {found} found, a new or empty folder expected; choose another one")
    model = PublishedRun(run, trust, checkpoint)
    card = model.card(repository)
    unfinished = folder.absolute().with_name(f".{secrets.token_hex(8)}.partial")
    with _named(folder):
        try:
            model.save_pretrained(unfinished, model_card_kwargs=card)
            folder.mkdir(parents=True, exist_ok=True)
            calibrated = (unfinished / CALIBRATION).exists()
            for file in unfinished.iterdir():
                file.replace(folder / file.name)
            if not calibrated:  # the calibration of an earlier model
                (folder / CALIBRATION).unlink(missing_ok=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def push_run(run: Path, repository: str, trust: bool, checkpoint: str | None, **options: Any) -> str:
    """Upload a run as a model of the hub; the address of the commit.

    Args:
        run: run folder.
        repository: `owner/name`.
        trust: see `PublishedRun`.
        checkpoint: see `PublishedRun`.
        **options: of `ModelHubMixin.push_to_hub`: `private`, `token`, `branch`, `commit_message`, `create_pr`.

    Raises:
        SemipixError: the name is none, the run does not exist, or the hub refuses the upload.
    """
    _check_repository(repository)
    model = PublishedRun(run, trust, checkpoint)
    options = {"commit_message": f"Upload by semipix {__version__}", **options}
    try:
        return str(model.push_to_hub(repository, model_card_kwargs=model.card(repository), **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, ConnectionError) as error:
        raise SemipixError(f"{repository}: the hub refused the upload: {reason_of(error, 160)}") from error


def fetched(name: str, trust: bool, **options: Any) -> Path:
    """The folder of a model of the hub, which is downloaded where the cache does not have it.

    Args:
        name: `owner/name`.
        trust: see `PublishedRun`.
        **options: of `ModelHubMixin.from_pretrained`: `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        SemipixError: there is no folder and no model of this name, or the hub does not answer.
    """
    _check_repository(name)
    try:
        return Path(PublishedRun.from_pretrained(name, trust=trust, **options).run)
    except Exception as error:  # the hub's client raises errors of its HTTP library too
        raise SemipixError(
            f"{name}: no such folder, and no model of the hub could be loaded: {reason_of(error, 120)}"
        ) from error


def published(configuration: Configuration) -> dict[str, Any]:
    """A configuration without paths of the user's machine, and without loggers and callbacks."""
    mapping = configuration.as_mapping()
    mapping["trainer"] = {key: value for key, value in mapping["trainer"].items() if key in KEPT_OF_TRAINER}
    data = {
        key: ELSEWHERE if key == "root" else value for key, value in mapping["data"].items() if not _is_place(value)
    }
    if configuration.data.takes("root"):
        data["root"] = ELSEWHERE
    mapping["data"] = {key: value for key, value in data.items() if key != "shards"}
    return mapping


def _is_place(value: Any) -> bool:
    """Whether a value names a place of a machine or a network."""
    if isinstance(value, list):
        return any(map(_is_place, value))
    return isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~") or "://" in value)


def _facts(configuration: Configuration) -> dict[str, Any]:
    """What is known of a run by its configuration: names of task, classes, method, model and data."""
    nodes = {name: getattr(configuration, name) for name in ("task", "method", "model", "data")}
    facts: dict[str, Any] = {name: node.path.rpartition(".")[2] for name, node in nodes.items()}
    options: Mapping[str, Any] = configuration.model.options
    inner = ", ".join(str(options[key]) for key in ("architecture", "encoder", "backbone") if key in options)
    facts["model"] += f" ({inner})" if inner else ""
    classes = configuration.task.options.get("classes")
    if isinstance(classes, list):
        facts["classes"] = [str(name) for name in classes]
    return facts


def _measured(run: Path) -> str:
    """Figures of `semipix evaluate` in a table, or what a training's validation found, or that there are none."""
    for split in ("test", "val"):
        found = _json(run / f"evaluation-{split}.json")
        if found:
            rows = [f"| {name} | {value:.4f} |" for name, value in found.items() if isinstance(value, float)]
            return "\n".join(["", f"On the {split} images:", "", "| metric | value |", "| --- | --- |", *rows, ""])
    summary = _json(run / SUMMARY) or {}
    rows = [f"| {name} | {value:.4f} |" for name, value in summary.items() if name.startswith("val/")]
    if rows:
        return "\n".join(["", "In the last validation:", "", "| metric | value |", "| --- | --- |", *rows, ""])
    return "\nNothing was measured.\n"


def _json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file of a run; None where there is none, or where it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _check_repository(name: str) -> None:
    """Check the name of a model on the hub.

    Raises:
        SemipixError: it is none.
    """
    if not REPOSITORY.fullmatch(name):
        raise SemipixError(f"{name}: no such folder, and no name of a model on the hub, OWNER/NAME expected")


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Let errors of the system name a folder instead of the hidden one beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
