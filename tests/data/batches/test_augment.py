"""Augmenting and resizing an image together with its target.

Also tests data/files/resize.py and data/files/sizes.py.
"""

import pytest
import torch
from torchvision import tv_tensors

from semipix.data.batches.augment import RandomPaddedCrop, RandomScale, _rare_pixel, augment, train_transform
from semipix.data.files.bands import BandImage
from semipix.data.files.resize import resize_image, resize_target, resize_to, scaled_window
from semipix.data.files.sizes import as_size, check_crop
from semipix.data.targets import ImageTarget, Matte
from semipix.errors import SemipixError


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image and its mask; each pixel of the image is its class / 10, and classes increase along x."""
    classes = (torch.arange(width) * 8 // width + 1).expand(height, width).clone()
    return tv_tensors.Image((classes / 10).expand(3, height, width).clone()), tv_tensors.Mask(classes)


def test_image_and_target_stay_together() -> None:
    image, target = pair(40, 64)
    transform = train_transform((24, 32), (0.4, 1.5), 0.5, target_fill=255)
    padded = mirrored = 0
    for seed in range(40):
        out, mask, shown = augment(transform.with_inside, seed, image, target)
        assert out.shape == (3, 24, 32)
        assert mask.shape == (24, 32)
        assert mask.dtype == torch.int64
        inside = mask != 255
        assert torch.equal(shown[0], inside)
        assert (out[0][~inside] == 0).all()
        # Antialiased edges between two classes may be off by one class, nothing else is.
        assert ((out[0] * 10 - mask).abs()[inside] <= 1).all()
        assert ((out[0] * 10 - mask).abs()[inside] < 0.01).float().mean() > 0.5
        padded += bool((~inside).any())
        row = mask[inside.any(1).nonzero()[0, 0]]
        mirrored += bool(row[row != 255][0] > row[row != 255][-1])
    assert 0 < padded < 40
    assert 0 < mirrored < 40


def test_the_corners_of_a_rotated_crop_are_outside() -> None:
    image, target = pair(40, 64)
    transform = train_transform((24, 32), (0.8, 1.0), 0.5, target_fill=255, rotate=30)
    partly = 0
    for seed in range(20):
        out, mask, inside = augment(transform.with_inside, seed, image, target)
        repeated, alone = augment(transform.with_inside, seed, image)
        assert torch.equal(repeated, out)
        assert torch.equal(alone, inside)
        # The mask is of the nearest pixel, the image of the four around, which are inside by at least a half.
        assert ((mask != 255) != inside[0]).float().mean() < 0.02
        partly += not inside.all()
    assert 0 < partly < 20


def test_a_seed_repeats_the_augmentation_without_changing_the_global_generator() -> None:
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


def test_check_crop_names_image_sizes_and_fixes() -> None:
    check_crop("a.png", torch.zeros(3, 24, 32), (24, 32))
    with pytest.raises(SemipixError, match=r"a\.png: image is 32x20 pixels, smaller than the training crop of 32x24"):
        check_crop("a.png", torch.zeros(3, 20, 32), (24, 32))


@pytest.mark.parametrize(("height", "width"), [(20, 32), (24, 30), (7, 9)])
def test_the_fixes_of_check_crop_work(height: int, width: int) -> None:
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
def test_as_size_errors(value: int | list[int]) -> None:
    with pytest.raises(SemipixError, match=r"data\.crop=.*: expected a positive number of pixels or \[height,width\]"):
        as_size("data.crop", value)


class TestRegressionTargets:
    """Targets that are images: NaN pixels are ignored."""

    def ramp(self, height: int = 24, width: int = 32) -> tuple[tv_tensors.Image, ImageTarget]:
        """An image with a ramp, and a target of two channels with the same ramp, a hundred times as steep."""
        ramp = torch.linspace(0, 1, width).expand(height, width)
        return tv_tensors.Image(ramp.repeat(3, 1, 1)), (100 * ramp).repeat(2, 1, 1).as_subclass(ImageTarget)

    def test_image_and_target_stay_together_and_padding_is_nan(self) -> None:
        image, target = self.ramp()
        transform = train_transform((24, 32), (0.5, 1.5), 0.5, target_fill=255)
        padded = 0
        for seed in range(20):
            out, map_ = augment(transform, seed, image, target)
            assert map_.shape == (2, 24, 32)
            silent = map_.isnan()
            assert torch.equal(silent[0], silent[1])
            assert (out[:, silent[0]] == 0).all()
            assert ((100 * out[0] - map_[0])[~silent[0]].abs() < 1e-3).all()
            padded += bool(silent.any())
        assert 0 < padded < 20

    @pytest.mark.parametrize("size", [(12, 16), (48, 64), (17, 23)])
    def test_missing_pixels_do_not_spread(self, size: tuple[int, int]) -> None:
        _, target = self.ramp()
        holed = target.clone().as_subclass(ImageTarget)
        holed[0, 8:16, 8:16] = float("nan")
        full, out = resize_target(target, size), resize_target(holed, size)
        assert isinstance(out, ImageTarget)
        share = out[0].isnan().float().mean()
        assert share == pytest.approx(64 / (24 * 32), abs=0.03)
        assert torch.equal(out[1], full[1])
        # Beside a hole a value comes from fewer pixels, which lie to one side.
        assert (out[0] - full[0])[~out[0].isnan()].abs().max() < 100 / 15

    def test_a_channel_without_any_value_stays_without(self) -> None:
        _, target = self.ramp()
        target[1] = float("nan")
        out = resize_target(target, (10, 10))
        assert out[1].isnan().all()
        assert not out[0].isnan().any()


class TestMattes:
    """The trimap keeps its three values and the unknown region its two, and crops are centred on that region."""

    def sample(self, height: int = 60, width: int = 80) -> tuple[tv_tensors.Image, Matte]:
        """A square on the right with a soft left edge, whose trimap is unknown around that edge."""
        alpha = torch.zeros(height, width)
        alpha[20:40, 56:76] = 1
        alpha[20:40, 52:56] = torch.tensor([0.2, 0.4, 0.6, 0.8])
        trimap = (alpha >= 1).float()
        trimap[18:42, 50:58] = 0.5
        image = torch.cat([alpha.expand(3, -1, -1), trimap[None]])
        colours = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
        nothing = torch.full((3, height, width), float("nan"))
        target = torch.cat([alpha[None], (trimap == 0.5).float()[None], colours, nothing])
        return tv_tensors.Image(image), target.as_subclass(Matte)

    def test_values_are_not_rescaled(self) -> None:
        image, target = self.sample()
        transform = train_transform((48, 48), (0.4, 1.5), 0.5, 255, at_unknown=True)
        padded = 0
        for seed in range(20):
            out, matte = augment(transform, seed, image, target)
            assert out.shape == (4, 48, 48)
            assert matte.shape == (8, 48, 48)
            assert set(out[3].unique().tolist()) <= {0, 0.5, 1}
            assert torch.equal(out[3] == 0.5, matte[1] == 1)
            assert set(matte[1].unique().tolist()) <= {0, 1}
            assert torch.allclose(out[0], matte[0], atol=1e-6)
            silent = matte[2:5].isnan()
            assert matte[5:].isnan().all()
            assert (matte[:2, silent[0]] == 0).all()
            padded += bool(silent.any())
        assert 0 < padded < 20

    def test_crops_are_at_the_unknown_region(self) -> None:
        image, target = self.sample()
        unlabeled = train_transform((16, 16), (1, 1), 0.0, 255, at_unknown=True)
        anywhere = train_transform((16, 16), (1, 1), 0.0, 255)
        centres = set()
        for seed in range(30):
            out, matte = augment(unlabeled, seed, image, target)
            assert out[3, 8, 8] == 0.5
            assert torch.equal(augment(unlabeled, seed, image), out), "an unlabeled image is cropped alike"
            centres.add(float(matte[2, 8, 8]))
        assert len(centres) > 15
        assert sum(bool((augment(anywhere, seed, image)[3] == 0.5).any()) for seed in range(30)) < 25

    def test_crops_of_an_image_without_unknown_pixels_come_from_anywhere(self) -> None:
        image = tv_tensors.Image(torch.zeros(4, 30, 30))
        image[0] = torch.arange(900.0).reshape(30, 30)
        transform = train_transform((10, 10), (1, 1), 0.0, 255, at_unknown=True)
        assert len({float(augment(transform, seed, image)[0, 0, 0]) for seed in range(20)}) > 10

    def test_resize(self) -> None:
        image, target = self.sample()
        out, matte = resize_image(image, 37), resize_target(target, 37)
        assert set(out[3].unique().tolist()) == {0, 0.5, 1}
        assert torch.equal(out[3] == 0.5, matte[1] == 1)
        assert len(out[0].unique()) > 4


class TestWindows:
    """A window of a resized image is computed only from the pixels that it needs, and equals the part of the whole."""

    @pytest.mark.parametrize("size", [(40, 64), (13, 21), (39, 63), (80, 128), (61, 90), (8, 64)])
    def test_a_window_is_a_part_of_the_whole(self, size: tuple[int, int]) -> None:
        noise = torch.rand(5, 40, 64, generator=torch.Generator().manual_seed(0))
        holed = (100 * noise[:2]).as_subclass(ImageTarget)
        holed[0, 4:20, 6:30] = float("nan")
        inputs = [
            tv_tensors.Image(noise[:3]),
            tv_tensors.Image(torch.cat([noise[:3], (noise[3:4] * 3).floor() / 2])),
            tv_tensors.Mask((noise[0] * 9).byte()),
            holed,
            noise.repeat(2, 1, 1)[:8].as_subclass(Matte),
        ]
        windows = [(0, 0, *size), (size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2), (size[0] - 5, 2, 5, 9)]
        for inpt in inputs:
            whole = resize_to(inpt, size).as_subclass(torch.Tensor)
            for top, left, height, width in windows:
                part = scaled_window(inpt, size, (top, left, height, width))
                expected = whole[..., top : top + height, left : left + width]
                assert part.dtype == (torch.int64 if isinstance(inpt, tv_tensors.Mask) else torch.float32)
                # Where half of a pixel is missing, rounding decides.
                alike = part.isnan() == expected.isnan()
                assert alike.float().mean() > 0.99
                part = part.where(alike, expected.to(part.dtype))
                torch.testing.assert_close(part, expected.to(part.dtype), rtol=3e-4, atol=2e-5, equal_nan=True)

    def test_a_window_does_not_convert_the_whole(self) -> None:
        """Pixels far from the window have no effect, even if they are NaN."""
        image = torch.full((3, 400, 400), float("nan"))
        image[:, 90:210, 190:310] = 0.25
        part = scaled_window(tv_tensors.Image(image), (200, 200), (50, 100, 50, 50))
        assert (part == 0.25).all()

    def test_bytes_are_augmented_like_floats(self) -> None:
        pixels = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        transform = train_transform((24, 32), (0.4, 1.5), 0.5, target_fill=255)
        for seed in range(20):
            of_bytes = augment(transform, seed, tv_tensors.Image(pixels))
            of_floats = augment(transform, seed, tv_tensors.Image(pixels / 255))
            assert of_bytes.dtype == torch.float32
            torch.testing.assert_close(of_bytes, of_floats, rtol=0, atol=1e-6)

    def test_an_image_is_left_as_it_was(self) -> None:
        image, target = tv_tensors.Image(torch.rand(3, 24, 32)), torch.rand(1, 24, 32).as_subclass(ImageTarget)
        copies = image.clone(), target.clone()
        out, map_ = augment(train_transform((24, 32), (1, 1), 0, 255), 0, image, target)
        out.zero_()
        map_.zero_()
        assert torch.equal(image, copies[0])
        assert torch.equal(target, copies[1])


class TestRareClasses:
    """A share of the crops contains a class of few pixels."""

    def sample(self, height: int = 120, width: int = 160) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Class 0 with a square of 4x4 pixels of class 3, and a void margin below. The image shows the mask."""
        mask = torch.zeros(height, width, dtype=torch.uint8)
        mask[20:24, 130:134] = 3
        mask[-20:] = 255
        return tv_tensors.Image(mask.expand(3, -1, -1).clone()), tv_tensors.Mask(mask)

    @pytest.mark.parametrize("scale", [(1, 1), (0.75, 1.5)])
    def test_with_share_1_each_crop_has_one(self, scale: tuple[float, float]) -> None:
        image, mask = self.sample()
        anywhere, rare = (train_transform((32, 32), scale, 0.5, 255, rare_share=share) for share in (0.0, 1.0))
        found = [
            bool((augment(transform, seed, image, mask)[1] == 3).any())
            for transform in (anywhere, rare)
            for seed in range(40)
        ]
        assert sum(found[:40]) < 15
        assert all(found[40:])

    def test_a_rotation_does_not_turn_it_out(self) -> None:
        image, mask = self.sample()
        mask = tv_tensors.Mask(mask.roll((20, -60), (0, 1)))  # away from the border
        transform = train_transform((32, 40), (1, 1), 0.5, 255, rare_share=1.0, rotate=180.0)
        assert all(bool((augment(transform, seed, image, mask)[1] == 3).any()) for seed in range(60))

    def test_places_vary_and_stay_inside(self) -> None:
        image, mask = self.sample()
        transform = train_transform((32, 40), (1, 1), 0.0, 255, rare_share=1.0)
        first = {tuple((augment(transform, seed, image, mask)[1] == 3).nonzero()[0].tolist()) for seed in range(60)}
        rows, columns = zip(*first, strict=True)
        assert len(first) > 30
        assert max(rows) <= 23, "the square is 20 pixels below the upper edge"
        assert min(columns) <= 12, "the square ends 26 pixels from the right edge"
        assert max(columns) > 30

    def test_all_other_draws_stay_the_same(self) -> None:
        image, mask = self.sample()
        anywhere, rare = (train_transform((32, 32), (0.5, 1.5), 0.5, 255, rare_share=share) for share in (0.0, 0.5))
        pairs = [[augment(transform, seed, image, mask)[1] for transform in (anywhere, rare)] for seed in range(60)]
        same = sum(torch.equal(*masks) for masks in pairs)
        assert 20 <= same <= 45
        assert torch.equal(augment(anywhere, 0, image), augment(rare, 0, image)), "an image without a mask"

    def test_rare_classes_have_less_than_an_equal_share_each_with_the_same_probability(self) -> None:
        mask = torch.zeros(100, 100, dtype=torch.int64)
        mask[:20], mask[50, :8], mask[90:] = 1, 2, 255
        drawn = [augment(lambda _: _rare_pixel(tv_tensors.Mask(mask)), seed, mask) for seed in range(200)]
        classes = torch.tensor([int(mask[row, column]) for row, column in drawn])
        assert set(classes.tolist()) == {1, 2}
        assert 80 < int((classes == 2).sum()) < 120
        assert len(set(drawn)) > 90

    def test_pixels_without_a_value_are_no_reason_for_a_crop(self) -> None:
        """Three of four squares are where a band has no value; a crop around one of these shows no label of class 3."""
        _, mask = self.sample(160, 160)
        for row, column in ((30, 20), (60, 40), (60, 120)):
            mask[row : row + 6, column : column + 6] = 3
        bands = torch.ones(2, 160, 160)
        bands[1, 26:] = torch.nan
        transform = train_transform((32, 32), (1, 1), 0.5, 255, rare_share=1.0)
        for seed in range(20):
            image, target = augment(transform, seed, BandImage(bands), mask)
            assert bool(((target == 3) & ~image[1].isnan()).any())

    @pytest.mark.parametrize("value", [0, 255])
    def test_a_mask_of_one_class_or_none_has_no_rare_class(self, value: int) -> None:
        assert _rare_pixel(tv_tensors.Mask(torch.full((8, 8), value))) is None

    def test_a_crop_that_covers_the_image_and_a_regression_target_are_left_alone(self) -> None:
        image, mask = self.sample(40, 140)
        for target, crop in ((mask, (48, 160)), (mask.float()[None].as_subclass(ImageTarget), (32, 32))):
            anywhere, rare = (train_transform(crop, (1, 1), 0.5, 255, rare_share=share) for share in (0.0, 1.0))
            for seed in range(5):
                outputs = [augment(transform, seed, image, target)[0] for transform in (anywhere, rare)]
                assert torch.equal(*outputs)

    def test_a_crop_as_high_as_the_image_moves_sideways(self) -> None:
        image, mask = self.sample(60)
        transform = train_transform((60, 32), (1, 1), 0.5, 255, rare_share=1.0)
        assert all(bool((augment(transform, seed, image, mask)[1] == 3).any()) for seed in range(10))
