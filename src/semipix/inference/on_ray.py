"""Prediction by the workers of a Ray cluster; they need access to the folders of images, run and results."""

import importlib
import json
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semipix.errors import SemipixError
from semipix.inference.pipeline import Ended, predict_files
from semipix.inference.predictor import load_predictor
from semipix.inference.scores import Score
from semipix.interruption import install_again

BLOCK = 64
"""Images that a worker gets at a time. If it dies, the block is predicted again."""


class Worker:
    """Runs the same pipeline as without Ray, on one block of files after another.

    Args:
        run, out: see `load_predictor`.
        options: the others of its arguments, by name.
    """

    def __init__(self, run: Path, out: Path, options: Mapping[str, Any]) -> None:
        self.predictor = load_predictor(run, out, **options)

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        """Predict a block of columns `file` and `name`; return for each image how it ended, as JSON."""
        pairs = [(Path(str(file)), Path(str(name))) for file, name in zip(block["file"], block["name"], strict=True)]
        return {"ended": [json.dumps(ended) for ended in predict_files(self.predictor, pairs)]}


def predict_on_ray(run: Path, out: Path, files: Sequence[tuple[Path, Path]], **options: Any) -> Generator[Ended]:
    """Predict files on the cluster of `RAY_ADDRESS`, or on one that is started on this machine.

    A worker has one GPU if the cluster has GPUs, otherwise one processor core. A worker that dies is replaced.

    Args:
        run, out: see `load_predictor`.
        files: image files, each with the name of its results.
        options: of `load_predictor`; a path must be one that every node has.

    Yields:
        How each image ended.

    Raises:
        SemipixError: Ray is not installed.
    """
    ray = load_ray()
    if not files:
        return
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    install_again()  # Ray has replaced the handler of SIGTERM
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    found = ray.cluster_resources()
    kind = "GPU" if found.get("GPU") else "CPU"
    # Links are not followed: what they lead to may have another name, and the name tells the format.
    rows = [{"file": str(file.absolute()), "name": str(name)} for file, name in files]
    blocks = max(1, -(-len(rows) // BLOCK))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    predicted = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Worker,
        fn_constructor_args=(run.resolve(), out.resolve(), options),
        batch_size=BLOCK,
        concurrency=(1, max(1, min(int(found.get(kind, 1)), blocks))),
        **({"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}),
    )
    for row in predicted.iter_rows():
        ended = json.loads(row["ended"])
        yield Score(*ended) if isinstance(ended, list) else ended


def load_ray() -> Any:
    """Import Ray and Ray Data.

    Raises:
        SemipixError: Ray is not installed.
    """
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise SemipixError(f"ray: {error}; install it by: pip install 'semipix[ray]'") from error
