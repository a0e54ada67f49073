"""A warning if labels are out of the range of predictions."""

import math
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from semipix.data.targets import ImageTarget
from semipix.errors import UnreadableFileError
from semipix.tasks.denoising import Denoising
from semipix.tasks.regression import Regression
from semipix.training import label_range
from semipix.training.label_range import range_warning
from tests.helpers.labels import LabelSource


class Depths(LabelSource):
    """Labels of 100 numbers from 2 to 9 each, of which the first is unknown; the first label cannot be read."""

    def __init__(self, labeled: int) -> None:
        super().__init__("regression", labeled)
        self.read: list[str] = []

    def target(self, name: str) -> tv_tensors.Image:
        self.read.append(name)
        if self._number(name) == 0:
            raise UnreadableFileError(Path("a.npy"), "broken")
        values = torch.linspace(2, 9, 101)
        values[0] = math.nan
        return values.view(1, 1, -1).as_subclass(ImageTarget)


@pytest.mark.parametrize(
    ("low", "high", "outside"),
    [(2, 9, 0), (0, 100, 0), (2, 8.999, 0), (2, 8.9, 0), (2, 8, 15), (8, 100, 84), (0, 1, 100)],
)
def test_a_few_values_may_be_outside(low: float, high: float, outside: int) -> None:
    source = Depths(4)
    line = range_warning(Regression(low=low, high=high), source, source.labeled())
    assert (line is None) == (outside == 0)
    if line is not None:
        assert f"{3 * outside} of 300 label values in 3 of 4 labels are outside of {low:g} to {high:g} and" in line
        assert "they are from 2.07 to 9, set task.low and task.high" in line


def test_few_labels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Depths(100)
    line = range_warning(Regression(), source, source.labeled())
    assert line is not None and "in 24 of 100 labels" in line
    assert source.read[-1] == source.labeled()[96]
    monkeypatch.setattr(label_range, "MOST_VALUES", 150)
    line = range_warning(Regression(), source, source.labeled())
    assert line is not None and "200 of 200 label values in 2 of 100 labels" in line


def test_only_maps_have_a_range() -> None:
    source = Depths(4)
    source.kind = "denoising"
    assert range_warning(Denoising(), source, source.labeled()) is None
    assert range_warning(Regression(), source, []) is None
    assert not source.read
