"""Is the flaw map right, who teaches, and is the teacher worth it: known answers for maps made by hand."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from semipix.batch import VOID
from semipix.methods.flaw_guided import diagnostic_metrics, update_diagnostics
from semipix.tasks.segmentation import Segmentation

TASK = Segmentation(2)
LABEL = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1, VOID, VOID]]])
SEEN = torch.tensor([[[0, 0, 1, 1, 1, 1, 0, 0, 0, 0]]]), torch.tensor([[[0, 1, 0, 1, 1, 0, 1, 0, 0, 0]]])
WRONG = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1.0]), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1.0])
FIRST_LEARNS = torch.tensor([[[[1, 1, 1, 0, 0, 0, 0, 0, 1, 0]]]]).bool()
SECOND_LEARNS = torch.tensor([[[[0, 0, 0, 0, 0, 1, 1, 0, 0, 1]]]]).bool()
BOTH_FLAWED = torch.tensor([[[[0, 0, 0, 1, 0, 0, 0, 0, 1, 1]]]]).bool()


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 2).movedim(-1, 1).float()


def flaw(known: Tensor) -> Tensor:
    """A raw map (1, 1, 1, 10) of the known pixels' values; whose ignored pixels have values out of range."""
    return torch.cat([known, torch.tensor([7.0, -7.0])]).view(1, 1, 1, 10)


def measure(flaws: tuple[Tensor, Tensor], repeat: int = 1) -> dict[str, float]:
    """The figures of the maps above; `repeat` makes labels larger than predictions."""
    metrics = diagnostic_metrics()
    target = LABEL.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
    predictions = one_hot(SEEN[0]), one_hot(SEEN[1])
    update_diagnostics(metrics, TASK, target, predictions, flaws, (FIRST_LEARNS, SECOND_LEARNS, BOTH_FLAWED))
    return {name: float(metric.compute()) for name, metric in metrics.items()}


SHARES = {
    "first_learns": 3 / 8,
    "second_learns": 2 / 8,
    "both_flawed": 1 / 8,
    # Of the five taught pixels the first model gains pixel 2 and loses pixel 1, the second gains 5 and loses 6.
    "teacher_right_pupil_wrong": 2 / 5,
    "teacher_wrong_pupil_right": 2 / 5,
}


def test_shares() -> None:
    measured = measure((flaw(WRONG[0]), flaw(WRONG[1])))
    assert {name: measured[name] for name in SHARES} == pytest.approx(SHARES)


def test_teachers_and_pupils_are_not_mixed_up() -> None:
    metrics = diagnostic_metrics()
    nobody = torch.zeros_like(BOTH_FLAWED)
    only_pixel_2 = nobody.clone()
    only_pixel_2[..., 2] = True  # the first model is wrong there, the second right
    predictions = one_hot(SEEN[0]), one_hot(SEEN[1])
    flaws = flaw(WRONG[0]), flaw(WRONG[1])
    update_diagnostics(metrics, TASK, LABEL, predictions, flaws, (only_pixel_2, nobody, nobody))
    assert float(metrics["teacher_right_pupil_wrong"].compute()) == 1
    assert float(metrics["teacher_wrong_pupil_right"].compute()) == 0
    metrics = diagnostic_metrics()
    update_diagnostics(metrics, TASK, LABEL, predictions, flaws, (nobody, only_pixel_2, nobody))
    assert float(metrics["teacher_right_pupil_wrong"].compute()) == 0
    assert float(metrics["teacher_wrong_pupil_right"].compute()) == 1


@pytest.mark.parametrize(
    ("first", "auroc"),
    [
        (WRONG[0], 1.0),  # a detector that knows
        (1 - WRONG[0], 0.0),  # one that is always mistaken
        (torch.full((8,), 0.3), 0.5),  # one that finds no difference
        (torch.tensor([0.1, 0.5, 0.9, 0.3, 0.2, 0.0, 0.7, 0.8]), 15 / 16),  # one pair of sixteen the wrong way round
    ],
)
def test_auroc(first: Tensor, auroc: float) -> None:
    measured = measure((flaw(first), flaw(WRONG[1])))
    assert measured["flaw_auroc_first"] == pytest.approx(auroc)
    assert measured["flaw_auroc_second"] == 1


@pytest.mark.parametrize(("level", "spread"), [(-3.0, 1.5), (-6.0, 1.2)])
def test_auroc_of_small_probabilities_is_that_of_scikit_learn(level: float, spread: float) -> None:
    """A calibrated detector of a good network says less than 1/50 nearly everywhere."""
    draw = torch.Generator().manual_seed(0)
    probability = (level + spread * torch.randn(1, 1, 128, 128, generator=draw)).sigmoid()
    wrong = torch.rand(1, 1, 128, 128, generator=draw) < probability
    prediction, nowhere = one_hot(wrong[:, 0].long()), torch.zeros_like(wrong)
    metrics = diagnostic_metrics()
    for rows in (slice(0, 50), slice(50, None)):
        maps = [maps[..., rows, :] for maps in (probability, prediction, nowhere)]
        target = torch.zeros_like(maps[2][:, 0], dtype=torch.long)
        update_diagnostics(metrics, TASK, target, (maps[1], maps[1]), (maps[0], maps[0]), (maps[2],) * 3)
    expected = roc_auc_score(wrong.flatten(), probability.flatten())
    assert 0.7 < expected < 0.9
    assert float(metrics["flaw_auroc_first"].compute()) == pytest.approx(expected, abs=1e-4)


def test_labels_have_a_size_of_their_own() -> None:
    measured = measure((flaw(torch.full((8,), 0.3)), flaw(WRONG[1])), repeat=2)
    shares = ("first_learns", "second_learns", "both_flawed")  # these are resized by whole pixels
    assert {name: measured[name] for name in shares} == pytest.approx({name: SHARES[name] for name in shares})


def test_batches_add_up_and_an_all_void_one_counts_nothing() -> None:
    metrics = diagnostic_metrics()
    predictions = one_hot(SEEN[0]), one_hot(SEEN[1])
    flaws = flaw(WRONG[0]), flaw(WRONG[1])
    learns = FIRST_LEARNS, SECOND_LEARNS, BOTH_FLAWED
    update_diagnostics(metrics, TASK, LABEL, predictions, flaws, learns)
    update_diagnostics(metrics, TASK, torch.full_like(LABEL, VOID), predictions, flaws, learns)
    update_diagnostics(metrics, TASK, LABEL, predictions, flaws, tuple(~mask for mask in learns))
    measured = {name: float(metric.compute()) for name, metric in metrics.items()}
    assert [measured[name] for name in ("first_learns", "second_learns", "both_flawed")] == [0.5, 0.5, 0.5]
    assert measured["flaw_auroc_first"] == 1
