"""Batches, their order, and resuming after an interruption.

Also tests data/source.py, data/batches/datasets.py, data/batches/loaders.py and data/batches/sampler.py.
"""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from torchvision import tv_tensors

from semipix.batch import VOID, EvalSample
from semipix.data.batches.sampler import ShardSampler, StreamSampler, stable_seed
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.data.sources.folder import FolderSource
from semipix.data.sources.scenes import ScenesSource
from semipix.data.splits import Split
from semipix.errors import SemipixError
from tests.helpers.data import module, steps
from tests.helpers.tiny import TinySource

MakeSource = Callable[..., Source]


class TestStreamSampler:
    """The stream is a pure function of the draw's number."""

    def sampler(self, rank: int = 0, world_size: int = 1, size: int = 5, seed: int = 3) -> StreamSampler:
        return StreamSampler(size, batch_size=4, batches=3, seed=seed, rank=rank, world_size=world_size)

    def epoch(self, sampler: StreamSampler, number: int) -> list[tuple[int, int]]:
        sampler.set_epoch(number)
        return list(sampler)

    def test_every_pass_draws_each_image_once(self) -> None:
        sampler = self.sampler()
        indices = [index for number in range(5) for index, _ in self.epoch(sampler, number)]
        assert len(indices) == 60
        passes = [indices[start : start + 5] for start in range(0, 60, 5)]
        assert all(sorted(part) == list(range(5)) for part in passes)
        assert len(set(map(tuple, passes))) > 6

    def test_epochs_differ_and_repeat(self) -> None:
        sampler = self.sampler()
        first, second = self.epoch(sampler, 0), self.epoch(sampler, 1)
        assert first != second
        assert self.epoch(self.sampler(), 1) == second
        assert self.epoch(sampler, 0) == first
        assert self.epoch(self.sampler(seed=4), 0) != first

    def test_every_draw_has_its_own_augmentation(self) -> None:
        sampler = self.sampler()
        seeds = [seed for number in range(5) for _, seed in self.epoch(sampler, number)]
        assert len(set(seeds)) == 60
        assert all(0 <= seed < 2**63 for seed in seeds)

    @pytest.mark.parametrize("world_size", [1, 2, 4])
    def test_processes_share_each_batch(self, world_size: int) -> None:
        whole = self.epoch(self.sampler(), 2)
        share = 4 // world_size
        parts = [self.epoch(self.sampler(rank, world_size), 2) for rank in range(world_size)]
        assert all(len(self.sampler(rank, world_size)) == 3 * share for rank in range(world_size))
        joined = [draw for batch in range(3) for part in parts for draw in part[batch * share : (batch + 1) * share]]
        assert joined == whole

    @pytest.mark.parametrize("world_size", [1, 2])
    def test_continuing_cuts_one_iteration(self, world_size: int) -> None:
        sampler = self.sampler(0, world_size)
        full = self.epoch(sampler, 1)
        sampler.continue_at(batch=5, done=2)
        assert len(sampler) == 12 // world_size
        assert list(sampler) == full[2 * 4 // world_size :]
        assert list(sampler) == full

    def test_seeds_are_stable(self) -> None:
        assert stable_seed(0, "labeled") == 1017330731154510559


@pytest.mark.parametrize(("size", "world_size"), [(7, 1), (7, 2), (7, 3), (2, 3), (0, 2)])
def test_shards_hold_each_image_once(size: int, world_size: int) -> None:
    shards = [ShardSampler(size, rank, world_size) for rank in range(world_size)]
    assert sorted(index for shard in shards for index in shard) == list(range(size))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


class TestTrainingBatches:
    """Contents and number of training batches."""

    def test_labeled_and_unlabeled(self, source: MakeSource) -> None:
        data = module(source(labeled=3, unlabeled=10), batch_size=6, labeled_per_batch=2)
        batches = steps(data)
        assert len(batches) == data.batches_per_epoch == math.ceil(10 / 4)
        for batch in batches:
            labeled, unlabeled = batch["labeled"], batch["unlabeled"]
            assert labeled.image.shape == (2, 3, 8, 8)
            assert labeled.target.shape == (2, 8, 8)
            assert labeled.target.dtype == torch.int64
            assert unlabeled.image.shape == (4, 3, 8, 8)
            assert type(labeled.image) is type(labeled.target) is type(unlabeled.image) is torch.Tensor
            assert all(name.startswith("labeled/") for name in labeled.names)
            assert all(name.startswith("unlabeled/") for name in unlabeled.names)
        drawn = [name for batch in batches for name in batch["unlabeled"].names]
        assert set(drawn) == set(data.split.unlabeled)

    def test_images_belong_to_their_names(self, source: MakeSource) -> None:
        labeled = steps(module(source(labeled=8), batch_size=8, scale=(1, 1)))[0]["labeled"]
        for image, target, name in zip(*labeled[:3], strict=True):
            assert torch.allclose(image, torch.tensor(int(name[-3:]) / 1000))
            assert (target == int(name[-3:]) % 3).all()

    def test_a_method_without_unlabeled_images_takes_as_many_steps(self, source: MakeSource) -> None:
        mixed, unmixed = (module(source(labeled=3, unlabeled=20), use_unlabeled=flag) for flag in (True, False))
        assert mixed.batches_per_epoch == unmixed.batches_per_epoch == 5
        batches = steps(unmixed)
        assert len(batches) == 5
        assert batches[0].keys() == {"labeled"}
        assert len(batches[0]["labeled"].image) == 8

    def test_without_unlabeled_images_an_epoch_is_a_pass_over_the_labeled(self, source: MakeSource) -> None:
        batches = steps(module(source(labeled=9), batch_size=4))
        assert len(batches) == 3
        assert len({name for batch in batches for name in batch["labeled"].names}) == 9

    @pytest.mark.parametrize(("samples", "labeled", "unlabeled"), [(3, 3, 3), ([5, 2], 5, 2)])
    def test_a_pass_may_take_several_crops_of_each_image(
        self, source: MakeSource, samples: int | list[int], labeled: int, unlabeled: int
    ) -> None:
        data = module(
            source(labeled=2, unlabeled=6), batch_size=4, labeled_per_batch=1, samples_per_image=samples, scale=(0.5, 1)
        )
        assert data.samples_of_a_pass() == (2 * labeled, 6 * unlabeled)
        batches = steps(data)
        assert len(batches) == data.batches_per_epoch == 6 * unlabeled // 3
        drawn = Counter(name for batch in batches for name in batch["unlabeled"].names)
        assert drawn == dict.fromkeys(data.split.unlabeled, unlabeled)
        first = data.split.unlabeled[0]
        crops = [
            image.sum()
            for batch in batches
            for image, name in zip(batch["unlabeled"].image, batch["unlabeled"].names, strict=True)
            if name == first
        ]
        assert len(set(crops)) == unlabeled, "each has an augmentation of its own"

    def test_all_crops_of_an_image_have_its_place(self, source: MakeSource) -> None:
        """A method that withholds an image by its place withholds it whole."""
        data = module(source(labeled=3, unlabeled=12), batch_size=4, labeled_per_batch=3, samples_per_image=[4, 1])
        places = {
            (name, place)
            for batch in steps(data)
            for name, place in zip(batch["labeled"].names, batch["labeled"].places, strict=True)
        }
        assert sorted(name for name, _ in places) == data.split.labeled
        assert len({place for _, place in places}) == 3

    def test_supervision_alone_passes_over_all_crops_too(self, source: MakeSource) -> None:
        data = module(source(labeled=3), batch_size=4, samples_per_image=[8, 1])
        assert Counter(name for batch in steps(data) for name in batch["labeled"].names) == dict.fromkeys(
            data.split.labeled, 8
        )

    def test_hidden_labels_become_unlabeled(self, source: MakeSource) -> None:
        data = module(source(labeled=16), labels=4, val=2)
        assert (len(data.split.labeled), len(data.split.unlabeled), len(data.split.val)) == (4, 10, 2)
        assert data.mixed

    @pytest.mark.parametrize("workers", [0, 2])
    def test_same_batches_every_time(self, source: MakeSource, workers: int) -> None:
        def sums(**options: Any) -> list[tuple[list[str], float]]:
            data = module(source(labeled=4, unlabeled=8), scale=(0.4, 0.8), **options)
            return [(part.names, float(part.image.sum())) for batch in steps(data) for part in batch.values()]

        torch.manual_seed(0)
        first = sums(workers=workers)
        state = torch.get_rng_state()
        torch.manual_seed(1)
        assert sums() == first
        assert sums(seed=1) != first
        torch.manual_seed(0)
        assert torch.equal(torch.get_rng_state(), state), "reading must not change torch's global generator"

    def test_a_share_of_the_labeled_crops_has_a_rare_class(self) -> None:
        def found(**options: Any) -> int:
            data = module(Speck(labeled=40, unlabeled=0, size=(64, 64)), crop=8, batch_size=8, scale=[1, 1], **options)
            targets = torch.cat([batch["labeled"].target for batch in steps(data)])  # 40 crops
            return int((targets == 1).flatten(1).any(1).sum()) * 100 // len(targets)

        assert found(rare_share=0) < 15
        assert found(rare_share=1) == 100
        assert found(rare_share=0) < found() < 100

    def test_epochs_go_on_in_the_stream(self, source: MakeSource) -> None:
        loader = module(source(labeled=16), batch_size=4).train_dataloader()
        epochs = []
        for number in range(2):
            loader.flattened[0].sampler.set_epoch(number)
            epochs.append([name for batch, _, _ in loader for name in batch["labeled"].names])
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert epochs[0] != epochs[1]

    def test_resize_comes_before_the_crop(self, source: MakeSource) -> None:
        data = module(source(size=(6, 6)), crop=12, resize=12, scale=(1, 1))
        batch = steps(data)[0]["labeled"]
        assert batch.image.shape == (8, 3, 12, 12)
        assert (batch.target != 255).all()

    def test_a_small_image_is_refused_by_name(self, source: MakeSource) -> None:
        with pytest.raises(SemipixError, match=r"labeled/\d+: image is 16x12 pixels, smaller than the training crop"):
            steps(module(source(), crop=13))


class TestProcesses:
    """The batch does not depend on the number of processes."""

    def rank(self, data: SemiSupervisedDataModule, rank: int, world_size: int) -> SemiSupervisedDataModule:
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, training=False)  # type: ignore[assignment]
        return data

    def test_ranks_join_to_the_global_batch(self, source: MakeSource) -> None:
        def data() -> SemiSupervisedDataModule:
            return module(source(labeled=5, unlabeled=12), batch_size=8, labeled_per_batch=4)

        whole = steps(data())
        parts = [steps(self.rank(data(), rank, 2)) for rank in range(2)]
        assert len(whole) == len(parts[0]) == len(parts[1])
        for batch, first, second in zip(whole, *parts, strict=True):
            for key in ("labeled", "unlabeled"):
                assert batch[key].names == first[key].names + second[key].names
                assert torch.equal(batch[key].image, torch.cat([first[key].image, second[key].image]))

    @pytest.mark.parametrize(("batch_size", "labeled_per_batch"), [(9, 3), (8, 3)])
    def test_uneven_shares_are_refused(self, source: MakeSource, batch_size: int, labeled_per_batch: int) -> None:
        data = module(source(labeled=5, unlabeled=12), batch_size=batch_size, labeled_per_batch=labeled_per_batch)
        with pytest.raises(SemipixError, match=rf"data\.batch_size={batch_size}: 3 labeled images .* by 2 processes"):
            self.rank(data, 0, 2).train_dataloader()

    def test_evaluation_counts_each_image_once(self, source: MakeSource) -> None:
        names = [
            sample.name
            for rank in range(2)
            for batch in self.rank(module(source(val=5), eval_batch_size=2), rank, 2).val_dataloader()
            for sample in batch
        ]
        assert sorted(names) == source(val=5).val()


class TestEvaluation:
    """Validation and test batches."""

    def test_samples_keep_the_targets_own_size(self, source: MakeSource) -> None:
        data = module(source(val=3), resize=32, eval_batch_size=2)
        batches = list(data.val_dataloader())
        assert [len(batch) for batch in batches] == [2, 1]
        sample = batches[0][0]
        assert isinstance(sample, EvalSample)
        assert sample.image.shape == (3, 24, 32)
        assert sample.target.shape == (12, 16)
        assert sample.target.dtype == torch.int64
        assert [sample.name for batch in batches for sample in batch] == data.split.val

    def test_test_images_and_none(self, source: MakeSource) -> None:
        data = module(source(test=3))
        assert [sample.name for batch in data.test_dataloader() for sample in batch] == data.split.test
        assert list(data.val_dataloader()) == []


class Speck(TinySource):
    """Masks of class 0 with one pixel of class 1."""

    def target(self, name: str) -> Any:
        mask = torch.zeros(64, 64, dtype=torch.uint8)
        mask[40, 30] = 1
        return tv_tensors.Mask(mask)


class TestErrors:
    """Invalid settings and files are reported in one line."""

    @pytest.mark.parametrize(
        ("options", "pattern"),
        [
            ({"batch_size": 0}, r"data\.batch_size=0: expected at least 1"),
            ({"eval_batch_size": 0}, r"data\.eval_batch_size=0: expected at least 1"),
            ({"workers": -1}, r"data\.workers=-1: expected at least 0"),
            ({"labeled_per_batch": 0}, r"data\.labeled_per_batch=0: expected 1 to 7"),
            ({"labeled_per_batch": 8}, r"data\.labeled_per_batch=8: expected 1 to 7"),
            ({"batch_size": 1}, r"data\.batch_size=1: expected at least 2"),
            ({"crop": 0}, r"data\.crop=0: expected a positive"),
            ({"resize": 0}, r"data\.resize=0: expected at least 1"),
            ({"resize": [3]}, r"data\.resize=\[3\]: expected a positive"),
            ({"scale": [1.5, 0.5]}, r"data\.scale=\[1\.5, 0\.5\]: expected \[smallest,largest\]"),
            ({"scale": [0, 1]}, r"data\.scale=\[0, 1\]: expected"),
            ({"rare_share": -0.1}, r"data\.rare_share=-0\.1: expected a probability"),
            ({"flip": 1.5}, r"data\.flip=1\.5: expected a probability"),
            ({"rotate": -1}, r"data\.rotate=-1: expected degrees from 0 to 180"),
            ({"samples_per_image": 0}, r"data\.samples_per_image=0: expected a number from 1 to 65536 or \[labeled,un"),
            ({"samples_per_image": [2, 3, 4]}, r"data\.samples_per_image=\[2, 3, 4\]: expected a number"),
            ({"labels": 100}, r"data\.labels=100: only 8 labeled"),
        ],
    )
    def test_settings(self, source: MakeSource, options: dict[str, Any], pattern: str) -> None:
        with pytest.raises(SemipixError, match=pattern):
            module(source(unlabeled=4), **options)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("part", ["train", "val"])
    def test_a_broken_file_is_reported_in_one_line(self, folder: Path, workers: int, part: str) -> None:
        for name in ("a", "b", "c", "d", "v"):
            for path in folder.glob(f"images/{part}/{name}.png"):
                path.write_bytes(b"broken")
        data = module(FolderSource(folder), crop=4, workers=workers)
        message = ""
        # `pytest.raises` would keep the frames and with them the workers, which torch then closes slowly.
        try:
            list(data.train_dataloader() if part == "train" else data.val_dataloader())
        except SemipixError as error:
            message = str(error)
        assert "not a readable image" in message
        assert f"images/{part}/" in message
        assert "\n" not in message

    def test_a_split_of_other_data(self, source: MakeSource) -> None:
        split = Split(["labeled/000"], ["labeled/099"], [], [])
        with pytest.raises(SemipixError, match=r"1 of its images are not in the data .* labeled/099"):
            module(source(), split=split)

    def test_a_split_whose_label_is_gone(self, source: MakeSource) -> None:
        split = Split(["unlabeled/008"], [], [], [])
        with pytest.raises(SemipixError, match=r"lost their labels, e\.g\. unlabeled/008"):
            module(source(unlabeled=1), split=split)


def test_a_given_split_wins(source: MakeSource) -> None:
    split = Split(["labeled/003"], ["labeled/001"], ["labeled/002"], [])
    data = module(source(), split=split, labels=5, val=0.5)
    assert data.split == split
    assert data.classes == ["zero", "one", "two"]


class FillSource(Source):
    """One image, whose target is padded with 7."""

    target_fill = 7

    def labeled(self) -> list[str]:
        return ["only"]

    def unlabeled(self) -> list[str]:
        return []

    val = test = unlabeled

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return tv_tensors.Image(torch.ones(3, 8, 8))

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        return self.image(name), tv_tensors.Mask(torch.ones(8, 8, dtype=torch.int64))


def test_padding_writes_the_sources_fill() -> None:
    batch = steps(module(FillSource(), scale=(0.5, 0.5), batch_size=1))[0]["labeled"]
    assert batch.target.unique().tolist() == [1, 7]
    assert torch.equal(batch.target == 7, batch.image[:, 0] == 0)


class HoleSource(TinySource):
    """Random images without a value in a corner of one band, as a raster with nodata is read."""

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        image = super().image(name).clone()
        image[1, :6, :6] = math.nan
        return tv_tensors.Image(image)


@pytest.mark.parametrize("source", [TinySource, HoleSource])
def test_padding_and_missing_pixels_show_nothing(source: type[TinySource]) -> None:
    hidden = 0
    for batch in steps(module(source(), scale=(0.7, 1), pad=True, crop=40, batch_size=4)):
        for part in batch.values():
            shown = ~part.image.isnan().any(1, keepdim=True) & (part.image != 0).all(1, keepdim=True)
            assert torch.equal(part.shown, shown)
            hidden += int(part.image.isnan().any())
        assert torch.equal(batch["labeled"].target != VOID, batch["labeled"].shown[:, 0])
    assert bool(hidden) == (source is HoleSource)


def test_images_that_show_something_everywhere_need_no_mask() -> None:
    for batch in steps(module(TinySource(), scale=(1, 1))):
        assert [part.shown for part in batch.values()] == [None, None]


class Recorder(pl.LightningModule):
    """Records the images of each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[Any, ...]] = []
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Any], index: int) -> None:
        self.seen.append(tuple((*part.names, float(part.image.sum())) for part in batch.values()))
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step()

    def validation_step(self, batch: list[EvalSample], index: int) -> None:
        """Validation has no other purpose here than to change Lightning's counters."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveOnce(Callback):
    """Write one checkpoint, at the first call of a hook after a number of steps."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.step, self.path, self.trained = step, path, -1
        setattr(self, hook, self.save)

    def save(self, trainer: pl.Trainer, model: Recorder, *_: Any) -> None:
        if trainer.global_step >= self.step and self.trained < 0 and not trainer.sanity_checking:
            self.trained = len(model.seen)
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore")
class TestResuming:
    """A resumed training sees the same images as one without interruption."""

    EPOCHS: ClassVar[dict[str, Any]] = {"max_epochs": 3}
    STEPS: ClassVar[dict[str, Any]] = {
        "max_steps": 15,
        "max_epochs": -1,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
    }

    def fit(self, source: Source, checkpoint: Path | None = None, workers: int = 0, **options: Any) -> list[Any]:
        data = module(source, batch_size=4, scale=(0.5, 1), workers=workers)
        model = Recorder()
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
        return model.seen

    @pytest.mark.parametrize(
        "limits", [EPOCHS, STEPS, {**EPOCHS, "limit_train_batches": 4}], ids=["epochs", "steps", "cut"]
    )
    @pytest.mark.parametrize(
        ("hook", "step"),
        [
            ("on_train_batch_start", 2),
            ("on_train_batch_end", 2),
            ("on_train_batch_end", 5),
            ("on_train_batch_end", 7),
            ("on_validation_end", 3),
            ("on_train_epoch_end", 4),
        ],
    )
    def test_resumes_exactly(
        self, source: MakeSource, tmp_path: Path, limits: dict[str, Any], hook: str, step: int
    ) -> None:
        images = source(labeled=3, unlabeled=10, val=2)
        whole = self.fit(images, **limits)
        saver = SaveOnce(hook, step, tmp_path / "last.ckpt")
        self.fit(images, callbacks=[saver], **limits)
        assert saver.trained >= step
        rest = self.fit(images, checkpoint=tmp_path / "last.ckpt", **limits)
        assert rest == whole[saver.trained :]

    def test_resumes_exactly_with_workers(self, source: MakeSource, tmp_path: Path) -> None:
        images = source(labeled=3, unlabeled=10, val=2)
        whole = self.fit(images, **self.STEPS)
        saver = SaveOnce("on_train_batch_end", 7, tmp_path / "last.ckpt")
        assert self.fit(images, callbacks=[saver], workers=1, **self.STEPS) == whole
        rest = self.fit(images, checkpoint=tmp_path / "last.ckpt", workers=1, **self.STEPS)
        assert rest == whole[7:]


class TestDefaultsByKind:
    """Defaults of scale and strong views depend on the kind of the data; settings override them."""

    @pytest.mark.parametrize(
        ("kind", "scale", "colours"),
        [
            ("segmentation", (0.75, 1.5), True),
            ("regression", (0.75, 1.5), True),
            ("denoising", (1, 1), False),
            ("enhancement", (0.75, 1.5), False),
            ("matting", (0.75, 1.5), True),
        ],
    )
    def test_scale_and_strong_views(self, kind: str, scale: tuple[float, float], colours: bool) -> None:
        image = torch.rand(8, 4 if kind == "matting" else 3, 16, 16, generator=torch.Generator().manual_seed(0))
        data = module(ScenesSource(32, kind=kind))
        assert data.scale == scale
        assert torch.equal(data.strong(image, range(8), 1), image) != colours
        given = module(ScenesSource(32, kind=kind), scale=[0.5, 2], strong_jitter=0.5)
        assert given.scale == (0.5, 2)
        assert (data.rare_share > 0) == (kind == "segmentation")
        if kind != "segmentation":
            assert module(ScenesSource(32, kind=kind), rare_share=0).rare_share == 0
            with pytest.raises(SemipixError, match=rf"data\.rare_share=0\.2: targets of {kind} have no classes; leave"):
                module(ScenesSource(32, kind=kind), rare_share=0.2)
        assert not torch.equal(given.strong(image, range(8), 1), image)


class TestRegressionBatches:
    """Targets that are images."""

    def test_denoising(self) -> None:
        data = module(ScenesSource(32, train=8, kind="denoising"), labels=4, crop=16, batch_size=8)
        batch = steps(data)[0]
        assert batch["labeled"].target.shape == (4, 3, 16, 16)
        assert type(batch["labeled"].target) is torch.Tensor
        assert (batch["labeled"].image - batch["labeled"].target).abs().mean() < 0.1

    def test_matting(self) -> None:
        data = module(ScenesSource(64, train=8, kind="matting"), labels=4, crop=24, batch_size=8)
        batch = steps(data)[0]
        assert batch["labeled"].image.shape == batch["unlabeled"].image.shape == (4, 4, 24, 24)
        assert batch["labeled"].target.shape == (4, 8, 24, 24)
        for image in torch.cat([batch["labeled"].image, batch["unlabeled"].image]):
            assert image[3, 12, 12] == 0.5

    def test_padding_is_ignored(self) -> None:
        data = module(ScenesSource(32, train=8, kind="regression"), crop=40, pad=True, batch_size=8, scale=[1, 1])
        target = steps(data)[0]["labeled"].target
        assert target.isnan().sum() == 8 * (40 * 40 - 32 * 32)
        with pytest.raises(SemipixError, match=r"smaller than the training crop of 40x40; .* or data\.pad=true"):
            steps(module(ScenesSource(32, train=8, kind="regression"), crop=40))

    def test_evaluation_keeps_the_targets_own_size(self) -> None:
        data = module(ScenesSource(32, train=8, val=1, kind="matting"), resize=16)
        (sample,) = next(iter(data.val_dataloader()))
        assert sample.image.shape == (4, 16, 16)
        assert sample.target.shape == (8, 32, 32)
        assert set(sample.image[3].unique().tolist()) <= {0, 0.5, 1}

    def test_a_source_may_vary_a_sample_by_its_draw(self) -> None:
        class Varied(ScenesSource):
            def image(self, name: str, seed: int | None = None) -> Any:
                return tv_tensors.Image(torch.full((3, 32, 32), (seed or 0) % 97 / 97))

        def drawn() -> list[float]:
            data = module(Varied(32, train=4, kind="denoising"), labels=2, crop=16, batch_size=4)
            batches = [torch.cat([part.image for part in batch.values()]) for batch in steps(data)]
            return [float(image[0, 0, 0]) for batch in batches for image in batch]

        assert drawn() == drawn()
        assert len(set(drawn())) > 2
