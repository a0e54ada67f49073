"""The precision of sums and comparisons, and the fastest precision of a device."""

import torch
from torch import Tensor


def at_least_float32(value: Tensor) -> Tensor:
    """Convert half precision to float32, since it is too coarse for sums and comparisons; keep wider types."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def fast_precision(accelerator: str = "auto") -> str:
    """Lightning's name of the precision in which this machine trains fastest: `bf16-mixed` or `32-true`.

    A CPU without bfloat16 instructions emulates them, which is at least ten times slower than float32.

    Args:
        accelerator: Lightning's name of the device; `auto` is a GPU if there is one.
    """
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_multiplies_bfloat16()
    return "bf16-mixed" if fast else "32-true"


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    if not capabilities.startswith("AVX"):  # ARM and other processors
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
