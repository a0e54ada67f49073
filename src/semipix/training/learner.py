"""The only LightningModule: it trains a method with one backward pass per step, and measures it."""

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection
from tqdm import tqdm

from semipix.batch import Batch, EvalSample, LabeledImages, StrongLabels, UnlabeledImages
from semipix.data.batches.strong_views import StrongViews
from semipix.functional.grouping import batches_of_equal_size
from semipix.methods.base import Evidence, Method
from semipix.methods.error_maps import error_maps
from semipix.methods.large_images import LargeImages
from semipix.methods.tiles import Tiling
from semipix.methods.views import AveragedViews
from semipix.models.cue_detector import RunningNorm
from semipix.models.memory_format import compile_networks, set_memory_format
from semipix.training.calibration import ErrorMap
from semipix.training.error_metrics import ErrorMapMetric
from semipix.training.finiteness import Finiteness
from semipix.training.image_figures import ImageRecords
from semipix.training.lengthening import has_length, reopen, reschedule
from semipix.training.measuring import MeasuredPixels, MetricUpdater, best_candidate
from semipix.training.optimizers import CombinedOptimizer, OptimizerFactory, make_schedule, optimizer_maker
from semipix.training.pseudo_label_metric import (
    PseudoLabelMetric,
    PseudoLabelRows,
    accuracy_and_share,
    needed_confidence,
)

UNCOUNTED = (
    "method.label_accuracy: no pixel of the validation images could be counted, so the confidence is not raised; use "
    "validation images with labels, and method.detector=cues where they are computed in parts"
)
"""Line of a training whose method asks for what validation could not find out."""


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
        large: computes images that are too large for one pass, in validation and tests.
        tiling: compute all images that are larger than a tile in such tiles.
        views: of each image that is measured.
        written: the error map that prediction writes, for the evidence of some images; a test measures it as `map`. A
            validation does not, since the map is calibrated after the training.
        confusion: pixels (K, K) of the last test by label and prediction; None before it, and in regression.
        error_curves: curves of the last test's error maps, see `ErrorMapMetric.curves`.
        records: gets the figures of each image of a test; None where nobody asks for them.
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
        self.confusion: Tensor | None = None
        self.error_curves: dict[str, dict[str, list[float]]] = {}
        self.unmeasured = ""
        self._warned = False
        self._testing = False
        self._warned_of_labels = False
        self._measured = MeasuredPixels(method.task)  # in the current validation or test
        self.strong = strong or StrongViews()
        task = method.task
        self.tiling: Tiling | None = None
        self.views = AveragedViews(method)
        self.large = LargeImages(method)
        self.written: Callable[[Evidence], ErrorMap | None] | None = None
        self.records: ImageRecords | None = None
        self.candidate_metrics = nn.ModuleDict({name: task.metrics() for name in method.candidates()})
        self.error_metrics = nn.ModuleDict({name: ErrorMapMetric(task.classification) for name in method.candidates()})
        self.diagnostics = nn.ModuleDict(method.diagnostics())
        self.pseudo_labels = nn.ModuleDict({name: PseudoLabelMetric(task) for name in method.labelers})
        if freeze_batch_norm:
            self.train()

    def train(self, mode: bool = True) -> "Learner":
        super().train(mode)
        if mode and self.freeze_batch_norm:
            for module in self.method.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm | RunningNorm):
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
        epoch *= getattr(getattr(self.trainer, "datamodule", None), "passes_per_round", 1.0)
        losses = self.method.losses(self._assemble(batch), epoch)
        self._refuse_non_finite(losses, batch)
        total = torch.stack([term.float() for term in losses.values()]).sum()
        self.log_dict({f"train/{name}": term.detach() for name, term in losses.items()}, sync_dist=False)
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _assemble(self, batch: dict[str, Any]) -> Batch:
        """Make the method's batch from the loaders' parts: labeled images first, then unlabeled ones."""
        labeled = batch["labeled"]
        image, strong, strong_labels, shown = labeled.image, None, None, labeled.shown
        if "unlabeled" in batch:
            unlabeled = batch["unlabeled"]
            image = torch.cat([image, unlabeled.image])
            shown = _joined(labeled, unlabeled)
            strong, strong_labels = self._views(unlabeled.image, unlabeled.seeds, self.method.strong_views)
        count = self.method.labeled_views
        labeled_strong, labeled_labels = self._views(labeled.image[:count], labeled.seeds[:count], 2 if count else 0)
        return Batch(
            image.contiguous(memory_format=self.memory_format),
            labeled.target,
            strong,
            strong_labels,
            labeled_strong,
            labeled_labels,
            torch.tensor(labeled.places),  # not on a GPU: making it there would wait for the device
            shown,
        )

    def _views(self, images: Tensor, seeds: Sequence[int], count: int) -> tuple[Tensor | None, StrongLabels | None]:
        """Strong views of images, see `Batch.strong`, and how their labels follow; None for no view."""
        if not count:
            return None, None
        views = self.strong(images, seeds, count).contiguous(memory_format=self.memory_format)
        return views, self.strong.labels(images, seeds, count)

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the training go on as one of the present number of steps, which may be another than the checkpoint's."""
        if checkpoint["global_step"] >= self.trainer.max_steps:
            return
        finished = reopen(checkpoint)
        optimizer, schedule = self._optimizer_and_schedule()
        if schedule is not None and (finished or not has_length(checkpoint, schedule)):
            reschedule(checkpoint, optimizer.optimizers, schedule)

    def on_train_end(self) -> None:
        self._read_finiteness()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.method.after_step()

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self._optimizer_and_schedule()
        if schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _optimizer_and_schedule(self) -> tuple[CombinedOptimizer, LRScheduler | None]:
        optimizer = CombinedOptimizer(self.method.optimizers(optimizer_maker(self.optimizer)))
        if self.scheduler is None:
            return optimizer, None
        return optimizer, make_schedule(self.scheduler, optimizer, self.optimizer)

    # evaluation

    def on_validation_epoch_start(self) -> None:
        # New, since the halo of slabs depends on the weights.
        self.large = LargeImages(self.method, self.memory_format, self.tiling, self.views.in_slabs)
        self._testing = False

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()
        self._testing = True

    def validation_step(self, samples: list[EvalSample], batch_idx: int) -> None:
        for indices in batches_of_equal_size([sample.image for sample in samples], self.device.type):
            batch = [samples[index] for index in indices]
            height, width = batch[0].image.shape[-2:]
            if self.large.applies((height, width)):
                for sample in batch:
                    self._measure_in_parts(sample)
            else:
                self._measure(batch)

    def _measure(self, samples: list[EvalSample]) -> None:
        """Update the metrics with images of one size; labels may differ in size."""
        image = torch.stack([sample.image for sample in samples]).contiguous(memory_format=self.memory_format)
        evidences = self.views.evidences(image, self._with_maps)
        maps = {name: self._maps(name, evidence) for name, evidence in evidences.items()}
        deployed = self.method.deployed_name()
        error_map = self._error_map(evidences[deployed])
        if error_map is not None:
            scores, for_means = error_map.parts(self.method.task, evidences[deployed], image)
            maps[deployed]["map"] = scores + error_map.constant(for_means.mean((-2, -1))).view(-1, 1, 1, 1)
        for indices in batches_of_equal_size([sample.target for sample in samples], self.device.type):
            target = torch.stack([samples[index].target for index in indices])
            self._measured.add(target)
            for name, evidence in evidences.items():
                prediction = evidence.predictions[0]  # (B, K, H, W) at the network's size
                names = [samples[index].name for index in indices]
                updater = self._updater(name, names, target, prediction.shape, list(maps[name]), error_map)
                updater.add(prediction[indices], [part[indices] for part in maps[name].values()])
            if not self._testing:
                self._measure_pseudo_labels(evidences, target, indices)
            if self.diagnostics and not self._testing:
                batch = Batch(image[indices], target)
                of_batch = {name: evidence.of_images(indices) for name, evidence in evidences.items()}
                self.method.diagnose(batch, of_batch, self.diagnostics)  # type: ignore[arg-type]

    def _measure_pseudo_labels(self, evidences: Mapping[str, Evidence], target: Tensor, indices: list[int]) -> None:
        """Update the metrics of pseudo labels with some of the images."""
        for name, taught in self.method.taught(evidences).items():
            prediction, confidence = evidences[name].predictions[0], functools.partial(self.method.confidence_of, name)
            self._metric_of_labels(name).update(prediction[indices], taught[indices], target, confidence)

    def _rows_of_labels(self, target: Tensor, shape: Sequence[int]) -> dict[str, PseudoLabelRows]:
        """What updates the metrics of pseudo labels with an image in parts: nothing where they need whole maps."""
        if self._testing or not self.method.taught_in_parts():
            return {}
        return {
            name: PseudoLabelRows(
                self._metric_of_labels(name), target, shape, functools.partial(self.method.confidence_of, name)
            )
            for name in self.method.labelers
        }

    def _measure_in_parts(self, sample: EvalSample) -> None:
        """Update the metrics with one large image; diagnostics need whole maps and leave it out."""
        task, target, deployed = self.method.task, sample.target[None], self.method.deployed_name()
        self._measured.add(target)
        shape = 1, task.channels, *sample.image.shape[-2:]
        updaters: dict[str, MetricUpdater] = {}
        labels = self._rows_of_labels(target, shape)
        error_map: ErrorMap | None = None
        sums = torch.zeros((), device=self.device)

        def outputs(image: Tensor) -> tuple[Tensor, ...]:
            """What the error map's means need, for each candidate its output and its error maps, and what is taught."""
            nonlocal error_map
            found, for_means = [], image[:, :0]
            evidences = self.views.evidences(image, self._with_maps)
            for name, evidence in evidences.items():
                maps = self._maps(name, evidence)
                if name == deployed and (error_map := self._error_map(evidence)) is not None:
                    maps["map"], for_means = error_map.parts(task, evidence, image)
                if name not in updaters:
                    updaters[name] = self._updater(
                        name, [sample.name], target, shape, list(maps), error_map, waits=True
                    )
                found += [evidence.output, *maps.values()]
            taught = self.method.taught(evidences) if labels else {}
            return for_means, *found, *(taught[name].to(image) for name in labels)

        for rows in self.large.compute(sample.image, outputs):
            for_means, *others = (part for part in rows if part is not None)
            sums = sums + for_means.float().sum((-2, -1))
            parts = iter(others)
            predictions = {}
            for name, updater in updaters.items():
                predictions[name] = task.activate(next(parts))
                updater.add(predictions[name], [next(parts) for _ in updater.maps])
            for name, rows_of_labels in labels.items():
                rows_of_labels.add(predictions[name], next(parts))
        if error_map is not None:
            updaters[deployed].finish(error_map.constant(sums / math.prod(sample.image.shape[-2:])))

    @property
    def _with_maps(self) -> list[str]:
        """The candidates whose error maps are measured.

        A test measures those of the deployed one, a validation those of all, since it does not know which is best
        before its end.
        """
        return [self.method.deployed_name()] if self._testing else list(self.method.candidates())

    def _maps(self, candidate: str, evidence: Evidence) -> dict[str, Tensor]:
        """The error maps (B, 1, H, W) of a candidate's prediction that are measured, but for the written one."""
        return error_maps(self.method.task, evidence) if candidate in self._with_maps else {}

    def _error_map(self, evidence: Evidence) -> ErrorMap | None:
        """The written map of the deployed candidate, if it is measured."""
        return self.written(evidence) if self._testing and self.written is not None else None

    def _updater(
        self,
        candidate: str,
        names: Sequence[str],
        target: Tensor,
        shape: Sequence[int],
        maps: Sequence[str],
        error_map: ErrorMap | None,
        waits: bool = False,
    ) -> MetricUpdater:
        metrics, task = (self._metrics_of(candidate), self._error_metric_of(candidate)), self.method.task
        record = None
        if self._testing and self.records is not None and candidate == self.method.deployed_name():
            record = functools.partial(self.records.add, names, task)
        return MetricUpdater(*metrics, task, target, shape, maps, error_map, waits, record)

    def _error_metric_of(self, candidate: str) -> ErrorMapMetric:
        metric = self.error_metrics[candidate]
        assert isinstance(metric, ErrorMapMetric)
        return metric

    def _metric_of_labels(self, candidate: str) -> PseudoLabelMetric:
        metric = self.pseudo_labels[candidate]
        assert isinstance(metric, PseudoLabelMetric)
        return metric

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
        errors = self._error_metric_of(shown).compute()
        self.log_dict({f"{stage}/errors/{key}": value for key, value in errors.items()})
        if stage == "test":
            confusion = task.confusion(self._metrics_of(shown))
            self.confusion = None if confusion is None else confusion.cpu().clone()  # the metrics are reset
            self.error_curves = self._error_metric_of(shown).curves()
        for name, metric in self.diagnostics.items() if stage == "val" else ():
            self.log(f"{stage}/diagnostics/{name}", metric.compute())  # type: ignore[operator]
        if stage == "val":
            self._report_pseudo_labels()
        groups = self.candidate_metrics, self.error_metrics, self.diagnostics, self.pseudo_labels
        for metrics in (metrics for group in groups for metrics in group.values()):
            metrics.reset()  # type: ignore[operator]
        self._measured = MeasuredPixels(task)
        return best

    def _report_pseudo_labels(self) -> None:
        """Log how many pseudo labels are right, and let the method react."""
        counts: dict[str, Tensor] = {}
        for name in self.pseudo_labels:
            found = self._metric_of_labels(name).compute()
            if not found["pixels"]:
                continue
            counts[name] = found["counts"]
            figures = accuracy_and_share(found["counts"], found["pixels"], self.method.least_confidence(name))
            suffix = f"/{name}" if len(self.pseudo_labels) > 1 else ""
            for figure, value in zip(("accuracy", "share"), figures, strict=True):
                self.log(f"val/pseudo_labels/{figure}{suffix}", value)
        if self.trainer.sanity_checking:
            return
        if counts:
            self.method.after_validation(lambda name, accuracy: needed_confidence(counts[name], accuracy))
        elif self.method.is_steered() and not self._warned_of_labels and self.trainer.is_global_zero:
            tqdm.write(f"semipix: {UNCOUNTED}", file=sys.stderr)
            self._warned_of_labels = True

    def _sum_of_processes(self, counts: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(counts.to(self.device), reduce_op="sum")
        return total


def _joined(labeled: LabeledImages, unlabeled: UnlabeledImages) -> Tensor | None:
    """The pixels (N, 1, H, W) that a batch's images show, labeled images first; None if these are all."""
    if labeled.shown is None and unlabeled.shown is None:
        return None
    parts = (
        torch.ones_like(part.image[:, :1], dtype=torch.bool) if part.shown is None else part.shown
        for part in (labeled, unlabeled)
    )
    return torch.cat(list(parts))
