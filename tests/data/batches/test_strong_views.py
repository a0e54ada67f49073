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
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.enhancement import Enhancement
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from tests.helpers.learners import Count, fit, make_learner
from tests.helpers.tiny import SIDE, TinySource, make_data, make_method, options, rand

IMAGE = rand(3, 3, 12, 20)
SEEDS = [5, 6, 7]
STILL = {"jitter": 0.0, "grey_probability": 0.0, "blur_probability": 0.0}
"""Settings that change nothing."""


class TestBands:
    """Images of bands have neither hue nor grey, and any number of channels."""

    IMAGE = 0.25 + 0.5 * rand(2, 5, 12, 20)

    def test_each_band_changes_alone(self) -> None:
        """Brightness and contrast map the values of a band by a line of its own."""
        strong = StrongViews(0.2, 1.0, blur_probability=0.0, bands=True)
        views = strong(self.IMAGE, [5, 6], 2).view(2, 2, 5, -1)
        lines = set()
        for view in views:
            for single, made in zip(self.IMAGE.view(2, 5, -1), view, strict=True):
                for before, after in zip(single, made, strict=True):
                    slope = after.std() / before.std()
                    torch.testing.assert_close(after, slope * (before - before.mean()) + after.mean())
                    lines.add(round(float(slope), 4))
        assert len(lines) == 20
        assert all(0.6 <= slope <= 1.45 for slope in lines)
        assert torch.equal(strong(self.IMAGE, [5, 6], 2).view(2, 2, 5, -1), views)

    def test_nothing_mixes_bands(self) -> None:
        image = self.IMAGE.clone()
        image[:, 3] = 0.5
        views = StrongViews(jitter=0.5, jitter_probability=1, blur_probability=1, bands=True)(image, [5, 6], 3)
        assert bool((views[:, 3].amax((1, 2)) - views[:, 3].amin((1, 2)) < 1e-5).all())
        assert bool((views[:, 4].std((1, 2)) > 1e-3).all())

    def test_every_band_may_be_hidden(self) -> None:
        strong = StrongViews(**STILL, drop_probability=1.0, bands=True)
        views = strong(self.IMAGE.repeat(20, 1, 1, 1), list(range(40)), 1)
        flat = views.std((2, 3)) < 1e-6
        assert flat.sum(1).tolist() == [1] * 40
        assert bool(flat.any(0).all())


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


def views_and_labels(label: Tensor, **given: Any) -> tuple[Batch, Tensor]:
    """A batch of the images and two views of each, without jitter, and the labels of both views, after one another."""
    strong = StrongViews(**{**STILL, **given})
    batch = Batch(IMAGE, torch.zeros(0, 12, 20), strong(IMAGE, SEEDS, 2), strong.labels(IMAGE, SEEDS, 2))
    return batch, torch.cat([view.label(label) for view in batch.strong_views()])


class TestLabels:
    """The label of a view is what an ideal network returns for the view."""

    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_of_hidden_patches_have_any_number_of_channels(self, channels: int) -> None:
        label = torch.rand(len(IMAGE), channels, *IMAGE.shape[-2:])
        batch, labels = views_and_labels(label, mask=0.5, patch=4, learn_hidden=False)
        assert torch.equal(labels, label.repeat(2, 1, 1, 1))
        assert not all(view.compared(torch.ones_like(label[:, :1])).all() for view in batch.strong_views())

    def test_of_an_enhancement_whose_curve_is_the_same_for_each_colour(self) -> None:
        batch, labels = views_and_labels(IMAGE**0.4, permute_probability=1.0)
        assert batch.strong is not None
        assert torch.equal(batch.strong**0.4, labels)
        kept = [torch.equal(view, image) for view, image in zip(batch.strong, IMAGE.repeat(2, 1, 1, 1), strict=True)]
        assert sum(kept) < 4, "most orders are not that of the image"
        assert torch.equal(batch.strong.sort(1).values, IMAGE.sort(1).values.repeat(2, 1, 1, 1))

    def test_of_a_denoising(self) -> None:
        """A mean of neighbours, of which half the brightness has half the mean."""
        blurred = torch.nn.functional.avg_pool2d(IMAGE, 3, 1, 1)
        batch, labels = views_and_labels(blurred, permute_probability=0.5, gain=0.4)
        assert batch.strong is not None
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(batch.strong, 3, 1, 1), labels)
        gains = batch.strong.mean((1, 2, 3)) / IMAGE.mean((1, 2, 3)).repeat(2)
        assert gains.min() >= 0.6 and gains.max() <= 1 and gains.std() > 0.05

    @pytest.mark.parametrize("learn_hidden", [True, False])
    def test_of_hidden_patches(self, learn_hidden: bool) -> None:
        batch, labels = views_and_labels(IMAGE**0.4, mask=0.5, patch=4, learn_hidden=learn_hidden)
        assert batch.strong is not None
        seen = (batch.strong == IMAGE.repeat(2, 1, 1, 1)).all(1, keepdim=True)
        assert 0.3 < seen.float().mean() < 0.7
        assert torch.equal(labels, (IMAGE**0.4).repeat(2, 1, 1, 1)), "the target is that of the whole image"
        compared = torch.cat([view.compared(torch.ones_like(IMAGE[:, :1])) for view in batch.strong_views()])
        assert torch.equal(compared, torch.ones_like(compared) if learn_hidden else seen.float())

    def test_of_a_hidden_channel(self) -> None:
        batch, labels = views_and_labels(IMAGE, drop_probability=1.0)
        assert batch.strong is not None
        changed = (batch.strong != IMAGE.repeat(2, 1, 1, 1)).any(-1).any(-1)
        assert changed.sum(1).tolist() == [1] * 6
        assert len(set(changed.long().argmax(1).tolist())) > 1
        assert torch.equal(labels, IMAGE.repeat(2, 1, 1, 1))

    def test_hidden_values_are_the_mean_of_their_channel(self) -> None:
        means = IMAGE.mean((2, 3), keepdim=True).expand_as(IMAGE)
        assert torch.equal(StrongViews(**STILL, mask=1.0)(IMAGE, SEEDS, 1), means)
        views = StrongViews(**STILL, drop_probability=1.0)(IMAGE, SEEDS, 1)
        assert ((views == IMAGE) | (views == means)).all()

    def test_patches_are_squares_at_a_random_place(self) -> None:
        image = rand(1, 3, 32, 32).repeat(40, 1, 1, 1)
        labels = StrongViews(**STILL, mask=0.5, patch=8, learn_hidden=False).labels(image, range(40), 1)
        assert labels is not None
        starts = set()
        for visible in labels.visible[:, 0]:
            rows = (visible[1:] != visible[:-1]).any(1).nonzero().flatten() + 1  # where a row of patches begins
            assert len(set((rows % 8).tolist())) == 1
            starts.add(int(rows[0] % 8))
        assert len(starts) > 4

    def test_the_label_does_not_change_with_photometric_views(self) -> None:
        assert StrongViews().labels(IMAGE, SEEDS, 2) is None
        assert StrongViews(mask=0.5, drop_probability=0.5).labels(IMAGE, SEEDS, 2) is None

    def test_a_trimap_is_not_changed(self) -> None:
        image = rand(3, 4, 12, 20)
        changes = {"mask": 0.5, "patch": 4, "drop_probability": 0.5, "permute_probability": 1.0, "gain": 0.5}
        views = StrongViews(**changes)(image, SEEDS, 2)  # type: ignore[arg-type]
        assert torch.equal(views[:, 3:], image[:, 3:].repeat(2, 1, 1, 1))
        assert torch.equal(views[:, :3], StrongViews(**changes)(image[:, :3], SEEDS, 2))  # type: ignore[arg-type]

    def test_depend_only_on_their_seeds(self) -> None:
        strong = StrongViews(mask=0.5, drop_probability=0.5, permute_probability=0.5, gain=0.5, learn_hidden=False)
        views, labels = strong(IMAGE, SEEDS, 2), strong.labels(IMAGE, SEEDS, 2)
        assert labels is not None
        torch.manual_seed(1)
        before = torch.get_rng_state()
        for index, seed in enumerate(SEEDS):
            assert torch.equal(strong(IMAGE[index : index + 1], [seed], 2), views[index :: len(SEEDS)])
            single = strong.labels(IMAGE[index : index + 1], [seed], 2)
            assert single is not None
            for part, whole in zip(single, labels, strict=True):
                assert torch.equal(part, whole[index :: len(SEEDS)])
        assert torch.equal(torch.get_rng_state(), before)

    def test_hiding_and_recolouring_leave_the_draws_of_jitter_alone(self) -> None:
        views = StrongViews()(IMAGE, SEEDS, 2)
        hidden = StrongViews(mask=0.3, patch=4)(IMAGE, SEEDS, 2)
        assert 0.2 < ((hidden == views).all(1).float().mean()) < 0.95


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

    def test_the_task_decides_and_a_key_replaces_its_strength(self) -> None:
        def settings(task: type[Task], **given: Any) -> tuple[float, ...]:
            made = SemiSupervisedDataModule(TinySource(), task=task, **given).strong
            return made.jitter, made.mask, made.drop_probability, made.permute_probability, made.gain

        assert settings(Matting) == settings(Segmentation) == (0.5, 0.0, 0.0, 0.0, 0.0)
        assert settings(Enhancement) == (0.0, 0.0, 0.0, 0.5, 0.0)
        assert settings(Denoising) == (0.0, 0.0, 0.0, 0.5, 0.2)
        given = {"strong_mask": 0.1, "strong_drop": 0.3, "strong_permute": 0.4, "strong_gain": 0.6}
        assert settings(Denoising, **given, strong_jitter=0) == (0.0, 0.1, 0.3, 0.4, 0.6)

    @pytest.mark.parametrize(("task", "learned"), [(Segmentation, True), (Denoising, False)])
    def test_hidden_pixels_are_learned_where_they_can_be_known(self, task: type[Task], learned: bool) -> None:
        assert SemiSupervisedDataModule(TinySource(), task=task).strong.learn_hidden == learned
        given = SemiSupervisedDataModule(TinySource(), task=task, strong_learn_hidden=not learned, strong_patch=4)
        assert (given.strong.learn_hidden, given.strong.patch) == (not learned, 4)

    def test_a_regression_to_images_of_a_kind_whose_colours_matter_has_no_jitter(self) -> None:
        source = TinySource()
        source.kind = "enhancement"
        strong = SemiSupervisedDataModule(source, task=Regression).strong
        assert (strong.jitter, strong.grey_probability, strong.blur_probability) == (0, 0, 0)
        assert SemiSupervisedDataModule(source, task=Regression, strong_jitter=0.3).strong.jitter == 0.3

    @pytest.mark.parametrize(
        ("task", "key"), [(Denoising, "jitter"), (Enhancement, "gain"), (Segmentation, "permute"), (Matting, "gain")]
    )
    def test_a_view_whose_target_is_not_known_is_refused(self, task: type[Task], key: str) -> None:
        with pytest.raises(SemipixError) as caught:
            SemiSupervisedDataModule(TinySource(), task=task, **{f"strong_{key}": 0.5})
        assert str(caught.value) == (
            f"data.strong_{key}=0.5: expected 0, since the target of such a view is not known in {task.__name__}; set "
            f"data.strong_{key}=0"
        )

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("strong_mask", 1.5, "a probability from 0 to 1"),
            ("strong_drop", -1, "a probability from 0 to 1"),
            ("strong_permute", 2, "a probability from 0 to 1"),
            ("strong_gain", -0.1, "a probability from 0 to 1"),
            ("strong_patch", 0, "at least 1"),
            ("strong_patch", 2000, "at most 1024"),
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
        if method.strong_views or method.labeled_views:
            with pytest.raises(AssertionError, match="nobody asked"):
                fit(learner)
            return
        fit(learner)
        assert [batch.strong for batch in count.batches] == [None, None]
        assert [batch.labeled_strong for batch in count.batches] == [None, None]

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

    def test_labels_follow_the_views(self) -> None:
        method = two_views()
        count = Count(method)
        fit(make_learner(method, strong=StrongViews(**STILL, permute_probability=1.0, gain=0.5)), max_steps=1)
        batch = count.batches[0]
        views = batch.strong_views()
        assert len(views) == 2
        for view in views:
            assert torch.equal(view.image, view.label(batch.unlabeled))
            assert not torch.equal(view.image, batch.unlabeled)

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
