"""Joint augmentation and resizing."""

import pytest
import torch
from torchvision import tv_tensors

from semipix.data.loaders import augment
from semipix.data.transforms import (
    RandomPaddedCrop,
    RandomScale,
    as_size,
    check_crop,
    resize_image,
    resize_target,
    train_transform,
)
from semipix.errors import SemipixError


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image that tells at each pixel what its mask says: value = class / 10, in smooth order along x."""
    classes = (torch.arange(width) * 8 // width + 1).expand(height, width).clone()
    return tv_tensors.Image((classes / 10).expand(3, height, width).clone()), tv_tensors.Mask(classes)


def test_image_and_target_stay_together() -> None:
    image, target = pair(40, 64)
    transform = train_transform((24, 32), (0.4, 1.5), 0.5, target_fill=255)
    padded = mirrored = 0
    for seed in range(40):
        out, mask = augment(transform, seed, image, target)
        assert out.shape == (3, 24, 32)
        assert mask.shape == (24, 32)
        assert mask.dtype == torch.int64
        inside = mask != 255
        assert (out[0][~inside] == 0).all()
        # Antialiased edges between two classes may be off by one class, nothing else is.
        assert ((out[0] * 10 - mask).abs()[inside] <= 1).all()
        assert ((out[0] * 10 - mask).abs()[inside] < 0.01).float().mean() > 0.5
        padded += bool((~inside).any())
        row = mask[inside.any(1).nonzero()[0, 0]]
        mirrored += bool(row[row != 255][0] > row[row != 255][-1])
    assert 0 < padded < 40
    assert 0 < mirrored < 40


def test_a_seed_repeats_the_augmentation_and_leaves_the_global_generator_alone() -> None:
    image, target = pair(40, 64)
    transform = train_transform((24, 32), (0.5, 1.5), 0.5, target_fill=255)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (augment(transform, seed, image, target)[0] for seed in (5, 5, 6))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scale_keeps_the_aspect_and_its_range() -> None:
    image, _ = pair(40, 80)
    sizes = [augment(RandomScale((0.5, 2.0)), seed, image).shape[-2:] for seed in range(60)]
    assert all(abs(width - 2 * height) <= 1 for height, width in sizes)
    heights = [height for height, _ in sizes]
    assert 20 <= min(heights) < 26
    assert 74 < max(heights) <= 80


def test_flip_probability() -> None:
    image, _ = pair(8, 8)
    for flip, mirrored in ((0.0, False), (1.0, True)):
        out = augment(train_transform((8, 8), (1, 1), flip, 255), 0, image)
        assert torch.equal(out, image.flip(-1) if mirrored else image)


@pytest.mark.parametrize(("height", "width"), [(5, 6), (5, 20), (20, 6), (10, 12)])
def test_padded_crop_keeps_all_it_can(height: int, width: int) -> None:
    image, target = tv_tensors.Image(torch.ones(3, height, width)), tv_tensors.Mask(torch.ones(height, width))
    corners = set()
    for seed in range(30):
        out, mask = augment(RandomPaddedCrop((10, 12), 255), seed, image, target)
        assert out.shape == (3, 10, 12)
        assert int(out[0].sum()) == min(height, 10) * min(width, 12)
        assert torch.equal(mask == 255, out[0] == 0)
        corners.add(tuple((mask != 255).nonzero()[0].tolist()))
    assert len(corners) > 1 if height < 10 or width < 12 else corners == {(0, 0)}


def test_crops_come_from_everywhere() -> None:
    image = tv_tensors.Image(torch.arange(30.0).expand(3, 30, 30).clone())
    starts = {int(augment(RandomPaddedCrop((10, 10), 255), seed, image)[0, 0, 0]) for seed in range(300)}
    assert starts == set(range(21))


@pytest.mark.parametrize(
    ("resize", "size"),
    [(None, (40, 64)), (32, (20, 32)), (128, (80, 128)), ((10, 50), (10, 50)), (1, (1, 1))],
)
def test_resize(resize: int | tuple[int, int] | None, size: tuple[int, int]) -> None:
    image, target = pair(40, 64)
    out, mask = resize_image(image, resize), resize_target(target, resize)
    assert out.shape == (3, *size)
    assert mask.shape == size
    assert set(mask.unique().tolist()) <= set(range(1, 9))


def test_resize_is_antialiased_for_images_and_nearest_for_masks() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    image = resize_image(tv_tensors.Image(checks.float().expand(3, 64, 64).clone()), 16)
    assert (image[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.05
    mask = resize_target(tv_tensors.Mask(checks * 7), 16)
    assert set(mask.unique().tolist()) <= {0, 7}


def test_mask_and_image_edges_meet_after_resizing() -> None:
    step = (torch.arange(90) >= 45).expand(90, 90)
    image = resize_image(tv_tensors.Image(step.float().expand(3, 90, 90).clone()), 30)
    mask = resize_target(tv_tensors.Mask(step.long()), 30)
    assert torch.equal(image[0] > 0.5, mask == 1)


def test_check_crop_names_image_sizes_and_mend() -> None:
    check_crop("a.png", torch.zeros(3, 24, 32), (24, 32))
    with pytest.raises(SemipixError, match=r"a\.png: image is 32x20 pixels, smaller than the training crop of 32x24"):
        check_crop("a.png", torch.zeros(3, 20, 32), (24, 32))


@pytest.mark.parametrize(("height", "width"), [(20, 32), (24, 30), (7, 9)])
def test_the_mends_of_check_crop_work(height: int, width: int) -> None:
    image = tv_tensors.Image(torch.zeros(3, height, width))
    with pytest.raises(SemipixError) as caught:
        check_crop("a.png", image, (24, 32))
    words = str(caught.value)
    crop = words.split("data.crop=[")[1].split("]")[0].split(",")
    check_crop("a.png", image, (int(crop[0]), int(crop[1])))
    resize = int(words.split("data.resize=")[1].split()[0])
    check_crop("a.png", resize_image(image, resize), (24, 32))


@pytest.mark.parametrize(("value", "size"), [(8, (8, 8)), ([8, 9], (8, 9)), ((8, 9), (8, 9))])
def test_as_size(value: int | list[int], size: tuple[int, int]) -> None:
    assert as_size("data.crop", value) == size


@pytest.mark.parametrize("value", [0, -1, [8], [8, 9, 10], [8, 0], [8.5, 9]])
def test_as_size_slips(value: int | list[int]) -> None:
    with pytest.raises(SemipixError, match=r"data\.crop=.*: expected a positive number of pixels or \[height,width\]"):
        as_size("data.crop", value)
