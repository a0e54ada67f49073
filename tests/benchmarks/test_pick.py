"""`benchmarks.accuracy.pick`: what is measured without training, and what is trained."""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import choice_tables, common
from benchmarks.accuracy import pick as benchmark

from semipix.data.files.reader import Reader
from semipix.data.pick import Picked
from semipix.data.pick_features import CHANNELS


def test_coverage_is_relative_to_random_images(shared_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(8, sum(CHANNELS))).astype(np.float32)
    monkeypatch.setattr(benchmark, "features_of", lambda *_: (features, {}))
    records = benchmark.coverage_records("portrait", shared_photos, [2], [0, 1])
    for name in ("all features", "label grid", "colours"):
        chance = [each["measured"][name] for each in records if each["strategy"] == "random"]
        assert len(chance) == benchmark.RANDOM_SEEDS
        assert statistics.mean(chance) == pytest.approx(1.0)
    assert {each["measured"]["classes"] for each in records} == {2.0}
    assert len(records) == benchmark.RANDOM_SEEDS + 2 * (len(benchmark.ALL) - 1)


def test_only_what_is_missing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def pretend(jobs: Any, parallel: int, split: str) -> Any:
        asked.extend(jobs)
        return {name: {"test": {"miou": 0.5}, "trained": {}, "overrides": given} for name, (_, given) in jobs.items()}

    def picked(root: Path, count: int, by: str, depth: str, seed: int, labels: str) -> Picked:
        return Picked(root, [[f"{by}-{depth}-{number}.png"] for number in range(count)], [], Reader())

    monkeypatch.setattr(benchmark, "run_variants", pretend)
    monkeypatch.setattr(benchmark, "pick", picked)
    arguments = ["train", "portrait", "--data", "nowhere", "--labels", "2", "--seeds", "0", "--runs", str(tmp_path)]
    for strategies in (["random"], ["random", "kmeans-late"]):
        given = [*arguments, "--json", str(tmp_path / "pick.json"), "--strategies", *strategies]
        monkeypatch.setattr(sys, "argv", ["script", *given])
        benchmark.main()
    assert asked == ["2-random-supervised-0", "2-kmeans-late-supervised-0"]
    assert "kmeans-late      50.00" in capsys.readouterr().out
    (_, late) = common.records_in(tmp_path / "pick.json")
    assert late["config"]["picked"] == ["kmeans-late-0.png", "kmeans-late-1.png", ""]
    assert late["overrides"][-2:] == [
        f"data.labels={tmp_path}/portrait/lists/2-kmeans-late-0.txt",
        "variant=supervised",
    ]

    monkeypatch.setattr(common, "FOLDERS", [tmp_path])
    assert choice_tables.picks() == "not measured"
    assert choice_tables.trained_picks().split("\n") == [
        "| strategy | portrait, 2 images, `supervised`: mIoU in percent |",
        "| --- | --- |",
        "| `random` | 50.0 [1] |",
        "| `kmeans-late` | 50.0 (+0.0) [1] |",
    ]
