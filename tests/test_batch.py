"""The parts of a batch."""

import torch

from semipix.batch import Batch, StrongLabels
from tests.helpers.tiny import rand


def test_labeled_images_come_first() -> None:
    image = torch.arange(5.0).view(5, 1, 1, 1)
    batch = Batch(image, torch.zeros(2, 1, 1, dtype=torch.int64))
    assert batch.labeled.flatten().tolist() == [0, 1]
    assert batch.unlabeled.flatten().tolist() == [2, 3, 4]
    assert batch.strong is None


class TestStrongViews:
    """Labels of strong views, from those of the two unlabeled images."""

    image = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 1, 2)
    batch = Batch(image, torch.zeros(1, 1, 2, dtype=torch.int64), rand(4, 3, 1, 2))

    def test_the_first_view_of_all_images_comes_before_the_second(self) -> None:
        assert self.batch.strong is not None
        assert [len(view.image) for view in self.batch.strong_views()] == [2, 2]
        assert torch.equal(torch.cat([view.image for view in self.batch.strong_views()]), self.batch.strong)
        assert self.batch._replace(strong=None).strong_views() == []

    def test_by_default_a_view_has_the_label_of_its_image(self) -> None:
        label, pixels = rand(2, 5, 1, 2), torch.tensor([True, False]).expand(2, 1, 1, 2)
        for view in self.batch.strong_views():
            assert torch.equal(view.label(label), label)
            assert torch.equal(view.compared(pixels), pixels)

    def test_a_label_follows_its_view(self) -> None:
        order = torch.tensor([[0, 1, 2], [0, 1, 2], [2, 0, 1], [0, 2, 1]])
        visible = torch.ones(4, 1, 1, 2, dtype=torch.bool)
        visible[3, ..., 0] = False
        labels = StrongLabels(order, torch.tensor([1.0, 0.5, 1.0, 0.25]), visible)
        first, second = self.batch._replace(strong_labels=labels).strong_views()
        label = rand(2, 3, 1, 2)
        assert torch.equal(first.label(label), label * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
        assert torch.equal(second.label(label)[0], label[0, [2, 0, 1]])
        assert torch.equal(second.label(label)[1], 0.25 * label[1, [0, 2, 1]])
        assert second.compared(torch.ones(2, 1, 1, 2)).flatten().tolist() == [1, 1, 0, 1]
        assert second.compared(torch.ones(2, 1, 1, 2, dtype=torch.bool)).dtype == torch.bool
