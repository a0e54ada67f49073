"""Python API: the commands as functions, by the same configuration and the same files.

`semipix.train`, `semipix.load` and `semipix.Run` are these; they are imported when they are used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Run:
    """A run folder.

    Args:
        folder: what a training left behind.
        trust: run code that the folder names outside of the known packages, as `--trust` does.

    Raises:
        SemipixError: it is no run folder.
    """

    def __init__(self, folder: str | Path, *, trust: bool = False) -> None:
        from semipix.training.run_folder import load_config

        self.folder = Path(folder)
        self.trust = trust
        load_config(self.folder, trust)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def evaluate(self, split: str = "test", **options: Any) -> dict[str, float]:
        """Measure on held-out images and keep the figures in the folder, as `semipix evaluate` does.

        Args:
            split: `test` or `val`.
            **options: of `semipix.inference.evaluate.evaluate`: `checkpoint`, `batch_size`, `root`, `max_pixels`.

        Returns:
            Metrics by name.

        Raises:
            SemipixError: there is nothing to measure, or the data are not those of the run.
        """
        from semipix.inference.evaluate import evaluate

        return evaluate(self.folder, split, trust=self.trust, **options)

    def predict(self, images: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> list[str]:
        """Predict image files or folders into a folder, as `semipix predict` does.

        Args:
            images: files, or folders that are searched with their subfolders.
            out: gets `masks` or `predictions`, `pictures`, `errors`, `scores.csv` and, with a risk, `accepted`.
            **options: of `semipix.inference.predict.predict`: `checkpoint`, `skip_existing`, `trimaps`, `max_pixels`,
                `risk`, `write`, `uncertain`.

        Returns:
            One line for each image that could not be read; the others are predicted.

        Raises:
            SemipixError: there is no image, or a result would overwrite an input.
        """
        from semipix.inference.predict import predict

        given = [images] if isinstance(images, str | Path) else images
        return predict(self.folder, [Path(path) for path in given], Path(out), trust=self.trust, **options)

    def calibrate(self, **options: Any) -> list[str]:
        """Fit the error map on the validation images, as `semipix calibrate` does; training has done it at its end.

        Args:
            **options: of `semipix.training.calibrating.calibrate_run`: `checkpoint`, `root`, `max_pixels`.

        Returns:
            Lines that say what was fitted.

        Raises:
            SemipixError: the validation images do not suffice, or the data are not those of the run.
        """
        from semipix.training.calibrating import calibrate_run

        return calibrate_run(self.folder, trust=self.trust, **options)

    def resume(self) -> dict[str, float]:
        """Continue an interrupted training to the weights that an uninterrupted one would have reached.

        Returns:
            The run's summary.

        Raises:
            SemipixError: there is no checkpoint, or the data are not those of the run.
        """
        from semipix.launch.auto import resume

        return resume(self.folder, trust=self.trust)


def train(data: str | Path, *overrides: str, **keys: Any) -> Run:
    """Train in a new run folder, as `semipix train` does.

    Args:
        data: a data folder, or the name of a data configuration such as "scenes" or "camvid".
        *overrides: as on the command line: "data.crop=128", "model=smp".
        **keys: keys that belong to no group, and names of groups' options: `method="gct_strong"`, `steps=2000`.

    Returns:
        The run; `run.folder` says where it is.

    Raises:
        SemipixError: the configuration or the data are at fault; nothing is left behind.
    """
    from semipix.launch.auto import check_keys, start
    from semipix.launch.compose import compose, data_overrides
    from semipix.training.configuration import Configuration
    from semipix.training.quiet import quiet

    quiet()
    given = [f"{key}={'null' if value is None else value}" for key, value in keys.items()]
    config = compose([*data_overrides(str(data)), *given, *overrides])
    check_keys(config)
    folder = Path(str(config["run"])).absolute()
    start(Configuration.parse(config), folder)
    return Run(folder, trust=True)  # what it names was named here


def load(folder: str | Path, *, trust: bool = False) -> Run:
    """The run of a folder that a training left behind.

    Raises:
        SemipixError: it is no run folder.
    """
    return Run(folder, trust=trust)
