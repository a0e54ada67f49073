"""AdvSSL: the task model deceives a discriminator, which distinguishes its predictions from labels.

Also tests models/discriminator.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from semipix.batch import Batch
from semipix.errors import SemipixError
from semipix.functional.routing import frozen
from semipix.methods.advssl import AdvSSL
from semipix.models.discriminator import FCDiscriminator
from tests.helpers.tiny import CLASSES, FixedModel, make_batch, make_method, rand

TERMS = {"supervised", "discrimination"}
ADVERSARIAL = {"adversarial_labeled", "adversarial_unlabeled"}


class PixelDiscriminator(nn.Module):
    """Sees no neighbours, so that every gradient has one pixel; a map of its own shows where it was trained."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, 1, side, side))

    def forward(self, prediction: Tensor) -> Tensor:
        return 3 * prediction[:, :1] - 1 + self.map


def make_advssl(make_model: Callable[[int], nn.Module] | None = None, **given: Any) -> AdvSSL:
    method = make_method("advssl", make_model, **given)
    assert isinstance(method, AdvSSL)
    return method


def pixelwise(batch: Batch, **given: Any) -> AdvSSL:
    """A method on fixed outputs with a discriminator that sees no neighbours."""
    shape = (len(batch.image), CLASSES, *batch.image.shape[-2:])
    method = make_advssl(lambda number: FixedModel(6 * rand(*shape, seed=number) - 3), **given)
    method.discriminator = PixelDiscriminator(shape[-1])
    return method


def known_pixels(batch: Batch) -> Tensor:
    """(N, H, W) bool, all pixels of unlabeled images among them."""
    unlabeled = torch.ones(len(batch.unlabeled), *batch.image.shape[-2:], dtype=torch.bool)
    return torch.cat([batch.target != 255, unlabeled])


class TestTerms:
    def test_are_those_of_the_paper(self) -> None:
        batch = make_batch(side=64)
        method = make_advssl(lambda_adv_labeled=0.5, lambda_adv_unlabeled=0.25)
        losses = method.losses(batch, 0.0)
        prediction = frozen(method.model, batch.image).softmax(1)
        known, labeled = known_pixels(batch), len(batch.target)
        assert not known.all()
        fake = method.discriminator(prediction)[:, 0].sigmoid()  # (N, H, W)
        truth = torch.stack([batch.target == label for label in range(CLASSES)], 1).float()
        real = method.discriminator(truth)[:, 0].sigmoid()
        expected = {
            "supervised": F.cross_entropy(frozen(method.model, batch.image)[:labeled], batch.target, ignore_index=255),
            "adversarial_labeled": -0.5 * fake[:labeled][known[:labeled]].log().mean(),
            "adversarial_unlabeled": -0.25 * fake[labeled:].log().mean(),
            "discrimination": -(real[known[:labeled]].log().mean() + (1 - fake[known]).log().mean()) / 2,
        }
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, expected[name], msg=name)

    def test_without_unlabeled_images_their_term_is_a_zero_that_takes_a_backward(self) -> None:
        method = make_advssl()
        losses = method.losses(make_batch(unlabeled=0), 0.0)
        assert losses.keys() == TERMS | ADVERSARIAL
        assert losses["adversarial_unlabeled"] == 0
        assert losses["adversarial_labeled"] > 0
        losses["adversarial_unlabeled"].backward()
        assert not method.model.last.weight.grad.any()

    def test_warmup_is_only_supervision_and_discrimination(self) -> None:
        method, batch = make_advssl(warmup_epochs=2.0), make_batch()
        assert method.losses(batch, 1.99).keys() == TERMS
        assert method.losses(batch, 2.0).keys() == TERMS | ADVERSARIAL

    def test_pull_the_model_and_the_discriminator_apart(self) -> None:
        batch = make_batch(void=False)
        method = pixelwise(batch)
        losses = method.losses(batch, 0.0)
        (gradient,) = torch.autograd.grad(losses["adversarial_unlabeled"], method.model.output, retain_graph=True)
        assert (gradient[2:, 0] < 0).all(), "what the discriminator takes for real becomes more likely"
        assert not gradient[:2].any()
        (gradient,) = torch.autograd.grad(losses["adversarial_labeled"], method.model.output, retain_graph=True)
        assert (gradient[:2, 0] < 0).all()
        assert not gradient[2:].any()
        before = float(losses["discrimination"].detach())
        for _ in range(5):
            loss = method.losses(batch, 0.0)["discrimination"]
            (gradient,) = torch.autograd.grad(loss, method.discriminator.map)
            method.discriminator.map.data -= 10 * gradient
        assert loss < before

    def test_are_float32_under_bfloat16_autocast(self) -> None:
        method, batch = make_advssl(), make_batch(side=64)
        exact = method.losses(batch, 0.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = method.losses(batch, 0.0)
            flaw = method.evidence(batch.image).flaw
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        assert flaw is not None
        assert flaw.dtype == torch.float32
        for name, loss in losses.items():
            torch.testing.assert_close(loss, exact[name], rtol=0.02, atol=1e-4)

    def test_are_float32_of_a_bfloat16_model(self) -> None:
        method, batch = make_advssl().bfloat16(), make_batch()
        losses = method.losses(batch._replace(image=batch.image.bfloat16()), 0.0)
        assert {loss.dtype for loss in losses.values()} == {torch.float32}


class TestVoid:
    """Void pixels of labeled images take part in no term; the same pixels of unlabeled images do."""

    def test_no_adversarial_term_has_a_gradient_there(self) -> None:
        batch = make_batch()
        method = pixelwise(batch)
        void = (batch.target == 255).unsqueeze(1)
        losses = method.losses(batch, 0.0)
        output = method.model.output
        (of_labeled,) = torch.autograd.grad(losses["adversarial_labeled"], output, retain_graph=True)
        assert not of_labeled[:2].masked_select(void).any()
        assert of_labeled[:2, :1].masked_select(~void).all()
        (of_unlabeled,) = torch.autograd.grad(losses["adversarial_unlabeled"], output, retain_graph=True)
        assert of_unlabeled[2:, :1].all()

    def test_neither_labels_nor_predictions_there_train_the_discriminator(self) -> None:
        batch = make_batch(unlabeled=0)
        method = pixelwise(batch)
        void = (batch.target == 255).all(0)[None, None]
        (gradient,) = torch.autograd.grad(method.losses(batch, 0.0)["discrimination"], method.discriminator.map)
        assert not gradient.masked_select(void).any()
        assert (gradient.masked_select(~void) != 0).all()


def test_the_flaw_map_is_the_discriminators_doubt() -> None:
    method, batch = make_advssl().eval(), make_batch(side=64)
    with torch.no_grad():
        method.discriminator.convolutions[-1].weight *= 100
        flaw = method.evidence(batch.image).flaw
        logits = method.discriminator(method.model(batch.image).softmax(1))
    assert flaw is not None
    assert logits.std() > 0
    torch.testing.assert_close(flaw, (-logits).sigmoid())


def test_the_discriminator_has_adam_of_its_own() -> None:
    method = make_advssl(discriminator_lr=0.003)
    optimizers = method.optimizers(lambda model: SGD(model.parameters(), lr=0.1))
    assert [type(optimizer) for optimizer in optimizers] == [SGD, Adam]
    assert optimizers[1].param_groups[0]["lr"] == 0.003
    assert optimizers[1].param_groups[0]["betas"] == (0.9, 0.99)


class TestDiscriminator:
    def test_is_the_network_of_the_paper_written_out(self) -> None:
        torch.manual_seed(0)
        discriminator = FCDiscriminator(5)
        features = prediction = rand(2, 5, 64, 64)
        widths = []
        for layer in discriminator.convolutions:
            widths.append(layer.out_channels)
            features = F.conv2d(features, layer.weight, layer.bias, stride=2, padding=1)
            if len(widths) < 5:
                features = torch.where(features > 0, features, 0.2 * features)
        assert widths == [64, 128, 256, 512, 1]
        assert features.shape == (2, 1, 2, 2)
        expected = F.interpolate(features, (64, 64), mode="bilinear", align_corners=True)
        torch.testing.assert_close(discriminator(prediction), expected)

    @pytest.mark.parametrize("size", [(32, 32), (65, 127), (100, 33)])
    def test_works_at_any_size_from_32(self, size: tuple[int, int]) -> None:
        assert FCDiscriminator(2)(rand(1, 2, *size)).shape == (1, 1, *size)

    def test_a_crop_too_small_is_refused(self) -> None:
        with pytest.raises(SemipixError, match=r"data.crop: 31x64 .*; set data.crop=32 or more") as error:
            FCDiscriminator(2)(rand(1, 2, 31, 64))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["lambda_adv_labeled", "lambda_adv_unlabeled", "warmup_epochs", "discriminator_lr"])
def test_a_wrong_value_is_refused_in_one_line(key: str) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: -1.0 found, .* expected"):
        make_advssl(**{key: -1.0})
