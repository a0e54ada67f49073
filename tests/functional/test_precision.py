"""The least precision of a loss."""

import pytest
import torch

from semipix.functional.flaw import flaw_target, normalize_flaw
from semipix.functional.precision import at_least_float32
from tests.tiny import rand

KEPT = [
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
]


@pytest.mark.parametrize(("given", "expected"), KEPT)
def test_half_precision_is_widened_and_none_is_narrowed(given: torch.dtype, expected: torch.dtype) -> None:
    value = rand(2, 3, 8, 8).to(given)
    widened = at_least_float32(value)
    assert widened.dtype == expected
    assert torch.equal(widened, value.to(expected))
    assert flaw_target(value, value, mu=0.5, nu=1).dtype == expected
    assert normalize_flaw(value[:, :1]).dtype == expected
