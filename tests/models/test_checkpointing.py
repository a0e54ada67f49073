"""Activation checkpointing, and the sizes that networks take.

Also tests models/padding.py.
"""

import copy

import pytest
import torch
from torch import nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import CheckpointedSequential, checkpoint_stages, checkpointed
from semipix.models.padding import check_image_size, cropped, pad_to_multiple
from tests.models.base import images


def block() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())


def test_running_statistics_move_once_and_random_numbers_are_repeated() -> None:
    plain, twice = block(), block()
    gradients = []
    for module, run in ((plain, lambda seen: plain(seen)), (twice, lambda seen: checkpointed(twice, seen))):
        torch.manual_seed(1)
        output = run(images(8, 9))
        torch.rand(3)  # the generator moves on before the second pass
        output.square().sum().backward()
        gradients.append([value.grad for value in module.parameters()])
        assert int(module[1].num_batches_tracked) == 1
    torch.testing.assert_close(gradients[1], gradients[0])
    for first, second in zip(plain.buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(second, first, rtol=0, atol=0)


def test_the_second_pass_takes_the_weights_of_the_first() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    given = {name: torch.full_like(value, 0.5).requires_grad_() for name, value in module.named_parameters()}
    whole = CheckpointedSequential(module)
    output = torch.func.functional_call(whole, {f"0.{name}": value for name, value in given.items()}, torch.ones(1, 2))
    output.sum().backward()
    expected = torch.full((2, 2), float(1 - torch.tensor(1.5).tanh() ** 2))
    torch.testing.assert_close(given["0.weight"].grad, expected)
    assert module[0].weight.grad is None


def test_nothing_is_run_twice_without_gradients() -> None:
    runs: list[int] = []
    module = block()
    module.register_forward_pre_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        checkpointed(module, images(8, 9))
    assert runs == [1]
    checkpointed(module, images(8, 9)).sum().backward()
    assert runs == [1, 1, 1]


def test_stages_keep_their_names_and_copies() -> None:
    network = nn.ModuleDict({"stem": nn.Conv2d(3, 3, 1), "stages": nn.Sequential(block(), nn.Conv2d(4, 2, 1))})
    names = list(network.state_dict())
    checkpoint_stages(network, key="backbone")
    assert type(network["stages"]) is CheckpointedSequential
    assert type(network["stages"][0]) is nn.Sequential, "only the outermost"
    assert list(network.state_dict()) == names
    twin = copy.deepcopy(network)
    twin["stages"](images(8, 9)).sum().backward()
    assert all(value.grad is not None for value in twin["stages"].parameters())
    assert all(value.grad is None for value in network.parameters())


def test_a_gradient_keeps_its_memory_format_where_nothing_is_cropped() -> None:
    maps = torch.rand(1, 4, 6, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    doubled = maps * 2
    formats: list[bool] = []
    doubled.register_hook(lambda gradient: formats.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    found = cropped(doubled, (6, 8))
    found.backward(torch.ones_like(found))
    assert formats == [True]
    assert torch.equal(cropped(maps, (5, 7)), maps[..., :5, :7])


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_padding_keeps_the_image_where_it_is(mode) -> None:
    image = images(9, 16)
    padded = pad_to_multiple(image, 8, mode)
    assert padded.shape == (2, 3, 16, 16)
    torch.testing.assert_close(padded[:, :, :9], image, rtol=0, atol=0)
    expected = image[:, :, [8] * 7] if mode == "replicate" else image[:, :, 1:8].flip(2)
    torch.testing.assert_close(padded[:, :, 9:], expected, rtol=0, atol=0)
    assert pad_to_multiple(padded, 8, mode) is padded


def test_the_smallest_size_is_taken() -> None:
    check_image_size(images(8, 9), 8, "Net")
    with pytest.raises(SemipixError, match=r"data.crop: 8x9 \(height x width\) found, but Net expects at least 9x9"):
        check_image_size(images(8, 9), 9, "Net")
