"""Every table of the documentation has records, and commands that measure them."""

import json
import re
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import common, evidence, measurements, tables
from benchmarks.accuracy import compare
from benchmarks.measurements import MEASUREMENTS, arguments_of

from semipix.errors import SemipixError

MADE = tables.Table("page.md", "made", lambda: "| a | b |\n| --- | --- |\n| x | 1.5 |", ("made",))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with one table that is made from a record."""
    records = tmp_path / "results"
    records.mkdir()
    about = {"device": {"kind": "CPU", "cores": 2}, "versions": {"torch": "9.9", "semipix": "1.0"}}
    common.write_records(records / "made.json", [{"value": 1.5}], about)
    path = tmp_path / "page.md"
    path.write_text(
        f"before\n\n  <!-- made -->\n  {MADE.content().replace(chr(10), chr(10) + '  ')}\n  <!-- /made -->\n"
    )
    monkeypatch.setattr(common, "FOLDERS", [records])
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "TABLES", (MADE,))
    monkeypatch.setattr(tables, "SENTENCES", ())
    monkeypatch.setattr(evidence, "pages_of", lambda root: ["page.md"])
    return path


def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    """Exit status and output of `python -m benchmarks.evidence`."""
    monkeypatch.setattr(sys, "argv", ["evidence", *arguments])
    code: Any = 0
    try:
        evidence.main()
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().out


def test_no_table_of_figures_is_made_by_hand() -> None:
    found = {
        page: evidence.uncovered(page, (common.ROOT / page).read_text()) for page in evidence.pages_of(common.ROOT)
    }
    assert len(found) > 20
    assert [line for lines in found.values() for line in lines] == []


def test_each_exception_is_a_table_that_exists() -> None:
    for name in ("UNRECORDED", "STATED"):
        for key in getattr(evidence, name):
            text = (common.ROOT / key[0]).read_text()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(evidence, name, {})
                assert evidence.uncovered(key[0], text), f"{name}: {key} has no table with figures"
    for page, _ in evidence.UNRECORDED:
        assert "no record" in (common.ROOT / page).read_text().lower(), page


def test_each_table_has_records_and_each_file_of_records_a_measurement() -> None:
    named = {name for each in (*tables.TABLES, *tables.SENTENCES) for name in each.records}
    assert named <= MEASUREMENTS.keys()
    for name in named:
        assert (common.RESULTS / f"{name}.json").exists(), name
        commands, _, why_not = MEASUREMENTS[name]
        assert bool(commands) != bool(why_not)
    assert len({table.name for table in tables.TABLES}) == len(tables.TABLES)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_command_is_one_of_a_module_that_is_there(name: str, tmp_path: Path) -> None:
    runs = ("8-gct-0", "8-gct_strong-0", "8-supervised-0", "8-unimatch-0", "8-gct_strong_cues-0", "all-all_labels-0")
    for run in (*(f"portrait/{run}" for run in runs), "camvid_1000/4-supervised-0"):
        (tmp_path / "runs" / run).mkdir(parents=True)
    folders = {key: Path("data") / key for key in measurements.DATA}
    for command in MEASUREMENTS[name].commands:
        variables, (module, *arguments) = arguments_of(command, name, tmp_path, folders)
        place = common.ROOT / "benchmarks" / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
        assert str(tmp_path / f"{name}.json") in arguments
        assert not {"JSON", "RUNS", "TRAINED", *measurements.DATA} & {*" ".join(arguments).replace("=", " ").split()}
        assert set(variables) <= {"OMP_NUM_THREADS"}


def test_no_override_of_a_record_names_a_folder_of_one_machine() -> None:
    overrides = [
        (path.name, override)
        for path in sorted(common.RESULTS.glob("*.json"))
        for override in re.findall(r'"([\w.+]+=[^"]*)"', path.read_text())
    ]
    assert len(overrides) > 1000
    assert [each for each in overrides if "=/" in each[1]] == []


OTHERWISE = {
    ("headroom", "camvid", "supervised", "4", "0"),  # 250 steps of `semipix train`, no setting of `accuracy.compare`
    ("headroom", "camvid", "all_labels", "4", "0"),
    ("rare_classes", "camvid_1000", "supervised_sqrt_balanced", "8", "0"),  # the same weights, as numbers
    ("rare_classes", "camvid_1000", "strong_sqrt_balanced", "8", "0"),
}
"""Records that no command trained as it is: file, setting, variant, labels and seed."""


def test_each_compared_training_is_one_that_a_command_trains() -> None:
    found = 0
    for name, measurement in MEASUREMENTS.items():
        commands = [shlex.split(each)[1:] for each in measurement.commands if each.startswith("accuracy.compare ")]
        runs: dict[tuple[str, ...], list[set[str]]] = {}
        for command in commands:
            for key, changes in compare.runs_of(compare.arguments().parse_args(command)):
                runs.setdefault(compare.keys_of(key), []).append(set(changes))
        for record in common.recorded(name) if commands else []:
            trained = compare.keys_of(record)
            if (name, *trained) in OTHERWISE:
                continue
            found += 1
            assert trained in runs, f"{name}.json: {trained} is trained by no command of MEASUREMENTS"
            overrides = set(record["overrides"])
            if f"experiment=compare/{trained[0]}" in overrides:  # the first records have all keys instead of a variant
                assert any(changes <= overrides for changes in runs[trained]), f"{name}.json: {trained} has {overrides}"
    assert found > 300


def test_a_table_that_equals_its_records(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = called(monkeypatch, capsys)
    assert code == 0
    assert "equal     page.md#made: made.json (1 records, CPU, 2 cores, semipix 1.0, torch 9.9)" in printed
    assert "1 of 1 tables and sentences equal their records, 0 wrong" in printed


def test_a_table_that_differs_from_its_records(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page.write_text(page.read_text().replace("1.5", "2.5"))
    code, printed = called(monkeypatch, capsys)
    assert code == 1
    assert "differs   page.md#made: the page has '| x | 2.5 |', the records give '| x | 1.5 |'" in printed


def test_sentences_are_compared_whichever_way_lines_are_broken(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = tables.Sentence("page.md", lambda: "it takes 3.5 s", ("made",))
    monkeypatch.setattr(tables, "SENTENCES", (sentence,))
    page.write_text(page.read_text() + "\nUsually it\n  takes 3.5 s.\n")
    assert called(monkeypatch, capsys)[0] == 0
    page.write_text(page.read_text().replace("3.5", "3.6"))
    code, printed = called(monkeypatch, capsys)
    assert code == 1
    assert "differs   page.md: the records give 'it takes 3.5 s', which is not in the page" in printed


def test_the_sentences_of_the_documentation_are_those_of_the_records() -> None:
    assert [found for each in tables.SENTENCES if (found := evidence.state_of_sentence(each)).state != "equal"] == []


def test_missing_records_and_tables_by_hand_are_named(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common.record_file("made").unlink()
    page.write_text(page.read_text() + "\n| by hand | mIoU |\n| --- | --- |\n| x | **71.2** ± 3 |\n")
    code, printed = called(monkeypatch, capsys)
    assert code == 1
    assert "missing   page.md#made: no file benchmarks/results/made.json" in printed
    assert "not listed page.md:9: by hand, mIoU; make it from records" in printed


@pytest.mark.parametrize(
    ("table", "counts"),
    [
        ("| x | mIoU |\n| --- | --- |\n| a | 3.5 |", True),
        ("| x | mIoU |\n| --- | --- |\n| a | ~3 s |", True),
        ("- a list\n\n  | x | mIoU |\n  | --- | --- |\n  | a | 3.5 |", True),
        ("| key | default |\n| --- | --- |\n| a | 3.5 |", False),
        ("| x | what |\n| --- | --- |\n| 3 | `3.5`, or more |", False),
        ("```\n| x | mIoU |\n| --- | --- |\n| a | 3.5 |\n```", False),
        ("<!-- made -->\n| x | mIoU |\n| --- | --- |\n| a | 3.5 |\n<!-- /made -->", False),
    ],
)
def test_what_counts_as_a_table_of_figures(table: str, counts: bool) -> None:
    assert bool(evidence.uncovered("page.md", f"text\n\n{table}\n")) == counts


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records commands instead of running them; those with `fails` fail."""
    ran: list[str] = []

    @contextmanager
    def started(command: list[str], **_: Any):  # type: ignore[no-untyped-def]
        ran.append(shlex.join(command[2:]))
        yield SimpleNamespace(wait=lambda: int("fails" in ran[-1]))

    monkeypatch.setattr(measurements.runner, "started", started)
    return ran


def test_finished_commands_are_not_run_again(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(
        MEASUREMENTS, "made", measurements.Measurement(("a --json JSON", "fails PORTRAIT/x --json JSON"))
    )
    with pytest.raises(SemipixError, match=r"^made: needs --data PORTRAIT=FOLDER \(portrait photographs"):
        measurements.train(["made"], tmp_path, {})
    assert commands == []
    for _ in range(2):
        with pytest.raises(
            SemipixError, match=r"^made: exit status 1 of benchmarks\.fails; the same command continues"
        ):
            measurements.train(["made"], tmp_path, {"PORTRAIT": Path("/photos")})
    record = tmp_path / "made.json"
    failing = f"benchmarks.fails /photos/x --json {record}"
    assert commands == [f"benchmarks.a --json {record}", failing, failing]
    assert json.loads((tmp_path / "finished.json").read_text()) == [f"made: python -m benchmarks.a --json {record}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("made", "--train made: unknown; known: portrait"), ("earlier_statistics", "cannot be measured again: trained")],
)
def test_what_cannot_be_measured_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SemipixError, match=message):
        measurements.train([name], tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_runs_that_are_measured_have_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        SemipixError, match=r"^tile_seams: no run .*/all-all_labels-0 found; measure portrait in .* first"
    ):
        arguments_of(MEASUREMENTS["tile_seams"].commands[0], "tile_seams", tmp_path, {"PORTRAIT": Path("data")})


def test_tables_with_new_records_are_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def content() -> str:
        return f"| a | b |\n| --- | --- |\n| x | {common.recorded('made')[0]['value']} |"

    monkeypatch.setattr(tables, "TABLES", (MADE._replace(content=content),))
    monkeypatch.setitem(MEASUREMENTS, "made", measurements.Measurement())
    new = tmp_path / "new"
    new.mkdir()
    common.write_records(new / "made.json", [{"value": 7.5}])
    printed = called(monkeypatch, capsys, "--records", str(new))[1]
    assert f"page.md#made, with made of {new}:" in printed
    assert "| x | 7.5 |" in printed
    assert [tmp_path / "results"] == common.FOLDERS
    with pytest.raises(SemipixError, match="no file of records found"):
        evidence.with_records(tmp_path)


def test_the_day_of_a_file_is_that_of_its_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = "benchmarks/results/README.md\nbenchmarks/results/a.json"
    printed = f"2026-11-26\n\n{files}\n2026-11-20\n\n{files}\n"
    monkeypatch.setattr(evidence.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=printed))
    assert evidence.committed.__wrapped__()["a.json"] == "2026-11-26"


def test_the_list_has_every_table_and_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = called(monkeypatch, capsys, "--list")[1]
    assert "README.md#short_results: portrait, camvid_1000, error_maps" in printed
    assert "    OMP_NUM_THREADS=1 python -m benchmarks.speed.inference --json JSON" in printed
    seconds = sum(record["trained"]["seconds"] for record in common.recorded("camvid_long"))
    assert f"camvid_long: about {seconds / 120:.0f} minutes on two cores" in printed
    assert "camvid_1000: no record of how long it takes on two cores" in printed, "it was trained on a GPU"


@pytest.mark.parametrize(
    ("values", "signed", "shown"),
    [
        ([87.0], False, "87.0"),
        ([87.0, 82.3], False, "87.0, 82.3"),
        ([-0.04, 0.7], True, "+0.0, +0.7"),
        ([1.0, 2.0, 3.0], True, "+2.0 ± 2.5"),  # t of two degrees of freedom is 4.30, the standard deviation 1
    ],
)
def test_fewer_than_three_seeds_have_no_mean(values: list[float], signed: bool, shown: str) -> None:
    assert common.over_seeds(values, 1, signed=signed) == shown
