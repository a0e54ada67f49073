"""Searches: settings, and whole searches of tiny trainings where Optuna is installed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semipix.errors import SemipixError
from semipix.launch import search
from semipix.launch.compose import compose
from semipix.launch.search import Search, Settings, _Watch
from semipix.launch.sweep import Record
from tests.conftest import QUICK, Result

Command = Callable[..., Result]

SPACE = {"optimizer.lr": "interval(0.001,0.01)"}


class TestSettings:
    """The keys of `search`, of the configuration and of the command line."""

    def test_the_command_line_has_precedence(self) -> None:
        composed = {"trials": 20, "prune": True, "space": SPACE, "when": {}}
        assert Settings.parse(composed, {"trials": "3", "prune": "False"}) == Settings(
            3, False, Settings.parse(composed, {}).space
        )
        given = {"space.method": "choice(gct,unimatch)", "when.gct.method.lambda_dc": "interval(1,9)"}
        found = Settings.parse(composed, given).space
        assert list(found.always) == ["method"]
        assert list(found.when["gct"]) == ["method.lambda_dc"]

    @pytest.mark.parametrize(
        ("composed", "given", "pattern"),
        [
            ({"trials": 0, "space": SPACE}, {}, "search.trials=0: expected a number of trainings"),
            ({"trials": 2, "space": SPACE}, {"trials": "many"}, "search.trials=many"),
            ({"trials": 2, "space": SPACE}, {"prune": "maybe"}, "search.prune=maybe: expected true or false"),
            ({"trials": 2, "space": SPACE}, {"trails": "3"}, "unknown key search.trails; did you mean trials"),
            ({"trials": 2, "space": SPACE}, {"when.gct": "1"}, "search.when.gct=1: expected a key after the value"),
            (None, {"trials": "2"}, "search.space: no parameter to search"),
        ],
    )
    def test_what_is_refused(self, composed: Any, given: dict[str, str], pattern: str) -> None:
        with pytest.raises(SemipixError, match=pattern.replace(".", r"\.")):
            Settings.parse(composed, given)


class FakeTrial:
    """A trial that is pruned when it reports less than a half."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, int]] = []

    def report(self, value: float, step: int) -> None:
        self.reports.append((value, step))

    def should_prune(self) -> bool:
        return self.reports[-1][0] < 0.5


def test_validation_results_are_read_while_a_training_runs(tmp_path: Path) -> None:
    trial: Any = FakeTrial()
    watch = _Watch(trial, tmp_path, "val/miou")
    assert not watch.should_stop()
    for number, rows in enumerate(["1,,0.5\n2,0.7,\n3,nan,\n4,0.6,\n", "4,0.6,\n6,0.4,\n8,0."]):
        path = tmp_path / f"metrics/version_{number}/metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"step,val/miou,train/loss\n{rows}")
        os.utime(path, (number, number))
        assert watch.should_stop() == bool(number)
    assert trial.reports == [(0.7, 0), (0.6, 1), (0.4, 2)]
    assert watch.pruned


def test_without_optuna(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = train("experiment=search", "run=search")
    assert "experiment=search: its package cannot be imported" in result.error
    assert "pip install 'semipix[search]'" in result.error
    assert not Path("search").exists()


def test_a_search_is_no_sweep_and_can_be_shown(command: Command) -> None:
    for key in ("search.trials=2", "experiment=search"):
        assert "-m: a search chooses the values" in command("train", "-m", key, "seed=0,1").error
    assert "trials: 20" in command("train", "--cfg", "job", "experiment=search").out


class TestStudy:
    """The study, with results in place of trainings."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[..., Search]:
        pytest.importorskip("optuna")
        overrides = ["data=scenes", "method=supervised", "model._target_=tests.helpers.tiny.TinyModel"]
        config = compose(overrides)

        def made(trials: int, prune: bool = False, folder: str = "search", **changes: Any) -> Search:
            settings = Settings.parse({"trials": trials, "prune": prune, "space": SPACE}, {})
            return Search(settings, overrides, {**config, **changes}, tmp_path / folder)

        return made

    @pytest.fixture
    def results(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[float]]:
        """Validation results by trial; none if the trial fails, and 0.5 for others. They replace trainings."""
        found: dict[int, list[float]] = {}

        def pretend(job: Any, watch: Any) -> Record:
            table, values = (
                job.folder / "metrics/version_0/metrics.csv",
                found.get(int(job.folder.name[-3:]), [0.5, 0.5]),
            )
            table.parent.mkdir(parents=True)
            table.write_text("step,val/miou\n")
            for step, value in enumerate(values):
                with table.open("a") as file:
                    file.write(f"{step},{value}\n")
                if watch():
                    return Record(str(job.folder), "", "interrupted")
            return Record(str(job.folder), "", "finished" if values else "failed", reason="" if values else "broken")

        monkeypatch.setattr(search, "run_job", pretend)
        return found

    def test_an_edited_configuration_is_another_search(self, make: Callable[..., Search], tmp_path: Path) -> None:
        """One that an edited YAML file makes of the same command, or an edited list of labels."""
        labels = tmp_path / "labels.txt"
        labels.write_text("a\n")
        data = {"_target_": "scenes", "labels": str(labels)}
        optimizer = compose(["data=scenes"])["optimizer"]
        make(2, data=data, steps=100, run="runs/now")
        make(3, data=data, steps=100, run="runs/later", optimizer={**optimizer, "lr": 5.0})  # each trial has its own
        with pytest.raises(SemipixError, match="holds a search with steps=100, but this command has 900"):
            make(2, data=data, steps=900)
        labels.write_text("a\nb\n")
        with pytest.raises(SemipixError, match=r"holds a search with the content of .*labels\.txt="):
            make(2, data=data, steps=100)

    @pytest.mark.parametrize("folder", ["what?a", "{x}", "%41", "100%", "a#b&c=d"])
    def test_a_study_is_in_its_folder_whatever_that_is_called(
        self, folder: str, make: Callable[..., Search], tmp_path: Path
    ) -> None:
        make(2, folder=folder)
        make(2, folder=folder)
        assert [each.relative_to(tmp_path) for each in tmp_path.rglob("study.db")] == [Path(folder, "study.db")]

    def test_a_damaged_study_is_one_line(self, make: Callable[..., Search], tmp_path: Path) -> None:
        (tmp_path / "search").mkdir()
        (tmp_path / "search/study.db").write_bytes(b"no database" * 100)
        with pytest.raises(
            SemipixError, match=r"study\.db: not readable as a study \(file is not a database\); restore"
        ):
            make(2)

    def test_a_bad_trial_is_pruned(self, make: Callable[..., Search], results: dict[int, list[float]]) -> None:
        results[2], results[5], results[6] = [0.4, 0.9, 0.3], [0.1, 0.1, 0.9], [0.1, 0.6, 0.1]
        study = make(7, prune=True)
        lines = study.run()
        found = study.result()
        assert [each["state"] for each in found["trials"]] == [*["complete"] * 5, "pruned", "complete"]
        assert (found["best"]["number"], found["best"]["value"]) == (2, 0.9)
        assert lines[1].startswith("trial-002  complete  0.9000")
        assert lines[-1] == found["best"]["command"]
        assert found["best"]["command"].endswith(found["best"]["overrides"][0])

    def test_two_commands_take_different_trials(
        self, make: Callable[..., Search], results: dict[int, list[float]]
    ) -> None:
        first, second = make(3), make(3)
        with first._claimed() as one, second._claimed() as two:
            assert one is not None
            assert two is not None
            assert (one.number, two.number) == (0, 1)
            first.run()  # a third command: takes what is left
        states = [each["state"] for each in first.result()["trials"]]
        assert states == ["running", "running", "complete"]
        second.run()  # whoever had the first two has ended
        assert [each["state"] for each in second.result()["trials"]] == ["complete"] * 3

    def test_a_search_of_which_every_trial_fails_ends(
        self, make: Callable[..., Search], results: dict[int, list[float]]
    ) -> None:
        results.update({number: [] for number in range(9)})
        with pytest.raises(SemipixError, match="all 3 trials failed, the last one: broken; change"):
            make(9).run()
        with pytest.raises(SemipixError, match="all 3 trials failed"):  # the same command again, with nothing to train
            make(3).run()


class TestCommand:
    """Whole searches, by the command."""

    @pytest.fixture(autouse=True)
    def optuna(self) -> None:
        pytest.importorskip("optuna")

    @pytest.fixture
    def given(self, shared_photos: Path) -> list[str]:
        width = "search.space.model.width=choice(2,3)"
        quick = [*QUICK, f"data.root={shared_photos}", "validations=2", "search.trials=2", "run=search"]
        return ["train", *quick, "method=supervised", width, "search.space.optimizer.lr=interval(0.001,0.01)"]

    def test_trials_are_run_folders_and_the_same_command_continues(self, command: Command, given: list[str]) -> None:
        first = command(*given)
        assert first.code == 0, first.err
        found = json.loads(Path("search/search.json").read_text())
        assert [each["state"] for each in found["trials"]] == ["complete", "complete"]
        assert found["best"]["value"] == max(each["value"] for each in found["trials"])
        assert found["best"]["command"] in first.out
        assert "search." not in found["best"]["command"]
        summaries = sorted(Path("search").glob("trial-*/summary.json"))
        assert len(summaries) == 2
        written = [path.stat().st_mtime_ns for path in summaries]

        more = command(*(item.replace("trials=2", "trials=3") for item in given))
        assert more.code == 0
        after = json.loads(Path("search/search.json").read_text())
        assert after["trials"][:2] == found["trials"]
        assert len(after["trials"]) == 3
        assert [path.stat().st_mtime_ns for path in summaries] == written, "nothing was trained again"

        other = command(*(item.replace("0.001", "0.002") for item in given))
        assert (
            "holds a search with search.space.optimizer.lr=interval(0.001,0.01), but this command has interval(0.002"
            in other.error
        )
        other = command(*given, "seed=1")
        assert "holds a search with seed=nothing, but this command has 1" in other.error

    def test_a_trial_that_was_cut_off_is_continued(
        self, command: Command, given: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A killed command leaves its trial to the next one."""
        arguments = [sys.executable, "-m", "semipix.cli", *given, "search.prune=false"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        started = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not Path("search/trial-000/config.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        started.send_signal(signal.SIGKILL)
        started.wait()
        trained = []
        whole = search.run_job

        def counted(job: Any, watch: Any) -> Any:
            trained.append(job.folder.name)
            return whole(job, watch)

        monkeypatch.setattr(search, "run_job", counted)
        assert command(*given, "search.prune=false").code == 0
        assert trained == ["trial-000", "trial-001"]
        found = json.loads(Path("search/search.json").read_text())
        assert [each["state"] for each in found["trials"]] == ["complete", "complete"]

    def test_values_that_came_before_and_refused_values(self, command: Command, given: list[str]) -> None:
        given = [item for item in given if "lr" not in item and "trials" not in item]
        result = command(*given, "search.trials=4", "search.space.model.width=choice(2)")
        assert "same values as trial-000, not trained again" in result.err
        assert len(list(Path("search").glob("trial-*"))) == 1
        refused = command(*given[:-1], "search.space.model.depth=choice(1,2)", "run=other")
        assert "model.depth" in refused.error
        assert not Path("other").exists()
        assert "validations=0: a search compares" in command(*given, "validations=0", "run=other").error
