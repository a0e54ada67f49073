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
        # Right and wrong pixels or, in regression, pixels and their summed errors. The last bin of a histogram has the
        # pixels that do not count.
        shape = len(MAPS), measures.SCORE_BINS + 1, 2
        self.add_state("histograms", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        # In regression, pixels and their summed errors by error.
        bins = 0 if classification else measures.ERROR_BINS + 1
        self.add_state("oracle", torch.zeros(bins, 2, dtype=torch.int64), dist_reduce_fx="sum")
        # For each image its pixels, its summed errors, and the summed scores of each map; flat.
        self.add_state("images", [], dist_reduce_fx="cat")

    def update(
        self, error: Tensor, counted: Tensor, maps: Mapping[str, Tensor], begins: bool = True, again: bool = False
    ) -> None:
        """Add images, or further rows of them.

        Args:
            error: (B, 1, H, W), bool in classification, otherwise absolute errors as shares of the range.
            counted: (B, 1, H, W) bool, the pixels that count.
            maps: scores (B, 1, H, W) in [0, 1] by the names in MAPS.
            begins: False if these are further rows of the images of the last call.
            again: whether these rows were added before, with other maps.
        """
        sums = torch.zeros((len(error), 2 + len(MAPS)), dtype=torch.float32, device=error.device)
        if not again:
            sums[:, 0] = counted.sum((1, 2, 3))
            sums[:, 1] = torch.where(counted, error, 0).sum((1, 2, 3))
        if not again and not self.classification:
            _add(self.oracle, measures.error_bins(error).masked_fill_(~counted, measures.ERROR_BINS), error)
        if maps:
            names = [MAPS.index(name) for name in maps]
            scores = torch.cat([scores.float() for scores in maps.values()], 1)  # (B, M, H, W)
            sums[:, [2 + name for name in names]] = torch.where(counted, scores, 0).sum((2, 3))
            first = torch.tensor(names, dtype=torch.int32, device=scores.device).view(1, -1, 1, 1)
            bins = measures.score_bins(scores).masked_fill_(~counted, measures.SCORE_BINS)
            bins += first * (measures.SCORE_BINS + 1)
            if self.classification:
                _count(self.histograms, bins.mul_(2).add_(error))
            else:
                _add(self.histograms, bins, error)
        if begins:
            self.images.append(sums.flatten())
        else:
            self.images[-1] = self.images[-1] + sums.flatten()

    def compute(self) -> dict[str, Tensor]:
        """`MAP/MEASURE` to a scalar for each map that was given; NaN where there is nothing to measure.

        Measures of a map that is not finite at a pixel that counts are NaN.
        """
        histograms = self.histograms[:, :-1].cpu().double()
        images = self._sums_of_images()
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

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """For each map that was given its curves, as lists of coordinates; those that are not finite are left out.

        In classification `MAP/roc` (`false_alarms`, `found`: shares of the right and of the wrong pixels above a
        score), `MAP/risk` (`coverage`, `risk`) and `MAP/reliability` (`score`, `risk`, `pixels`: mean score, share of
        wrong pixels, share of all pixels). In regression `MAP/sparsification` (`removed`: share of the pixels that is
        left out, those with the highest scores; `error`: mean error of the others, as a share of that of all), and
        `oracle/sparsification` of the true errors.
        """
        histograms = self.histograms[:, :-1].cpu().double()
        images = self._sums_of_images()
        found: dict[str, dict[str, list[float]]] = {}
        for number, name in enumerate(MAPS):
            if bool(histograms[number].any()) and bool(images[:, [0, 1, 2 + number]].isfinite().all()):
                curves = (_curves if self.classification else _sparsification)(*histograms[number].unbind(1))
                found |= {f"{name}/{kind}": curve for kind, curve in curves.items()}
        if found and not self.classification:
            curves = _sparsification(*self.oracle[:-1].cpu().double().unbind(1))
            found |= {f"oracle/{kind}": curve for kind, curve in curves.items()}
        return found

    def _sums_of_images(self) -> Tensor:
        """For each image its pixels, its summed errors and the summed scores of each map, (B, 2 + maps)."""
        return torch.cat([torch.zeros(0), *(part.cpu() for part in _parts(self.images))]).view(-1, 2 + len(MAPS))

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
        oracle_pixels, oracle_errors = self.oracle[:-1].cpu().double().unbind(1)
        return {
            "ause": measures.sparsification_error(first, errors, oracle_pixels, oracle_errors / FIXED_POINT),
            "correlation": measures.correlation(first, errors, oracle_pixels),
        }


def _curves(right: Tensor, wrong: Tensor) -> dict[str, dict[str, list[float]]]:
    """The curves of one map of a classification, from the two halves of its histogram."""
    false_alarms, found = measures.roc_curve(right, wrong)
    coverage = measures.curve_coverages()
    score, risk, pixels = measures.reliability(right, wrong)
    there = pixels > 0
    return {
        "roc": {"false_alarms": false_alarms.tolist(), "found": found.tolist()},
        "risk": {"coverage": coverage.tolist(), "risk": measures.risks_at(coverage, right + wrong, wrong).tolist()},
        "reliability": {
            "score": score[there].tolist(),
            "risk": risk[there].tolist(),
            "pixels": pixels[there].tolist(),
        },
    }


def _sparsification(pixels: Tensor, errors: Tensor) -> dict[str, dict[str, list[float]]]:
    """The sparsification curve of one map of a regression; none without errors."""
    if not bool(errors.any()):
        return {}
    coverage = measures.curve_coverages().flip(0)
    error = measures.risks_at(coverage, pixels, errors) * pixels.sum() / errors.sum()
    return {"sparsification": {"removed": (1 - coverage).tolist(), "error": error.tolist()}}


def _count(histograms: Tensor, index: Tensor) -> None:
    """Add 1 at each index of the flat histograms."""
    one = torch.ones((), dtype=torch.int64, device=index.device)
    histograms.view(-1).index_add_(0, index.flatten(), one.expand(index.numel()))


def _add(histograms: Tensor, bins: Tensor, error: Tensor) -> None:
    """Count pixels in their bins of histograms (..., 2), and add their errors (B, 1, H, W) in fixed point."""
    _count(histograms, 2 * bins)
    fixed = (error * FIXED_POINT).nan_to_num(0, 0, 0).round().long().expand_as(bins)
    histograms.view(-1).index_add_(0, (2 * bins + 1).flatten(), fixed.flatten())


def _parts(images: Any) -> list[Tensor]:
    """The parts of a state, which is a tensor after the processes were synchronised."""
    return [images] if isinstance(images, Tensor) else images
