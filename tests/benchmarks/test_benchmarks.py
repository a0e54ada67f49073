"""The benchmarks run as modules, and what they compare is configuration."""

import importlib
import pkgutil
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks import accuracy, accuracy_tables, common, speed, tables
from benchmarks.accuracy import bf16, compare
from benchmarks.accuracy.compare import SETTINGS, VARIANTS, composed, configuration, is_same, overrides_of
from benchmarks.speed import step

from semipix.errors import SemipixError
from semipix.training.configuration import Configuration
from tests.conftest import Result

SCRIPTS = [
    name
    for package in (accuracy, speed)
    for _, name, _ in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if hasattr(importlib.import_module(name), "main")
]

Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a script's main with arguments."""

    def call(main: Callable[[], None], *arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        main()

    return call


def test_scripts_are_found() -> None:
    assert {"benchmarks.accuracy.compare", "benchmarks.speed.step", "benchmarks.speed.loading"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", [*SCRIPTS, "benchmarks.tables", "benchmarks.evidence"])
def test_help_shows_the_command(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(importlib.import_module(name).main, "--help")
    assert ended.value.code == 0
    description = capsys.readouterr().out.partition("\n\n")[2]
    assert f"python -m {name}" in " ".join(description.split())


def test_a_step_is_measured(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "GCT_FORMS", {step.GCT: {}})
    monkeypatch.setattr(step.Bench, "matrix_product", lambda bench: lambda: bench.image[0, 0] @ bench.image[0, 0])
    path = tmp_path / "step.json"
    keys = {"case": "unet", "device": common.device_name(), "precision": "fp32", "size": [64, 64], "images": [1, 1]}
    keys["threads"] = torch.get_num_threads()
    of_gct_alone = {**keys, "seconds": {"gct": 1.0}}
    common.write_records(path, [of_gct_alone, {**keys, "seconds": {"supervised": 1.0}}])
    small = ["--size", 64, "--images", 1, 1, "--repeats", 1, "--no-literal", "--no-memory", "--json", path]
    run(step.main, *small, "--methods", "supervised")
    kept, record = common.records_in(path)  # the new one replaces that of the same methods
    assert kept == of_gct_alone
    assert record["seconds"].keys() == record["matrix_share"].keys() == {"floor", "gct", "supervised"}
    assert record["flops"]["floor"] == 2 * record["flops"]["supervised"] > 0
    assert keys.items() <= record.items()


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    printed = common.output_of(step.__name__, ["--peak-of", "floor", "--size", "64", "--images", "1", "1"])
    assert int(printed.splitlines()[-1]) > 2**20


def test_a_failed_process_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        common.run(lambda: print(common.output_of("semipix.cli", ["nothing"])))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: semipix.cli nothing: exit status 2\n"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"steps": 2}')
    with pytest.raises(
        SemipixError, match=r"config\.json: no records of a benchmark found; choose another --json FILE"
    ):
        common.records_in(path)


def test_tables_are_written_between_their_markers(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = shutil.copytree(common.ROOT / "docs", tmp_path / "docs")
    shutil.copy(common.ROOT / "README.md", tmp_path)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    page = docs / "speed.md"
    before = page.read_text()
    page.write_text(tables.filled("speed.md", before, "steps", "an earlier table"))
    with pytest.raises(SystemExit, match=r"^speed\.md: not what benchmarks/results says"):
        run(tables.main, "--check")
    run(tables.main)
    assert page.read_text() == before


def test_a_setting_can_show_a_gain_if_all_labels_are_ahead_with_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(variant: str, labels: str, seed: int, psnr: float, steps: int = 200) -> common.Record:
        keys = {"setting": "dark", "variant": variant, "labels": labels, "seed": seed}
        return {**keys, "test": {"psnr": psnr}, "trained": {"steps": steps}}

    few = [record("supervised", "4", seed, 15.0 + seed) for seed in range(3)]
    more = [record("supervised", "64", seed, 17.0) for seed in range(3)]
    every = [record("all_labels", "all", seed, 17.4 + seed) for seed in range(3)]
    other = [record("supervised", "4", 0, 18.0, steps=900), record("gct", "4", 0, 30.0)]
    common.write_records(tmp_path / "headroom.json", [*few, *more, *every, *other])
    monkeypatch.setattr(common, "FOLDERS", [tmp_path])
    assert accuracy_tables.headroom().splitlines()[2:] == [
        "| `dark` | 200 | 4 | PSNR 16.00 ± 2.48 | 18.40 ± 2.48 | +2.40 ± 0.00 | yes |",
        "| `dark` | 200 | 64 | PSNR 17.00 ± 0.00 | 18.40 ± 2.48 | +1.40 ± 2.48 | no |",
    ]


def test_a_difference_is_to_the_baseline_with_the_same_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def records(variant: str, *values: float) -> list[common.Record]:
        keys = {"setting": "portrait", "variant": variant, "labels": "8"}
        return [{**keys, "seed": seed, "test": {"miou": value / 100}} for seed, value in enumerate(values)]

    comparison = [*records("supervised", 70, 71), *records("s4l", 72, 80), *records("cps", 69, 70, 90)]
    common.write_records(tmp_path / "portrait.json", comparison)
    common.write_records(tmp_path / "error_maps.json", records("supervised", 70, 71, 90))  # a further seed
    monkeypatch.setattr(common, "FOLDERS", [tmp_path])
    assert accuracy_tables.results("portrait").splitlines()[-3:] == [
        "| s4l | 72.0, 80.0 (+2.0, +9.0) |",
        "| supervised | 77.0 ± 28.0 |",
        "| cps | 76.3 ± 29.4 (-0.7 ± 1.4) |",
    ]
    assert accuracy_tables.short_results().splitlines()[2:] == [
        "| **supervised, as many steps** | 77.0 ± 28.0 | - | - | - |"
    ]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_a_valid_configuration_and_its_records_are_known(setting: str) -> None:
    files = (common.RESULTS / f"{name}.json" for name in ("headroom", "error_maps", setting))
    records = [record for path in files for record in common.records_in(path) if record["setting"] == setting]
    # Other variants may have been run with changed keys.
    record = next((each for each in reversed(records) if each["variant"] == "supervised"), records[-1])
    group, _, value = record["variant"].partition("_")
    change = compare.ABLATIONS[group][value] if group in compare.ABLATIONS else f"variant={record['variant']}"
    keys = {key: record[key] for key in ("setting", "variant", "labels", "seed")}
    overrides = overrides_of(setting, [change], record["labels"], record["seed"], Path("elsewhere"))
    Configuration.parse(composed(overrides))
    config = configuration(overrides)
    assert config["steps"] >= 80
    assert is_same(record, keys, config)
    assert not is_same(record, keys, {**config, "data.crop": 32})
    assert not is_same(record, {**keys, "seed": 5}, config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_a_valid_configuration(variant: str) -> None:
    config = composed(["experiment=compare/portrait", f"variant={variant}", "data.root=portrait"])
    Configuration.parse(config)
    assert config["data"]["labels"] == ("all" if variant == "all_labels" else 8)
    assert variant.startswith(("supervised", "all_labels", config["method"]["_target_"].split(".")[2]))


def test_the_command_line_wins_over_the_variant_and_that_over_the_setting(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    got = []
    monkeypatch.setattr("semipix.training.run.start", lambda config, run, command: got.append(config) or {"steps": 0})
    chosen = ["experiment=compare/matting", "variant=supervised_half_batch", "data.root=nowhere"]
    assert command("train", *chosen, "steps=7", "method=cps").code == 0
    (config,) = got
    assert config.method.path.endswith("CPS")
    assert (config.steps, config.validations, config.data.options["crop"]) == (7, 0, 96)
    assert config.task.path.endswith("Matting")


def test_variants_can_be_swept(command: Callable[..., Result]) -> None:
    chosen = ["experiment=compare/portrait", "variant=glob(advssl)", "data.root=nowhere", "run=sweep"]
    assert "sweep/variant_advssl: nowhere: found nothing" in command("train", "-m", *chosen).error


def test_a_finished_comparison_trains_what_is_missing(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def pretend(jobs, parallel, split):  # type: ignore[no-untyped-def]
        asked.append((list(jobs), split))
        return {
            name: {"test": {"psnr": 30.0}, "trained": {}, "overrides": overrides}
            for name, (_, overrides) in jobs.items()
        }

    monkeypatch.setattr(compare, "run_variants", pretend)
    arguments = ["lol", "--data", "nowhere", "--seeds", 0, "--json", tmp_path / "lol.json", "--variants"]
    run(compare.main, *arguments, "supervised", "all_labels")
    run(compare.main, *arguments, "supervised", "s4l")
    run(compare.main, *arguments, "supervised")
    assert asked == [(["8-supervised-0", "all-all_labels-0"], "val"), (["8-s4l-0"], "val")]
    assert "s4l                              8  30.00\n" in capsys.readouterr().out
    records = common.records_in(tmp_path / "lol.json")
    assert [record["variant"] for record in records] == ["supervised", "all_labels", "s4l"]
    assert records[0]["config"]["data.labels"] == 8


def test_ablations_belong_to_their_setting(run: Run) -> None:
    with pytest.raises(
        SemipixError, match="--ablation: portrait found, the paper's ablations are changes of camvid_abl"
    ):
        run(compare.main, "portrait", "--data", "nowhere", "--ablation", "rampup")


def test_bfloat16_is_refused_where_torch_would_emulate_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16, "fast_precision", lambda: bf16.FLOAT32)
    with pytest.raises(SemipixError, match="this machine does not multiply bfloat16"):
        run(bf16.main, "camvid_long", "--data", "nowhere")
