"""The table of scores, and the expected quality of a prediction."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from semipix.errors import SemipixError
from semipix.inference.scores import Score, ScoreTable, class_sums, expected_miou, expected_psnr
from tests.helpers.tiny import rand

SCORES = [Score("b/c,d\n.png", 0.25, 0.5, 0.05, 0.75), Score("a.png", 0.125, 0.75), Score("\udcff.jpg", 0.5, 0.0)]


def sums_of(prediction: Tensor) -> Tensor:
    found = torch.zeros(len(prediction), len(prediction), dtype=torch.float64)
    class_sums(prediction, found)
    return found


def test_the_mean_iou_is_expected_where_labels_are_drawn_from_the_probabilities() -> None:
    """Errors are as probable as the prediction says, so that the expectation can be compared with drawn labels."""
    prediction = (3 * rand(4, 5000)).softmax(0)
    predicted = prediction.max(0)
    errors = torch.bincount(predicted.indices, 1 - predicted.values.double(), 4)
    metric = MulticlassJaccardIndex(4, average="macro")
    drawn = [torch.multinomial(prediction.T, 1, generator=torch.Generator().manual_seed(i))[:, 0] for i in range(20)]
    actual = torch.stack([metric(predicted.indices, labels) for labels in drawn]).mean()
    assert expected_miou(sums_of(prediction), errors) == pytest.approx(float(actual), abs=0.01)
    assert expected_miou(sums_of(prediction), 2 * errors) < float(actual) - 0.1, "the error map decides how many"


def test_a_certain_prediction_is_expected_to_be_right_and_absent_classes_do_not_count() -> None:
    certain = torch.zeros(3, 10)
    certain[0, :4] = certain[1, 4:] = 1
    assert expected_miou(sums_of(certain), torch.zeros(3, dtype=torch.float64)) == pytest.approx(1)


def test_sums_over_millions_of_pixels_are_exact() -> None:
    prediction = torch.tensor([[0.6], [0.4]]).repeat(1, 6_000_000)
    assert sums_of(prediction)[0].tolist() == pytest.approx([3_600_000, 2_400_000], rel=1e-5)


@pytest.mark.parametrize(("square", "decibels"), [(0.01, 20.0), (1.0, 0.0), (0.0, 100.0)])
def test_psnr(square: float, decibels: float) -> None:
    assert expected_psnr(square) == pytest.approx(decibels)


def test_a_table_keeps_the_scores_of_earlier_calls(tmp_path: Path) -> None:
    first = ScoreTable(tmp_path, classification=True)
    first.write()
    assert not first.path.exists(), "there is nothing to write"
    for score in SCORES:
        first.add(score)
    first.write()
    lines = first.path.read_text(errors="surrogateescape").splitlines()
    assert lines[:2] == ["image,expected_error,expected_miou,risk,accepted", "a.png,0.125,0.75,,"]

    second = ScoreTable(tmp_path, classification=True)
    assert all(second.has(score.image, score.risk) for score in SCORES)
    assert not second.has("a.png", 0.05), "it has no score at this risk"
    assert not second.has("other.png", None)
    second.add(Score("a.png", 0.5, 0.5, 0.05, 1.0))
    second.add(Score("known.png", None, None, 0.05))
    second.write()
    assert second.path.read_text(errors="surrogateescape").splitlines()[-2] == "known.png,,,0.05,"
    third = ScoreTable(tmp_path, classification=True)
    assert third.has("a.png", 0.05)
    assert third.has("known.png", 0.05)
    assert third.has(SCORES[0].image, 0.05)


def test_a_risk_of_many_digits_is_found_again(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path, classification=False)
    table.add(Score("a.png", 1234567.8, 30, 0.123456789))
    table.write()
    again = ScoreTable(tmp_path, classification=False)
    assert again.has("a.png", 0.123456789)
    assert not again.has("a.png", 0.12346)
    assert not again.has("a.png", None)


@pytest.mark.parametrize(
    "text", ["", "name,mine\na,1\n", "image,expected_error,expected_miou,risk,accepted\na,b,c,,\n"]
)
def test_another_table_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(SemipixError, match=r"scores.csv: not a table with the columns image.* choose another --out"):
        ScoreTable(tmp_path, classification=True)
