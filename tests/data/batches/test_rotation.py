"""Rotated crops show what is around them, and image and target stay together."""

import math

import pytest
import torch
from torchvision import tv_tensors

from semipix.data.batches.augment import augment, train_transform
from semipix.data.batches.rotation import reach, rotated
from semipix.data.targets import ImageTarget, Matte


def plane(height: int, width: int) -> torch.Tensor:
    """Values that grow by 0.004 a row and by 0.001 a column: bilinear interpolation is exact."""
    return 0.004 * torch.arange(height)[:, None] + 0.001 * torch.arange(width)


@pytest.mark.parametrize("crop", [(8, 8), (7, 12)])
@pytest.mark.parametrize("degrees", [-170, -90, -3, 0.5, 5, 45, 90, 180])
def test_the_pixels_around_are_enough(crop: tuple[int, int], degrees: float) -> None:
    angle = math.radians(degrees)
    more = reach(crop, angle)
    size = [side + 2 * extra for side, extra in zip(crop, more, strict=True)]
    values = torch.stack([plane(*size)] * 3)
    found = rotated(tv_tensors.Image(values), crop, angle)[0]
    down, across = (torch.arange(side) - (side - 1) / 2 for side in crop)
    cosine, sine = math.cos(angle), math.sin(angle)
    rows = (size[0] - 1) / 2 + cosine * down[:, None] + sine * across
    columns = (size[1] - 1) / 2 - sine * down[:, None] + cosine * across
    torch.testing.assert_close(found.as_subclass(torch.Tensor), 0.004 * rows + 0.001 * columns)


def test_a_quarter_turn_is_exact_for_every_kind_of_tensor() -> None:
    more, _ = reach((6, 6), math.pi / 2)
    values = torch.rand(8, 6 + 2 * more, 6 + 2 * more)
    values[1] = (values[1] > 0.5).float()
    values[2, 3:5, 4] = math.nan
    kinds = [
        tv_tensors.Image(values[3:7]),
        tv_tensors.Mask((values[0] * 200).long()),
        ImageTarget(values[:3]),
        values.as_subclass(Matte),
    ]
    for kind in kinds:
        found = rotated(kind, (6, 6), math.pi / 2)
        middle = kind.as_subclass(torch.Tensor)[..., more:-more, more:-more]
        assert type(found) is type(kind)
        torch.testing.assert_close(found.as_subclass(torch.Tensor), middle.rot90(1, (-2, -1)), equal_nan=True)


def test_classes_trimaps_and_unknown_regions_are_not_mixed() -> None:
    matte = torch.rand(8, 20, 20)
    matte[1] = (matte[1] > 0.5).float()
    found = rotated(matte.as_subclass(Matte), (10, 10), 0.3)
    assert set(found[1].unique().tolist()) == {0, 1}
    trimap = torch.randint(3, (1, 20, 20)) / 2
    image = rotated(tv_tensors.Image(torch.cat([torch.rand(3, 20, 20), trimap])), (10, 10), 0.3)
    assert set(image[3].unique().tolist()) == {0, 0.5, 1}
    assert len(found[0].unique()) > 90


def test_a_rotated_crop_inside_an_image_has_no_padding() -> None:
    image = tv_tensors.Image(0.1 + torch.stack([plane(60, 80)] * 3))
    transform = train_transform((16, 24), (1, 1), 0.5, 255, rotate=20)
    angles = set()
    for seed in range(30):
        out = augment(transform, seed, image)[0].as_subclass(torch.Tensor)
        assert out.shape == (16, 24)
        inner = out[4:-4, 4:-4]  # corners at the border of the image may be padded
        down, across = inner.diff(dim=0).mean(), inner.diff(dim=1).mean()
        assert math.hypot(down, across) == pytest.approx(math.hypot(0.004, 0.001), rel=0.01), "rotation keeps distances"
        angles.add(round(math.degrees(math.atan2(down, abs(across)))))
    assert len(angles) > 8


def test_image_and_mask_turn_together_and_what_is_outside_of_the_image_is_void() -> None:
    classes = (torch.arange(40) * 8 // 40 + 1).expand(40, 40).clone()
    image = tv_tensors.Image((classes / 10).expand(3, 40, 40).clone())
    transform = train_transform((32, 32), (0.7, 1.2), 0.5, 255, rotate=15)
    void = 0
    for seed in range(20):
        out, mask = augment(transform, seed, image, tv_tensors.Mask(classes))
        inside = mask != 255
        assert set(mask[inside].unique().tolist()) <= set(range(1, 9))
        assert ((out[0] * 10 - mask).abs()[inside] < 0.6).float().mean() > 0.9
        assert out[0][~inside].mean() < 0.1 if (~inside).any() else True
        void += bool((~inside).any())
    assert void


def test_without_rotation_no_random_number_is_drawn() -> None:
    image = tv_tensors.Image(torch.rand(3, 40, 40))
    plain, turned = (train_transform((16, 16), (0.5, 1.5), 0.5, 255, rotate=angle) for angle in (0, 1e-9))
    for seed in range(5):
        first, second = augment(plain, seed, image), augment(turned, seed, image)
        torch.testing.assert_close(first.as_subclass(torch.Tensor), second.as_subclass(torch.Tensor))
