"""Predictions in memory are those that `semipix predict` writes.

Also tests inference/prediction.py.
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import nn

import semipix
from semipix.data.files.bands import Bands
from semipix.data.files.reader import Reader
from semipix.errors import SemipixError
from semipix.inference.in_memory import MemoryPredictor
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from tests.conftest import Result
from tests.helpers.tiny import ColourModel, make_method, rand

Command = Callable[..., Result]


@pytest.fixture
def predictor(tmp_path: Path) -> MemoryPredictor:
    """A predictor of the classes dark, red and green."""
    return MemoryPredictor(make_method("supervised", lambda number: ColourModel()), tmp_path)


def read(folder: str, path: Path) -> np.ndarray:
    return np.asarray(Image.open(f"out/{folder}/{path.stem}.png"))


def test_each_way_gives_the_pixels_that_the_command_writes(
    finished: Path, shared_photos: Path, command: Command
) -> None:
    assert command("calibrate", finished).code == 0
    folder = shared_photos / "images/val"
    path = folder / "val0.png"
    assert command("predict", finished, path, "--out", "out", "--risk", "0.9").code == 0
    score = Path("out/scores.csv").read_text().splitlines()[1].split(",")
    run = semipix.load(finished, trust=True)
    one = run.predict(path, risk=0.9)
    assert np.array_equal(one.class_map, read("masks", path))
    assert np.array_equal(one.class_map, one.probabilities.argmax(0))
    assert np.array_equal(one.picture, read("pictures", path))
    assert np.array_equal(one.accepted, read("accepted", path) == 255)
    assert np.array_equal((one.error_map * 255).round(), read("errors", path))
    assert one.error_map.dtype == np.float32
    assert [f"{value:.6g}" for value in (one.expected_error, one.expected_quality)] == score[1:3]
    assert (one.name, one.classes) == ("val0.png", ("0", "1"))
    pixels = np.asarray(Image.open(path))
    for image in (str(path), Image.open(path), pixels, torch.from_numpy(pixels.copy()).movedim(-1, 0)):
        other = run.predict(image)
        assert np.array_equal(other.class_map, one.class_map)
        assert np.array_equal(other.error_map, one.error_map)
    of_folder = {each.name: each for each in run.predict([folder])}  # a batch of two, whose sums are rounded otherwise
    assert of_folder.keys() == {"val0.png", "val1.png"}
    assert np.allclose(of_folder["val0.png"].probabilities, one.probabilities, atol=1e-5)


def test_the_network_is_loaded_once_until_its_files_change(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = semipix.load(finished, trust=True)
    first = run._predictor()
    assert run._predictor() is first
    assert run._predictor(checkpoint="last") is not first
    again = run._predictor()
    best = finished / "checkpoints/best.ckpt"
    best.write_bytes(best.read_bytes())
    assert run._predictor() is not again


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Images in shades of red: the name of each is its value."""
    folder = tmp_path / "shades"
    folder.mkdir()
    for value in range(60, 240, 10):
        Image.new("RGB", (16, 16), (value, 0, 0)).save(folder / f"{value}.png")
    return folder


def test_an_image_after_a_dropped_folder_is_its_own(predictor: MemoryPredictor, shades: Path) -> None:
    assert next(predictor.of_files([shades])).name
    for name in ("100.png", "230.png", "60.png"):
        assert predictor.of_file(shades / name).name == name
        assert predictor.of_image(Image.open(shades / name)).name == ""


def test_an_image_within_a_loop_over_a_folder_is_its_own(predictor: MemoryPredictor, shades: Path) -> None:
    names = []
    for each in predictor.of_files([shades]):
        assert predictor.of_file(shades / "100.png").name == "100.png"
        names.append(each.name)
    assert sorted(names) == sorted(path.name for path in shades.iterdir()), "the loop misses and repeats none"


def test_threads_share_a_predictor(predictor: MemoryPredictor, shades: Path) -> None:
    paths = sorted(shades.iterdir()) * 2
    with ThreadPoolExecutor(2) as threads:
        assert [each.name for each in threads.map(predictor.of_file, paths)] == [path.name for path in paths]


def test_an_image_of_pillow_is_turned_and_read_as_its_file(predictor: MemoryPredictor, tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:2, :, 0] = 255  # red at the top of what is stored
    exif = Image.Exif()
    exif[274] = 6  # shown, it is at the right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    of_file = predictor.of_file(tmp_path / "turned.png").class_map
    with Image.open(tmp_path / "turned.png") as image:
        of_image = predictor.of_image(image).class_map
    assert of_file is not None and of_file.shape == (8, 6)
    assert np.array_equal(of_file[:, -2:], np.ones((8, 2)))
    assert np.array_equal(of_file, of_image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "I", "F", "CMYK"])
def test_modes_of_pillow_are_read_as_from_files(mode: str, predictor: MemoryPredictor) -> None:
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.full((4, 5), 65535, np.uint16)).convert(mode)
    elif mode == "F":
        image = Image.fromarray(np.full((4, 5), 1, np.float32))
    else:
        image = Image.new("RGB", (5, 4), "white").convert(mode)
    found = predictor.of_image(image)
    assert found.picture.shape == (4, 5, 3)
    assert found.class_map is not None and (found.class_map == 1).all(), "white is as red as green, and not dark"


@pytest.mark.parametrize(
    ("pixels", "tags", "what"),
    [
        (np.full((4, 5), 4095, np.uint16), {258: 12}, "numbers of 12 bits"),
        (np.full((4, 5), 0, np.uint16), {262: 0}, "0 for white"),
        (np.full((4, 5), -7, np.int32), {}, "signed numbers"),
    ],
)
def test_what_only_a_tiff_says_of_its_numbers_is_not_left_out(
    pixels: np.ndarray, tags: dict[int, int], what: str, predictor: MemoryPredictor, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        assert isinstance(image, TiffImageFile)
        for tag, value in tags.items():
            image.tag_v2[tag] = (value,) if tag == 258 else value
        with pytest.raises(SemipixError, match=rf"a\.tif: Pillow's image of a TIFF with {what} found"):
            predictor.of_image(image)


def test_a_number_for_missing_values_is_said_by_the_file_alone(tmp_path: Path) -> None:
    method, bands = make_method("supervised", lambda number: ColourModel()), Bands.of("all")
    predictor = MemoryPredictor(method, tmp_path, Reader(bands=bands))
    pixels = np.full((4, 5, 3), 255, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={42113: "255"})
    with (
        Image.open(tmp_path / "a.tif") as image,
        pytest.raises(SemipixError, match=r"a\.tif: Pillow's image of a TIFF with a number for missing values found"),
    ):
        predictor.of_image(image)


def test_values_are_missing_where_the_image_has_none(tmp_path: Path) -> None:
    method = make_method("supervised", lambda number: ColourModel())
    predictor = MemoryPredictor(method, tmp_path, Reader(bands=Bands.of("all", [0, 255], [0.5] * 3, [0.2] * 3)))
    pixels = np.full((4, 5, 3), 255, np.float32)
    pixels[:2] = np.nan
    found, missing = predictor.of_image(pixels), np.isnan(pixels[..., 0])
    assert found.probabilities is not None
    assert found.error_map is not None
    assert found.class_map is not None
    assert np.array_equal(np.isnan(found.error_map), missing)
    assert np.array_equal(np.isnan(found.probabilities), np.broadcast_to(missing, (3, 4, 5)))
    assert np.array_equal(found.class_map == 255, missing)


def test_arrays_of_each_type_mean_the_same(predictor: MemoryPredictor) -> None:
    grey = rand(7, 9).mul(255).round().to(torch.uint8).numpy()
    colours = np.stack([grey, 255 - grey, grey // 2], -1)
    wanted = predictor.of_image(colours).probabilities
    assert wanted is not None and wanted.shape == (3, 7, 9)
    for image in (
        colours.astype(np.uint16) * 257,
        (colours.astype(np.uint16) * 257).astype(">u2"),
        (colours / 255).astype(">f4"),
        (colours / 255).astype(np.longdouble),
        (colours / 255).astype(np.float64),
        torch.from_numpy(colours).movedim(-1, 0)[None] / 255,
    ):
        found = predictor.of_image(image).probabilities
        assert found is not None
        assert np.allclose(found, wanted, atol=1e-5)
    assert np.array_equal(predictor.of_image(grey).class_map, predictor.of_image(np.stack([grey] * 3, -1)).class_map)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (7, "the image: int found; a path, Pillow's image, a numpy array or a tensor expected"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\) found, \(H, W, 3\) expected; RGB, not BGR or RGBA"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\) found"),
        (torch.zeros(2, 3, 4, 5), r"shape \(2, 3, 4, 5\) found, \(3, H, W\) expected"),
        (np.zeros((4, 5), np.int64), "torch.int64 found; uint8, uint16 or floats"),
        (np.full((4, 5), "dark"), "<U4 found; uint8, uint16 or floats"),
        (np.full((4, 5), None), "object found; uint8, uint16 or floats"),
        (b"GIF89a", "bytes found; a path, Pillow's image, a numpy array or a tensor expected"),
        (np.full((4, 5), 255.0), "values from 255 to 255 found, floats in .0, 1. expected; divide them"),
        (np.full((4, 5), np.nan), "values from nan to nan found"),
        (Image.new("HSV", (4, 4)), r"mode HSV found, RGB or grey expected; call image\.convert\('RGB'\)"),
    ],
)
def test_what_is_no_image_is_refused(image: object, message: str, predictor: MemoryPredictor) -> None:
    with pytest.raises(SemipixError, match=message):
        predictor.of_image(image)


def test_what_cannot_be_read_is_named_and_the_others_are_predicted(
    predictor: MemoryPredictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (5, 4)).save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"no image")
    assert [each.name for each in predictor.of_files([folder])] == ["good.png"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2][:40] for line in lines][-1] == "1 of 2 images could not be predicted"
    assert sum("bad.png" in line for line in lines) == 1
    with pytest.raises(SemipixError, match=r"bad\.png: not a readable image"):
        predictor.of_file(folder / "bad.png")
    with pytest.raises(SemipixError, match="no such file or folder"):
        predictor.of_file(folder / "nothing.png")


def test_an_image_that_the_network_refuses_is_one_line(tmp_path: Path) -> None:
    class Refusing(ColourModel):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise ValueError("sides of at least 32 expected")

    predictor = MemoryPredictor(make_method("supervised", lambda number: Refusing()), tmp_path)
    with pytest.raises(SemipixError, match=r"the image: this image of 5x4 pixels could not be .*at least 32"):
        predictor.of_image(np.zeros((4, 5, 3), np.uint8))


def test_regression_is_in_the_units_of_the_data(tmp_path: Path) -> None:
    task = Regression(channels=1, low=-10, high=30)
    predictor = MemoryPredictor(make_method("supervised", lambda n: nn.Conv2d(3, 1, 1), task=task), tmp_path)
    found = predictor.of_image(np.zeros((4, 5, 3), np.uint8))
    assert found.class_map is None and found.probabilities is None and found.values is not None
    assert found.array.dtype == np.uint16
    assert np.allclose(found.values[0], found.array / 65535 * 40 - 10, atol=1e-3)
    assert found.expected_error is None and found.error_map is None


def test_an_image_resized_for_the_network_has_a_prediction_of_its_own_size(tmp_path: Path) -> None:
    method = make_method("supervised", lambda number: ColourModel())
    predictor = MemoryPredictor(method, tmp_path, Reader(resize=8))
    buffer = io.BytesIO()
    Image.effect_noise((31, 22), 90).convert("RGB").save(buffer, "PNG")
    (tmp_path / "noise.png").write_bytes(buffer.getvalue())
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        found = predictor.of_image(image)
    assert found.class_map is not None and found.class_map.shape == (22, 31)
    assert np.array_equal(found.class_map, predictor.of_file(tmp_path / "noise.png").class_map)


def test_matting_takes_the_trimap_as_fourth_channel(tmp_path: Path) -> None:
    predictor = MemoryPredictor(make_method("supervised", lambda n: nn.Conv2d(4, 1, 1), task=Matting()), tmp_path)
    image = np.zeros((4, 6, 4), np.float32)
    image[:, 2:4, 3], image[:, 4:, 3] = 0.5, 1
    found = predictor.of_image(image).values
    assert found is not None
    assert (found[0, :, :2] == 0).all() and (found[0, :, 4:] == 1).all()
    with pytest.raises(SemipixError, match="Matting needs a trimap beside the colours; give an array of four channels"):
        predictor.of_image(Image.new("RGB", (6, 4)))
