"""The only LightningModule: it trains a method with one backward pass per step, and measures it."""

import sys
from collections.abc import Callable
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
from semipix.methods.base import Method
from semipix.methods.slabs import Slabs
from semipix.models.memory_format import compile_networks, set_memory_format
from semipix.training.finiteness import Finiteness
from semipix.training.measuring import MeasuredPixels, MetricUpdater, best_candidate
from semipix.training.optimizers import CombinedOptimizer, OptimizerFactory, optimizer_maker


class Learner(pl.LightningModule):
    """Trains a method and measures it. It names no concrete method and no concrete task.

    Args:
        method: networks and losses.
        optimizer: torch optimizer class with all arguments bound but the parameters, for the task models.
        scheduler: learning-rate scheduler with all arguments bound but the optimizer, which steps after each training
            step; None for constant learning rates.
        seed: seed of all random numbers. Those of a step depend only on seed and step, so that a resumed run repeats
            them.
        channels_last: use the memory format channels last, which is faster on most hardware.
        freeze_batch_norm: do not update running statistics, and normalise by them also in training.
        compile_networks: compile the networks with `torch.compile`.
        strong: makes the strong views that the method needs.

    Attributes:
        slabs: computes images that are too large for one pass, in validation and tests.
        unmeasured: why the last validation or test has no primary metric; empty if it has one.
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
        self.memory_format = torch.contiguous_format  # `setup` changes it, when the device is known
        self.freeze_batch_norm = freeze_batch_norm
        self.compile_networks = compile_networks
        self._unread: Finiteness | None = None
        self.unmeasured = ""
        self._warned = False
        self._measured = MeasuredPixels(method.task)  # in the current validation or test
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
        torch.manual_seed(hash(key) % 2**63)  # hashes of integers are equal in all processes

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        epoch = self.trainer.current_epoch + batch_idx / self.trainer.num_training_batches
        losses = self.method.losses(self._assemble(batch), epoch)
        self._refuse_non_finite(losses, batch)
        total = torch.stack([term.float() for term in losses.values()]).sum()
        self.log_dict({f"train/{name}": term.detach() for name, term in losses.items()}, sync_dist=False)
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _assemble(self, batch: dict[str, Any]) -> Batch:
        """Make the method's batch from the loaders' parts: labeled images first, then unlabeled ones."""
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
        """Stop the training if a term is not finite.

        On the CPU this happens before the weights change. On a GPU the result is read one step later, since waiting
        for it would leave the GPU idle; no checkpoint is written before it was read.

        Raises:
            SemipixError: a term is not finite; the message names it and the images.
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
        self.slabs = Slabs(self.method, self.memory_format)  # new, since the halo depends on the weights

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def validation_step(self, samples: list[EvalSample], batch_idx: int) -> None:
        for indices in batches_of_equal_size([sample.image for sample in samples], self.device.type):
            batch = [samples[index] for index in indices]
            height, width = batch[0].image.shape[-2:]
            if self.slabs.applies((height, width)):
                for sample in batch:
                    self._measure_in_slabs(sample)
            else:
                self._measure(batch)

    def _measure(self, samples: list[EvalSample]) -> None:
        """Update the metrics with images of one size; labels may differ in size."""
        image = torch.stack([sample.image for sample in samples]).contiguous(memory_format=self.memory_format)
        outputs = self.method.candidate_outputs(image)  # (B, K, H, W) at the network's size
        predictions = {name: self.method.task.activate(output) for name, output in outputs.items()}
        for indices in batches_of_equal_size([sample.target for sample in samples], self.device.type):
            target = torch.stack([samples[index].target for index in indices])
            self._measured.add(target)
            for name, prediction in predictions.items():
                MetricUpdater(self._metrics_of(name), self.method.task, target, prediction.shape).add(
                    prediction[indices]
                )
            if self.diagnostics and not self.trainer.testing:
                batch = Batch(image[indices], target)
                batch_outputs = {name: output[indices] for name, output in outputs.items()}
                self.method.diagnose(batch, batch_outputs, self.diagnostics)  # type: ignore[arg-type]

    def _measure_in_slabs(self, sample: EvalSample) -> None:
        """Update the metrics with one large image; diagnostics need whole maps and leave it out."""
        task, target = self.method.task, sample.target[None]
        self._measured.add(target)
        names = list(self.method.candidates())
        shape = 1, task.channels, *sample.image.shape[-2:]
        updaters = [MetricUpdater(self._metrics_of(name), task, target, shape) for name in names]

        def outputs(image: Tensor) -> tuple[Tensor, ...]:
            by_name = self.method.candidate_outputs(image)
            return tuple(by_name[name] for name in names)

        for maps in self.slabs.compute(sample.image, outputs):
            for updater, output in zip(updaters, maps, strict=True):
                assert output is not None
                updater.add(task.activate(output))

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
            tqdm.write(f"semipix: validation: {self.unmeasured}", file=sys.stderr)  # does not break the progress bar
            self._warned = True

    def test_step(self, samples: list[EvalSample], batch_idx: int) -> None:
        self.validation_step(samples, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, stage: str) -> str | None:
        """Log all metrics of this pass, and return the candidate with the best primary metric, or None if all are NaN.

        Only the method's choices can be returned; all candidates are measured.

        Metrics are also logged without a candidate's name: in validation those of the best candidate, in a test those
        of the candidate that validation had chosen.
        """
        task = self.method.task
        results = {name: self._metrics_of(name).compute() for name in self.method.candidates()}
        best = best_candidate({name: results[name] for name in self.method.choices()}, task)
        shown = best if stage == "val" and best is not None else self.method.deployed_name()
        self.unmeasured = ""
        if results[shown][task.primary].isnan():
            purpose = "measure or choose by" if stage == "val" else "measure"
            self.unmeasured = self._measured.why_unmeasured(purpose, self._sum_of_processes)
        for key, value in results[shown].items():
            self.log(f"{stage}/{key}", value, prog_bar=key == task.primary)
        if len(results) > 1:
            self.log_dict({f"{stage}/{name}/{task.primary}": results[name][task.primary] for name in results})
        for name, metric in self.diagnostics.items() if stage == "val" else ():
            self.log(f"{stage}/diagnostics/{name}", metric.compute())  # type: ignore[operator]
        for metrics in (*self.candidate_metrics.values(), *self.diagnostics.values()):
            metrics.reset()  # type: ignore[operator]
        self._measured = MeasuredPixels(task)
        return best

    def _sum_of_processes(self, counts: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(counts.to(self.device), reduce_op="sum")
        return total
