"""Weights of pseudo labels by the expected error."""

import math

import pytest
import torch

from semipix.functional.error_weight import error_weight


def test_the_weight_falls_from_1_to_1_over_e_at_the_scale() -> None:
    weights = error_weight(torch.tensor([0.0, 0.1, 0.2, 1.0]), 0.1).tolist()
    assert weights == pytest.approx([1, 1 / math.e, math.exp(-2), math.exp(-10)])
