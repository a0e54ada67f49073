"""Scores of predicted images, which say which of them to trust: expected error, expected mIoU or PSNR."""

import csv
import io
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from semipix.atomic import write_text
from semipix.errors import SemipixError

FILE = "scores.csv"
"""The table of all images, in the folder of the predictions."""


SECONDS = "seconds"
"""Column of the time of a frame, in tables that have frames of videos."""


BETWEEN = 30
"""Seconds after which the table is written again. After a kill, images without a score are predicted again."""


class Score(NamedTuple):
    """What is expected of one prediction, by its calibrated error map.

    Attributes:
        image: name of the image with its subfolder.
        error: share of wrong pixels or, in regression, mean absolute error in the units of the labels; None
            without a calibration, or if no pixel counts: all are known by a trimap, or the image has no value of any.
        quality: mean IoU or, in regression, PSNR in dB; None where `error` is.
        risk: the asked risk, in the units of `error`; None where none was asked.
        accepted: share of the pixels that are accepted at this risk; None where `error` or `risk` is.
        seconds: of a frame of a video, the time since the first frame.
    """

    image: str
    error: float | None
    quality: float | None
    risk: float | None = None
    accepted: float | None = None
    seconds: float | None = None


class ScoreTable:
    """The scores of a folder of predictions, with those of earlier calls.

    Without a calibration the table only loses lines: those of images whose predictions are replaced.

    Args:
        out: folder of the predictions.
        classification: whether the quality is a mean IoU or a PSNR.
        calibrated: whether there is a calibration.

    Raises:
        SemipixError: there is a table that semipix did not write.
    """

    def __init__(self, out: Path, classification: bool, calibrated: bool = True) -> None:
        self.calibrated = calibrated
        self.path = out / FILE
        quality = "expected_miou" if classification else "expected_psnr"
        self.columns = ["image", "expected_error", quality, "risk", "accepted"]  # with frames of videos also SECONDS
        self._scores = {score.image: score for score in self._read()}
        self._written = True
        self._write_at = time.monotonic() + BETWEEN

    def has(self, image: str, risk: float | None) -> bool:
        """Whether an image has the score that it gets: one at this risk, up to the digits of the table, or none."""
        if not self.calibrated:
            return True
        if image not in self._scores:
            return False
        found = self._scores[image].risk
        return found == risk if found is None or risk is None else math.isclose(found, risk, rel_tol=1e-5)

    def add(self, score: Score) -> None:
        """Add the score of an image, in place of an older one; without a calibration, only remove the older one."""
        older = self._scores.pop(score.image, None)
        if self.calibrated:
            self._scores[score.image] = score
        self._written = self._written and not self.calibrated and older is None

    def write(self) -> None:
        """Write the table, if it has changed; with times if it has frames of videos. One without lines is removed.

        Raises:
            OSError: it cannot be written.
        """
        if self._written:
            return
        if not self._scores:
            self.path.unlink(missing_ok=True)
            self._written = True
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        timed = any(score.seconds is not None for score in self._scores.values())
        writer.writerow([*self.columns, SECONDS] if timed else self.columns)
        for score in sorted(self._scores.values(), key=lambda score: score.image):
            row = ["" if value is None else _shown(value) for value in score[:-1]]
            seconds = "" if score.seconds is None else f"{score.seconds:.3f}"
            writer.writerow([*row, seconds] if timed else row)
        write_text(self.path, text.getvalue(), "surrogateescape")
        self._written = True
        self._write_at = time.monotonic() + BETWEEN

    def write_now_and_then(self) -> None:
        """Write the table, if it has changed and was not written in the last `BETWEEN` seconds."""
        if time.monotonic() > self._write_at:
            self.write()

    def _read(self) -> list[Score]:
        if not self.path.exists():
            return []
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                header, *rows = csv.reader(file)
            if header not in (self.columns, [*self.columns, SECONDS]):
                raise ValueError
            return [Score(row[0], _number(row[1]), _number(row[2]), *map(_number, row[3:6])) for row in rows]
        except (ValueError, IndexError, csv.Error):
            raise SemipixError(
                f"{self.path}: not a table with the columns {', '.join(self.columns)}, which semipix predict writes; "
                "move it away or choose another --out"
            ) from None


def expected_miou(confusion: Tensor, errors: Tensor) -> float:
    """Expected mean IoU over the classes that are predicted in an image.

    The number of wrong pixels of each predicted class is expected by the error map. Which classes they are instead is
    told by the mean probabilities of the other classes at the pixels of this class.

    Args:
        confusion: (K, K), for each predicted class (row) the sum of the probabilities of all classes over its pixels.
        errors: (K,), the sum of the error map over the pixels of each predicted class.
    """
    predicted = confusion.sum(1)  # pixels, since probabilities sum to 1
    others = confusion - confusion.diag().diag()
    shares = others / others.sum(1, keepdim=True).clamp(min=1e-12)
    right = (predicted - errors).clamp(min=0)
    labels = right + errors @ shares
    there = predicted > 0.5
    return float((right / (predicted + labels - right).clamp(min=1e-12))[there].mean())


def expected_psnr(square: float) -> float:
    """PSNR in dB of an expected squared error, as a share of the squared range; at most 100."""
    return min(100.0, -10 * math.log10(max(square, 1e-10)))


def class_sums(prediction: Tensor, confusion: Tensor) -> None:
    """Add the probabilities (K, n) of some pixels to the rows of their most probable classes in (K, K), in place."""
    labels = prediction.max(0).indices
    # In float64: float32 sums of millions of pixels are 1 % off.
    columns = [torch.bincount(labels, of_class.double(), len(prediction)) for of_class in prediction]
    confusion += torch.stack(columns, 1).cpu()


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _number(text: str) -> float | None:
    return float(text) if text else None
