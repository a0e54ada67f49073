"""Products of bfloat16 numbers by float32 units are those of bfloat16 units, up to the order of the sums."""

import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

STEP = 2**-8
"""Half the distance of bfloat16 numbers around 1."""


def products() -> AbstractContextManager[object]:
    path = Path(__file__).parents[1] / "benchmarks/bf16_products.py"
    spec = util.spec_from_file_location("bf16_products", path)
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    sys.modules["bf16_products"] = module
    spec.loader.exec_module(module)
    mode: AbstractContextManager[object] = module.BFloat16Products()
    return mode


class Dtypes(TorchDispatchMode):
    """Notes the types that operations compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        self.seen |= {(func.overloadpacket.__name__, arg.dtype) for arg in args if isinstance(arg, Tensor)}
        return found


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.up(F.relu(self.norm(self.first(image))))
        return self.last(features.flatten(2).transpose(1, 2)).transpose(1, 2) @ features.flatten(2).transpose(1, 2)


def gradients(mode: AbstractContextManager[object]) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    network, image = Network(), torch.rand(2, 3, 8, 8)
    with mode:
        with torch.autocast("cpu", torch.bfloat16):
            output = network(image)
        output.float().square().mean().backward()
    return output, [value.grad for value in network.parameters() if value.grad is not None]


def test_outputs_and_gradients_are_those_of_autocast() -> None:
    output, found = gradients(products())
    expected_output, expected = gradients(nullcontext())
    assert output.dtype == expected_output.dtype == torch.bfloat16
    torch.testing.assert_close(
        output, expected_output, rtol=4 * STEP, atol=4 * STEP * float(expected_output.detach().abs().max())
    )
    assert len(found) == len(expected) == 7
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - theirs).norm()) < 3 * STEP * float(theirs.norm())


def test_bfloat16_makes_a_difference() -> None:
    _, found = gradients(products())
    torch.manual_seed(0)
    network = Network()
    network(torch.rand(2, 3, 8, 8)).square().mean().backward()
    exact = network.first.weight.grad
    assert exact is not None
    assert float((found[0] - exact).norm()) > STEP / 4 * float(exact.norm())


@pytest.mark.parametrize("grad", [True, False])
def test_products_are_computed_in_float32(grad: bool) -> None:
    network, image = Network(), torch.rand(2, 3, 8, 8)
    below = Dtypes()
    with torch.inference_mode(not grad), below, products(), torch.autocast("cpu", torch.bfloat16):
        output = network(image)
        if grad:
            output.float().mean().backward()
    names = {name for name, dtype in below.seen if dtype == torch.float32}
    in_bfloat16 = {name for name, dtype in below.seen if dtype == torch.bfloat16}
    multiply = {"convolution", "convolution_backward", "conv2d", "mm", "addmm", "bmm", "linear", "matmul"}
    assert multiply & names
    assert not multiply & in_bfloat16
