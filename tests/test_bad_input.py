"""An error of the user is one line on the screen and exit code 2, and changes no existing file.

Also tests data/batches/skipped.py, inference/files.py, training/failures.py and user_code.py.
"""

import errno
import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from semipix.data.sources.folder import FolderSource
from semipix.errors import SemipixError
from semipix.methods.supervised import Supervised
from semipix.training.checkpoints import read_checkpoint
from semipix.training.run import check_steps
from semipix.training.run_folder import checkpoint_of, read_config
from tests.conftest import QUICK, Result
from tests.helpers.tiny import TinyModel, options

Command = Callable[..., Result]


class Flaky(TinyModel):
    """Returns nan from a training pass on."""

    def __init__(self, in_channels: int, channels: int, after: int = 0) -> None:
        super().__init__(in_channels, channels)
        self.after = after

    def forward(self, image: Tensor) -> Tensor:
        self.after -= self.training
        return super().forward(image) * (float("nan") if self.after < 0 else 1)


class Hungry(TinyModel):
    """Runs out of the device's memory."""

    def forward(self, image: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class HungryInEvaluation(TinyModel):
    """Runs out of memory over more than one whole image."""

    def forward(self, image: Tensor) -> Tensor:
        if not self.training and len(image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(image)


class HungryOnCPU(TinyModel):
    """Runs out of the machine's memory."""

    def forward(self, image: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 2 bytes")


class Synchronised(TinyModel):
    """Normalises over all processes, which torch does on GPUs alone."""

    def forward(self, image: Tensor) -> Tensor:
        raise ValueError("SyncBatchNorm expected input tensor to be on GPU or XPU or cuda")


class Buggy(TinyModel):
    """Has a bug of its own."""

    def forward(self, image: Tensor) -> Tensor:
        raise KeyError("a bug")


class Fewer(TinyModel):
    """Returns one map for all images."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).mean(0, keepdim=True)


class Fixed(TinyModel):
    """Takes images of one size."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1) @ self.first.weight.flatten(1)


class BuggySource(FolderSource):
    """Has a bug of its own."""

    def image(self, name: str, seed: int | None = None) -> Any:
        return {}[name]


class Plain(nn.Conv2d):
    """Offers no feature maps."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 1)


class Pooled(TinyModel):
    """Norms one value a channel for each image."""

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.last(self.norm(self.first(image).mean((2, 3), keepdim=True)))
        return pooled


class Needy(Supervised):
    """Has no step without unlabeled images."""

    uses_unlabeled: ClassVar[bool] = True
    needs_unlabeled: ClassVar[bool] = True


HERE = f"{__name__}."

KEYS = {
    "stepz=3": "unknown key stepz; did you mean steps?",
    "+stepz=3": "unknown key stepz; did you mean steps?",
    "methd=gct": "unknown key methd; did you mean method?",
    "modle.width=3": "unknown key modle.width",
    "method.lambda_consistancy=1": "unknown key method.lambda_consistancy; did you mean lambda_consistency?",
    "model.widht=3": "unknown key model.widht; did you mean width?",
    "data.split=3": "unknown key data.split; known keys: bands, batch_size, cache,",
    "optimizer.learning_rate=1": "unknown key optimizer.learning_rate",
    "trainer.max_epoch=1": "unknown key trainer.max_epoch; did you mean max_epochs?",
    "trainer.max_steps=3": "trainer.max_steps: the schedule has to know the length too; set steps=VALUE instead",
    "method=gctt": f"method=gctt: no such option; known: {', '.join(sorted(['auto', *options('method')]))}",
    "second_model=gctt": f"model=gctt: no such option; known: {', '.join(options('model'))}",
    "scheduler=step": "scheduler=step: no such option; known: constant, cosine, polynomial",
    "model=4": "model=4: the name of an option expected, 4 found",
    "model=null": "model=null: the name of an option expected, null found",
    "=3": "no key before the =",
    "foo": "'foo': not readable as KEY=VALUE",
    "data.crop=[64": "'data.crop=[64': not readable as KEY=VALUE",
    "--steps": "--steps: no such option; keys are given as KEY=VALUE",
    "steps=abc": "steps: 'abc' found, a whole number or null expected",
    "steps=2.5": "steps: 2.5 found, a whole number or null expected",
    "steps=0": "steps: 0 found, a positive number expected",
    "epochs=-1": "epochs: -1 found, a positive number expected",
    "seed=abc": "seed: 'abc' found, a whole number expected",
    "seed=0,1": "'seed=0,1': several values make a sweep, add -m",
    "validations=-1": "validations: -1 found, 0 or more expected",
    "channels_last=abc": "channels_last: 'abc' found, true or false expected",
    "length=short": "length: 'short' found, full or labeled or unlabeled expected",
    "data.batch_size=abc": "data.batch_size: 'abc' found, a whole number expected",
    "data.batch_size=1": "data.batch_size=1: expected at least 2",
    "data.scale=3": "data.scale: 3 found, a list or null expected",
    "data.strong_jitter=-1": "data.strong_jitter=-1: expected 0 or more",
    "data.strong_jitter=abc": "data.strong_jitter: 'abc' found, a number or null expected",
    "data.strong_grey=2": "data.strong_grey=2: expected a probability from 0 to 1",
    "data.strong_blur=-1": "data.strong_blur=-1: expected a probability from 0 to 1",
    "data.rare_share=1.5": "data.rare_share=1.5: expected a probability from 0 to 1",
    "task.class_weights=inverse": "task.class_weights: 'inverse' found, a list or auto or balanced or sqrt_balanced or",
    "data.strong_gain=0.5": "data.strong_gain=0.5: expected 0, since the target of such a view is not known in "
    "Segmentation; set data.strong_gain=0",
    "data.workers=-1": "data.workers=-1: expected at least 0",
    "data.prefetch=0": "data.prefetch=0: expected at least 1",
    "data.cache=ram": "data.cache: 'ram' found, memory or disk or null expected",
    "data.cache_limit=0": "data.cache_limit=0: expected a size in GiB above 0",
    "data.cache_limit=abc": "data.cache_limit: 'abc' found, a number expected",
    "data.on_error=ignore": "data.on_error: 'ignore' found, stop or skip expected",
    "data.shards=none.tar": "data.shards=none.tar: no such file: none.tar; expected tar archives, fix data.shards",
    "data.shards=3": "data.shards: 3 found, text or null expected",
    "data.shard_buffer=0": "data.shard_buffer=0: expected at least 1",
    "data.labels=100": "data.labels=100: only 8 labeled images are there; lower data.labels",
    "data.labels=abc": "data.labels=abc: found neither a number nor a file",
    "data.crop=100": "image is 64x64 pixels, smaller than the training crop of 100x100; set data.crop=[64,64] or less",
    "optimizer.lr=abc": "optimizer.lr: 'abc' found, a number expected",
    "optimizer.lr=-1": "optimizer: Invalid learning rate: -1",
    "scheduler.power=abc": "scheduler.power: 'abc' found, a number expected",
    "trainer.precision=nonsense": "trainer.precision: 'nonsense' found, 64 or 32 or 16 or",
    "trainer.precision=bf17": "expected; or auto, which takes what this machine is fastest in",
    "memory=little": "memory: 'little' found, full or low expected",
    "compile=maybe": "compile: 'maybe' found, true or false expected",
    "trainer.accelerator=nonsense": "trainer: You selected an invalid accelerator name",
    "trainer.strategy=nonsense": "trainer.strategy: 'nonsense' found, auto or ddp or ddp_find_unused_parameters_",
    "trainer.strategy=ddp_spawn": "trainer.strategy: 'ddp_spawn' found, auto or ddp or",
    "trainer.strategy=fsdp": "trainer.strategy: 'fsdp' found, auto or ddp or",
    "trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,start_method:fork}": "='fork' found",
    "trainer.limit_train_batches=0": "trainer: the training ended after 0 of 2 steps; check trainer.callbacks,",
    "trainer.num_nodes=3": "trainer.num_nodes: 3 found, but this process was started alone; start one on each node",
    "trainer.devices=abc": "`devices` selected with",
    "model._target_=torch.nn.Nothing": "model._target_: 'torch.nn.Nothing' cannot be imported",
    "model._target_=os.getcwd": "model._target_: 'os.getcwd' found, a subclass of torch.nn.Module, or a function",
    "task.class_weights=[1,2,3]": "task.class_weights: 3 found, expected one for each of 2 classes",
    # numbers beyond what anything can do with them
    "seed=-1": "seed: -1 found, a whole number from 0 to 4294967295 expected",
    "seed=4294967296": "seed: 4294967296 found, a whole number from 0 to 4294967295 expected",
    "epochs=nan": "epochs: nan found, a finite number expected",
    "seed={_target_:builtins.int}": "seed: \"{'_target_': 'builtins.int'}\" found, a whole number expected",
    "steps=99999999999": "steps: 99999999999 found, at most 2147483647 expected",
    "task.class_weights=[nan,1]": "task.class_weights: [nan, 1] found, finite numbers expected",
    "task.classes=99999999999": "task.classes: 99999999999 classes found, 2 to 255 expected",
    "data.max_pixels=99999999999999999999999": "data.max_pixels: 1.0e+23 found, a number up to 9.2e+18 expected",
    "data.batch_size=99999999999": "data.batch_size=99999999999: expected at most 65536",
    "data.workers=99999": "data.workers=99999: expected at most 1024",
    "data.resize=99999999": "data.resize=99999999: expected at most 65536",
    "data.scale=[1e300,1e300]": "data.scale=[1e+300, 1e+300]: expected factors from 0.01 to 100",
    "data.strong_jitter=1e300": "data.strong_jitter=1e+300: expected at most 100",
    "data.cache_limit=1e300": "data.cache_limit=1e+300: expected a size in GiB above 0, at most 1048576",
    "scheduler.power=-1": "scheduler: ZeroDivisionError: 0.0 cannot be raised to a negative power",
    "scheduler._target_=torch.optim.lr_scheduler.LRScheduler": "scheduler._target_: 'torch.optim.lr_scheduler.LRSche",
    "scheduler.last_epoch=5": "scheduler: KeyError: ",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches: 0 found, 1 or more expected",
    "trainer.val_check_interval=0": "trainer.val_check_interval: 0 found, a number above 0 expected",
    "trainer.devices=99999": "trainer.devices: 99999 found, at most",
    # options that Lightning does not check, or refuses by an odd error
    "trainer.accelerator=tpu": "trainer: ModuleNotFoundError: Requirement 'torch_xla",
    "trainer.callbacks=3": "trainer.callbacks: 3 found, a list of Callback objects expected",
    "trainer.logger=3": "trainer.logger: 3 found, a list of Logger objects expected",
    "trainer.overfit_batches=2": "trainer.overfit_batches: semipix draws the batches itself; set data.labels=N",
    # targets that make something else than their place holds
    "model._target_=os.abort": "model._target_: 'os.abort' found, a subclass of torch.nn.Module, or a function",
    "model._target_=torch.nn.Module": "model._target_: 'torch.nn.Module' is a base class; a subclass of",
    "task._target_=builtins.dict": "task._target_: 'builtins.dict' found, a subclass of semipix.tasks.base.Task",
    "method._target_=torch.nn.Identity": "method._target_: 'torch.nn.Identity' found, a subclass of semipix.methods.",
    "data._target_=semipix.data.source.Source": "data._target_: 'semipix.data.source.Source' is a base class;",
    "optimizer._target_=torch.optim.LBFGS": "optimizer._target_: 'torch.optim.LBFGS' computes the loss several times",
    "trainer._target_=os.getcwd": "trainer._target_: 'os.getcwd' found, a subclass of lightning.",
    # overrides that make no configuration
    "~task": "task: nothing found, but training needs it; leave ~task out, or give task=NAME",
    "~method": "method: nothing found, but training needs it; leave ~method out, or give method=NAME",
    "~seed": "seed: nothing found, but training needs it; leave ~seed out, or give seed=VALUE",
    "@=1": "@=1: no key before the =",
    "hydra=1": "hydra=1: Hydra's keys are given one by one, as hydra.KEY=VALUE",
    "data.shards={_target_:builtins.dict}": "data.shards: {'_target_': 'builtins.dict'} found, text or null expected",
    "trainer.profiler={a:1}": "trainer.profiler: {'a': 1} found, simple, advanced or an object given by its _target_",
    "hydra.verbose=true": "hydra.verbose=true: semipix writes the run folder itself",
    "hydra.run.dir=other": "hydra.run.dir=other: semipix writes the run folder itself; name it by run=PATH",
    "hydra.output_subdir=.hydra": "hydra.output_subdir=.hydra: semipix writes the run folder itself",
    "data.root=${nowhere}": "data.root: Interpolation key 'nowhere' not found",
    "run=null": "run: None found, a path expected",
    "run=nan": "run: nan found, a finite number expected",
    "+resume=3": "resume: takes no + and no other key",
}


@pytest.mark.parametrize("override", KEYS)
def test_overrides(override: str, train: Command) -> None:
    message = train("method=mean_teacher", override).error
    assert message.startswith("semipix: error: ")
    assert KEYS[override] in message
    assert not any(Path().iterdir())


def test_balanced_class_weights_need_classes_and_a_loss_that_takes_them(train: Command) -> None:
    balanced = "task.class_weights=balanced"
    message = train(balanced, "task.loss=[dice,lovasz]").error
    assert "task.class_weights: found with task.loss=lovasz, which takes no class weights; leave them out" in message
    assert "unknown key task.class_weights; known keys: loss" in train(balanced, "task=denoising").error
    assert not any(Path().iterdir())


@pytest.mark.parametrize("override", ["seed=abc", "data.labels=100", "trainer.accelerator=tpu", "data.crop=100"])
def test_a_refused_training_leaves_nothing_behind(override: str, train: Command) -> None:
    assert train("run=a/b/run", override).code == 2
    assert not any(Path().iterdir())
    Path("a/b/run").mkdir(parents=True)
    Path("a/b/run/notes.txt").write_text("mine")
    assert train("run=a/b/run", override).code == 2
    assert [str(path) for path in Path("a").rglob("*.*")] == ["a/b/run/notes.txt"]


@pytest.mark.parametrize("arguments", [("--cfg",), ("--cfg", "nothing"), ("--config-dir",), ("-p",)])
def test_options_of_hydra(arguments: tuple[str, ...], command: Command) -> None:
    message = command("train", "data=scenes", *arguments).error
    assert message.endswith("options of Hydra, with their values, go before all KEY=VALUE")


def test_an_optimizer_or_schedule_that_makes_no_step(train: Command) -> None:
    assert (
        "optimizer: RuntimeError: SparseAdam does not support dense"
        in train("optimizer._target_=torch.optim.SparseAdam", "~optimizer.weight_decay").error
    )
    cyclic = ("scheduler._target_=torch.optim.lr_scheduler.CyclicLR", "scheduler.base_lr=0.1", "scheduler.max_lr=1")
    assert "scheduler: optimizer must support momentum" in train("~scheduler.power", *cyclic).error
    assert not any(Path().iterdir())


def test_a_refused_sweep_leaves_nothing_behind(train: Command) -> None:
    assert "unknown key model@data" in train("-m", "model@data=unet,pspnet", "run=a/sweep").error
    assert "-m: more than 10000 jobs found" in train("-m", "seed=range(0,1000000000)", "run=a/sweep").error
    assert not any(Path().iterdir())


def test_a_sweep_whose_jobs_are_refused(command: Command) -> None:
    message = command("train", "-m", "data=folder", "seed=0,1", "run=a/sweep").error  # before a process is started
    assert "2 of the sweep's runs failed: a/sweep/seed_0: data.root is missing: give data.root=VALUE; " in message
    assert not any(Path().iterdir())


def test_a_folder_whose_name_is_a_number(photos: Path, train: Command) -> None:
    photos.rename("16")
    assert train("data.root=16", "run=17", "validations=0").code == 0
    assert read_config(Path("17"), trust=True)[0]["data"]["root"] == "16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu(train: Command) -> None:
    assert "`CUDAAccelerator` can not run on your system" in train("trainer.accelerator=cuda").error


def test_a_detector_of_no_size(train: Command) -> None:
    message = train("method=gct", "method.detector_scale=2").error
    assert message == "semipix: error: method.detector_scale: 2 found, a number above 0 and at most 1 expected"


def test_missing_root(command: Command) -> None:
    assert command("train", "data=folder").error == "semipix: error: data.root is missing: give data.root=VALUE"


def test_an_error_leaves_no_run_folder(train: Command) -> None:
    assert train("data.labels=100").code == 2
    assert not Path("run").exists()


def remove_image(root: Path) -> str:
    (root / "images/train/01.png").unlink()
    return "masks/train/01.png: mask without an image"


def shrink_mask(root: Path) -> str:
    path = root / "masks/train/01.png"
    Image.open(path).resize((32, 16)).save(path)
    return "masks/train/01.png: mask is 32x16 pixels, its image 01.png is 64x64"


def spoil_mask(root: Path) -> str:
    (root / "classes.txt").write_text("ground\nsquare\n")
    path = root / "masks/train/01.png"
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(path)
    return "masks/train/01.png: found mask value 7 (4096 pixels), expected 0 to 1 or 255"


def truncate_image(root: Path) -> str:
    path = root / "images/train/01.png"
    path.write_bytes(path.read_bytes()[:2000])
    return "images/train/01.png: corrupt or truncated image"


def truncate_validation(root: Path) -> str:
    path = root / "images/val/val1.png"
    path.write_bytes(path.read_bytes()[:2000])
    return "images/val/val1.png: corrupt or truncated image"


def remove_masks(root: Path) -> str:
    shutil.rmtree(root / "masks/train")
    return "masks/train: no labeled image: found no mask for any of the 12 images"


def empty(root: Path) -> str:
    shutil.rmtree(root / "images/train")
    shutil.rmtree(root / "masks/train")
    (root / "images/train").mkdir()
    return "images/train: found an empty folder, expected training images"


def remove(root: Path) -> str:
    shutil.rmtree(root)
    return ": found nothing, expected a data folder with images/train; fix data.root"


@pytest.mark.parametrize(
    "spoil",
    [remove_image, shrink_mask, spoil_mask, truncate_image, truncate_validation, remove_masks, empty, remove],
)
def test_data(spoil: Callable[[Path], str], photos: Path, train: Command) -> None:
    expected = spoil(photos)
    message = train(f"data.root={photos}", "data.labels=all").error
    assert f"{photos}{'' if expected.startswith(':') else '/'}{expected}" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_training_keeps_the_checkpoint(
    workers: int, photos: Path, train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_after_validation(self: Any, *args: Any) -> None:
        if not self.trainer.sanity_checking:
            for path in (photos / "images/train").iterdir():
                path.write_bytes(path.read_bytes()[:300])

    monkeypatch.setattr(
        "semipix.training.learner.Learner.on_validation_epoch_start", break_after_validation, raising=False
    )
    message = train(
        f"data.root={photos}",
        f"data.workers={workers}",
        "data.labels=all",
        "steps=40",
        "validations=20",
        "checkpoint_every=1",
    ).error
    assert "corrupt or truncated image" in message
    assert f"{photos}/images/train/" in message
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] >= 2


def test_diverged_training_names_term_and_images(train: Command) -> None:
    message = train("optimizer.lr=1e30", "steps=6", "validations=0").error
    assert "non-finite loss at step 1 in supervised; images of the batch: images/train/" in message
    assert "optimizer.lr" in message


def test_nan_from_a_users_model_keeps_the_checkpoint(train: Command) -> None:
    message = train(
        f"model._target_={HERE}Flaky", "model.after=3", "steps=6", "checkpoint_every=2", "validations=0"
    ).error
    assert "non-finite loss at step 3 in supervised" in message
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["global_step"] == 2


def test_a_method_that_needs_unlabeled_images_without_any(photos: Path, train: Command) -> None:
    for path in (photos / "images/train").glob("u*"):
        path.unlink()
    data = f"data.root={photos}"
    message = train(data, f"method._target_={HERE}Needy", "data.labels=all").error
    assert "data.labels=all: leaves no unlabeled image, from which Needy learns; set data.labels=1/8" in message
    assert not Path("run").exists()
    assert train(data, f"method._target_={HERE}Needy", "data.labels=4", "validations=0").code == 0


@pytest.mark.parametrize("name", sorted({"cct", "unimatch"}.intersection(options("method"))))
def test_a_model_without_feature_maps(name: str, train: Command) -> None:
    message = train(f"method={name}", f"model._target_={HERE}Plain").error
    assert "model: Plain has no method 'features', and the training method works on feature maps; take" in message


def test_batch_norm_over_one_value(train: Command) -> None:
    message = train(f"model._target_={HERE}Pooled", "data.batch_size=1", "validations=0").error
    assert "data.batch_size: batch norm needs more than one value per channel" in message
    assert "raise data.batch_size, data.labeled_per_batch or data.crop, or set freeze_batch_norm=true" in message
    fix = "freeze_batch_norm=true"
    assert train(f"model._target_={HERE}Pooled", "data.batch_size=1", "validations=0", fix, "run=fixed").code == 0


def test_out_of_memory_names_the_fix(train: Command) -> None:
    message = train(f"model._target_={HERE}HungryOnCPU", "validations=0").error
    assert "out of memory at step 0 with data.batch_size=4, data.crop=64; lower data.batch_size or data.crop" in message


def test_out_of_memory_in_evaluation_names_the_fix(train: Command, command: Command) -> None:
    assert train(f"model._target_={HERE}HungryInEvaluation", "validations=0").code == 0
    message = command("evaluate", "run").error
    assert message.startswith("semipix: error: run: out of GPU memory in batches of 8 test images; lower --batch-size")
    assert not Path("run/evaluation-test.json").exists()
    assert command("evaluate", "run", "--batch-size", "1").code == 0
    assert json.loads(Path("run/evaluation-test.json").read_text())["miou"] >= 0
    assert "data.eval_batch_size=0: expected at least 1" in command("evaluate", "run", "--batch-size", "0").error


def test_out_of_gpu_memory_names_the_fix(train: Command) -> None:
    message = train(f"model._target_={HERE}Hungry", "validations=0").error
    assert "out of GPU memory at step 0 with data.batch_size=4, data.crop=64; lower data.batch_size or" in message
    assert message.endswith("or set memory=low")


def test_synchronised_batch_norm_without_gpus(train: Command) -> None:
    message = train(f"model._target_={HERE}Synchronised", "validations=0").error
    assert message.endswith("trainer.sync_batchnorm: needs GPUs; on CPUs set trainer.sync_batchnorm=false")


def test_a_sweep_folder_named_after_the_time(train: Command) -> None:
    message = train("seed=0,1", "-m", "run=${now:%Y}").error
    assert "run=${now:%Y}: the folder of a sweep has to be a plain path" in message


def test_a_bug_keeps_its_trace(train: Command) -> None:
    with pytest.raises(KeyError, match="a bug") as caught:
        train(f"model._target_={HERE}Buggy", "validations=0")
    assert traceback.format_exception(caught.value)[-1].startswith(
        f"semipix: the error is in Buggy.forward ({__file__}:"
    )


def test_a_bug_of_a_source_in_a_reading_process(photos: Path, train: Command) -> None:
    with pytest.raises(KeyError) as caught:
        train(f"data._target_={HERE}BuggySource", f"data.root={photos}", "data.workers=1", "validations=0")
    (line,) = caught.value.__notes__
    assert line.startswith(f"semipix: the error is in image ({__file__}:")
    assert line.endswith("), which is not part of semipix; check its arguments and what it returns")


def test_a_bug_of_semipix_has_no_note(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semipix.training.configuration.MOST_STEPS", "a bug")
    with pytest.raises(TypeError) as caught:
        train()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("name", ["Fewer", "Fixed"])
def test_a_model_of_wrong_shapes(name: str, train: Command) -> None:
    words = {
        "Fewer": "model: Fewer returned 1 maps (1, 2, 64, 64) for 4 images (4, 3, 64, 64); expected one for each",
        "Fixed": "model: Fixed cannot take images of shape (4, 3, 64, 64): mat1 and mat2 shapes cannot be multiplied",
    }
    assert words[name] in train(f"model._target_={HERE}{name}", "validations=0").error
    assert not Path("run").exists()


def test_a_training_that_ends_too_early() -> None:
    def trainer(made: int, stopped: bool) -> Any:
        return SimpleNamespace(global_step=made, max_steps=9, should_stop=stopped)

    check_steps(trainer(9, False))
    check_steps(trainer(3, True))
    for made, stopped in ((0, True), (0, False), (3, False)):
        with pytest.raises(SemipixError, match=f"trainer: the training ended after {made} of 9 steps; check"):
            check_steps(trainer(made, stopped))


def test_a_full_disk_without_a_file_name_names_the_run(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("semipix.training.callbacks.save_image", full)
    message = train().error
    assert message == f"semipix: error: {Path('run').resolve()}: No space left on device"


def test_a_run_folder_is_not_overwritten(command: Command, train: Command, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    message = train(f"run={finished}").error
    assert f"{finished}: holds a training already; continue it with resume={finished} or choose another run=" in message
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_a_run_that_is_a_file(train: Command) -> None:
    Path("run").write_text("mine")
    assert "run: " in train().error
    assert Path("run").read_text() == "mine"


def test_resume_needs_a_run(command: Command) -> None:
    assert "resume: nothing found, a run folder expected" in command("train", "resume=").error


def test_resume_takes_no_other_key(command: Command, finished: Path) -> None:
    assert (
        f"resume takes no other key: resume={finished} steps=9"
        in command("train", f"resume={finished}", "steps=9").error
    )


COMMANDS = {
    "evaluate": ("evaluate", "RUN"),
    "predict": ("predict", "RUN", "IMAGES", "--out", "out"),
    "resume": ("train", "resume=RUN"),
}


def fill(arguments: tuple[str, ...], run: Path, images: Path) -> list[str]:
    return [item.replace("RUN", str(run)).replace("IMAGES", str(images)) for item in arguments]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_is_no_run(name: str, command: Command, shared_photos: Path, tmp_path: Path) -> None:
    for folder in (shared_photos, tmp_path / "nothing"):
        message = command(*fill(COMMANDS[name], folder, shared_photos / "images/test")).error
        assert f"{folder}: no config.yaml found, so this is no run folder" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a: [", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"", "no mapping"),
        (b"task: 3", "without channels_last, checkpoint_every,"),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_config_that_cannot_be_used(
    name: str, text: bytes, expected: str, command: Command, finished: Path, shared_photos: Path
) -> None:
    (finished / "config.yaml").write_bytes(text)
    message = command(*fill(COMMANDS[name], finished, shared_photos / "images/test")).error
    assert f"{finished / 'config.yaml'}: {expected}" in message


def test_config_with_a_misspelt_key(command: Command, finished: Path) -> None:
    path = finished / "config.yaml"
    path.write_text(path.read_text().replace("  batch_size:", "  batch_sise:"))
    assert "unknown key data.batch_sise; did you mean batch_size?" in command("evaluate", finished).error


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "foreign"])
@pytest.mark.parametrize("name", COMMANDS)
def test_checkpoint_that_cannot_be_used(
    name: str, damage: str, command: Command, finished: Path, shared_photos: Path
) -> None:
    for path in (finished / "checkpoints").iterdir():
        whole = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "foreign":
            torch.save({"weights": torch.zeros(3)}, path)
        else:
            path.write_bytes(
                {"empty": b"", "text": b"no checkpoint " * 99, "truncated": whole[: len(whole) // 2]}[damage]
            )
    message = command(*fill(COMMANDS[name], finished, shared_photos / "images/test")).error
    assert f"{finished}/checkpoints" in message
    assert ("no checkpoint found, expected" if damage == "missing" else "damaged, or not a checkpoint") in message


def test_checkpoint_of_other_networks(command: Command, finished: Path, shared_photos: Path) -> None:
    path = finished / "config.yaml"
    path.write_text(path.read_text().replace("  width: 4\n", "  width: 9\n"))
    message = command("predict", finished, shared_photos / "images/test", "--out", "out").error
    assert "not a checkpoint of the networks in config.yaml" in message


@pytest.mark.parametrize("name", ["evaluate", "predict"])
@pytest.mark.parametrize(("tensor", "value"), [("first.weight", "nan"), ("norm.running_var", "inf")])
def test_weights_that_are_not_finite(
    name: str, tensor: str, value: str, command: Command, finished: Path, shared_photos: Path
) -> None:
    path = checkpoint_of(finished)
    checkpoint = read_checkpoint(path)
    spoilt = next(key for key in checkpoint["state_dict"] if key.endswith(tensor))
    weight = checkpoint["state_dict"][spoilt]
    weight[(0,) * weight.ndim] = float(value)
    torch.save(checkpoint, path)
    message = command(*fill(COMMANDS[name], finished, shared_photos / "images/test")).error
    spoilt = spoilt.removeprefix("method.")
    assert f"{path.name}: 1 of the {weight.numel()} numbers of {spoilt} are NaN or infinite; take another" in message
    assert not Path("out").exists()


def test_damaged_split(command: Command, finished: Path) -> None:
    (finished / "split.json").write_text("{")
    assert f"{finished / 'split.json'}: not a split file" in command("evaluate", finished).error


def test_data_that_is_gone(command: Command, finished: Path, tmp_path: Path) -> None:
    path = finished / "config.yaml"
    config, _ = read_config(finished, trust=True)
    path.write_text(path.read_text().replace(config["data"]["root"], str(tmp_path / "gone")))
    for arguments in (("evaluate", finished), ("train", f"resume={finished}")):
        message = command(*arguments).error
        assert f"{tmp_path / 'gone'}: found nothing" in message
        assert message.endswith("or give its new place by --data ROOT")


def test_a_place_of_data_that_does_not_help(train: Command, command: Command, finished: Path, tmp_path: Path) -> None:
    assert train("--data", "elsewhere").error == (
        "semipix: error: --data: goes with resume=RUN, for a data folder that has moved; a new training takes "
        "data.root=ROOT"
    )
    assert not Path("run").exists()
    for nothing in (("--data",), ("--data=",)):
        assert "--data: nothing found, the run's data folder" in command("train", f"resume={finished}", *nothing).error
    assert "resume takes no other key" in command("train", f"resume={finished}", "--data", "a", "steps=3").error
    assert f"{tmp_path / 'gone'}: found nothing" in command("evaluate", finished, "--data", tmp_path / "gone").error
    scenes = ("data=scenes", "data.size=64", "data.train=8", "data.val=2", "data.test=2")
    assert command("train", *scenes, *(item for item in QUICK if item != "data=folder"), "run=drawn").code == 0
    for arguments in (("evaluate", "drawn"), ("train", "resume=drawn")):
        message = command(*arguments, "--data", tmp_path).error
        assert f"--data: {tmp_path} found, but ScenesSource, the data of this run, has no folder" in message


@pytest.mark.parametrize("arguments", [("evaluate", "RUN"), ("train", "resume=RUN")])
def test_a_class_list_of_more_classes(
    arguments: tuple[str, ...], command: Command, finished: Path, photos: Path
) -> None:
    (photos / "classes.txt").write_text("ground\nsquare\nsky\n")
    message = command(*fill(arguments, finished, photos), "--data", photos).error
    assert (
        f"{photos}/classes.txt: names 3 classes, but the run has 2 (0, 1); expected the list that the run was"
        in message
    )


def test_data_of_other_classes(command: Command) -> None:
    scenes = ("data=scenes", "data.size=64", "data.train=8", "data.val=2", "data.test=2", "data.merge_classes=true")
    quick = (item for item in QUICK if item != "data=folder")
    assert command("train", *scenes, *quick, "method=supervised", "run=run").code == 0
    path, merged = Path("run/config.yaml"), read_config(Path("run"), trust=True)[0]["task"]["classes"]
    path.write_text(path.read_text().replace("merge_classes: true", "merge_classes: false"))
    for arguments in (("evaluate", "run"), ("train", "resume=run")):
        message = command(*arguments).error
        assert "data: 6 classes (" in message
        assert (
            f"), but the task has {len(merged)} ({', '.join(merged)}); give the data that the run was trained on"
            in message
        )


def test_images_to_predict(command: Command, finished: Path, shared_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert "nowhere: no such file or folder" in command("predict", finished, "nowhere", "--out", "out").error
    assert "bare: no image found" in command("predict", finished, "bare", "--out", "out").error
    twice = [shared_photos / "images/test", shared_photos / "images/test/test0.png"]
    command("predict", finished, *twice, "--out", "out")  # the same file twice is no clash
    Image.new("RGB", (64, 64)).save(tmp_path / "test0.jpg")
    message = command("predict", finished, twice[0], "test0.jpg", "--out", "out").error
    assert "would both be written as test0.png" in message


def test_no_arguments_show_usage(command: Command) -> None:
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2


class TestUnreadable:
    """Files that cannot be read, and reading processes that die."""

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("spoilt", ["images/train/02.jpg", "masks/train/02.png"])
    def test_skipped(self, workers: int, spoilt: str, photos: Path, train: Command) -> None:
        (photos / spoilt).write_bytes((photos / spoilt).read_bytes()[:60])
        overrides = (f"data.root={photos}", "data.labels=all", f"data.workers={workers}", "steps=6")
        result = train(*overrides, "data.on_error=skip")
        assert result.code == 0
        listed = Path("run/skipped.txt").read_text().splitlines()
        assert len(listed) == 1
        assert listed[0].startswith(f"{photos}/{spoilt}: ")
        assert json.loads(Path("run/summary.json").read_text())["skipped"] == 1
        assert f"1 files could not be read and were skipped, see {Path('run').resolve()}/skipped.txt" in result.err

    def test_stopped(self, photos: Path, train: Command) -> None:
        (photos / "images/train/02.jpg").write_bytes(b"broken")
        message = train(f"data.root={photos}", "data.labels=all", "steps=6").error
        assert f"{photos}/images/train/02.jpg: not a readable image" in message
        assert "replace or remove the file, or set data.on_error=skip to train without it" in message
        assert not Path("run/skipped.txt").exists()

    def test_nothing_can_be_read(self, photos: Path, train: Command) -> None:
        for path in (photos / "images/train").iterdir():
            path.write_bytes(b"broken")
        message = train(f"data.root={photos}", "data.labels=all", "data.on_error=skip").error
        assert "none of 20 replacements could be read" in message

    def test_evaluation_is_never_of_fewer_images(self, photos: Path, train: Command) -> None:
        truncate_validation(photos)
        message = train(f"data.root={photos}", "data.labels=all", "data.on_error=skip").error
        assert "images/val/val1.png: corrupt or truncated image" in message

    def test_killed_worker(self, photos: Path, train: Command) -> None:
        message = train(
            f"data._target_={HERE}Lethal", f"data.root={photos}", "data.labels=all", "data.workers=1", "validations=0"
        ).error
        assert "a reading process died (DataLoader worker (pid" in message
        assert "lower data.workers, data.prefetch or data.cache_limit" in message


class Lethal(FolderSource):
    """Its reading process is killed, as the system does where memory runs out."""

    def image(self, name: str, seed: int | None = None) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
