"""Check that losses are finite without waiting for the device: the result is read one step later."""

import torch
from torch import Tensor

from semipix.errors import SemipixError


class Finiteness:
    """Copies to the CPU, in the background, whether the terms of one step are finite.

    Args:
        finite: (terms,) bool on the device.
        terms: names of the terms.
        files: names of the step's images.
        step: number of the step.
    """

    def __init__(self, finite: Tensor, terms: list[str], files: list[str], step: int) -> None:
        self.finite = finite.to("cpu", non_blocking=True)
        self.terms = terms
        self.files = files
        self.step = step
        self.ready = None if finite.device.type == "cpu" else torch.Event(finite.device)
        if self.ready is not None:
            self.ready.record()

    def check(self) -> None:
        """Wait until the copy is complete, and check it.

        Raises:
            SemipixError: a term was not finite.
        """
        if self.ready is not None:
            self.ready.synchronize()
        if bool(self.finite.all()):
            return
        terms = ", ".join(name for name, good in zip(self.terms, self.finite.tolist(), strict=True) if not good)
        raise SemipixError(
            f"non-finite loss at step {self.step} in {terms}; images of the batch: {', '.join(self.files)}; the last "
            "checkpoint is kept; train again with a lower optimizer.lr, trainer.gradient_clip_val=1 or "
            "trainer.precision=32-true"
        )
