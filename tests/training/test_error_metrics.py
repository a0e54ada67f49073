"""The metric of error maps against scikit-learn on all pixels at once."""

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import HalfPrecision
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from semipix.training.error_metrics import ErrorMapMetric
from tests.helpers.tiny import rand

BINNED = 1e-4
"""Largest difference that bins of scores cause."""

SIZES = ((20, 30), (24, 16), (8, 8), (20, 30))
VOID = 3
"""The image that has no pixel that counts."""

Image = tuple[Tensor, Tensor, dict[str, Tensor]]


def images(classification: bool) -> list[Image]:
    """Errors, counted pixels and two maps of images of several sizes; errors are more frequent where `flaw` is high."""
    found = []
    for number, size in enumerate(SIZES):
        flaw = rand(1, 1, *size, seed=number) ** (1 + number)
        noise = rand(1, 1, *size, seed=10 + number)
        error: Tensor = noise < flaw if classification else noise * flaw / 10
        counted = rand(1, 1, *size, seed=20 + number) < (0 if number == VOID else 0.8)
        found.append((error, counted, {"flaw": flaw, "softmax": rand(1, 1, *size, seed=30 + number)}))
    return found


def filled(classification: bool, given: list[Image]) -> ErrorMapMetric:
    metric = ErrorMapMetric(classification)
    for image in given:
        metric.update(*image)
    return metric


def pixels(given: list[Image], name: str) -> tuple[Any, Any]:
    """Scores and errors of all counted pixels."""
    scores = torch.cat([maps[name][counted] for _, counted, maps in given])
    return scores.numpy(), torch.cat([error[counted] for error, counted, _ in given]).numpy()


def means(given: list[Image], name: str) -> tuple[list[float], list[float]]:
    """Mean score and mean error of each image with counted pixels."""
    known = [image for image in given if image[1].any()]
    scores = [float(maps[name][counted].mean()) for _, counted, maps in known]
    return scores, [float(error[counted].float().mean()) for error, counted, _ in known]


@pytest.mark.parametrize("name", ["flaw", "softmax"])
def test_wrong_pixels_of_all_images_are_ranked_together(name: str) -> None:
    given = images(classification=True)
    found = filled(True, given).compute()
    assert found.keys() == {
        f"{map_name}/{key}"
        for map_name in ("flaw", "softmax")
        for key in ("auroc", "aupr", "aurc", "risk80", "ece", "image_spearman")
    }
    scores, wrong = pixels(given, name)
    assert float(found[f"{name}/auroc"]) == pytest.approx(roc_auc_score(wrong, scores), abs=BINNED)
    assert float(found[f"{name}/aupr"]) == pytest.approx(average_precision_score(wrong, scores), abs=BINNED)
    ordered = wrong[np.argsort(scores)]
    assert float(found[f"{name}/aurc"]) == pytest.approx(
        np.mean(np.cumsum(ordered) / np.arange(1, 1 + len(wrong))), abs=1e-3
    )
    assert float(found[f"{name}/risk80"]) == pytest.approx(ordered[: int(0.8 * len(wrong))].mean(), abs=1e-3)
    assert float(found[f"{name}/image_spearman"]) == pytest.approx(spearmanr(*means(given, name)).statistic)


def test_scores_that_are_probabilities_are_calibrated() -> None:
    scores = rand(1, 1, 300, 300)
    wrong = rand(1, 1, 300, 300, seed=1) < scores
    counted = torch.ones_like(wrong)
    found = filled(True, [(wrong, counted, {"flaw": scores, "map": scores.sqrt()})]).compute()
    assert float(found["flaw/ece"]) < 0.01
    assert float(found["map/ece"]) == pytest.approx(1 / 6, abs=0.01), "the mean of sqrt(p) - p"


def test_absolute_errors_are_ranked_by_sparsification() -> None:
    given = images(classification=False)
    found = filled(False, given).compute()
    assert found.keys() == {
        f"{name}/{key}" for name in ("flaw", "softmax") for key in ("ause", "correlation", "image_spearman")
    }
    for name in ("flaw", "softmax"):
        scores, errors = pixels(given, name)
        counts = np.arange(1, 1 + len(errors))
        by_map, oracle = (np.cumsum(errors[np.argsort(key)]) / counts for key in (scores, errors))
        assert float(found[f"{name}/ause"]) == pytest.approx((by_map - oracle).mean() / errors.mean(), abs=2e-3)
        assert float(found[f"{name}/correlation"]) == pytest.approx(pearsonr(scores, errors).statistic, abs=BINNED)
        assert float(found[f"{name}/image_spearman"]) == pytest.approx(spearmanr(*means(given, name)).statistic)
    assert float(found["flaw/ause"]) < 0.6 < float(found["softmax/ause"])


def test_curves_of_a_classification_have_its_figures() -> None:
    metric = filled(True, images(classification=True))
    found, curves = metric.compute(), metric.curves()
    assert curves.keys() == {
        f"{name}/{kind}" for name in ("flaw", "softmax") for kind in ("roc", "risk", "reliability")
    }
    for name in ("flaw", "softmax"):
        roc, risk, bins = (curves[f"{name}/{kind}"] for kind in ("roc", "risk", "reliability"))
        assert max(map(len, [*roc.values(), *risk.values()])) <= 100
        assert np.trapezoid(roc["found"], roc["false_alarms"]) == pytest.approx(float(found[f"{name}/auroc"]), abs=5e-3)
        assert risk["risk"][risk["coverage"].index(0.8)] == pytest.approx(float(found[f"{name}/risk80"]))
        off = np.abs(np.array(bins["score"]) - bins["risk"])
        assert (off * bins["pixels"]).sum() == pytest.approx(float(found[f"{name}/ece"]))


def test_curves_of_a_regression_enclose_its_sparsification_error() -> None:
    metric = filled(False, images(classification=False))
    found, curves = metric.compute(), metric.curves()
    assert curves.keys() == {f"{name}/sparsification" for name in ("flaw", "softmax", "oracle")}
    oracle = curves["oracle/sparsification"]
    assert (oracle["removed"][0], oracle["error"][0]) == (0, 1)
    for name in ("flaw", "softmax"):
        curve = curves[f"{name}/sparsification"]
        assert curve["removed"] == oracle["removed"]
        area = np.mean(np.subtract(curve["error"], oracle["error"]))
        assert area == pytest.approx(float(found[f"{name}/ause"]), abs=0.02)


@pytest.mark.parametrize("classification", [True, False])
class TestParts:
    def test_figures_do_not_depend_on_the_rows_or_the_batches(self, classification: bool) -> None:
        given = images(classification)
        expected = filled(classification, given).compute()
        metric = ErrorMapMetric(classification)
        for error, counted, maps in given[1:3]:
            for top in range(0, error.shape[-2], 7):
                rows = slice(top, top + 7)
                part = {name: scores[..., rows, :] for name, scores in maps.items()}
                metric.update(error[..., rows, :], counted[..., rows, :], part, begins=top == 0)
        first, last = given[0], given[3]
        both = {name: torch.cat([first[2][name], last[2][name]]) for name in first[2]}
        metric.update(torch.cat([first[0], last[0]]), torch.cat([first[1], last[1]]), both)
        found = metric.compute()
        assert {key: float(value) for key, value in found.items()} == pytest.approx(
            {key: float(value) for key, value in expected.items()}, rel=1e-6
        )

    def test_processes_add_up(self, classification: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes, the second with fewer images, and a third without any."""
        given = images(classification)
        expected = filled(classification, given).compute()
        processes = [filled(classification, part) for part in (given[:3], given[3:], [])]
        states = [
            {
                "histograms": process.histograms,
                "oracle": process.oracle,
                "images": dim_zero_cat(process.images) if process.images else torch.tensor([]),
            }
            for process in processes
        ]

        def gather(value: Tensor, group: Any = None) -> list[Tensor]:
            name = {3: "histograms", 2: "oracle", 1: "images"}[value.ndim]
            return [state[name] for state in states]

        processes[0].dist_sync_fn, processes[0].distributed_available_fn = gather, lambda: True
        found = processes[0].compute()
        assert {key: float(value) for key, value in found.items()} == pytest.approx(
            {key: float(value) for key, value in expected.items()}, rel=1e-6
        )

    def test_void_pixels_change_nothing(self, classification: bool) -> None:
        given = images(classification)
        expected = filled(classification, given).compute()
        spoilt = []
        for error, counted, maps in given:
            other = ~error if classification else torch.where(counted, error, torch.nan)
            error = torch.where(counted, error, other)
            spoilt.append((error, counted, {name: torch.where(counted, part, 0.999) for name, part in maps.items()}))
        found = filled(classification, spoilt).compute()
        assert {key: float(value) for key, value in found.items()} == {
            key: float(value) for key, value in expected.items()
        }

    @pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
    def test_a_reset_forgets_everything(self, classification: bool) -> None:
        metric = filled(classification, images(classification))
        metric.reset()
        assert metric.compute() == {}

    def test_a_map_that_is_not_finite_has_no_figures(self, classification: bool) -> None:
        given = images(classification)
        given[1][2]["flaw"][..., 2, 3] = torch.nan
        given[1][1][..., 2, 3] = True
        found = filled(classification, given).compute()
        assert all(value.isnan() == key.startswith("flaw/") for key, value in found.items())
        assert {name.partition("/")[0] for name in filled(classification, given).curves()} <= {"softmax", "oracle"}


def test_one_image_has_no_correlation_of_images() -> None:
    found = filled(True, images(True)[:1]).compute()
    assert found["flaw/image_spearman"].isnan()
    assert not found["flaw/auroc"].isnan()


@pytest.mark.parametrize("wrong", [True, False])
def test_images_that_are_all_right_or_all_wrong_do_not_crash(wrong: bool) -> None:
    given = [(torch.full_like(error, wrong), counted, maps) for error, counted, maps in images(True)]
    found = filled(True, given).compute()
    assert found["flaw/auroc"].isnan()
    assert float(found["flaw/risk80"]) == wrong
    assert filled(True, given).curves()["flaw/roc"] == {"false_alarms": [], "found": []}


@pytest.mark.parametrize("classification", [True, False])
def test_a_training_of_bfloat16_is_measured_alike(classification: bool) -> None:
    given = images(classification)
    with HalfPrecision("bf16-true").forward_context():
        metric = filled(classification, given)
    torch.testing.assert_close(metric.compute(), filled(classification, given).compute(), rtol=0, atol=0)
