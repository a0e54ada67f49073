"""Strong views: what they change, what they keep, and which methods get them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from semipix.batch import Batch
from semipix.data.batches.strong_views import StrongViews
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.errors import SemipixError
from semipix.methods.base import Method
from semipix.methods.supervised import Supervised
from tests.helpers.learners import Count, fit, make_learner
from tests.helpers.tiny import SIDE, TinySource, make_data, make_method, options, rand

IMAGE = rand(3, 3, 12, 20)
SEEDS = [5, 6, 7]
STILL = {"jitter": 0.0, "grey_probability": 0.0, "blur_probability": 0.0}
"""Settings that change nothing."""


class TestViews:
    def test_depends_only_on_its_seed(self) -> None:
        strong = StrongViews()
        torch.manual_seed(0)
        views = strong(IMAGE, SEEDS, 2)
        torch.manual_seed(1)
        assert torch.equal(strong(IMAGE, SEEDS, 2), views)
        for index, seed in enumerate(SEEDS):
            single = strong(IMAGE[index : index + 1], [seed], 2)
            assert torch.equal(single, views[index :: len(SEEDS)])
        assert torch.equal(strong(IMAGE.flip(0), SEEDS[::-1], 1), views[:3].flip(0))
        assert not torch.equal(strong(IMAGE[:1], [8], 1), views[:1])

    def test_the_global_generator_is_not_changed(self) -> None:
        before = torch.get_rng_state()
        StrongViews()(IMAGE, SEEDS, 2)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_first_view_of_all_images_comes_before_the_second(self) -> None:
        one, two = StrongViews()(IMAGE, SEEDS, 1), StrongViews()(IMAGE, SEEDS, 2)
        assert two.shape == (6, 3, 12, 20)
        assert torch.equal(two[:3], one)
        assert all(not torch.equal(first, second) for first, second in two.view(2, 3, 3, 12, 20).unbind(1))

    def test_an_image_twice_has_two_views_by_two_seeds(self) -> None:
        first, second = StrongViews()(IMAGE[:1].repeat(2, 1, 1, 1), [1, 2], 1)
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("seeds", [[1, 2], [1, 2, 3, 4]])
    def test_every_image_has_one_seed(self, seeds: list[int]) -> None:
        with pytest.raises(ValueError, match="zip"):
            StrongViews()(IMAGE, seeds, 1)


class TestUnchanged:
    def test_without_strength_the_image_itself(self) -> None:
        assert torch.equal(StrongViews(**STILL)(IMAGE, SEEDS, 2), IMAGE.repeat(2, 1, 1, 1))

    def test_values_stay_in_range(self) -> None:
        extremes = rand(16, 3, 12, 20).round()
        views = StrongViews(1.0, 1.0, 0.5, 0.5)(extremes, range(16), 2)
        assert views.min() >= 0
        assert views.max() <= 1

    def test_jitter_and_grey_keep_every_edge(self) -> None:
        halves = torch.empty(8, 3, 12, 20)
        halves[..., :7] = torch.tensor([0.2, 0.5, 0.6]).view(3, 1, 1)
        halves[..., 7:] = torch.tensor([0.7, 0.3, 0.4]).view(3, 1, 1)
        views = StrongViews(0.5, 1.0, 0.5, 0.0)(halves, range(8), 1)
        for view in views:
            assert torch.equal(view[..., :7], view[..., :1, :1].expand(3, 12, 7))
            assert torch.equal(view[..., 7:], view[..., :1, 7:8].expand(3, 12, 13))
            assert not torch.equal(view[..., 6], view[..., 7])

    def test_blur_spreads_a_point_about_itself(self) -> None:
        point = torch.zeros(8, 3, 31, 41)
        point[..., 14, 22] = 1
        views = StrongViews(**{**STILL, "blur_probability": 1.0})(point, range(8), 1)
        torch.testing.assert_close(views.sum((2, 3)), torch.ones(8, 3))
        box = views[..., 14 - 6 : 14 + 7, 22 - 6 : 22 + 7]
        torch.testing.assert_close(box.sum((2, 3)), torch.ones(8, 3))
        torch.testing.assert_close(box.flip(2, 3), box)
        assert (views.flatten(2).argmax(2) == 14 * 41 + 22).all()
        assert len(set(views[:, 0, 14, 22].tolist())) == 8, "each view has a sigma of its own"

    def test_a_fourth_channel_is_not_changed(self) -> None:
        trimap = rand(3, 4, 12, 20)
        views = StrongViews(0.5, 1.0, 0.5, 1.0)(trimap, SEEDS, 2)
        assert torch.equal(views[:, 3:], trimap[:, 3:].repeat(2, 1, 1, 1))
        assert torch.equal(views[:, :3], StrongViews(0.5, 1.0, 0.5, 1.0)(trimap[:, :3], SEEDS, 2))
        assert not torch.equal(views[:3, :3], trimap[:, :3])

    def test_the_image_keeps_its_values_and_precision(self) -> None:
        half = IMAGE.half()
        before = half.clone()
        assert StrongViews()(half, SEEDS, 1).dtype == torch.float16
        assert torch.equal(half, before)


class TestSettings:
    def many(self, **given: float) -> Tensor:
        """Views of one image with 60 seeds."""
        return StrongViews(**{**STILL, **given})(IMAGE[:1].repeat(60, 1, 1, 1), range(60), 1)

    def changed(self, views: Tensor) -> int:
        return sum(not torch.equal(view, IMAGE[0]) for view in views)

    def test_grey(self) -> None:
        assert all(
            torch.equal(view[0], view[1]) and torch.equal(view[0], view[2]) for view in self.many(grey_probability=1)
        )
        assert 10 < self.changed(self.many(grey_probability=0.5)) < 50

    def test_blur(self) -> None:
        assert self.changed(self.many(blur_probability=1)) == 60
        assert 10 < self.changed(self.many(blur_probability=0.5)) < 50

    def test_jitter(self) -> None:
        assert self.changed(self.many(jitter=0.5, jitter_probability=1)) == 60
        assert self.changed(self.many(jitter=0.5, jitter_probability=0)) == 0
        assert 10 < self.changed(self.many(jitter=0.5, jitter_probability=0.5)) < 50

    def test_more_jitter_changes_more(self) -> None:
        weak, strong = (self.many(jitter=jitter, jitter_probability=1) for jitter in (0.1, 0.5))
        assert 2 * (weak - IMAGE[0]).abs().mean() < (strong - IMAGE[0]).abs().mean()

    def test_those_of_the_data_module(self) -> None:
        data = SemiSupervisedDataModule(TinySource(), strong_jitter=0, strong_grey=0, strong_blur=0)
        assert torch.equal(data.strong(IMAGE, SEEDS, 1), IMAGE)
        for key, setting in {"jitter": "jitter", "grey": "grey_probability", "blur": "blur_probability"}.items():
            keys = {"strong_jitter": 0.0, "strong_grey": 0.0, "strong_blur": 0.0, f"strong_{key}": 1.0}
            views = SemiSupervisedDataModule(TinySource(), **keys).strong(IMAGE, SEEDS, 2)
            assert torch.equal(views, StrongViews(**{**STILL, setting: 1.0})(IMAGE, SEEDS, 2))
            assert not torch.equal(views, IMAGE.repeat(2, 1, 1, 1))

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("strong_jitter", -1, "0 or more"),
            ("strong_jitter", float("nan"), "0 or more"),
            ("strong_grey", -0.1, "a probability from 0 to 1"),
            ("strong_grey", 1.1, "a probability from 0 to 1"),
            ("strong_blur", -0.1, "a probability from 0 to 1"),
            ("strong_blur", 20, "a probability from 0 to 1"),
        ],
    )
    def test_an_error_is_one_line(self, key: str, value: float, expected: str) -> None:
        with pytest.raises(SemipixError) as caught:
            SemiSupervisedDataModule(TinySource(), **{key: value})
        assert str(caught.value) == f"data.{key}={value}: expected {expected}"


def test_a_crop_smaller_than_the_blur_is_blurred() -> None:
    small = IMAGE[..., :4, :5]
    views = StrongViews(**{**STILL, "blur_probability": 1.0})(small, SEEDS, 1)
    assert views.shape == small.shape
    assert not torch.equal(views, small)


class Forbidden(StrongViews):
    """Fails if it is asked for views."""

    def __call__(self, image: Tensor, seeds: Sequence[int], views: int) -> Tensor:
        raise AssertionError("nobody asked for strong views")


class TwoViews(Supervised):
    """Asks for two views and keeps what it gets."""

    uses_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2
    seen: ClassVar[list[Batch]] = []

    def losses(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        self.seen.append(batch)
        return super().losses(batch, epoch)


def two_views(**given: Any) -> Method:
    """The method above, with the networks of `supervised`."""
    method = make_method("supervised", **given)
    method.__class__ = TwoViews
    return method


@pytest.mark.filterwarnings("ignore:.*isinstance.*deprecated.*", "ignore:.*in eval mode at the start.*")
class TestWhoGetsViews:
    @pytest.mark.parametrize("name", options("method"))
    def test_views_are_made_where_the_method_asks(self, name: str) -> None:
        method = make_method(name)
        learner = make_learner(method, strong=Forbidden())
        count = Count(method)
        if method.strong_views:
            with pytest.raises(AssertionError, match="nobody asked"):
                fit(learner)
            return
        fit(learner)
        assert [batch.strong for batch in count.batches] == [None, None]

    def test_views_come_from_the_seeds_of_the_batch(self) -> None:
        method = two_views()
        count = Count(method)
        strong = StrongViews(0.3, grey_probability=0.5)
        fit(make_learner(method, strong=strong), data={"labeled_per_batch": 1})
        batches = [batch for batch, _, _ in make_data(method, labeled_per_batch=1).train_dataloader()]
        assert len(count.batches) == len(batches) == 2
        for seen, batch in zip(count.batches, batches, strict=True):
            unlabeled = batch["unlabeled"]
            assert len(set(unlabeled.seeds)) == 3
            assert torch.equal(seen.unlabeled, unlabeled.image)
            assert seen.strong is not None and seen.strong.shape == (6, 3, SIDE, SIDE)
            assert torch.equal(seen.strong, strong(unlabeled.image, unlabeled.seeds, 2))
        assert not set(batches[0]["unlabeled"].seeds) & set(batches[1]["unlabeled"].seeds)

    @pytest.mark.parametrize("memory", [True, False])
    def test_views_are_laid_out_as_the_images(self, memory: bool) -> None:
        method = two_views()
        count = Count(method)
        fit(make_learner(method, channels_last=memory), max_steps=1)
        strong = count.batches[0].strong
        assert strong is not None
        assert strong.is_contiguous(memory_format=torch.channels_last) == memory
        assert strong.is_contiguous() == (not memory)

    def test_without_unlabeled_images_there_are_none(self) -> None:
        method = two_views()
        count = Count(method)
        fit(make_learner(method, strong=Forbidden()), TinySource(unlabeled=0), max_steps=1)
        assert count.batches[0].strong is None

    def test_a_training_takes_the_settings_of_the_data(self, train: Any) -> None:
        TwoViews.seen.clear()
        settings = ("data.strong_jitter=0", "data.strong_grey=1", "data.strong_blur=0", "validations=0")
        assert train(f"method._target_={__name__}.TwoViews", *settings).code == 0
        assert len(TwoViews.seen) == 2
        for batch in TwoViews.seen:
            assert batch.strong is not None
            assert torch.equal(batch.strong[:, 0], batch.strong[:, 1])
            assert torch.equal(*batch.strong.chunk(2)), "grey is all that is left"
            assert not torch.equal(batch.unlabeled[:, 0], batch.unlabeled[:, 1])
