"""The pipeline gives the same results as reading, computing and writing one after the other.

Also tests inference/predictor.py.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semipix.errors import SemipixError
from semipix.functional.grouping import batch_pixels
from semipix.inference import pipeline
from semipix.inference.pipeline import READ_AHEAD_IMAGES, MemoryBudget, predict_files, predict_frames
from semipix.inference.predictor import Photo, Predictor, _threshold
from semipix.inference.scores import Score
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from tests.helpers.calibrations import make_calibration
from tests.helpers.tiny import make_method

SECONDS = 60
"""Longest wait for another thread."""


class Watched(Predictor):
    """A predictor of images that are not read: a name is WIDTHxNUMBER. It remembers what it computes and writes."""

    def __init__(self, out: Path) -> None:
        super().__init__(make_method("supervised"), out)
        self.batches: list[tuple[int, int]] = []
        self.written: list[str] = []

    def read(self, file: Path, name: Path) -> Photo:
        if "broken" in name.name:
            raise SemipixError(f"{file}: broken")
        image = torch.rand(3, 64, int(name.name.split("x")[0]))
        return Photo(file, name, image, image)

    def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        self.batches.append((len(seen), seen.shape[-1]))
        return super().compute(seen)

    def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> None:
        self.written.append(photo.name.name)


def pairs(names: Sequence[str]) -> list[tuple[Path, Path]]:
    return [(Path("photos") / name, Path(name)) for name in names]


def test_images_of_one_size_share_batches_within_the_budget(tmp_path: Path) -> None:
    predictor = Watched(tmp_path)
    names = [f"{width}x{number}" for number in range(60) for width in ((64, 96) if number % 20 else (64, 96, 200))]
    assert list(predict_files(predictor, pairs([*names, "broken"]))).count(None) == len(names)
    assert sorted(predictor.written) == sorted(names)
    budget = batch_pixels(predictor.device.type)
    assert all(count * 64 * width <= budget for count, width in predictor.batches)
    assert max(count for count, width in predictor.batches if width == 64) == budget // 64**2
    assert len(predictor.batches) <= 60 // (budget // 64**2) + 60 // (budget // (64 * 96)) + 3 + 2


def test_reading_goes_on_while_the_network_computes(tmp_path: Path) -> None:
    read_on = Event()

    class Slow(Watched):
        def read(self, file: Path, name: Path) -> Photo:
            if name.name.endswith("x3"):
                read_on.set()
            return super().read(file, name)

        def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
            assert read_on.wait(SECONDS), "the fourth image is read while the first is computed"
            return super().compute(seen)

    wide = batch_pixels("cuda" if torch.cuda.is_available() else "cpu") // 64
    assert list(predict_files(Slow(tmp_path), pairs([f"{wide}x{number}" for number in range(4)]))) == [None] * 4


def test_the_network_computes_while_results_are_written(tmp_path: Path) -> None:
    computed = Event()

    class Slow(Watched):
        def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
            if self.batches:
                computed.set()
            return super().compute(seen)

        def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> None:
            assert computed.wait(SECONDS), "the first image is written while the second is computed"

    wide = batch_pixels("cuda" if torch.cuda.is_available() else "cpu") // 64
    assert list(predict_files(Slow(tmp_path), pairs([f"{wide}x{number}" for number in range(2)]))) == [None] * 2


def test_few_images_wait_in_memory(tmp_path: Path) -> None:
    asked: list[int] = []

    def endless() -> object:
        for number in range(10**6):
            asked.append(number)
            yield Path("photos") / f"64x{number}", Path(f"64x{number}")

    predictor = Watched(tmp_path)
    ended = predict_files(predictor, endless())  # type: ignore[arg-type]
    for _ in range(100):
        assert next(ended) is None
    ended.close()  # type: ignore[attr-defined]
    assert len(asked) < 100 + 3 * READ_AHEAD_IMAGES.stop


def test_images_read_ahead_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = batch_pixels("cuda" if torch.cuda.is_available() else "cpu") // 64
    limit = 3 * (3 * 64 * wide * 4)
    monkeypatch.setattr(pipeline, "READ_AHEAD_BYTES", limit)
    ahead: list[int] = []

    class Counting(Watched):
        read_bytes = taken_bytes = 0

        def bytes_of(self, file: Path) -> int:
            return 3 * 64 * 4 * int(file.name.split("x")[0])

        def read(self, file: Path, name: Path) -> Photo:
            self.read_bytes += self.bytes_of(file)
            return super().read(file, name)

        def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
            self.taken_bytes += 4 * seen.numel()
            before = -1
            while before != self.read_bytes:  # until the readers wait
                before = self.read_bytes
                time.sleep(0.05)
            ahead.append(self.read_bytes - self.taken_bytes)
            return super().compute(seen)

    names = [f"64x{number}" for number in range(64)] + [f"{wide}x{number}" for number in range(12)]
    assert list(predict_files(Counting(tmp_path), pairs(names))) == [None] * len(names)
    waiting = 4 * 64 * 64 * 3 * 64  # images that wait for their group are not ahead any more
    assert max(ahead) > 2 * limit / 3 - waiting, "the budget is used"
    assert max(ahead) <= limit + waiting


def test_a_memory_budget_admits_images_in_order_and_a_single_large_one() -> None:
    budget = MemoryBudget(10)
    budget.enter(0, 50)
    waits = Thread(target=budget.enter, args=(1, 4))
    waits.start()
    waits.join(0.05)
    assert waits.is_alive()
    assert budget.used == 50
    budget.change(-50)
    waits.join(SECONDS)
    assert budget.used == 4
    waits = Thread(target=budget.enter, args=(3, 1))  # there is enough memory, but it is not its turn
    waits.start()
    waits.join(0.05)
    assert waits.is_alive()
    budget.close()
    waits.join(SECONDS)
    assert not waits.is_alive()


def test_large_photos_behind_a_small_resize_wait_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large(Watched):
        def read(self, file: Path, name: Path) -> Photo:
            photo = super().read(file, name)
            return photo._replace(image=torch.zeros(3, 640, 640, dtype=torch.uint8))

    predictor = Large(tmp_path)
    one = predictor.read(Path("64x0"), Path("64x0")).nbytes
    assert one == 3 * 640 * 640 + 3 * 64 * 64 * 4
    monkeypatch.setattr(pipeline, "WAITING_BYTES", 2 * one)
    assert list(predict_files(predictor, pairs([f"64x{number}" for number in range(9)]))) == [None] * 9
    assert {count for count, _ in predictor.batches} == {3}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")]
)
def test_memory_that_ends_costs_one_image(tmp_path: Path, error: Exception) -> None:
    class Short(Watched):
        def read(self, file: Path, name: Path) -> Photo:
            if name.name.endswith("x1"):
                raise error
            return super().read(file, name)

        def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
            if seen.shape[-1] == 96:
                raise error
            return super().compute(seen)

        def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> None:
            if photo.name.name == "64x3":
                raise error
            super().write(photo, output, scores)

    predictor = Short(tmp_path)
    ended = list(predict_files(predictor, pairs(["64x0", "64x1", "96x2", "64x3", "64x4"])))
    assert sorted(predictor.written) == ["64x0", "64x4"]
    advice = "shrink it, predict by a run with a smaller data.resize, or use a machine with more memory"
    assert sorted(line for line in ended if line) == [
        f"photos/64x1: out of memory while this image was read; {advice}",
        f"photos/64x3: out of memory for this image of 64x64 pixels; {advice}",
        f"photos/96x2: out of memory for this image of 96x64 pixels; {advice}",
    ]


def test_a_batch_that_fails_costs_only_the_images_at_fault(tmp_path: Path) -> None:
    class Refusing(Watched):
        def compute(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
            if len(seen) > 1:
                raise RuntimeError("CUDA out of memory")
            return super().compute(seen)

        def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> None:
            if photo.name.name == "64x1":
                raise ValueError("this one")
            super().write(photo, output, scores)

    predictor = Refusing(tmp_path)
    ended = list(predict_files(predictor, pairs(["64x0", "64x1", "64x2"])))
    assert sorted(predictor.written) == ["64x0", "64x2"]
    assert [line for line in ended if line] == [
        "photos/64x1: this image of 64x64 pixels could not be predicted: this one"
    ]


def test_a_full_disk_ends_the_prediction(tmp_path: Path) -> None:
    class Full(Watched):
        def write(self, photo: Photo, output: Tensor, scores: Tensor | None) -> None:
            raise OSError(28, "No space left on device", "masks/a.png")

    with pytest.raises(OSError, match="No space left"):
        list(predict_files(Full(tmp_path), pairs(["64x0", "64x1"])))


def test_a_batch_gives_the_masks_of_single_images(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    method = make_method("gct")
    together, alone = (Predictor(method, tmp_path / out) for out in ("together", "alone"))
    files = [(tmp_path / name, Path(name)) for name in names]
    assert sorted(predict_files(together, files)) == [Score(name, None, None) for name in names]
    for pair in files:
        assert list(predict_files(alone, [pair])) == [Score(pair[1].name, None, None)]
    for kind in ("masks", "errors", "pictures"):
        for name in names:
            first, second = (np.asarray(Image.open(tmp_path / out / kind / name)) for out in ("together", "alone"))
            assert np.abs(first.astype(int) - second).max() <= (1 if kind == "errors" else 0)
    assert len(np.unique(first)) > 3, "pictures that differ within"


def test_what_is_not_whole_is_not_done(tmp_path: Path) -> None:
    predictor = Predictor(make_method("supervised"), tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png.partial").touch()
    assert not predictor.is_done(Path("a.jpg"))
    (tmp_path / "masks/a.png").touch()
    assert predictor.is_done(Path("a.jpg"))


def test_a_risk_names_labels_that_are_out_of_range(tmp_path: Path) -> None:
    """Of few images nothing can be promised, and of these labels it counts errors up to the range."""
    task = Regression(low=-10, high=30)
    calibration = make_calibration(make_method("supervised", task=task), outside=7)
    _, lines = _threshold(tmp_path, "best", "", task, calibration, 20.0)
    (line,) = [line for line in lines if "labels" in line]
    assert line == (
        "--risk: 7 of 300 labels that the map was fitted on are outside of the range; an error of more than 40, the "
        "whole range, counts as 40"
    )


@pytest.mark.parametrize(
    ("risk", "line"),
    [
        (0.05, "no pixel is accepted, since no part of the error map had a risk below 0.05 on the 3 validation images"),
        (
            0.2,
            "0.2 cannot be guaranteed by 3 validation images, 8 images with as few errors are needed; the pixels",
        ),
    ],
)
def test_a_risk_says_why_it_is_not_guaranteed(risk: float, line: str, tmp_path: Path) -> None:
    calibration = make_calibration(make_method("supervised"), losses=[[0.1, 0.1, 0.2]] * 3)
    _, lines = _threshold(tmp_path, "best", "", Segmentation(2), calibration, risk)
    assert [each[: len(line) + 8] for each in lines] == [f"--risk: {line}"]
    assert _threshold(tmp_path, "best", "", Segmentation(2), calibration, 0.5) == (1.0, [])


def test_few_frames_of_a_video_are_decoded_ahead(tmp_path: Path) -> None:
    """Memory does not grow with the length of a video, however slow the network is."""
    predictor, decoded = Watched(tmp_path), 0
    image = torch.rand(3, 64, 64)

    def frames() -> Iterator[Photo | str]:
        nonlocal decoded
        for decoded in range(1, 1001):
            yield Photo(Path("a.mp4"), Path(f"{decoded:06d}.png"), image, image)

    ended = predict_frames(predictor, frames())
    for _ in range(3):
        next(ended)
    time.sleep(0.2)  # the decoder has nothing to do, or would go on
    batch = batch_pixels(predictor.device.type) // 64**2
    assert decoded <= 3 * batch + READ_AHEAD_IMAGES.stop
    ended.close()
    assert predictor.written == [f"{number:06d}.png" for number in range(1, len(predictor.written) + 1)]
    assert decoded < 1000
