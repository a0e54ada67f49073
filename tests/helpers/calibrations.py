"""A calibration that was not fitted."""

import dataclasses
from typing import Any

from semipix.functional.cues import VERSION
from semipix.methods.base import Method
from semipix.training.calibration import Calibration, fingerprint


def make_calibration(method: Method, checkpoint: str = "best", **given: Any) -> Calibration:
    """A made-up one: all of its numbers are different; some are given."""
    made = Calibration(
        checkpoint=checkpoint,
        fingerprint=fingerprint(method),
        kind="probability",
        cues=VERSION,
        networks=2,
        weights={"softmax": 0.5, "doubt@5": 2.0, "disagreement@49": -1.0, "softmax@image": 0.3, "flaw@image": -0.7},
        intercept=-0.2,
        knot_scores=[-2.0, 0.0, 1.0],
        knot_values=[0.1, 0.3, 0.8],
        split="val",
        images=3,
        pixels=300,
        features="pixel and image",
        figures={"auroc": 0.9, "calibration_error": None},
        squares=1.0,
        absent=[],
        thresholds=[0.1, 0.5, 1.0],
        losses=[[0.0, 0.1, 0.2], [0.0, 0.0, 0.4], [0.0, 0.1, 0.3]],
    )
    return dataclasses.replace(made, **given)
