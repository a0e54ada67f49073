"""The metric of error maps: whether the maps that a run offers are high where its prediction is wrong."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from semipix.functional import error_measures as measures

MAPS = ("map", "flaw", "softmax", "entropy", "disagreement")
"""Names of error maps: the one that `semipix predict` writes, then those that a method may offer."""

COVERAGE = 0.8
"""Share of the pixels whose risk is `risk80`."""

FIXED_POINT = 2**24
"""Sums of absolute errors are kept as multiples of 1 / FIXED_POINT, so that they do not depend on their order."""


class ErrorMapMetric(Metric):
    """Measures of the error maps of one network, for all maps that it is updated with.

    Memory does not grow with the pixels: a map has a histogram of its scores, in each of whose bins errors are summed.
    Of each image, only the sums over its pixels are kept, a few numbers.

    Args:
        classification: whether errors are 1 for wrong pixels and 0 for right ones; otherwise they are absolute errors.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    histograms: Tensor
    oracle: Tensor
    images: list[Tensor]

    def __init__(self, classification: bool) -> None:
        super().__init__()
        self.classification = classification
        # Right and wrong pixels or, in regression, pixels and their summed errors.
        shape = len(MAPS), measures.SCORE_BINS, 2
        self.add_state("histograms", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        # In regression, pixels and their summed errors by error.
        bins = 0 if classification else measures.ERROR_BINS
        self.add_state("oracle", torch.zeros(bins, 2, dtype=torch.int64), dist_reduce_fx="sum")
        # For each image its pixels, its summed errors, and the summed scores of each map; flat.
        self.add_state("images", [], dist_reduce_fx="cat")

    def update(self, error: Tensor, counted: Tensor, maps: Mapping[str, Tensor], begins: bool = True) -> None:
        """Add images, or further rows of them.

        Args:
            error: (B, 1, H, W), bool in classification, otherwise absolute errors as shares of the range.
            counted: (B, 1, H, W) bool, the pixels that count.
            maps: scores (B, 1, H, W) in [0, 1] by the names in MAPS, always the same names.
            begins: False if these are further rows of the images of the last call.
        """
        names = [MAPS.index(name) for name in maps]
        scores = torch.cat([scores.float() for scores in maps.values()], 1)  # (B, M, H, W)
        added, bins = self._counts(scores, error, counted), measures.SCORE_BINS
        self.histograms[names] += added[:, :bins]
        if not self.classification:
            index = measures.error_bins(error).masked_fill_(~counted, measures.ERROR_BINS)
            self.oracle += _sums(index, error, measures.ERROR_BINS + 1)[:-1]
        sums = error.new_zeros((len(error), 2 + len(MAPS)), dtype=torch.float32)
        sums[:, 0] = counted.sum((1, 2, 3))
        sums[:, 1] = torch.where(counted, error, 0).sum((1, 2, 3))
        sums[:, [2 + name for name in names]] = torch.where(counted, scores, 0).sum((2, 3))
        if begins:
            self.images.append(sums.flatten())
        else:
            self.images[-1] = self.images[-1] + sums.flatten()

    def _counts(self, scores: Tensor, error: Tensor, counted: Tensor) -> Tensor:
        """The histograms (M, SCORE_BINS, 2) of scores (B, M, H, W)."""
        width, maps = measures.SCORE_BINS + 1, scores.shape[1]  # the last bin has the pixels that do not count
        first = torch.arange(maps, dtype=torch.int32, device=scores.device).view(1, maps, 1, 1) * width
        index = measures.score_bins(scores).masked_fill_(~counted, measures.SCORE_BINS).add_(first)
        if self.classification:
            counts = torch.bincount(index.mul_(2).add_(error).flatten(), minlength=2 * maps * width)
            return counts.view(maps, width, 2)[:, :-1]
        return _sums(index, error.expand_as(scores), maps * width).view(maps, width, 2)[:, :-1]

    def compute(self) -> dict[str, Tensor]:
        """`MAP/MEASURE` to a scalar for each map that was given; NaN where there is nothing to measure.

        Measures of a map that is not finite at a pixel that counts are NaN.
        """
        histograms = self.histograms.cpu().double()
        images = torch.cat([torch.zeros(0), *(part.cpu() for part in _parts(self.images))]).view(-1, 2 + len(MAPS))
        images = images[images[:, 0] > 0]
        found: dict[str, Tensor] = {}
        for number, name in enumerate(MAPS):
            if not bool(histograms[number].any()):
                continue
            values = self._measured(*histograms[number].unbind(1))
            errors, scores = images[:, 1] / images[:, 0], images[:, 2 + number] / images[:, 0]
            values["image_spearman"] = measures.rank_correlation(scores, errors)
            finite = bool((errors.isfinite() & scores.isfinite()).all())
            nothing = torch.tensor(torch.nan)
            found |= {f"{name}/{key}": (value.float() if finite else nothing) for key, value in values.items()}
        return {key: value.to(self.device) for key, value in found.items()}

    def _measured(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """The measures of pixels of one map, from the two halves of its histogram."""
        if self.classification:
            pixels = first + second
            return {
                "auroc": measures.auroc(first, second),
                "aupr": measures.average_precision(first, second),
                "aurc": measures.risk_coverage_area(pixels, second),
                "risk80": measures.risk_at(COVERAGE, pixels, second),
                "ece": measures.calibration_error(first, second),
            }
        errors = second / FIXED_POINT
        oracle_pixels, oracle_errors = self.oracle.cpu().double().unbind(1)
        return {
            "ause": measures.sparsification_error(first, errors, oracle_pixels, oracle_errors / FIXED_POINT),
            "correlation": measures.correlation(first, errors, oracle_pixels),
        }


def _sums(index: Tensor, error: Tensor, bins: int) -> Tensor:
    """The number of elements in each bin, and the sum of their errors in fixed point, (bins, 2) int64."""
    wide = error if error.device.type == "mps" else error.double()  # a sum of many float32 values is not exact
    index = index.flatten()
    sums = torch.bincount(index, wide.flatten(), minlength=bins)
    fixed = sums.mul_(FIXED_POINT).nan_to_num_(0, 0, 0).round_().long()
    return torch.stack([torch.bincount(index, minlength=bins), fixed], 1)


def _parts(images: Any) -> list[Tensor]:
    """The parts of a state, which is a tensor after the processes were synchronised."""
    return [images] if isinstance(images, Tensor) else images
