"""How long a run is, so that methods compare fairly: the paper's training rules (Ke et al., ECCV 2020, Section 4)."""

import math
from typing import Literal

Length = Literal["full", "labeled"]


def training_steps(
    *, images: int, labeled: int, batch_size: int, epochs: float, steps: int | None = None, length: Length = "full"
) -> int:
    """Optimizer steps of a run.

    Rule 1: full supervision makes S epochs of T = images / batch_size steps, N = S x T x b samples in all.
    Rule 2: `supervised` on a labeled subset keeps S (`length="labeled"`), so it is shorter by labeled / images.
    Rule 3: a semi-supervised run has the N of rule 1 (`length="full"`), and so has the equally long supervised one.

    Args:
        images: training images, labeled and unlabeled.
        labeled: labeled ones among them.
        batch_size: images that one optimizer step sees.
        epochs: S, passes over all images.
        steps: steps of full length; sets S in place of `epochs`.
        length: full, or rule 2's share of it.

    Returns:
        The number of steps, at least 1.
    """
    full = steps if steps is not None else max(1, round(epochs * math.ceil(images / batch_size)))
    if length == "full":
        return full
    return max(1, round(full * labeled / images))
