"""The paper's values are those of the paper, and reach the configuration."""

import functools
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

import semipix.conf
from semipix.config import GROUPS, TOP
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.errors import SemipixError
from semipix.launch.comparison import Grid, is_grid, jobs_of, shared_overrides
from semipix.launch.compose import compose
from semipix.launch.paper import paper_table
from semipix.methods.gct import GCT
from semipix.training.configuration import Configuration
from semipix.training.run_folder import read_config
from tests.conftest import Result
from tests.helpers.pages import table_of
from tests.helpers.tiny import method_class, options

CONF = Path(semipix.conf.__file__).parent
FIDELITY = Path(__file__).parents[2] / "docs/fidelity.md"
PAPER = "experiment=paper/segmentation"
TASKS = ("segmentation", "denoising", "matting", "enhancement")

APPENDIX_C = {
    ("mean_teacher", "lambda_consistency"): (1.00, 1.00, 1.00, 1.00),
    ("mean_teacher", "rampup_epochs"): (3, 5, 5, 5),
    ("mean_teacher", "decay"): (0.99, 0.99, 0.99, 0.99),
    ("s4l", "lambda_s4l"): (0.10, 1.00, 1.00, 1.00),
    ("advssl", "lambda_adv_labeled"): (0.01, 0.001, 0.01, 0.001),
    ("advssl", "lambda_adv_unlabeled"): (0.001, 0.001, 0.01, 0.001),
    ("gct", "lambda_fc"): (1.00, 0.10, 1.00, 0.10),
    ("gct", "lambda_dc"): (100, 1.00, 100, 1.00),
    ("gct", "rampup_epochs"): (3, 5, 5, 5),
    ("gct", "flaw_threshold"): (0.60, 0.60, 0.40, 0.60),
}
"""The second table of Appendix C, typed from the paper; its columns are TASKS."""

RELEASED = {"lambda_rotated": 0.1, "lambda_detection": 10, "discriminator_lr": 0.0001}
"""Values that Appendix C does not have: those of the released scripts."""

COMPARED = ("mean_teacher", "s4l", "advssl", "gct")


def column(task: str, method: str) -> dict[str, float]:
    """Appendix C's values for a task and a method."""
    number = TASKS.index(task)
    return {key: values[number] for (name, key), values in APPENDIX_C.items() if name == method}


def resolved(*overrides: str) -> Configuration:
    """The checked configuration that a command leads to; its data folder is not read."""
    given = {override.partition("=")[0] for override in overrides}
    usual = [item for item in ("data=scenes",) if item.partition("=")[0] not in given]
    return Configuration.parse(compose([*usual, *overrides]))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", COMPARED)
def test_the_table_is_appendix_c(task: str, method: str) -> None:
    row = dict(paper_table(task)[method])
    assert row.pop("detector", "paper") == "paper"
    row.pop("deploy", None)
    assert {key: value for key, value in row.items() if key not in RELEASED} == column(task, method)
    assert {key: value for key, value in row.items() if key in RELEASED}.items() <= RELEASED.items()


@pytest.mark.parametrize("task", TASKS)
def test_flaw_mean_teacher_has_the_values_of_mean_teacher(task: str) -> None:
    assert paper_table(task)["flaw_mean_teacher"] == {**column(task, "mean_teacher"), "lambda_detection": 10}


def test_the_table_has_the_papers_tasks_and_methods() -> None:
    assert sorted(TASKS) == sorted(yaml.safe_load((CONF / "paper.yaml").read_text()))
    both = {"supervised", *COMPARED, "flaw_mean_teacher"}
    assert paper_table("segmentation").keys() == both | {"cct", "cutmix"}
    for task in TASKS[1:]:
        assert paper_table(task).keys() == both
        assert not any(method_class(name).classification_only for name in both)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", COMPARED)
def test_appendix_c_arrives(task: str, method: str) -> None:
    config = resolved(f"experiment=paper/{task}", f"method={method}")
    assert config.task.path.endswith(task.capitalize())
    assert column(task, method).items() <= config.method.options.items()


@pytest.mark.parametrize("method", ["flaw_mean_teacher", "cct", "cutmix"])
def test_the_other_rows_arrive(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = paper_table("segmentation")[method]
    changed = {key: value / 2 for key, value in row.items()}  # so that no value is a constructor's default
    monkeypatch.setattr(
        "semipix.launch.paper.paper_table", lambda task, group="method": {method: changed} if group == "method" else {}
    )
    assert changed.items() <= resolved(PAPER, f"method={method}").method.options.items()


def test_segmentation_trains_deeplab_as_the_paper_does() -> None:
    config = resolved(PAPER, "data=folder", "data.root=nowhere")
    assert config.model.path.endswith(".DeepLabV2")
    assert config.second_model is None
    assert {"pretrained": True, "backbone": "resnet101", "output_stride": 8}.items() <= config.model.options.items()
    sgd = {"lr": 2.5e-4, "momentum": 0.9, "weight_decay": 5e-4}
    assert config.optimizer.path == "torch.optim.SGD"
    assert sgd.items() <= config.optimizer.options.items()
    assert config.scheduler is not None
    assert (config.scheduler.path, config.scheduler.options["power"]) == ("torch.optim.lr_scheduler.PolynomialLR", 0.9)
    data = {"crop": 321, "scale": [0.5, 1.5], "pad": True, "flip": 0.5, "batch_size": 4, "labeled_per_batch": 2}
    assert data.items() <= config.data.options.items()
    assert (config.length, config.epochs) == ("full", 40)
    assert not config.data.options.get("rare_share"), "crops are at random places"


@pytest.mark.parametrize("task", TASKS)
def test_what_came_after_the_paper_is_off(task: str) -> None:
    config = resolved(f"experiment=paper/{task}")
    later = {"detector": "paper", "detector_norm": "batch", "detector_scale": 1, "withhold": 0, "fusion": False}
    assert later.items() <= config.method.options.items()
    assert config.task.options.get("class_weights") is None


def test_denoising_deploys_dhdn_and_counts_sidds_patches() -> None:
    config = resolved("experiment=paper/denoising", "data=sidd", "data.root=nowhere", "data.labels=1/16")
    assert config.second_model is not None
    assert (config.model.path, config.second_model.path) == ("semipix.models.dhdn.DHDN", "semipix.models.didn.DIDN")
    assert config.method.options["deploy"] == "first"
    data = config.data.options
    assert (data["crop"], data["train_pairs"], data["val_pairs"], data["blocks"]) == (256, 160, 40, 32)
    assert data["train_pairs"] * data["samples_per_image"] == pytest.approx(30_000, rel=0.01)
    assert config.length == "full"
    assert "samples_per_image" in resolved("experiment=paper/denoising").data.options
    assert resolved("experiment=paper/denoising").data.options["samples_per_image"] == 1, "of other data"


@pytest.mark.parametrize("experiment", ["paper/denoising", "paper/denoising_small"])
def test_an_experiments_second_model_can_be_left_out(experiment: str) -> None:
    assert resolved(f"experiment={experiment}", "second_model=null").second_model is None
    assert resolved(f"experiment={experiment}", "second_model=dhdn", "second_model=null").second_model is None


def test_matting_takes_the_papers_samples_and_passes() -> None:
    config = resolved("experiment=paper/matting", "data=pairs", "data.root=nowhere")
    assert config.model.path.endswith(".DeepImageMatting")
    assert config.model.options["pretrained"] is True
    data = config.data.options
    assert data["samples_per_image"] == [15 + 35, 5]
    assert data["replace_background"] == 35 / 50
    assert (data["crop"], config.length) == (320, "unlabeled")


def test_enhancement_crops_flips_and_turns() -> None:
    config = resolved("experiment=paper/enhancement")
    assert config.model.path.endswith(".HDRNet")
    data = config.data.options
    assert (data["crop"], data["flip"], data["scale"], config.length) == (512, 0.5, [1, 1], "unlabeled")
    assert data["rotate"] > 0


@pytest.mark.parametrize(
    ("override", "group", "key", "value"),
    [
        ("method.lambda_dc=3", "method", "lambda_dc", 3),
        ("model.pretrained=false", "model", "pretrained", False),
        ("data.labeled_per_batch=3", "data", "labeled_per_batch", 3),
    ],
)
def test_the_user_wins_over_the_paper(override: str, group: str, key: str, value: Any) -> None:
    config = resolved(PAPER, "optimizer=adamw", "scheduler=null", override)
    assert getattr(config, group).options[key] == value
    assert config.method.options["rampup_epochs"] == 3
    assert config.optimizer.path == "torch.optim.AdamW"
    assert config.scheduler is None


def test_values_belong_to_the_option_that_has_them() -> None:
    unet = resolved("experiment=paper/matting", "model=unet", "second_model=deep_image_matting")
    assert paper_table("matting", "model").keys() == {"deep_image_matting"}
    assert unet.second_model is not None
    assert unet.second_model.options["pretrained"] is True
    none = resolved("experiment=paper/matting", "second_model=deep_image_matting", "second_model=null")
    assert none.second_model is None
    own = resolved(PAPER, "model._target_=tests.helpers.tiny.TinyModel")
    assert "pretrained" not in own.model.options, "another class need not have the key"


def test_without_the_experiment_constructors_decide() -> None:
    defaults = inspect.signature(GCT).parameters
    assert resolved("method=gct").method.options == {
        name: each.default for name, each in defaults.items() if name not in ("task", "make_model")
    }


@pytest.mark.parametrize("method", sorted({*options("method")} - paper_table("segmentation").keys()))
def test_a_method_that_the_paper_does_not_list_is_refused(method: str) -> None:
    listed = ", ".join(paper_table("segmentation"))
    with pytest.raises(SemipixError, match=f"method={method}: the paper's table has no such row, it lists {listed}"):
        compose([PAPER, "data=scenes", f"method={method}"])


def test_a_sweep_of_the_paper_stores_each_methods_values(train: Callable[..., Result]) -> None:
    rows = paper_table("segmentation")
    assert train(PAPER, "method=mean_teacher,cutmix", "method.decay=0.5", "-m", "run=sweep").code == 0
    for method in ("mean_teacher", "cutmix"):
        stored, _ = read_config(Path("sweep") / f"method_{method}", trust=True)
        assert {key: stored["method"][key] for key in rows[method]} == {**rows[method], "decay": 0.5}
        assert stored.keys() <= {*GROUPS, *TOP}


NAMES = ("supervised_short", "mean_teacher", "s4l", "advssl", "gct")
"""Rows of Tables 1 to 3."""

GRIDS = {
    "table1": ("segmentation", 5 * 5 * 3),
    "table2": ("denoising", 5 * 5 * 3),
    "table3_matting": ("matting", 5 * 3),
    "table3_enhancement": ("enhancement", 5 * 3),
    "table4": ("segmentation", (6 + 5 - 1) * 3),
    "fig5_segmentation": ("segmentation", 4 * 5 * 3),
    "fig5_denoising": ("denoising", 4 * 5 * 3),
}
"""The paper's tables: the task, and how many runs they have. Both parts of Table 4 have a run in common."""

DATA = {"segmentation": "VOCSource", "denoising": "SIDDSource", "matting": "PairsSource", "enhancement": "PairsSource"}

SMALL = {"segmentation": 1293, "denoising": 599, "matting": 596, "enhancement": 596}
"""Unlabeled images of the small data, with the fewest labels."""

PAPER_PASSES = {"segmentation": 20, "denoising": 20, "matting": 40, "enhancement": 40}
"""Passes over the unlabeled images, of which a ramp-up is a share."""


def grid_of(name: str) -> Grid:
    return Grid.parse(yaml.safe_load((CONF / f"experiment/paper/{name}.yaml").read_text())["compare"])


@functools.cache
def cell(*overrides: str) -> Configuration:
    return Configuration.parse(compose(["data.root=nowhere", *overrides]))


def cells(name: str) -> dict[str, Configuration]:
    """The configuration of each method and change of a grid, with its first number of labels and its first seed."""
    grid = grid_of(name)
    assert grid.labels is not None
    changes = dict([*grid.changes.items()][:: max(1, len(grid.changes) - 1)])  # the first and the last
    found = {}
    for each in (*grid.methods, *changes):
        if each != "all_labels":
            own = {key: value for key, value in changes.items() if key == each}
            alone = replace(grid, methods=() if own else (each,), changes=own, seeds=grid.seeds[:1])
            job, *_ = jobs_of(alone, grid.labels)
            found[each] = cell(*(item.lstrip("+") for item in shared_overrides([], grid)), *job[:-2])
    return found


def check_changes(name: str, found: dict[str, Configuration]) -> None:
    """Whether what a grid changes has arrived."""
    for each in found.keys() & grid_of(name).changes.keys():
        for item in grid_of(name).changes[each][1:]:
            key, _, value = item.partition("=")
            assert found[each].method.options[key.removeprefix("method.")] == yaml.safe_load(value)


def test_every_experiment_of_the_paper_is_a_task_or_a_grid_and_has_a_small_sibling() -> None:
    large = {*TASKS, *GRIDS}
    assert {*options("experiment/paper")} == large | {f"{name}_small" for name in large}
    assert {name for name in options("experiment/paper") if is_grid(f"paper/{name}")} == {
        *GRIDS,
        *(f"{name}_small" for name in GRIDS),
    }


@pytest.mark.parametrize("name", GRIDS)
def test_the_papers_tables_have_its_cells_and_appendix_c(name: str) -> None:
    task, runs = GRIDS[name]
    grid = grid_of(name)
    assert grid.labels is not None
    assert len(jobs_of(grid, grid.labels)) == runs
    assert grid.experiment == f"paper/{task}"
    if name.startswith("table") and name != "table4":
        assert grid.methods == NAMES
    found = cells(name)
    for each, config in found.items():
        method = each if each in NAMES else "gct"
        assert config.data.path.endswith(f".{DATA[task]}")
        assert config.task.path.endswith(task.capitalize())
        assert str(config.data.options["labels"]) == grid.labels[0]
        if method == "supervised_short":
            assert config.method.path.endswith(".Supervised") and config.length == "labeled"
        elif each in grid.methods:
            assert column(task, method).items() <= config.method.options.items()
    check_changes(name, found)


def test_the_numbers_that_table_4_and_figure_5_vary() -> None:
    runs = {changes[1:] for changes in grid_of("table4").changes.values()}
    at = "method.flaw_threshold=0.4"
    thresholds = {(f"method.flaw_threshold={value / 10}",) for value in range(0, 11, 2)}
    assert runs == thresholds | {(at, f"method.rampup_epochs={value}") for value in (0, 1, 5, 10)}
    for name in ("fig5_segmentation", "fig5_denoising"):
        assert {changes[1:] for changes in grid_of(name).changes.values()} == {
            ("method.constraints=consistency",),
            ("method.constraints=correction",),
        }


@pytest.mark.parametrize("name", GRIDS)
def test_small_siblings_have_the_papers_values_and_shares_of_ramp_ups(name: str) -> None:
    task, _ = GRIDS[name]
    grid = grid_of(f"{name}_small")
    assert grid.experiment == f"paper/{task}_small"
    assert grid.changes.keys() == grid_of(name).changes.keys()
    found = cells(f"{name}_small")
    lengths = ("rampup_epochs", "decay")
    for each, config in found.items():
        data = config.data.options
        assert config.steps is not None
        passes = config.steps * (data["batch_size"] - data["labeled_per_batch"]) / SMALL[task]
        values = column(task, each if each in COMPARED else "none")
        arrived = config.method.options
        assert {key: value for key, value in values.items() if key not in lengths}.items() <= arrived.items()
        if "rampup_epochs" in values:
            share = values["rampup_epochs"] / PAPER_PASSES[task]
            assert arrived["rampup_epochs"] == pytest.approx(share * passes, rel=0.03)
        if each == "gct":
            assert arrived["detector"] == "paper"
        if "decay" in values:
            assert arrived["decay"] == 0.95
        assert "samples_per_image" not in data or data["samples_per_image"] == 1
    check_changes(f"{name}_small", found)


def test_the_ramp_ups_of_the_small_table_4_are_shares_of_the_training() -> None:
    passes = 200 * 2 / SMALL["segmentation"]
    changes = grid_of("table4_small").changes
    for epochs in (1, 5, 10):
        *_, last = changes[f"rampup_{epochs}"]
        assert float(last.partition("=")[2]) == pytest.approx(epochs / 20 * passes, rel=0.04)


def test_a_method_that_a_small_sibling_does_not_list_is_refused() -> None:
    with pytest.raises(SemipixError, match=r"method=cps: the paper's table has no such row, it lists .*gct_strong"):
        compose([f"{PAPER}_small", "data.root=nowhere", "method=cps"])


def test_table_3_names_both_of_its_parts() -> None:
    with pytest.raises(SemipixError, match=r"paper/table3: no such option; there are paper/table3_enh.*table3_matting"):
        compose(["experiment=paper/table3"])
    with pytest.raises(SemipixError, match=r"paper/table9: no such option; known: compare, search"):
        compose(["experiment=paper/table9"])


def commands() -> Iterator[list[str]]:
    """The overrides of each command that docs/fidelity.md gives for the paper's tables and figures."""
    section = FIDELITY.read_text().partition("\n## The paper's tables and figures\n")[2].partition("\n## ")[0]
    for block in re.findall(r"```\n(.*?)```", section, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                assert words[:2] == ["semipix", "train"], line
                yield words[2:]


def test_the_papers_tables_are_overrides() -> None:
    """Each value of each documented sweep is accepted and arrives."""
    found: dict[str, set[str]] = {}
    for words in commands():
        given = [word for word in words if word != "-m"]
        parsed = [OverridesParser.create().parse_override(word) for word in given]
        swept = {item.key_or_group: list(item.sweep_string_iterator()) for item in parsed if item.is_sweep_override()}
        for key, values in swept.items():
            found.setdefault(key, set()).update(values)
        last = {key: values[-1] for key, values in swept.items()}
        config = resolved(
            *(f"{key}={last[key]}" if (key := word.partition("=")[0]) in last else word for word in given)
        )
        for key, value in last.items():
            group, _, name = key.partition(".")
            if name:
                assert getattr(config, group).options[name] == yaml.safe_load(value), key
    assert found["method.constraints"] == {"consistency", "correction", "both"}  # Fig. 5
    assert set(map(float, found["method.flaw_threshold"])) == {0, 0.2, 0.4, 0.6, 0.8, 1}  # Table 4
    assert set(map(int, found["method.rampup_epochs"])) == {0, 1, 3, 5, 10}
    assert {"1/16", "1/8", "1/4", "1/2", "all"} <= found["data.labels"]  # Tables 1 and 2
    assert {"mean_teacher", "s4l", "advssl", "gct", "flaw_mean_teacher"} <= found["method"]


def test_the_table_of_statements_names_files_and_keys_that_exist() -> None:
    section = FIDELITY.read_text().partition("\n## Each statement of the paper\n")[2].partition("\n## ")[0]
    rows = table_of(section)
    assert len(rows) > 40
    keys = {"data": set(inspect.signature(SemiSupervisedDataModule).parameters), "method": set(), "model": set()}
    for name in options("method"):
        keys["method"] |= set(inspect.signature(method_class(name)).parameters)
    for code in re.findall(r"`([^`]+)`", " ".join(row[1] for row in rows)):
        group, dot, key = code.partition("=")[0].partition(".")
        if re.search(r"\.(py|yaml)$", code):
            assert (CONF.parent / code).is_file(), code
        elif dot and group == "method":
            assert key in keys[group], code
        elif dot and group == "data" and key not in keys["data"]:
            assert any(key in source.read_text() for source in (CONF.parent / "data/sources").glob("*.py")), code
