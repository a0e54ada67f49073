"""Number of steps of a run by the paper's training rules (Ke et al., ECCV 2020, Section 4), for fair comparisons.

Also how many of them there are between two validations.
"""

import math
from typing import Literal

Length = Literal["full", "labeled", "unlabeled"]


def training_steps(
    *,
    samples: int,
    labeled: int,
    batch_size: int,
    labeled_per_batch: int,
    epochs: float,
    steps: int | None = None,
    length: Length = "full",
) -> int:
    """Optimizer steps of a run.

    On the benchmarks (segmentation and denoising):
    Rule 1: full supervision trains S epochs of T = samples / batch_size steps, N = S x T x batch_size samples in all.
    Rule 2: `supervised` on a labeled subset keeps S (`length="labeled"`), so it has labeled / samples times as many
    steps.
    Rule 3: a semi-supervised run has the N of rule 1 (`length="full"`), and so has the equally long supervised run.

    On data sets with few labels (matting and enhancement) S belongs to the labeled subset (`length="labeled"`), and a
    semi-supervised run has the same S: passes over the unlabeled subset (`length="unlabeled"`).

    Args:
        samples: number of training samples of a pass, labeled and unlabeled: images, or crops where an image gives
            several.
        labeled: number of labeled samples among them.
        batch_size: samples of one optimizer step.
        labeled_per_batch: labeled ones among them where there are unlabeled ones.
        epochs: S, passes over all samples, or over those that `length` names.
        steps: replaces `epochs`; with `length="labeled"` these are the steps of full supervision.
        length: `full`; `labeled` for passes over only the labeled samples; `unlabeled` for passes over the unlabeled
            ones, of which each step has `batch_size - labeled_per_batch`. Without unlabeled samples all three are
            equal.

    Returns:
        The number of steps, at least 1.
    """
    unlabeled = samples - labeled
    if length == "unlabeled" and unlabeled:
        share = max(1, batch_size - labeled_per_batch)
        return steps if steps is not None else max(1, round(epochs * math.ceil(unlabeled / share)))
    full = steps if steps is not None else max(1, round(epochs * math.ceil(samples / batch_size)))
    return max(1, round(full * labeled / samples)) if length == "labeled" else full


def validation_interval(steps: int, validations: int) -> int:
    """Optimizer steps between two validations.

    Args:
        steps: of the training.
        validations: most validations; 1 or more.

    Returns:
        The largest interval that gives exactly so many validations, otherwise the smallest that gives fewer.
    """
    longest = max(1, steps // validations)
    return longest if steps // longest <= validations else steps // (validations + 1) + 1
