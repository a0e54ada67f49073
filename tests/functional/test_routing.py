"""Functions that restrict which networks a term trains."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.functional.routing import differentiated_at_once, frozen, masked_mean, without_dropout


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


class Drops(nn.Module):
    """Leaves channels out by a function, as the blocks of EfficientNet in segmentation_models_pytorch do."""

    def forward(self, maps: Tensor) -> Tensor:
        return F.dropout2d(maps, 0.5, self.training)


@pytest.mark.parametrize("drops", [nn.Dropout2d(0.5), Drops()])
def test_a_pseudo_label_is_that_of_the_whole_network(drops: nn.Module) -> None:
    kept = network()
    module = nn.Sequential(kept, drops, nn.Conv2d(2, 2, 1)).train()
    module[2].eval()
    image = torch.rand(2, 3, 8, 8)
    first, second = without_dropout(module, image), without_dropout(module, image)
    assert torch.equal(first, second) and not torch.equal(frozen(module, image), first)
    torch.testing.assert_close(first, module[2](kept(image)))  # normalised by this batch
    assert drops.training and kept[1].training and not module[2].training, "all is as before"


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

    @pytest.mark.parametrize("differentiated", [True, False])
    def test_running_statistics_stay_though_the_batch_is_used(self, differentiated: bool) -> None:
        module = network().train()
        before = {name: value.clone() for name, value in module.named_buffers()}
        image = torch.rand(2, 3, 8, 8)
        with torch.set_grad_enabled(differentiated):
            output = frozen(module, image)
        assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
        assert not torch.allclose(output, module.eval()(image)), "this batch's statistics, not the running ones"
        assert torch.allclose(output, module.train()(image))
        assert int(module[1].num_batches_tracked) == 1, "the module itself still counts"

    def test_statistics_that_a_graph_uses_are_left_alone(self) -> None:
        """A batch norm in evaluation keeps its statistics for the backward pass, which refuses changed ones."""
        module = network().eval()
        output = module(torch.rand(2, 3, 8, 8))
        with torch.no_grad():
            frozen(module.train(), torch.rand(2, 3, 8, 8))
        output.sum().backward()
        assert module[0].weight.grad is not None

    def test_statistics_are_back_after_an_error(self) -> None:
        module = network().train()
        before = module[1].running_mean
        with torch.no_grad(), pytest.raises(RuntimeError):
            frozen(module, torch.rand(2, 5, 8, 8))
        assert module[1].running_mean is before

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


class TestDifferentiatedAtOnce:
    IMAGE = torch.rand(2, 3, 8, 8)

    def loss(self, module: nn.Module, image: Tensor = IMAGE) -> Tensor:
        return differentiated_at_once(module, lambda: module(image).square().mean())

    def test_loss_and_gradients_are_those_of_one_backward(self) -> None:
        at_once, plain = network(), network()
        loss, expected = self.loss(at_once), plain(self.IMAGE).square().mean()
        assert torch.equal(loss.detach(), expected.detach())
        (3 * loss + at_once[0].weight.sum()).backward()
        (3 * expected + plain[0].weight.sum()).backward()
        for mine, theirs in zip(at_once.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
        assert torch.equal(at_once[1].running_mean, plain[1].running_mean)

    def test_trains_that_module_alone(self) -> None:
        module, other = network(), nn.Conv2d(3, 3, 1)
        module[0].requires_grad_(False)
        self.loss(module, other(self.IMAGE)).backward()
        assert module[3].weight.grad is not None and module[0].weight.grad is None
        assert all(value.grad is None for value in other.parameters())

    def test_a_parameter_that_the_loss_does_not_see_has_no_gradient(self) -> None:
        module = network()
        module.unused = nn.Parameter(torch.ones(1))  # type: ignore[assignment]
        differentiated_at_once(module, lambda: module[0](self.IMAGE).mean()).backward()
        assert module.unused.grad is None and module[0].weight.grad is not None

    def test_keeps_no_graph(self) -> None:
        class Kept:
            def __init__(self, value: Tensor) -> None:
                self.value = value

        def pack(value: Tensor) -> Kept:
            kept.add(found := Kept(value))
            return found

        module, kept = network(), weakref.WeakSet[Kept]()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda found: found.value):
            at_once = self.loss(module)
            assert not kept
            plain = module(self.IMAGE).square().mean()
            assert kept
        assert plain.requires_grad and at_once.requires_grad

    def test_without_gradients_it_is_the_plain_loss(self) -> None:
        with torch.no_grad():
            assert not self.loss(network()).requires_grad
        assert not self.loss(network().requires_grad_(False)).requires_grad

    def test_in_float16_it_waits_for_the_scale(self) -> None:
        module, image = nn.Conv2d(3, 1, 1), torch.full((1, 3, 64, 64), 1e-4)

        def gradient(scale: float) -> Tensor:
            with torch.autocast("cpu", torch.float16):
                loss = differentiated_at_once(module, lambda: module(image).float().mean() * 1e-4)
            (found,) = torch.autograd.grad(loss * scale, module.weight)
            return found / scale

        assert not gradient(1.0).any(), "too small for float16"
        torch.testing.assert_close(gradient(2.0**16), torch.full((1, 3, 1, 1), 1e-8), rtol=0.05, atol=0)

    def test_gradients_can_be_used_only_once(self) -> None:
        loss = self.loss(network())
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="differentiated only once"):
            loss.backward()
