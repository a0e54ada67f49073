"""Share runs as models of the Hugging Face hub: weights as safetensors, and nothing that names the user's files."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download

from semipix import __version__
from semipix.atomic import ENDING, written
from semipix.errors import SemipixError, reason_of
from semipix.training.build import trained_method
from semipix.training.calibration import CALIBRATION, as_text, load, saved
from semipix.training.checkpoints import PUBLISHED
from semipix.training.configuration import Configuration
from semipix.training.image_figures import kept_images
from semipix.training.run_folder import (
    CONFIG,
    SUMMARY,
    check_place,
    checkpoint_of,
    config_text,
    load_config,
    no_empty_folders,
    read_config,
)

FILES = (CONFIG, PUBLISHED, CALIBRATION, SUMMARY, "config.json", "README.md")
"""Files of a published model; no others are loaded from the hub."""

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""Names of models on the hub: of the owner and of the model."""

ELSEWHERE = "ROOT"
"""What a published configuration has instead of a path of the user's machine."""

PLACES = ("root", "cache_folder", "shards")
"""Keys of the data that name places of the user's machine; they are not published."""

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

    @cached_property
    def configuration(self) -> Configuration:
        """The run's configuration, checked as every command checks it."""
        return load_config(self.run, self.trust)

    @cached_property
    def content(self) -> dict[str, bytes]:
        """The files of the published model by name, all but the model card.

        Raises:
            SemipixError: the run or the checkpoint does not exist, or the calibration does not belong to it.
        """
        from safetensors.torch import save

        method = trained_method(self.configuration, self.run, self.checkpoint)
        weights = {name: value.detach().clone().contiguous() for name, value in method.state_dict().items()}
        _, records = read_config(self.run, self.trust)
        facts = {"library": "semipix", **_facts(self.configuration)}
        texts = {
            CONFIG: config_text(published(self.configuration), records["versions"], "published"),
            "config.json": json.dumps(facts, indent=2),
        }
        if (summary := _json(self.run / SUMMARY)) is not None:
            texts[SUMMARY] = json.dumps(summary, indent=2)
        stem = checkpoint_of(self.run, self.checkpoint).stem
        load(self.run, method, stem)  # refuses a calibration of other weights
        if calibrations := [each for each in saved(self.run) if each.checkpoint == stem]:
            texts[CALIBRATION] = as_text([replace(each, checkpoint=Path(PUBLISHED).stem) for each in calibrations])
        tensors = {PUBLISHED: save(weights, {"format": "pt", "semipix": __version__})}
        return {**tensors, **{name: text.encode() for name, text in texts.items()}}

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write everything but the model card, which the mixin writes."""
        for name, content in self.content.items():
            with written(save_directory / name) as file:
                file.write(content)

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
        **model_kwargs: Any,
    ) -> "PublishedRun":
        """The model of a folder, or of the hub.

        Without trust, whatever the mixin found in `config.json`, which belongs to the model.
        """
        folder = Path(model_id)
        if not folder.is_dir():
            options: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
            options |= {"force_download": force_download, "local_files_only": local_files_only}
            folder = Path(snapshot_download(model_id, allow_patterns=list(FILES), **options))
        return cls(folder)

    def card(self, repository: str) -> dict[str, str]:
        """What the model card says of this run, by the names in `CARD`."""
        facts, summary = _facts(self.configuration), _json(self.run / SUMMARY) or {}
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
            "error_map": "calibrated on held-out images" if CALIBRATION in self.content else "not calibrated",
            "metrics": _measured(self.run, checkpoint_of(self.run, self.checkpoint).stem),
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
        SemipixError: the run or the checkpoint does not exist, the folder holds other files, or its place cannot be
            written to.
        OSError: the disk is full.
    """
    others = sorted(item.name for item in folder.iterdir() if item.name not in FILES) if folder.is_dir() else []
    if others or folder.is_file():
        found = f"{len(others)} other files such as {others[0]}" if others else "a file"
        raise SemipixError(f"{folder}: {found} found, a new or empty folder expected; choose another one")
    check_place(folder)
    model = PublishedRun(run, trust, checkpoint)
    card = model.card(repository)
    parent = folder.absolute().parent
    with _named(folder), no_empty_folders(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=ENDING, dir=parent) as unfinished:
            model.save_pretrained(unfinished, model_card_kwargs=card)
            folder.mkdir(exist_ok=True)
            for file in Path(unfinished).iterdir():
                file.replace(folder / file.name)
        for name in (CALIBRATION, SUMMARY):  # of an earlier model
            if name not in model.content:
                (folder / name).unlink(missing_ok=True)


def push_run(run: Path, repository: str, trust: bool, checkpoint: str | None, **options: Any) -> str:
    """Upload a run as a model of the hub; the address of the commit.

    Args:
        run: run folder.
        repository: `owner/name`.
        trust: see `PublishedRun`.
        checkpoint: see `PublishedRun`.
        **options: of `ModelHubMixin.push_to_hub`: `private`, `token`, `branch`, `commit_message`, `create_pr`.

    Raises:
        SemipixError: the name is none, the run does not exist, or the hub cannot be reached or refuses the upload.
    """
    if not REPOSITORY.fullmatch(repository):
        raise SemipixError(f"{repository}: no name of a model on the hub, OWNER/NAME expected")
    model = PublishedRun(run, trust, checkpoint)
    card = model.card(repository)  # made before the mixin makes the repository
    options = {"commit_message": f"Upload by semipix {__version__}", **options}
    try:
        return str(model.push_to_hub(repository, model_card_kwargs=card, **options))
    except Exception as error:  # the hub's client raises errors of its HTTP library too
        raise SemipixError(f"{repository}: not uploaded to the hub: {reason_of(error, 160)}") from error


def fetched(name: str, **options: Any) -> Path:
    """The folder of a model of the hub, which is downloaded where the cache does not have it.

    Args:
        name: `owner/name`.
        **options: of `ModelHubMixin.from_pretrained`: `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        SemipixError: there is no folder and no model of this name, or the hub does not answer.
    """
    try:
        return Path(PublishedRun.from_pretrained(name, **options).run)
    except Exception as error:  # the hub's client raises errors of its HTTP library too
        raise SemipixError(
            f"{name}: no such folder, and no model of the hub could be loaded: {reason_of(error, 120)}"
        ) from error


def published(configuration: Configuration) -> dict[str, Any]:
    """A configuration without paths of the user's machine, and without loggers and callbacks."""
    mapping = configuration.as_mapping()
    mapping["trainer"] = {key: value for key, value in mapping["trainer"].items() if key in KEPT_OF_TRAINER}
    data = {key: value for key, value in mapping["data"].items() if key not in PLACES and not _is_place(value)}
    if configuration.data.takes("root"):
        data["root"] = ELSEWHERE
    mapping["data"] = data
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


def _measured(run: Path, checkpoint: str) -> str:
    """Figures of `semipix evaluate` in a table, or what a training's validation found, or that there are none.

    Args:
        run: run folder.
        checkpoint: `best` or `last`; figures of another one, or with tiles, are not shown.
    """
    for split in ("test", "val"):
        found = _json(run / f"evaluation-{split}.json")
        if found and kept_images(run, split, checkpoint):
            rows = [f"| {name} | {value:.4f} |" for name, value in found.items() if isinstance(value, float)]
            return "\n".join(["", f"On the {split} images:", "", "| metric | value |", "| --- | --- |", *rows, ""])
    summary = _json(run / SUMMARY) or {}
    values = {name: value for name, value in summary.items() if re.fullmatch(r"val/\w+", name)}
    rows = [f"| {name} | {value:.4f} |" for name, value in values.items() if isinstance(value, float)]
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


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Let errors of the system name a folder instead of the hidden one beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
