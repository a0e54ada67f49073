"""The flaw functions against independent references, and properties for any input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semipix.functional.flaw import directions, exchange, flaw_target, gaussian_blur, normalize_flaw
from tests.helpers import slow_flaw

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "gct_reference.npz"
SIZES = [(1, 1), (5, 200), (64, 64), (7, 3)]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def reference(case: str) -> dict[str, Tensor]:
    """Stored inputs and outputs of a case as (1, C, H, W)."""
    arrays = slow_flaw.decode(slow_flaw.stored(case))
    maps = {name: torch.from_numpy(value) for name, value in arrays.items()}
    maps = {name: (value if value.ndim == 3 else value[None])[None] for name, value in maps.items()}
    return {name: value if value.dtype == torch.bool else value.float() for name, value in maps.items()}


class TestReference:
    """Small maps, each pixel computed by tests/helpers/slow_flaw.py."""

    @pytest.mark.parametrize("case", slow_flaw.CASES)
    def test_the_file_holds_what_the_slow_functions_give(self, case: str) -> None:
        stored = slow_flaw.stored(case)
        expected = slow_flaw.outputs(case, stored)
        assert len(expected) == 7
        for name, value in expected.items():
            # Rounding on another platform may differ by one step of the 16 bits.
            np.testing.assert_allclose(stored[name].astype(int), value.astype(int), atol=1, rtol=0, err_msg=name)

    @pytest.mark.parametrize("which", ["first", "second"])
    @pytest.mark.parametrize("case", slow_flaw.CASES)
    def test_maps(self, case: str, which: str) -> None:
        maps, options = reference(case), slow_flaw.CASES[case]
        flaw = flaw_target(maps[f"prediction_{which}"], maps["target"], mu=options["mu"], nu=options["nu"])
        torch.testing.assert_close(flaw, maps[f"flaw_{which}"], atol=1e-4, rtol=0)
        normalized = normalize_flaw(maps[f"raw_{which}"])
        torch.testing.assert_close(normalized, maps[f"normalized_{which}"], atol=1e-4, rtol=0)

    @pytest.mark.parametrize("case", slow_flaw.CASES)
    def test_exchange(self, case: str) -> None:
        maps = reference(case)
        first, second = maps["prediction_first"], maps["prediction_second"]
        flaws = maps["normalized_first"], maps["normalized_second"]
        goals, both_flawed = exchange((first, second), flaws, slow_flaw.THRESHOLD)
        assert torch.equal(goals[0], torch.where(maps["to_first"], second, first))
        assert torch.equal(goals[1], torch.where(maps["to_second"], first, second))
        assert torch.equal(both_flawed, maps["both_flawed"])
        for name, mask in zip(
            ("to_first", "to_second", "both_flawed"), directions(flaws, slow_flaw.THRESHOLD), strict=True
        ):
            assert torch.equal(mask, maps[name]), name

    def test_cases_say_something(self) -> None:
        assert reference("small")["normalized_second"].max() == 0, "one silent map"
        assert all(reference("wide")[name].any() for name in ("to_first", "to_second", "both_flawed"))


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"{GOLDEN} is not there")
class TestGolden:
    """Values of the paper's released code, for tasks of the paper."""

    @pytest.fixture(params=["segmentation", "matting"])
    def maps(self, request: pytest.FixtureRequest) -> dict[str, Tensor]:
        with np.load(GOLDEN) as file:
            return {key.partition("/")[2]: torch.from_numpy(file[key]) for key in file if key.startswith(request.param)}

    @pytest.mark.parametrize("which", ["1", "2"])
    def test_maps(self, maps: dict[str, Tensor], which: str) -> None:
        mu, nu = float(maps["mu"]), int(maps["nu"])
        flaw = flaw_target(maps[f"pred{which}"], maps["target"], mu=mu, nu=nu)
        torch.testing.assert_close(flaw, maps[f"flaw_target{which}"], atol=0.01, rtol=0)
        normalized = normalize_flaw(maps[f"raw_flaw{which}"])
        torch.testing.assert_close(normalized, maps[f"normalized_flaw{which}"], atol=0.01, rtol=0)

    def test_exchange(self, maps: dict[str, Tensor]) -> None:
        predictions = maps["pred1"], maps["pred2"]
        flaws = maps["normalized_flaw1"], maps["normalized_flaw2"]
        goals, both_flawed = exchange(predictions, flaws, float(maps["xi"]))
        torch.testing.assert_close(goals[0], maps["goal1"], atol=0.01, rtol=0)
        torch.testing.assert_close(goals[1], maps["goal2"], atol=0.01, rtol=0)
        assert torch.equal(both_flawed, maps["both_flawed"] > 0.5)


class TestFlawTarget:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("nu", [0, 1, 5])
    def test_any_size_is_scaled_map_by_map(self, size: tuple[int, int], nu: int) -> None:
        prediction, target = rand(2, 3, *size), rand(2, 3, *size, seed=1)
        flaw = flaw_target(prediction, target, mu=0.5, nu=nu)
        assert flaw.shape == (2, 1, *size)
        assert flaw.isfinite().all()
        if min(size) > max(nu, 1):  # more dilations fill the map, and a flat one is 0
            assert (flaw.amin((1, 2, 3)) == 0).all()
            torch.testing.assert_close(flaw.amax((1, 2, 3)), torch.ones(2))
        alone = flaw_target(prediction[:1], target[:1], mu=0.5, nu=nu)
        torch.testing.assert_close(flaw[:1], alone)

    def test_is_high_where_the_prediction_is_wrong(self) -> None:
        target = torch.zeros(1, 1, 64, 64)
        prediction = target.clone()
        prediction[..., 20, 44] = 1
        flaw = flaw_target(prediction, target, mu=1.0, nu=1)
        assert flaw[0, 0, 20, 44] > 0.99
        assert flaw[0, 0, 20, 40] > 0.5, "dense around the error"
        assert flaw[0, 0, 50, 10] == 0

    def test_a_right_prediction_has_no_flaw(self) -> None:
        assert not flaw_target(rand(1, 2, 20, 20), rand(1, 2, 20, 20), mu=1.0, nu=1).any()

    def test_void_pixels_change_nothing_whatever_is_there(self) -> None:
        prediction, target = rand(2, 3, 40, 30), rand(2, 3, 40, 30, seed=1)
        valid = rand(2, 1, 40, 30, seed=2) > 0.3
        expected = flaw_target(prediction, target, mu=0.5, nu=1, valid=valid)
        assert not torch.equal(expected, flaw_target(prediction, target, mu=0.5, nu=1))
        for value in (0.0, 1.0, float("nan")):
            changed = prediction.masked_fill(~valid, value)
            assert torch.equal(flaw_target(changed, target, mu=0.5, nu=1, valid=valid), expected)
        right = torch.where(valid, prediction, target)
        assert torch.equal(flaw_target(right, target, mu=0.5, nu=1), expected)

    def test_refuses_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match=r"prediction \(1, 2, 8, 8\) and target \(1, 1, 8, 8\)"):
            flaw_target(rand(1, 2, 8, 8), rand(1, 1, 8, 8), mu=1.0, nu=1)


class TestNormalizeFlaw:
    @pytest.mark.parametrize("size", SIZES)
    def test_any_size_is_scaled_map_by_map(self, size: tuple[int, int]) -> None:
        flaw = rand(2, 1, *size) * torch.tensor([0.5, 3.0]).view(2, 1, 1, 1) + 0.2
        normalized = normalize_flaw(flaw)
        assert normalized.shape == flaw.shape
        if size != (1, 1):
            torch.testing.assert_close(normalized.amax((1, 2, 3)), torch.ones(2))
            assert (normalized.amin((1, 2, 3)) == 0).all()

    @pytest.mark.parametrize("size", SIZES)
    def test_a_silent_map_is_all_zero_beside_a_loud_one(self, size: tuple[int, int]) -> None:
        flaw = torch.cat([rand(1, 1, *size) * 0.1, rand(1, 1, *size) * 0.1 - 5, rand(1, 1, *size) + 1])
        normalized = normalize_flaw(flaw)
        assert not normalized[:2].any()
        assert normalized[2].any() or size == (1, 1)

    def test_speaks_from_a_tenth_on(self) -> None:
        ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
        assert not normalize_flaw(ramp * 0.1).any()
        assert normalize_flaw(ramp * 0.11).max() > 0.99

    def test_negative_values_are_no_flaw(self) -> None:
        flaw = rand(1, 1, 32, 32) * 2 - 1
        assert torch.equal(normalize_flaw(flaw), normalize_flaw(torch.where(flaw < 0, -7.0, flaw)))

    def test_what_is_not_shown_changes_nothing(self) -> None:
        flaw = rand(2, 1, 40, 64) * torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
        shown = torch.ones(2, 1, 40, 64, dtype=torch.bool)
        shown[:, :, :, 40:] = False
        shown[1, :, 30:] = False
        expected = normalize_flaw(flaw, shown)
        for value in (0.0, 7.0, float("nan")):
            assert torch.equal(normalize_flaw(flaw.masked_fill(~shown, value), shown), expected)
        assert not expected[~shown].any()
        for values, where in zip(expected, shown, strict=True):
            assert float(values[where].amin()) == 0
            assert float(values[where].amax()) == pytest.approx(1)

    def test_what_is_shown_has_the_mean_of_the_shown_pixels_around(self) -> None:
        """Of two levels, of which a part is not shown, both stay levels: darkness beside them does not lower them."""
        flaw = torch.full((1, 1, 64, 64), 0.5)
        flaw[..., 32:] = 1.0
        shown = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        shown[..., 48:] = False
        normalized = normalize_flaw(flaw * shown, shown)
        torch.testing.assert_close(normalized[..., 36:48], torch.ones(1, 1, 64, 12))
        torch.testing.assert_close(normalized[..., :28], torch.zeros(1, 1, 64, 28), atol=1e-5, rtol=0)
        assert float(normalize_flaw(flaw * shown)[..., 47].max()) < 0.9, "without `shown`, they are lower there"

    @pytest.mark.parametrize("size", SIZES)
    def test_all_or_nothing_shown(self, size: tuple[int, int]) -> None:
        flaw = rand(1, 1, *size) + 0.2
        everywhere = torch.ones_like(flaw, dtype=torch.bool)
        torch.testing.assert_close(normalize_flaw(flaw, everywhere), normalize_flaw(flaw), atol=1e-5, rtol=0)
        assert not normalize_flaw(flaw, ~everywhere).any()


class TestExchange:
    predictions = rand(2, 3, 20, 30), rand(2, 3, 20, 30, seed=1)
    flaws = rand(2, 1, 20, 30, seed=2), rand(2, 1, 20, 30, seed=3)

    def test_keeps_the_own_prediction_on_ties(self) -> None:
        goals, _ = exchange(self.predictions, (self.flaws[0], self.flaws[0].clone()), threshold=0.6)
        assert torch.equal(goals[0], self.predictions[0])
        assert torch.equal(goals[1], self.predictions[1])

    def test_threshold_0_teaches_from_the_flawless_only(self) -> None:
        flawless = torch.zeros_like(self.flaws[0])
        goals, both_flawed = exchange(self.predictions, self.flaws, threshold=0.0)
        assert torch.equal(goals[0], self.predictions[0]) and torch.equal(goals[1], self.predictions[1])
        assert both_flawed.all()
        goals, both_flawed = exchange(self.predictions, (self.flaws[0], flawless), threshold=0.0)
        assert torch.equal(goals[0], self.predictions[1]) and torch.equal(goals[1], self.predictions[1])
        assert not both_flawed.any()

    def test_threshold_1_teaches_everywhere(self) -> None:
        goals, both_flawed = exchange(self.predictions, self.flaws, threshold=1.0)
        better = torch.where(self.flaws[1] < self.flaws[0], self.predictions[1], self.predictions[0])
        assert torch.equal(goals[0], better) and torch.equal(goals[1], better)
        assert not both_flawed.any()

    def test_is_symmetric(self) -> None:
        (first, second), both_flawed = exchange(self.predictions, self.flaws, threshold=0.6)
        swapped, swapped_flawed = exchange(self.predictions[::-1], self.flaws[::-1], threshold=0.6)
        assert torch.equal(first, swapped[1]) and torch.equal(second, swapped[0])
        assert torch.equal(both_flawed, swapped_flawed)

    @pytest.mark.parametrize("odd_one", ["prediction", "flaw"])
    def test_refuses_shapes_that_differ(self, odd_one: str) -> None:
        predictions, flaws = (rand(1, 3, 8, 8),) * 2, (rand(1, 1, 8, 8),) * 2
        if odd_one == "prediction":
            predictions = predictions[0], rand(1, 2, 8, 8)
        else:
            flaws = flaws[0], rand(1, 1, 8, 9)
        with pytest.raises(ValueError, match="the pair differs in shape"):
            exchange(predictions, flaws, threshold=0.5)


class TestBlur:
    def test_a_constant_stays(self) -> None:
        constant = torch.full((1, 1, 33, 50), 0.7)
        torch.testing.assert_close(gaussian_blur(constant, 4), constant)

    def test_kernel_follows_each_side(self) -> None:
        dot = torch.zeros(1, 1, 41, 81)
        dot[..., 20, 40] = 1
        touched = gaussian_blur(dot, 8)[0, 0] > 0
        assert (int(touched.any(1).sum()), int(touched.any(0).sum())) == (5, 11)


def test_arguments_are_left_alone_and_gradients_never_flow() -> None:
    prediction, second = (rand(2, 3, 24, 40, seed=seed).requires_grad_() for seed in (0, 1))
    target, valid = rand(2, 3, 24, 40, seed=2), rand(2, 1, 24, 40, seed=3) > 0.5
    flaw, other_flaw = ((rand(2, 1, 24, 40, seed=seed) * 2 - 0.5).requires_grad_() for seed in (4, 5))
    arguments = [prediction, second, target, valid, flaw, other_flaw]
    before = [value.detach().clone() for value in arguments]
    goals, both_flawed = exchange((prediction, second), (flaw, other_flaw), threshold=0.5)
    outputs = [
        flaw_target(prediction, target, mu=0.5, nu=2, valid=valid),
        normalize_flaw(flaw),
        *goals,
        both_flawed,
    ]
    outputs += directions((flaw, other_flaw), threshold=0.5)
    gaussian_blur(target[:, :1], 8)
    assert all(torch.equal(value, old) for value, old in zip(arguments, before, strict=True))
    assert not any(value.requires_grad for value in outputs)
    for value in outputs:  # nor is an output a view of an argument
        value.zero_()
    assert all(torch.equal(value, old) for value, old in zip(arguments, before, strict=True))


def test_autocast_does_not_round_the_maps() -> None:
    prediction, target = rand(1, 3, 64, 64), rand(1, 3, 64, 64, seed=1)
    flaw = flaw_target(prediction, target, mu=0.5, nu=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(flaw_target(prediction, target, mu=0.5, nu=1), flaw)
        assert normalize_flaw(flaw).dtype == torch.float32
