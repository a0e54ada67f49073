"""Run folders that somebody tampered with: nothing that they name may be executed, and no other file may be touched.

Each form goes through `predict`, `evaluate` and `train resume=`. A payload that is executed touches a file.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.reliability.commands import run
from benchmarks.reliability.folders import SMALL, contents, emptied, trained, write_photos
from benchmarks.reliability.outcomes import Case, Outcome, Result, Section, judged

MARKER = "executed"
"""The file that a payload touches."""

Tamper = Callable[[Path, str], None]
"""Changes a run folder so that it names a shell command, which is given."""


def _change(run_folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = run_folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def _node(place: str, payload: Callable[[str], Any]) -> Tamper:
    """Put a payload at a dotted place of config.yaml."""

    def tamper(run_folder: Path, command: str) -> None:
        def change(config: dict[str, Any]) -> None:
            *above, last = place.split(".")
            node = config
            for key in above:
                node = node.setdefault(key, {})
            node[last] = payload(command)

        _change(run_folder, change)

    return tamper


def _system(command: str) -> dict[str, Any]:
    return {"_target_": "os.system", "command": command}


def _popen(command: str) -> dict[str, Any]:
    return {"_target_": "subprocess.Popen", "args": ["sh", "-c", command]}


def _hidden(command: str) -> dict[str, Any]:
    """A function that torch imports, under a name of torch."""
    return {"_target_": "torch.os.system", "command": command}


def _evaluated(command: str) -> dict[str, Any]:
    return {"_target_": "builtins.eval", "_args_": [f"__import__('os').system({command!r})"]}


def _text(form: str) -> Tamper:
    """Add a line of YAML to config.yaml."""

    def tamper(run_folder: Path, command: str) -> None:
        path = run_folder / "config.yaml"
        path.write_text(path.read_text() + form.format(command=command))

    return tamper


def _value(place: str, form: str) -> Tamper:
    return _node(place, lambda command: form.format(command=command))


class Payload:
    """Executes a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.command,)


def _checkpoint(change: Callable[[dict[str, Any], Payload], Any]) -> Tamper:
    def tamper(run_folder: Path, command: str) -> None:
        for path in (run_folder / "checkpoints").iterdir():
            state = torch.load(path, weights_only=True)
            torch.save(change(state, Payload(command)) or state, path)

    return tamper


def _pickled(run_folder: Path, command: str) -> None:
    for path in (run_folder / "checkpoints").iterdir():
        path.write_bytes(pickle.dumps(Payload(command)))


def _split(name: str) -> Tamper:
    """Name a file outside of the data folder in split.json."""

    def tamper(run_folder: Path, command: str) -> None:
        path = run_folder / "split.json"
        split = json.loads(path.read_text())
        for part, names in split.items():
            if isinstance(names, list) and names:
                split[part] = [name] * len(names)
        path.write_text(json.dumps(split))

    return tamper


def _module(run_folder: Path, command: str) -> None:
    """A module in the folder from which the command is started; importing it executes something."""
    (run_folder.parent / "sidecar.py").write_text(f"import os\nos.system({command!r})\n")
    _change(run_folder, lambda config: config["model"].update(_target_="sidecar.Model"))


FORMS: dict[str, Tamper] = {
    **{f"{group}: os.system": _node(group, _system) for group in ("model", "second_model", "task", "method", "data")},
    **{f"{group}: os.system": _node(group, _system) for group in ("optimizer", "scheduler", "trainer")},
    "model: subprocess.Popen": _node("model", _popen),
    "model: torch.os.system": _node("model", _hidden),
    "task: builtins.eval": _node("task", _evaluated),
    "model: a module beside the run": _module,
    "a callback": _node("trainer.callbacks", lambda command: [_system(command)]),
    "a logger": _node("trainer.logger", lambda command: [_popen(command)]),
    "a plugin": _node("trainer.plugins", lambda command: [_hidden(command)]),
    "a profiler": _node("trainer.profiler", _system),
    "a strategy": _node("trainer.strategy", _popen),
    "nested in the model": _node("model.width", _system),
    "nested in the task": _node("task.class_weights", lambda command: [_system(command), 1]),
    "nested deep in the data": _node("data.mask_values", lambda command: {0: {"deep": [_system(command)]}}),
    "nested in the optimizer": _node("optimizer.betas", lambda command: [_evaluated(command), 0.9]),
    "a schedule's function": _node(
        "scheduler",
        lambda command: {"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": _evaluated(command)},
    ),
    "shards of a pipe": _value("data.shards", "pipe:{command}"),
    "shards of http": _value("data.shards", "http://localhost:9/'; {command}; '.tar"),
    "the seed": _node("seed", _system),
    "a YAML tag": _text("extra: !!python/object/apply:os.system ['{command}']\n"),
    "a YAML tag of a new object": _text("extra: !!python/object/new:os.system ['{command}']\n"),
    "an interpolation": _text("extra: ${{oc.env:HOME}}\n"),
    "a pickled checkpoint": _pickled,
    "a payload in the weights": _checkpoint(lambda state, payload: state["state_dict"].update(payload=payload)),
    "a payload in the optimizer": _checkpoint(lambda state, payload: state.update(optimizer_states=[payload])),
    "a payload in a callback's state": _checkpoint(lambda state, payload: state.update(callbacks={"x": payload})),
    "split.json with ../": _split("../../secret.png"),
    "split.json with an absolute name": _split("SECRET"),
}
"""What is tampered with."""

COMMANDS = ("predict", "evaluate", "resume")
COUNT = len(FORMS) * len(COMMANDS)


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Tamper with a copy of one run, and give it to a command."""
    photos = write_photos(folder / "photos")
    made = trained(folder / "trained", *SMALL, f"data.root={photos}", "steps=2", "validations=1", "checkpoint_every=1")
    (made / "summary.json").unlink()  # so that there is something to resume
    secret = folder / "secret.png"
    shutil.copy(photos / "images/test/test0.png", secret)
    for case in cases:
        form, command = list(FORMS)[case.number // len(COMMANDS)], COMMANDS[case.number % len(COMMANDS)]
        place = emptied(folder / "tampered")
        shutil.copytree(made, place / "run")
        marker = folder / MARKER
        FORMS[form](place / "run", f"touch {marker}")
        split = place / "run/split.json"
        split.write_text(split.read_text().replace("SECRET", str(secret)))
        before = contents(folder)
        arguments = {
            "predict": ["predict", "run", photos / "images/test", "--out", "out"],
            "evaluate": ["evaluate", "run"],
            "resume": ["train", "resume=run"],
        }[command]
        outcome = judged(run(arguments, place))
        after = {name for name, digest in contents(folder).items() if before.get(name) != digest}
        outside = sorted(name for name in after if not name.startswith("tampered/"))
        if outside:
            outcome = Outcome("executed", f"{outside[0]} was written: {outcome.message}")
        elif "split" in form and outcome.kind == "right" and command != "predict":
            outcome = Outcome("executed", f"a file outside of the data was read: {outcome.message}")
        marker.unlink(missing_ok=True)
        yield Result(case, f"{form}, {command}", outcome)


SECTION = Section("tampered", COUNT, run_cases)
