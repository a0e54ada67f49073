"""The built-in drawn scenes.

Also tests data/drawing/scenes.py and data/drawing/shapes.py.
"""

import hashlib

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from semipix.data.drawing.scenes import SCENE_CLASSES
from semipix.data.drawing.shapes import SHAPES, TEXTURES, smooth_noise
from semipix.data.sources.scenes import ScenesSource
from semipix.data.targets import KINDS
from semipix.errors import SemipixError


def test_names_and_counts() -> None:
    source = ScenesSource(size=32, train=3, val=2, test=0)
    assert source.labeled() == ["scenes/train/000000", "scenes/train/000001", "scenes/train/000002"]
    assert len(source.val()) == 2
    assert source.test() == source.unlabeled() == []
    assert source.classes == ["background", "disc", "box", "triangle", "star", "ring"]


@pytest.mark.parametrize(("size", "shape"), [(64, (64, 64)), ([48, 80], (48, 80)), (256, (256, 256))])
def test_image_and_target(size: int | list[int], shape: tuple[int, int]) -> None:
    source = ScenesSource(size=size)
    name = source.val()[3]
    image, target = source.image(name), source.pair(name)[1]
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(target, tv_tensors.Mask)
    assert image.shape == (3, *shape)
    assert image.dtype == torch.float32
    assert target.shape == shape
    assert target.dtype == torch.int64
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.05
    assert 0 <= target.min() <= target.max() < len(SCENE_CLASSES)


def test_an_image_depends_on_seed_split_and_number_only() -> None:
    many, few, other = ScenesSource(48, train=50), ScenesSource(48, train=5, val=1), ScenesSource(48, seed=1)
    name = "scenes/train/000004"
    many.image("scenes/train/000003")
    assert torch.equal(many.image(name), few.image(name))
    assert torch.equal(many.pair(name)[1], few.pair(name)[1])
    for different in (other.image(name), many.image("scenes/val/000004"), many.image("scenes/train/000005")):
        assert not torch.equal(many.image(name), different)


def test_a_returned_image_is_not_the_cached_one() -> None:
    source = ScenesSource(48)
    name = source.labeled()[0]
    image, target = source.image(name).clone(), source.pair(name)[1].clone()
    source.image(name).zero_()
    source.pair(name)[1].zero_()
    assert torch.equal(source.image(name), image)
    assert torch.equal(source.pair(name)[1], target)


def test_all_classes_are_common() -> None:
    source = ScenesSource(48, train=60)
    pixels = (
        torch.stack([source.pair(name)[1] for name in source.labeled()])
        .flatten()
        .bincount(minlength=len(SCENE_CLASSES))
    )
    shares = pixels / pixels.sum()
    assert 0.5 < shares[0] < 0.85
    assert (shares[1:] > 0.02).all()


def test_colour_does_not_reveal_the_class() -> None:
    source = ScenesSource(48, train=150)
    colours: dict[int, list[torch.Tensor]] = {index: [] for index in range(len(SCENE_CLASSES))}
    for name in source.labeled():
        image, target = source.image(name), source.pair(name)[1]
        for index in target.unique().tolist():
            colours[index].append(image[:, target == index].mean(1))
    means = torch.stack([torch.stack(values).mean(0) for values in colours.values()])
    spreads = torch.stack([torch.stack(values).std(0) for values in colours.values()])
    assert (means - means.mean(0)).abs().max() < 0.1
    assert spreads.min() > 0.1


def test_objects_are_seen() -> None:
    """Most objects differ from their surroundings, so that their labels can be learned."""
    source = ScenesSource(96, train=30)
    edges, elsewhere = [], []
    for name in source.labeled():
        image, target = source.image(name).as_subclass(torch.Tensor), source.pair(name)[1].as_subclass(torch.Tensor)
        step = (image[:, :, 2:] - image[:, :, :-2]).abs().mean(0)
        border = (target[:, 2:] != target[:, :-2]).float() > 0
        edges.append(step[border])
        elsewhere.append(step[~border])
    assert torch.cat(edges).mean() > 1.4 * torch.cat(elsewhere).mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_their_centre_and_a_sensible_distance(shape: str) -> None:
    v, u = np.mgrid[-2:2:200j, -2:2:200j].astype(np.float32)
    distance = SHAPES[shape](u, v)
    slope = np.hypot(*np.gradient(distance, 4 / 199))
    assert (distance[100, 100] < 0) == (shape != "ring")
    assert np.median(slope) == pytest.approx(1, abs=0.1)
    assert 0.08 < (distance < 0).mean() < 0.25
    outside = np.hypot(u, v) > 1.31
    assert (distance[outside] > 0).all()


def test_shapes_differ() -> None:
    v, u = np.mgrid[-2:2:100j, -2:2:100j].astype(np.float32)
    inside = [shape(u, v) < 0 for shape in SHAPES.values()]
    for index, first in enumerate(inside):
        for second in inside[:index]:
            assert (first & second).sum() / (first | second).sum() < 0.85


@pytest.mark.parametrize("index", range(len(TEXTURES)))
def test_textures_use_their_range(index: int) -> None:
    v, u = np.mgrid[0:8:80j, 0:8:80j].astype(np.float32)
    texture = TEXTURES[index](u, v, np.random.default_rng(0))
    assert texture.shape == (80, 80)
    assert -1 <= texture.min() < -0.9
    assert 0.9 < texture.max() <= 1


def test_smooth_noise_is_smooth() -> None:
    noise = smooth_noise(np.random.default_rng(0), 3, 60, 90)
    assert noise.shape == (60, 90)
    assert np.abs(noise).max() <= 1
    assert noise.std() > 0.2
    assert np.abs(np.diff(noise)).max() < 0.12


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"size": 31}, r"data\.size=31: expected at least 32 pixels"),
        ({"size": [64, 8]}, r"data\.size=\[64, 8\]: expected at least 32 pixels"),
        ({"size": 0}, r"data\.size=0: expected a positive"),
        ({"train": 0}, r"data\.train=0: expected at least 1 images"),
        ({"val": -1}, r"data\.val=-1: expected at least 0 images"),
    ],
)
def test_errors(options: dict[str, int], pattern: str) -> None:
    with pytest.raises(SemipixError, match=pattern):
        ScenesSource(**options)


def test_classes_may_be_merged() -> None:
    source, merged = ScenesSource(), ScenesSource(merge_classes=True)
    assert merged.classes == ["background", "object"]
    name = source.labeled()[0]
    assert torch.equal(merged.image(name), source.image(name))
    assert torch.equal(merged.pair(name)[1], (source.pair(name)[1] > 0).long())
    with pytest.raises(SemipixError, match=r"data\.merge_classes=true: matting has no classes"):
        ScenesSource(kind="matting", merge_classes=True)


BEFORE = "44da7df18662316707bb8de2d08a84612f7233d51d0b2c082648b42e42ee47b2"
"""Hash of segmentation scenes as the stored benchmark figures know them."""


def test_segmentation_scenes_have_not_changed() -> None:
    digest = hashlib.sha256()
    for source in (ScenesSource(), ScenesSource(size=[64, 80], seed=3)):
        for name in source.labeled()[:12] + source.val()[:4] + source.test()[:4]:
            digest.update(source.image(name).numpy().tobytes())
            digest.update(source.pair(name)[1].numpy().tobytes())
    assert digest.hexdigest() == BEFORE


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    def test_image_and_target(self, kind: str) -> None:
        source = ScenesSource([40, 56], train=2, kind=kind)
        image, target = source.image(source.labeled()[1]), source.pair(source.labeled()[1])[1]
        channels = {"segmentation": 0, "matting": 8, "regression": 1}.get(kind, 3)
        assert image.shape == (4 if kind == "matting" else 3, 40, 56)
        assert target.shape == ((channels, 40, 56) if channels else (40, 56))
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
        if channels:
            assert isinstance(target, tv_tensors.Image)
            assert target.dtype == torch.float32
            assert 0 <= target.min() <= target.max() <= 1
        assert (source.kind, source.classes is None) == (kind, kind != "segmentation")
        assert source.channels in (None, channels)

    def test_an_image_depends_on_seed_split_and_number_only(self, kind: str) -> None:
        many, few, other = (
            ScenesSource(40, train=count, seed=seed, kind=kind) for count, seed in ((9, 0), (5, 0), (5, 1))
        )
        name = "scenes/train/000004"
        many.image("scenes/train/000003").zero_()
        many.pair("scenes/train/000003")[1].zero_()
        for part in (0, 1):
            assert torch.equal(many.pair(name)[part], few.pair(name)[part])
            many.pair(name)[part].zero_()
            assert torch.equal(many.pair(name)[part], few.pair(name)[part])
            assert not torch.equal(few.pair(name)[part], other.pair(name)[part])


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * ((first - second) ** 2).mean().log10())


def test_denoising_scenes_are_noisy_and_keep_their_brightness() -> None:
    source = ScenesSource(64, train=8, kind="denoising")
    for name in source.labeled():
        image, target = source.image(name), source.pair(name)[1]
        assert 18 < psnr(image, target) < 34
        assert (image.mean((1, 2)) - target.mean((1, 2))).abs().max() < 0.03


def test_enhancement_scenes_are_dark() -> None:
    source = ScenesSource(64, train=8, kind="enhancement")
    for name in source.labeled():
        image, target = source.image(name), source.pair(name)[1]
        assert image.mean() < 0.6 * target.mean()
        brightened = image * (target.mean() / image.mean())
        assert psnr(brightened, target) > 8 + psnr(torch.rand(target.shape), target)


def test_matting_scenes_are_composed_of_their_layers() -> None:
    source = ScenesSource(64, train=8, kind="matting")
    for name in source.labeled():
        image, target = source.image(name), source.pair(name)[1]
        alpha, unknown, foreground, background = target[:1], target[1], target[2:5], target[5:8]
        assert (alpha * foreground + (1 - alpha) * background - image[:3]).abs().max() < 0.6 / 255
        assert set(image[3].unique().tolist()) == {0, 0.5, 1}
        assert torch.equal(image[3] == 0.5, unknown == 1)
        known = unknown == 0
        assert torch.equal(alpha[0][known], image[3][known].as_subclass(type(alpha[0])))
        assert ((alpha > 0) & (alpha < 1)).float().mean() > 0.03


def test_depth_is_nearer_for_what_covers() -> None:
    source = ScenesSource(64, train=8, kind="regression")
    for name in source.labeled():
        depth = source.pair(name)[1][0]
        assert depth.max() > 0.7, "the background is far"
        assert depth.min() < 0.2, "the last object is near"
        steps = torch.cat([depth.diff(dim=0).flatten(), depth.diff(dim=1).flatten()]).abs()
        assert (steps < 0.01).float().mean() > 0.8, "layers are smooth"


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(SemipixError, match=r"data\.kind=depth: expected segmentation, denoising, .*; name the kind"):
        ScenesSource(kind="depth")
