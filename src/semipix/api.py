"""Python API: the commands as functions, by the same configuration and the same files.

`semipix.train`, `semipix.load` and `semipix.Run` are these; they are imported when they are used.

    >>> import semipix
    >>> run = semipix.train("scenes", *SMALL, method="supervised", steps=2)
    >>> prediction = run.predict("photo.png")
    >>> prediction.class_map.shape, prediction.probabilities.shape
    ((50, 70), (6, 50, 70))
    >>> run.predict("photo.png", out="predicted")  # the files that the command writes; lists what failed
    []
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from semipix.errors import SemipixError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from semipix.inference.in_memory import MemoryPredictor
    from semipix.inference.prediction import Prediction


class Run:
    """A run folder, or a published model.

    Args:
        folder: what a training left behind, or what `save_pretrained` wrote.
        trust: run code that the folder names outside of the known packages, as `--trust` does.

    Attributes:
        folder: the folder.
        trust: whether it is trusted.

    Raises:
        SemipixError: it is no run folder.
    """

    def __init__(self, folder: str | Path, *, trust: bool = False) -> None:
        from semipix.training.run_folder import load_config

        self.folder = Path(folder)
        self.trust = trust
        self._loaded: tuple[Any, MemoryPredictor] | None = None
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

    @overload
    def predict(self, images: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> list[str]: ...

    @overload
    def predict(self, images: "Image.Image | NDArray[np.generic] | Tensor", **options: Any) -> "Prediction": ...

    @overload
    def predict(self, images: str | Path, **options: Any) -> Any: ...

    @overload
    def predict(self, images: Sequence[str | Path], **options: Any) -> "Iterator[Prediction]": ...

    def predict(self, images: Any, out: str | Path | None = None, **options: Any) -> Any:
        """Predict images: to arrays or, with `out`, to files as `semipix predict` does.

        The network is loaded at the first call and kept. Arrays hold exactly what the command writes for the same
        images, before it is rounded to the numbers of a file.

        Args:
            images: an image file; a folder, which is searched with its subfolders, or a list of files and folders; an
                image of Pillow; a numpy array (H, W) or (H, W, 3); or a tensor (3, H, W) or (1, 3, H, W). Arrays and
                tensors are RGB: uint8, uint16, or floats in [0, 1]. For matting they have the trimap as fourth channel.
            out: a folder that gets `masks` or `predictions`, `pictures`, `errors`, `scores.csv` and, with a risk,
                `accepted`; only for files and folders.
            **options: `checkpoint`, `trimaps`, `max_pixels`, `risk`, `tiling`, `tta` and `deploy` of
                `semipix.inference.predict.predict`; with `out` also `skip_existing`, `write` and `uncertain`.

        Returns:
            A `Prediction` of one file or image. Of a folder or a list, an iterator of predictions, whose `name` says of
            which file they are; images are read and computed while earlier ones are used, and files that cannot be read
            are named on stderr. With `out`, a list with one line for each image that could not be predicted.

        Raises:
            SemipixError: there is no image, it cannot be read or has other channels, values or types, images that are
                no files are given in a list or with `out`, or a result would overwrite an input.
        """
        paths = _paths(images)
        if options.get("trimaps") is not None:
            options["trimaps"] = Path(options["trimaps"])
        if out is not None:
            from semipix.inference.predict import predict

            if paths is None:
                raise SemipixError(
                    f"out: {out} found with an image of type {type(images).__name__}, and results are named like "
                    "files; give files and folders, or leave it out"
                )
            return predict(self.folder, paths, Path(out), trust=self.trust, **options)
        predictor = self._predictor(**options)
        if paths is None:
            return predictor.of_image(images)
        one = isinstance(images, str | Path) and not paths[0].is_dir()
        return predictor.of_file(paths[0]) if one else predictor.of_files(paths)

    def _predictor(self, **options: Any) -> "MemoryPredictor":
        """The predictor for options of `load_predictor`; it is kept until weights, calibration or options change."""
        from semipix.inference.in_memory import MemoryPredictor
        from semipix.inference.predictor import load_predictor
        from semipix.training.calibration import CALIBRATION
        from semipix.training.quiet import quiet
        from semipix.training.run_folder import checkpoint_of

        quiet()
        files = checkpoint_of(self.folder, options.get("checkpoint")), self.folder / CALIBRATION
        key = options, [(file, file.stat().st_mtime_ns) for file in files if file.exists()]
        if self._loaded is None or self._loaded[0] != key:
            predictor = load_predictor(self.folder, Path(), trust=self.trust, kind=MemoryPredictor, **options)
            assert isinstance(predictor, MemoryPredictor)
            self._loaded = key, predictor
            for line in predictor.remarks:
                print(f"semipix: {one_line(line)}", file=sys.stderr)
        return self._loaded[1]

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

    def export(self, out: str | Path, format: str | None = None, **options: Any) -> list[str]:
        """Write the deployed network into one file, as `semipix export` does.

        Args:
            out: the file.
            format: `onnx`, `torch-export` or `safetensors`; by default the one of the file's ending.
            **options: of `semipix.inference.export.export`: `with_error_map`, `int8`, `checkpoint`,
                `deploy`, `root`.

        Returns:
            Lines that say what was written and how it compares with the run.

        Raises:
            SemipixError: a package is missing, the network cannot be exported, or the result differs from it.
        """
        from semipix.inference.export import export

        return export(self.folder, Path(out), format, trust=self.trust, **options)

    def save_pretrained(self, folder: str | Path, *, checkpoint: str | None = None, repository: str = "") -> Path:
        """Write weights, configuration, calibration and model card into a folder that can be shared.

        It names no folder, file or command of this machine, unless options of task, method or model do. `semipix.load`,
        `semipix predict` and `semipix export` take it as they take a run folder.

        Args:
            folder: new, empty, or an earlier published model, whose files are replaced. An existing model card is too.
            checkpoint: `best` or `last`; by default best where validation chose one.
            repository: the model's name in the model card; by default the folder's.

        Returns:
            The folder.

        Raises:
            SemipixError: there is no checkpoint, or the folder holds other files.
        """
        from semipix.hub import save_run

        folder = Path(folder)
        save_run(self.folder, folder, self.trust, checkpoint, repository or folder.absolute().name)
        return folder

    @classmethod
    def from_pretrained(cls, name: str | Path, *, trust: bool = False, **options: Any) -> "Run":
        """The run of a folder, or of a model of the Hugging Face hub.

        Args:
            name: a folder, or `owner/name` of a model.
            trust: run code that the folder names outside of the known packages.
            **options: for models of the hub: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            SemipixError: there is neither, or it is no run folder and no published model.
        """
        if Path(name).exists():
            return cls(name, trust=trust)
        from semipix.hub import REPOSITORY, fetched

        if not REPOSITORY.fullmatch(str(name)):
            return cls(name, trust=trust)  # raises the error about the folder
        return cls(fetched(str(name), **options), trust=trust)

    def push_to_hub(self, name: str, *, checkpoint: str | None = None, **options: Any) -> str:
        """Upload the run as a model of the Hugging Face hub, with what `save_pretrained` writes.

        Args:
            name: `owner/name` of the model.
            checkpoint: `best` or `last`; by default best where validation chose one.
            **options: `private`, `token`, `branch`, `commit_message`, `create_pr`.

        Returns:
            The address of the commit.

        Raises:
            SemipixError: there is no checkpoint, or the hub refuses the upload.
        """
        from semipix.hub import push_run

        return push_run(self.folder, name, self.trust, checkpoint, **options)


def _paths(images: Any) -> list[Path] | None:
    """The files and folders that are named by one or by a list of them; None if it is an image.

    Raises:
        SemipixError: a list is empty or holds something else.
    """
    if isinstance(images, str | Path):
        return [Path(images)]
    if not isinstance(images, Sequence) or isinstance(images, bytes | bytearray | memoryview):
        return None
    others = [type(each).__name__ for each in images if not isinstance(each, str | Path)]
    if others or not images:
        found = f"{others[0]} found in a list" if others else "an empty list found"
        raise SemipixError(f"images: {found}, files and folders expected; predict arrays and images one at a time")
    return [Path(path) for path in images]


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
    from semipix.launch.overrides import quoted
    from semipix.training.configuration import Configuration
    from semipix.training.quiet import quiet

    quiet()
    if "run" in keys:
        keys["run"] = quoted(keys["run"])
    given = [f"{key}={'null' if value is None else value}" for key, value in keys.items()]
    config = compose([*data_overrides(str(data)), *given, *overrides])
    check_keys(config)
    folder = Path(str(config["run"])).absolute()
    start(Configuration.parse(config), folder)
    return Run(folder, trust=True)  # what it names was named here


def load(folder: str | Path, *, trust: bool = False, **options: Any) -> Run:
    """The run of a folder that a training left behind, or a published model.

    Args:
        folder: a run folder, a folder that `Run.save_pretrained` wrote, or `owner/name` of a model of the hub.
        trust: run code that the folder names outside of the known packages, as `--trust` does.
        **options: for models of the hub: `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        SemipixError: it is none of them.
    """
    return Run.from_pretrained(folder, trust=trust, **options)
