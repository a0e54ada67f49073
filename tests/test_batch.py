"""The parts of a batch."""

import torch

from semipix.batch import Batch


def test_labeled_images_come_first() -> None:
    image = torch.arange(5.0).view(5, 1, 1, 1)
    batch = Batch(image, torch.zeros(2, 1, 1, dtype=torch.int64))
    assert batch.labeled.flatten().tolist() == [0, 1]
    assert batch.unlabeled.flatten().tolist() == [2, 3, 4]
    assert batch.strong is None
