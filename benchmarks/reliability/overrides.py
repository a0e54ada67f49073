"""Hostile overrides of `semipix train`: it must train, or refuse them in one line and leave nothing behind.

The keys are those of the composed configuration and of the constructors that it names, so that a new key is tried
without being listed here.
"""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import OmegaConf

from benchmarks.reliability.commands import LIMIT, Command
from benchmarks.reliability.folders import SMALL, emptied, write_photos
from benchmarks.reliability.outcomes import Case, Ended, Outcome, Result, Section, judged

COUNT = 500

GROUPS = ("task", "method", "model", "second_model", "data", "optimizer", "scheduler", "trainer")

# fmt: off
VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "1", "2.5", "1e300", "1e-300", "99999999999", "-99999999999", "9" * 400),
    *("0x10", "null", "''", "true", "abc", "[]", "{}", "[1,2,3]", "[nan]", "[[1],[2]]", "[null]", "{a:1}", "1,2"),
    *("1_000", "1e3", "{_target_:builtins.dict}", "{a:{b:{c:[1,{d:null}]}}}", "[" * 40 + "]" * 40, "ü😀", "'a b'"),
    *("'a\nb'", "'\\0'", "x" * 10_000, "???", "${nowhere}", "${seed}", "${oc.env:NOWHERE}", "${.}", "range(0,3)"),
    *("choice(a,b)", "glob(*)", "int(x)", "../x", "./nothing", "-", "0b1", "2024-01-01", "~", "@"),
    *("!!python/object:os.system", "%s", "\\", "'"),
)
"""Values that few keys accept."""

GARBAGE = (
    *("=", "==", "=1", "a", "a=", "a.b", ".a=1", "a.=1", "..=1", "+", "++", "~", "~~", "+=1", "~=1", "@=1", "a@=1"),
    *("a@b@c=d", "seed", "seed==1", "seed=1=2", "seed:=1", "seed=[1", "seed=1]", "seed={", "seed='", "seed=(1)"),
    *("seed=1 2", "seed=,", "+seed=1", "++seed=nan", "~seed", "~seed=0", "~method", "~task", "~trainer"),
    *("~data.root", "~model._target_", "~hydra", "nothing=1", "+nothing=1", "++nothing.deep.er=1", "model=nothing"),
    *("model=[unet,dhdn]", "model@data=unet", "model=null", "model@second_model=nothing", "data@model=folder"),
    *("second_model=../unet", "model=../model/unet", "model=unet.yaml", "experiment=nothing"),
    *("experiment=paper/nothing", "experiment=..", "hydra=1", "hydra.run.dir=x", "hydra.job.chdir=true"),
    *("hydra/launcher=nothing", "hydra/sweeper=nothing", "hydra.searchpath=[x]", "hydra.mode=MULTIRUN"),
    *("hydra.verbose=[1]", "--", "-x", "--steps", "--steps=1", "-m", "--cfg", "--cfg=job", "-cd", "-cn=x"),
    *("--config-dir=x", "--data", "--data=x", "resume=", "resume=.", "resume=nowhere", "+resume=x", "run="),
    *("run=null", "run=nan", "run={a:1}", "run=a/../b", "run=/dev/null/x", "run=/proc/x", "run='" + "x" * 300 + "'"),
    *("run='a\\0b'", "\udce9=1", "seed=\udce9", "ключ=1", "", " ", "\n", "seed=1\n", "model={_target_:os.system}"),
    *("model._target_=os.abort", "task._target_=builtins.dict", "data._target_=semipix.nothing"),
    *("optimizer._target_=torch.optim.LBFGS", "trainer._target_=builtins.print", "model._target_=''"),
    *("model._target_=..", "trainer=null", "trainer={}", "method={a:1}", "task=[segmentation]", "data=folder,scenes"),
    *("steps=1,2", "seed=range(0,1e9)"),
)
"""Arguments that are no overrides, or overrides without a meaning."""
# fmt: on


@cache
def keys() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every key of the composed configuration and every parameter of the constructors that it names.

    Returns:
        Each key with the overrides that choose the option it belongs to.
    """
    found: dict[str, tuple[str, ...]] = {}
    usual = [item for item in SMALL if "." not in item.partition("=")[0]]
    with initialize_config_module("semipix.conf", version_base="1.3"):
        options = {group: _options(group) for group in ("method", "optimizer", "scheduler")}
        for choice in ((), *((f"{group}={name}",) for group, names in options.items() for name in names)):
            asked = [*usual, "model@second_model=unet", "+data.root=x", *choice]
            config: Any = OmegaConf.to_container(compose("train", asked), resolve=False)
            for key, node in config.items():
                found.setdefault(key, ())
                if key in GROUPS:
                    named = (*node, *_parameters(node["_target_"]))
                    found |= {name: choice for each in named if (name := f"{key}.{each}") not in found}
    return tuple(found.items())


def _options(group: str) -> list[str]:
    return sorted(each.name.removesuffix(".yaml") for each in files("semipix.conf").joinpath(group).iterdir())


def _parameters(target: str) -> list[str]:
    """Parameters of a constructor, and of the data module for a source, which share one node."""
    targets = [target, "semipix.data.datamodule.SemiSupervisedDataModule"] if "Source" in target else [target]
    return [name for each in targets for name in inspect.signature(get_class(each)).parameters if name != "kwargs"]


def drawn(case: Case) -> list[str]:
    """The overrides of a case: every key in turn, and garbage in every fourth case."""
    draw = case.draw()
    if case.number % 4 == 3:
        return [draw.choice(GARBAGE)]
    number = case.number - case.number // 4
    key, choice = keys()[number % len(keys())]
    if draw.random() < 0.05:
        return [*choice, f"~{key}"]
    return [*choice, draw.choice(("", "", "", "++", "+")) + f"{key}={draw.choice(VALUES)}"]


def run_cases(cases: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Train with each case's overrides in a fork of its own."""
    photos = write_photos(folder / "photos")
    usual = (*SMALL, f"data.root={photos}", "steps=1", "validations=0", "run=run")
    for case in cases:
        overrides = drawn(case)
        given = {item.partition("=")[0].lstrip("+~") for item in overrides}
        place = emptied(folder / "a/b/c")
        kept = [] if overrides[0].startswith("resume=") else usual
        arguments = [*(item for item in kept if item.partition("=")[0] not in given), *overrides]
        sweeps = {"-m", "--multirun"} & {*overrides}  # its jobs start Python again, which takes longer
        ended = Command(["train", *arguments], place).wait(60 if sweeps else LIMIT)
        yield Result(case, " ".join(overrides)[:80], _judged(ended, place, folder))


def _judged(ended: Ended, place: Path, folder: Path) -> Outcome:
    if ended.code is None and "train: " in ended.err:
        return Outcome("right", "trains on, which takes longer than a refusal may")
    outcome = judged(ended)
    there = sorted(str(path.relative_to(folder / "a")) for path in (folder / "a").rglob("*") if path.is_file())
    if outcome.kind == "one line" and there:
        return Outcome("left behind", f"{there[0]}: {outcome.message}")
    if (
        outcome.kind == "right"
        and not any(path.endswith("summary.json") for path in there)
        and "_target_:" not in ended.out
    ):
        return Outcome("wrong", f"exit status 0 without a summary: {ended.out[-100:]}")
    return outcome


SECTION = Section("overrides", COUNT, run_cases)
