"""Shell completion of `semipix` by argcomplete: commands, options, groups, their options and keys.

A shell runs it at each press of the tab key. So it is fast: it reads the YAML files and the constructors' source, and
does not import torch or Hydra.
"""

import ast
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

_SHELLS = {"bash": ".bashrc", "zsh": ".zshrc"}
"""Supported shells, with the file that each reads when it starts."""

_WHOLE = ("experiment", "variant")
"""Groups without keys of their own."""

_PATHS = ("run", "resume", "data.root")
"""Keys whose values are folders."""

_FILLED_IN = {"self", "task", "make_model", "source", "split", "use_unlabeled", "run_classes", "needed_splits"}
"""Constructor parameters that semipix fills in."""

_OF_MODELS = {"in_channels", "channels", "band_mean", "band_std"}

NOT_KEYS = {"model": _OF_MODELS, "second_model": _OF_MODELS, "data": {"seed"}}
"""Constructor parameters that semipix fills in as well, by group; another group may have a key of such a name."""


def install(shell: str) -> Path:
    """Add completion to the file that a shell reads when it starts, unless it is there already.

    Args:
        shell: the shell's name or path, such as `$SHELL`.

    Returns:
        The file.

    Raises:
        ValueError: the shell is neither bash nor zsh.
    """
    from argcomplete.shell_integration import shellcode

    name = Path(shell).name
    if name not in _SHELLS:
        raise ValueError(f"{shell or 'no shell'} found, {' or '.join(_SHELLS)} expected")
    folder = Path.home() / ".local" / "share" / "semipix"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"completion.{name}"
    script.write_text(_without_empty_descriptions(shellcode(["semipix"], shell=name)))
    start = Path.home() / _SHELLS[name]
    line = f'source "{script}"  # completion of semipix\n'
    text = start.read_text() if start.exists() else ""
    if line not in text:
        before = "autoload -U compinit && compinit\n" if name == "zsh" and "compinit" not in text else ""
        with start.open("a") as file:
            file.write(f"\n{before}{line}")
    return start


def _without_empty_descriptions(script: str) -> str:
    """Let zsh show completions that have no description alone: argcomplete ends them by a colon, shown as --."""
    shown = '_describe "${words[1]}"'
    return script.replace(shown, f'completions=("${{completions[@]%:}}")\n        {shown}')


def overrides(prefix: str, parsed_args: Any = None, **_: Any) -> list[str]:
    """Completions of an override of `semipix train`; argcomplete calls it.

    Args:
        prefix: the beginning of the override.
        parsed_args: its attribute `overrides` has the earlier overrides.
    """
    given = list(getattr(parsed_args, "overrides", None) or [])
    key, equals, value = prefix.partition("=")
    options = groups()
    if equals:
        before = value[: value.rfind(",") + 1]  # of a sweep
        found = _folders(value) if key in _PATHS else [f"{before}{name}" for name in options.get(key, ())]
        return [f"{key}={item}" for item in found]
    group, dot, _rest = prefix.partition(".")
    if dot:
        return [f"{group}.{name}=" for name in _keys(group, given)]
    return [f"{name}=" for name in (*options, *_top())] + [f"{group}." for group in options if group not in _WHOLE]


def _folders(beginning: str) -> list[str]:
    """Paths of folders, ending with a slash, that begin so."""
    parent, slash, _name = beginning.rpartition("/")
    around = Path(f"{parent}{slash}").expanduser()
    if not around.is_dir():
        return []
    names = sorted(item.name for item in around.iterdir() if item.is_dir() and not item.name.startswith("."))
    return [f"{parent}{slash}{name}/" for name in names]


def _folder(*parts: str) -> Path:
    return Path(str(files("semipix").joinpath("conf", *parts)))


def groups() -> dict[str, list[str]]:
    """The names of each group's options."""
    found = {
        group.name: sorted(str(path.relative_to(group).with_suffix("")) for path in group.rglob("*.yaml"))
        for group in sorted(_folder().iterdir())
        if group.is_dir() and not group.name.startswith("_")
    }
    return {**found, "second_model": found["model"]}


def _top() -> Iterator[str]:
    """Keys that belong to no group."""
    for line in _folder("train.yaml").read_text("utf-8").splitlines():
        if line[:1].isalpha() and not line.startswith(("defaults", "hydra")):
            yield line.partition(":")[0]


def _keys(group: str, given: Sequence[str]) -> list[str]:
    """Keys of the chosen option of a group; none if its class is in another package."""
    defaults = dict(
        line.strip().removeprefix("- ").partition(":")[::2]
        for line in _folder("train.yaml").read_text("utf-8").splitlines()
        if line.startswith("  - ") and "override" not in line
    )
    name = defaults.get(group, "").strip()
    for argument in given:
        if argument.startswith(f"{group}="):
            name = argument.partition("=")[2]
    path = _folder(group, f"{name}.yaml")
    if not path.is_file():
        return []
    targets = [line.partition(":")[2].strip() for line in path.read_text("utf-8").splitlines() if "_target_:" in line]
    targets += ["semipix.data.datamodule.SemiSupervisedDataModule"] if group == "data" else []
    return sorted(
        {key for target in targets for key in _parameters_in_source(target)} - _FILLED_IN - NOT_KEYS.get(group, set())
    )


def _parameters_in_source(target: str) -> list[str]:
    """Names of the constructor parameters of a class of semipix, or of its base class, read from the source."""
    module, _, name = target.rpartition(".")
    package, _, rest = module.partition(".")
    path = Path(str(files("semipix"))).joinpath(*rest.split(".")).with_suffix(".py")
    if package != "semipix" or not path.is_file():
        return []
    tree = ast.parse(path.read_text("utf-8"))
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        return []
    for item in classes[name].body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return [argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)]
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    return [key for base in bases for key in _parameters_in_source(imported.get(base, f"{module}.{base}"))]
