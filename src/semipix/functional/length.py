"""Number of steps of a run by the paper's training rules (Ke et al., ECCV 2020, Section 4), for fair comparisons."""

import math
from typing import Literal

Length = Literal["full", "labeled"]


def training_steps(
    *, images: int, labeled: int, batch_size: int, epochs: float, steps: int | None = None, length: Length = "full"
) -> int:
    """Optimizer steps of a run.

    Rule 1: full supervision trains S epochs of T = images / batch_size steps, N = S x T x batch_size samples in all.
    Rule 2: `supervised` on a labeled subset keeps S (`length="labeled"`), so it has labeled / images times as many
    steps.
    Rule 3: a semi-supervised run has the N of rule 1 (`length="full"`), and so has the equally long supervised run.

    Args:
        images: number of training images, labeled and unlabeled.
        labeled: number of labeled images among them.
        batch_size: images per optimizer step.
        epochs: S, passes over all images.
        steps: steps of full supervision; replaces `epochs`.
        length: `full`, or `labeled` for the shorter training of rule 2.

    Returns:
        The number of steps, at least 1.
    """
    full = steps if steps is not None else max(1, round(epochs * math.ceil(images / batch_size)))
    if length == "full":
        return full
    return max(1, round(full * labeled / images))
