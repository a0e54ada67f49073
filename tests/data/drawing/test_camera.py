"""The camera of the built-in scenes."""

import numpy as np
import pytest

from semipix.data.drawing.camera import demosaic, photograph, photograph_at_night


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_demosaicing_an_even_colour_gives_it_back(size: tuple[int, int]) -> None:
    colour = np.array([0.2, 0.5, 0.9], np.float32)
    rows, columns = np.mgrid[: size[0], : size[1]] % 2
    mosaic = colour[rows + columns]
    assert np.allclose(demosaic(mosaic), colour, atol=1e-6)


def test_demosaicing_keeps_what_was_measured_and_interpolates_ramps() -> None:
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    result = demosaic(ramp)
    assert np.array_equal(result[::2, ::2, 0], ramp[::2, ::2])
    assert np.array_equal(result[1::2, 1::2, 2], ramp[1::2, 1::2])
    assert np.abs(result[1:-1, 1:-1] - ramp[1:-1, 1:-1, None]).max() < 1e-5


def test_shot_noise_grows_with_the_light_and_is_correlated_by_demosaicing() -> None:
    scene = np.full((64, 64, 3), 0.25, np.float32)
    scene[:, 32:] = 0.8
    spreads, neighbours = [], []
    for seed in range(5):
        error = photograph(scene, np.random.default_rng(seed)) - scene
        linear = (error + scene) ** 2.2 - scene**2.2
        spreads.append(linear[:, 36:].std() / linear[:, :28].std())
        flat = error[:, 36:, 0] - error[:, 36:, 0].mean()
        neighbours.append((flat[:, 1:] * flat[:, :-1]).mean() / (flat**2).mean())
    assert np.mean(spreads) > 1.5
    assert np.mean(neighbours) > 0.2


def test_pictures_have_8_bits_and_follow_the_generator() -> None:
    scene = np.random.default_rng(0).random((24, 32, 3)).astype(np.float32)
    for camera in (photograph, photograph_at_night):
        first, again, other = (camera(scene, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert first.dtype == np.float32
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert np.allclose(first * 255, (first * 255).round(), atol=1e-3)
    assert photograph_at_night(scene, np.random.default_rng(0)).mean() < 0.6 * scene.mean()
