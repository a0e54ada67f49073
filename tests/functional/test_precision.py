"""The smallest precision of sums, and the fastest precision of a machine."""

import pytest
import torch

from semipix.functional.flaw import flaw_target, normalize_flaw
from semipix.functional.precision import at_least_float32, fast_precision
from semipix.launch.compose import compose
from semipix.training.configuration import Configuration
from tests.helpers.tiny import rand

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


def capabilities(monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    """Simulate a processor with other instructions."""
    claims = {"gpu": False, "gpu_bfloat16": False, "level": "AVX2", "avx512": False, "amx": False, **given}
    monkeypatch.setattr("torch.cuda.is_available", lambda: claims["gpu"])
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: claims["gpu_bfloat16"])
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: claims["level"])
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: claims["avx512"])
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: claims["amx"])


@pytest.mark.parametrize(
    ("given", "accelerator", "expected"),
    [
        ({}, "auto", "32-true"),
        ({"level": "AVX512"}, "cpu", "32-true"),
        ({"level": "AVX512", "avx512": True}, "cpu", "bf16-mixed"),
        ({"level": "AVX512", "amx": True}, "auto", "bf16-mixed"),
        ({"gpu": True, "avx512": True}, "auto", "32-true"),
        ({"gpu": True, "avx512": True}, "cpu", "bf16-mixed"),
        ({"gpu": True, "gpu_bfloat16": True}, "gpu", "bf16-mixed"),
    ],
)
def test_bfloat16_is_chosen_where_it_is_no_emulation(
    given: dict[str, object], accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities(monkeypatch, **given)
    assert fast_precision(accelerator) == expected


def test_auto_is_written_down_as_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities(monkeypatch, level="AVX512", avx512=True)
    for given, expected in (("auto", "bf16-mixed"), ("32-true", "32-true"), ("null", None)):
        mapping = compose(["data=scenes", "trainer.accelerator=cpu", f"trainer.precision={given}"])
        assert Configuration.parse(mapping).trainer.options["precision"] == expected
