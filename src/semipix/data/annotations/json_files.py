"""Read JSON files that people's tools wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semipix.data.annotations.entries import UnusableError
from semipix.errors import SemipixError, reason_of


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        SemipixError: the file is damaged, such as a truncated one.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SemipixError(f"{path}: no complete JSON ({reason_of(error, 80)}); export the annotations again") from None


def points_of(values: Any, where: str) -> NDArray[np.float64]:
    """Corners (n, 2) from a list of pairs, or of numbers x, y, x, y, ...

    Raises:
        UnusableError: the list holds something else.
    """
    try:
        points = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        points = np.empty(1)
    if points.size % 2 or (points.ndim, points.shape[-1]) not in ((1, points.size), (2, 2)):
        raise UnusableError(f"{where}: expected coordinates x, y, x, y, ...; found something else, fix the object")
    return points.reshape(-1, 2)
