"""Denoising: from a noisy image to a clean one."""

from dataclasses import replace
from typing import ClassVar, Literal

from semipix.errors import SemipixError
from semipix.tasks.restoration import Restoration
from semipix.tasks.strong_changes import StrongChanges


class Denoising(Restoration):
    """Noisy RGB image to clean RGB image; the flaw target has mu = 1/3 and nu = 10 (Appendix A of GCT).

    Args:
        loss: `l1`, or `charbonnier`, which is smooth at 0.

    Raises:
        SemipixError: the loss is neither `l1` nor `charbonnier`.
    """

    # The clean image of a darker noisy image is darker by the same factor. Noise depends on brightness, so a much
    # darker copy has noise that no camera makes; a brighter one would be clipped at 1.
    strong_changes: ClassVar[StrongChanges] = replace(Restoration.strong_changes, gain=0.2)

    def __init__(self, loss: Literal["l1", "charbonnier"] = "l1") -> None:
        if loss not in ("l1", "charbonnier"):
            raise SemipixError(f"task.loss: {loss!r} found, l1 or charbonnier expected")
        super().__init__(loss, nu=10)
