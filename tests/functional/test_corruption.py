"""Labels with errors."""

import pytest
import torch

from semipix.functional.corruption import SHIFT, corrupted_labels


def label_of_a_square() -> torch.Tensor:
    """Two one-hot labels (2, 3, 32, 32)."""
    classes = torch.zeros(2, 32, 32, dtype=torch.long)
    classes[:, 4:20, 6:16] = 1
    classes[:, 22:, 20:] = 2
    return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_only_the_chosen_labels_change_and_stay_distributions() -> None:
    labels = label_of_a_square()
    kept = labels.clone()
    wrong = corrupted_labels(labels, torch.tensor([True, False]))
    assert torch.equal(labels, kept), "no argument is changed"
    assert torch.equal(wrong[1], labels[1])
    torch.testing.assert_close(wrong.sum(1), torch.ones(2, 32, 32))
    assert wrong.min() >= 0


def test_some_pixels_are_wrong_and_most_are_right() -> None:
    labels = label_of_a_square()
    shares = []
    for _ in range(20):
        wrong = corrupted_labels(labels, torch.tensor([True, True]))
        shares.append((wrong.argmax(1) != labels.argmax(1)).float().mean().item())
    assert 0.05 < sum(shares) / len(shares) < 0.35
    assert len(set(shares)) > 15, "each has errors of its own"


def test_a_label_is_shifted_by_at_most_an_eighth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semipix.functional.corruption.AREA", (0.001, 0.001))  # a box of one pixel at most
    monkeypatch.setattr("semipix.functional.corruption.WINDOWS", (1,))
    label = torch.zeros(1, 1, 32, 32)
    label[..., 12:20, 12:20] = 1
    centres = []
    for _ in range(30):
        where = (corrupted_labels(label, torch.tensor([True]))[0, 0] > 0.5).nonzero().float()
        centres.append(where.mean(0) - 15.5)
    distances = torch.stack(centres).abs()
    assert distances.max() <= SHIFT * 32 + 0.5
    assert distances.mean(0).min() > 1
