"""The only LightningModule: batch, method, losses, one backward, optimizers, validation."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection
from tqdm import tqdm

from semipix.batch import Batch, EvalSample
from semipix.data.batches.strong_views import StrongViews
from semipix.functional.grouping import batches_of_equal_size
from semipix.functional.rows import RowResizer
from semipix.methods.base import Method
from semipix.methods.slabs import Slabs
from semipix.models.memory_format import compile_networks, set_memory_format
from semipix.tasks.base import Task
from semipix.training.finiteness import Finiteness
from semipix.training.optimizers import CombinedOptimizer, OptimizerFactory, optimizer_maker


class _Fed:
    """Metrics that are fed with predictions as they come, resized to the labels' size.

    Metrics that add up see a few rows of large images at a time; others wait until the image is whole.

    Args:
        metrics: what to update.
        task: says whether they add up.
        target: labels (B, ...) of one size.
        shape: that of the whole predictions, (B, K, h, w).
    """

    def __init__(self, metrics: MetricCollection, task: Task, target: Tensor, shape: Sequence[int]) -> None:
        self.metrics = metrics
        self.task = task
        self.target = target
        height, width = target.shape[-2:]
        self._resizer = RowResizer((shape[-2], shape[-1]), (height, width), shape[1])
        self._whole: Tensor | None = None

    def add(self, prediction: Tensor) -> None:
        """Add the next rows (B, K, h, w), from the top."""
        for rows, part in self._resizer.push(prediction):
            if self.task.metrics_add_up:
                self.metrics.update(part, self.target[..., rows, :])
                continue
            height, width = self.target.shape[-2:]
            if part.shape[-2] == height:
                self.metrics.update(part, self.target)
                continue
            if self._whole is None:
                self._whole = part.new_empty((*part.shape[:2], height, width))
            self._whole[..., rows, :] = part
            if rows.stop == height:
                self.metrics.update(self._whole, self.target)


class Learner(pl.LightningModule):
    """Trains a method and measures it. It knows neither concrete methods nor concrete tasks.

    Args:
        method: networks and losses.
        optimizer: torch optimizer class with everything but the parameters bound, for the task models.
        scheduler: per-step schedule with everything but the optimizer bound, or None for constant rates.
        seed: makes each step's random numbers a function of the step alone, so that a resumed run repeats them.
        channels_last: lay images and weights out channels last, which is faster on most hardware.
        freeze_batch_norm: keep all running statistics and normalise by them in training too.
        compile_networks: run the networks through `torch.compile`.
        strong: makes the strong views that the method asks for.

    Attributes:
        slabs: computes images that are too large for one pass, in validation and tests.
        unmeasured: why the last pass over validation or test images has no primary metric; empty where it has one.
    """

    def __init__(
        self,
        method: Method,
        *,
        optimizer: OptimizerFactory,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        seed: int = 0,
        channels_last: bool = True,
        freeze_batch_norm: bool = False,
        compile_networks: bool = False,
        strong: StrongViews | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.seed = seed
        self.channels_last = channels_last
        self.memory_format = torch.contiguous_format  # until `setup` knows the device
        self.freeze_batch_norm = freeze_batch_norm
        self.compile_networks = compile_networks
        self._unread: Finiteness | None = None
        self.unmeasured = ""
        self._warned = False
        self._images, self._counted = 0, torch.tensor(0)  # of this pass: images, and pixels that metrics count
        self.strong = strong or StrongViews()
        task = method.task
        self.slabs = Slabs(method)
        self.candidate_metrics = nn.ModuleDict({name: task.metrics() for name in method.candidates()})
        self.diagnostics = nn.ModuleDict(method.diagnostics())
        if freeze_batch_norm:
            self.train()

    def train(self, mode: bool = True) -> "Learner":
        super().train(mode)
        if mode and self.freeze_batch_norm:
            for module in self.method.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def setup(self, stage: str) -> None:
        self.memory_format = set_memory_format(self.method, self.trainer.strategy.root_device.type, self.channels_last)
        if self.compile_networks and stage == "fit":
            compile_networks(self.method)

    # training

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        key = (self.seed, self.trainer.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(hash(key) % 2**63)  # hashes of integers are the same in every process

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        epoch = self.trainer.current_epoch + batch_idx / self.trainer.num_training_batches
        losses = self.method.losses(self._assemble(batch), epoch)
        self._refuse_non_finite(losses, batch)
        total = torch.stack([term.float() for term in losses.values()]).sum()
        self.log_dict({f"train/{name}": term.detach() for name, term in losses.items()}, sync_dist=False)
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _assemble(self, batch: dict[str, Any]) -> Batch:
        """What the loaders yield to what a method sees: labeled images first."""
        image, strong = batch["labeled"].image, None
        if "unlabeled" in batch:
            unlabeled = batch["unlabeled"]
            image = torch.cat([image, unlabeled.image])
            if views := self.method.strong_views:
                strong = self.strong(unlabeled.image, unlabeled.seeds, views).contiguous(
                    memory_format=self.memory_format
                )
        return Batch(image.contiguous(memory_format=self.memory_format), batch["labeled"].target, strong)

    def _refuse_non_finite(self, losses: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Stop at a non-finite term, naming it and the images.

        On the CPU that is before it spoils the weights. On a device that works on its own the answer is read a step
        later, since waiting for it would leave the device idle; no checkpoint is written in between.
        """
        finite = torch.stack([term.detach().float() for term in losses.values()]).isfinite()
        files = [name for loader in batch.values() for name in loader.names]
        self._read_finiteness()
        self._unread = Finiteness(finite, list(losses), files, self.global_step)
        if finite.device.type == "cpu":
            self._read_finiteness()

    def _read_finiteness(self) -> None:
        if self._unread is not None:
            self._unread.check()
        self._unread = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._read_finiteness()

    def on_train_end(self) -> None:
        self._read_finiteness()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.method.after_step()

    def configure_optimizers(self) -> Any:
        optimizer = CombinedOptimizer(self.method.optimizers(optimizer_maker(self.optimizer)))
        if self.scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self.scheduler(optimizer), "interval": "step"}]

    # evaluation

    def on_validation_epoch_start(self) -> None:
        self.slabs = Slabs(self.method, self.memory_format)  # how far the networks see has changed with their weights

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def validation_step(self, samples: list[EvalSample], batch_idx: int) -> None:
        for part in batches_of_equal_size([sample.image for sample in samples], self.device.type):
            of_part = [samples[index] for index in part]
            height, width = of_part[0].image.shape[-2:]
            if self.slabs.applies((height, width)):
                for sample in of_part:
                    self._measure_in_slabs(sample)
            else:
                self._measure(of_part)

    def _measure(self, samples: list[EvalSample]) -> None:
        """Feed the metrics with images of one size; labels may differ in size."""
        image = torch.stack([sample.image for sample in samples]).contiguous(memory_format=self.memory_format)
        outputs = self.method.candidate_outputs(image)  # (B, K, H, W) at the network's size
        predictions = {name: self.method.task.activate(output) for name, output in outputs.items()}
        for part in batches_of_equal_size([sample.target for sample in samples], self.device.type):
            target = torch.stack([samples[index].target for index in part])
            self._count(target)
            for name, prediction in predictions.items():
                metrics = _Fed(self._metrics_of(name), self.method.task, target, prediction.shape)
                metrics.add(prediction[part])
            if self.diagnostics and not self.trainer.testing:
                batch = Batch(image[part], target)
                of_part = {name: output[part] for name, output in outputs.items()}
                self.method.diagnose(batch, of_part, self.diagnostics)  # type: ignore[arg-type]

    def _measure_in_slabs(self, sample: EvalSample) -> None:
        """Feed the metrics with one large image; diagnostics, which look at whole maps, leave it out."""
        task, target = self.method.task, sample.target[None]
        self._count(target)
        names = list(self.method.candidates())
        shape = 1, task.channels, *sample.image.shape[-2:]
        fed = [_Fed(self._metrics_of(name), task, target, shape) for name in names]

        def outputs(image: Tensor) -> tuple[Tensor, ...]:
            found = self.method.candidate_outputs(image)
            return tuple(found[name] for name in names)

        for maps in self.slabs.compute(sample.image, outputs):
            for metrics, output in zip(fed, maps, strict=True):
                assert output is not None
                metrics.add(task.activate(output))

    def _count(self, target: Tensor) -> None:
        """Count images, and pixels about which labels (B, ...) say something."""
        self._images += len(target)
        self._counted = self.method.task.counted(target).sum() + self._counted.to(target.device)

    def _metrics_of(self, candidate: str) -> MetricCollection:
        metrics = self.candidate_metrics[candidate]
        assert isinstance(metrics, MetricCollection)
        return metrics

    def on_validation_epoch_end(self) -> None:
        best = self._report("val")
        if self.trainer.sanity_checking:
            return
        if best is not None:
            self.method.deploy(best)
        elif not self._warned and self.trainer.is_global_zero:
            tqdm.write(f"semipix: validation: {self.unmeasured}", file=sys.stderr)  # leaves the progress bar whole
            self._warned = True

    def test_step(self, samples: list[EvalSample], batch_idx: int) -> None:
        self.validation_step(samples, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, stage: str) -> str | None:
        """Log all metrics of this pass and return the best candidate by the primary one; None where none has one.

        In validation the figures without a candidate's name are the best candidate's; in a test they are those of the
        candidate that validation had chosen.
        """
        task = self.method.task
        results = {name: self._metrics_of(name).compute() for name in self.method.candidates()}
        sign = 1 if task.higher_is_better else -1
        values = {name: sign * float(found[task.primary]) for name, found in results.items()}
        measured = [name for name, value in values.items() if not math.isnan(value)]
        best = max(measured, key=values.__getitem__, default=None)
        shown = best if stage == "val" and best is not None else self.method.deployed_name()
        self.unmeasured = "" if shown in measured else self._why_unmeasured(stage)
        for key, value in results[shown].items():
            self.log(f"{stage}/{key}", value, prog_bar=key == task.primary)
        if len(results) > 1:
            self.log_dict({f"{stage}/{name}/{task.primary}": results[name][task.primary] for name in results})
        for name, metric in self.diagnostics.items() if stage == "val" else ():
            self.log(f"{stage}/diagnostics/{name}", metric.compute())  # type: ignore[operator]
        for metrics in (*self.candidate_metrics.values(), *self.diagnostics.values()):
            metrics.reset()  # type: ignore[operator]
        self._images, self._counted = 0, torch.tensor(0)
        return best

    def _why_unmeasured(self, stage: str) -> str:
        """One line on a primary metric that is NaN, by what all processes saw; each of them has to ask."""
        seen = torch.stack([torch.tensor(self._images), self._counted.cpu()]).to(self.device)
        images, counted = self.trainer.strategy.reduce(seen, reduce_op="sum").tolist()
        task, purpose = self.method.task, "measure or choose by" if stage == "val" else "measure"
        if counted:
            return (
                f"{task.primary} of the {images} images is not a number though {counted} pixels count, so there is "
                f"nothing to {purpose}; check that the network's outputs are finite"
            )
        does, check = task.uncounted
        return f"no pixel of the {images} images {does}, so there is nothing to {purpose}; {check}"
