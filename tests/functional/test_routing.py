"""Which network a term may train."""

import torch
from torch import Tensor, nn

from semipix.functional.routing import frozen, masked_mean


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


class TestFrozen:
    def test_gradient_reaches_the_input_only(self) -> None:
        module = network()
        image = torch.rand(2, 3, 8, 8, requires_grad=True)
        frozen(module, image).square().sum().backward()
        assert image.grad is not None and image.grad.any()
        assert all(value.grad is None for value in module.parameters())
        assert all(value.requires_grad for value in module.parameters()), "nothing is toggled"

    def test_input_gradient_is_that_of_the_module_itself(self) -> None:
        module = network()
        image = torch.rand(2, 3, 8, 8, requires_grad=True)
        (through_frozen,) = torch.autograd.grad(frozen(module, image).square().sum(), image)
        (through_module,) = torch.autograd.grad(module(image).square().sum(), image)
        torch.testing.assert_close(through_frozen, through_module)

    def test_running_statistics_stay_though_the_batch_is_used(self) -> None:
        module = network().train()
        before = {name: value.clone() for name, value in module.named_buffers()}
        image = torch.rand(2, 3, 8, 8)
        output = frozen(module, image)
        assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
        assert not torch.allclose(output, module.eval()(image)), "this batch's statistics, not the running ones"
        assert torch.allclose(output, module.train()(image))
        assert int(module[1].num_batches_tracked) == 1, "the module itself still counts"

    def test_several_inputs(self) -> None:
        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.tensor(2.0))

            def forward(self, first: Tensor, second: Tensor) -> Tensor:
                return self.weight * (first - second)

        first, second = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        frozen(Sum(), first, second).backward()
        assert (float(first.grad), float(second.grad)) == (2.0, -2.0)


class TestMaskedMean:
    def test_is_the_mean_of_the_chosen_pixels(self) -> None:
        value = torch.rand(2, 3, 6, 5)
        mask = torch.rand(2, 1, 6, 5) > 0.4
        chosen = value.permute(0, 2, 3, 1)[mask[:, 0]]
        torch.testing.assert_close(masked_mean(value, mask), chosen.mean())
        torch.testing.assert_close(masked_mean(value, torch.ones_like(mask)), value.mean())

    def test_what_is_left_out_may_be_anything(self) -> None:
        mask = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
        mask[..., 0] = True
        logits = torch.ones(1, 2, 2, 3)
        logits[..., 1], logits[..., 2] = float("inf"), float("nan")
        logits.requires_grad_()
        mean = masked_mean(logits.square(), mask)
        assert float(mean.detach()) == 1.0
        (gradient,) = torch.autograd.grad(masked_mean(logits * 1.0, mask), logits)
        torch.testing.assert_close(gradient, mask.expand(1, 2, 2, 3) / 4.0)

    def test_an_empty_mask_is_0_with_a_gradient_of_0(self) -> None:
        value = torch.rand(1, 2, 3, 3, requires_grad=True)
        mean = masked_mean(value, torch.zeros(1, 1, 3, 3, dtype=torch.bool))
        mean.backward()
        assert float(mean.detach()) == 0.0
        assert value.grad is not None and not value.grad.any()
