"""Images of any bands, by the real commands: trained, measured, predicted, checked and picked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import semipix
from tests.conftest import Result
from tests.helpers.rasters import CRS, reflectances, write_folder, write_raster

rasterio = pytest.importorskip("rasterio")

Command = Callable[..., Result]

KEYS = ("data.bands=all", "data.range=[0,3000]")

TRAIN = (
    *("train", "data=folder", "data.workers=0", "data.crop=32", "data.batch_size=4", "run=run", "steps=2"),
    *("calibrate=false", "trainer.accelerator=cpu"),
)

TINY = "model._target_=tests.helpers.tiny.TinyModel"


class LastBand(nn.Module):
    """Knows the classes: class 1 where the last band is bright."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        assert (in_channels, channels) == (5, 2)
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image: Tensor) -> Tensor:
        assert bool(image.isfinite().all())
        return torch.cat([torch.full_like(image[:, :1], 0.5), image[:, 4:]], 1) * self.scale


KNOWN = (*TRAIN, "method=supervised", "steps=1", "optimizer.lr=0", f"model._target_={__name__}.LastBand")


def test_bands_are_trained_measured_and_predicted_in_place(command: Command, tmp_path: Path) -> None:
    """A model that reads the last band is right everywhere but where there is no data; there the mask says so."""
    root = write_folder(tmp_path / "data", nodata=-9999)
    trained = command(*KNOWN, f"data.root={root}", *KEYS)
    assert trained.code == 0
    assert "1 held out for validation; 5 bands\n" in trained.out  # this model takes them as they are
    config = yaml.safe_load(Path("run/config.yaml").read_text())["data"]
    assert config["bands"] == "all"
    assert [len(config[key]) for key in ("mean", "std")] == [5, 5]
    assert config["mean"][0] == pytest.approx(0.5, abs=0.02)  # and without the nodata of -9999
    assert command("evaluate", "run").code == 0
    assert json.loads(Path("run/evaluation-test.json").read_text())["miou"] == 1

    unplaced = write_raster(tmp_path / "more/unplaced.tif", reflectances(9)[0], placed=False)
    images = root / "images/test"
    for folder in ("masks", "errors"):  # of an earlier call, when the image had no georeference
        Path("out", folder).mkdir(parents=True)
        Image.new("L", (40, 40)).save(f"out/{folder}/7.png")
    result = command("predict", "run", images, unplaced, "--out", "out")
    assert sorted(path.name for path in Path("out").glob("[me]*/7.*")) == ["7.tif", "7.tif"]
    assert result.code == 0
    assert "semipix: 1 of 2 images (" in result.err
    assert "unplaced.tif) have no georeference, so that their maps are PNG files" in result.err
    _, mask = reflectances(7)
    mask[:8, :8] = 255
    with rasterio.open(images / "7.tif") as image, rasterio.open("out/masks/7.tif") as written:
        assert (written.transform, written.shape) == (image.transform, image.shape)
        assert written.crs == CRS
        assert (written.count, written.nodata, written.dtypes) == (1, 255, ("uint8",))
        assert np.array_equal(written.read(1), mask)
    with rasterio.open("out/errors/7.tif") as errors:
        assert errors.nodata == 255
        assert np.array_equal(errors.read(1) == 255, mask == 255)
    assert np.array_equal(np.asarray(Image.open("out/masks/unplaced.png")), reflectances(9)[1])
    run = semipix.load("run", trust=True)
    with rasterio.open(images / "7.tif") as image:
        values = image.read(masked=True).filled(np.nan)  # an array has no nodata; a missing value is NaN
    for array in (np.moveaxis(values, 0, -1), np.moveaxis(values, 0, -1).astype(">f4"), torch.from_numpy(values)):
        assert np.array_equal(run.predict(array).class_map, mask)
    assert np.array_equal(run.predict(images / "7.tif").class_map, mask)
    assert np.asarray(Image.open("out/pictures/7.png")).shape == (40, 40, 3)

    again = command("predict", "run", images, "--out", "out", "--skip-existing", "--write", "coco")
    assert again.code == 0
    annotated = json.loads(Path("out/annotations/coco.json").read_text())["annotations"]
    assert sum(each["area"] for each in annotated) == np.count_nonzero(mask != 255)

    write_raster(tmp_path / "other/six.tif", np.zeros((6, 40, 40), np.float32))
    refused = command("predict", "run", tmp_path / "other", "--out", "out2")
    assert refused.code != 0
    assert "six.tif: holds 6 bands; expected 5, as the first training images have" in refused.err


@pytest.mark.parametrize(
    ("method", "model"),
    [
        (("method=gct",), (TINY,)),
        (("method=gct_strong",), (TINY,)),
        (("method=fixmatch", "data.strong_drop=0.5", "data.strong_mask=0.2"), ("model.encoder=resnet18",)),
    ],
)
def test_methods_train_on_bands(
    command: Command, tmp_path: Path, method: tuple[str, ...], model: tuple[str, ...]
) -> None:
    """The flaw detectors and the strong views take as many bands as the task models; one kind of image in a run."""
    root = write_folder(tmp_path / "data", nodata=float("nan"))
    model = (*model, "model.pretrained=false") if TINY not in model else model
    result = command(*TRAIN, f"data.root={root}", "data.bands=[0,4,2,1]", "data.range=[0,3000]", *method, *model)
    assert result.code == 0, result.err
    weights = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    first = [value.shape[1] for key, value in weights.items() if value.ndim == 4 and ("first" in key or "conv1" in key)]
    assert 4 in first
    means = [value.flatten().tolist() for key, value in weights.items() if key.endswith("normalize.mean")]
    expected = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["mean"]
    assert all(mean == pytest.approx(expected) for mean in means)
    assert means or model == (TINY,)
    assert bool(means) == ("; 4 bands, normalised by their statistics\n" in result.out)


def test_check_and_train_say_the_same(command: Command, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", nodata=-9999)
    found = command("data", "check", root, *KEYS)
    assert found.code == 0, found.out
    assert "5 float32; their numbers in 8 images:" in found.out
    line = next(line for line in found.out.splitlines() if line.startswith("      4"))
    assert line.split() == ["4", "500", "to", "2500", "4.0%", "nodata", "0.0%", "outside", "of", "data.range"]
    narrow = command("data", "check", root, "data.bands=[4]", "data.range=[0,1000]").out
    assert "of the numbers of band 4 are outside of data.range" in narrow

    def refused(words: str, *keys: str) -> None:
        checked = command("data", "check", root, *keys)
        assert checked.code == 2
        error = command(*KNOWN, TINY, f"data.root={root}", *keys).error
        assert words in error
        error = error.removeprefix("semipix: error: ").removesuffix(", or set data.on_error=skip to train without it")
        assert error in checked.out + checked.err
        assert not Path("run").exists()

    refused("holds 5 bands (5x32-bit float samples); expected 1 or 3, set data.bands=all")
    refused("found float32 numbers from ", "data.bands=all")
    refused("expected band 7 of data.bands=[7]", "data.bands=[7]", "data.range=[0,3000]")
    refused("data.mean=[0.5]: found it without data.bands or data.range", "data.mean=[0.5]", "data.std=[0.5]")

    write_raster(root / "images/train/4.tif", reflectances(4, bands=3)[0])
    checked = command("data", "check", root, *KEYS).out
    assert "7 images have 5 bands, 1 others (4.tif has 3); expected equally many" in checked
    assert "holds 3 bands" in command(*KNOWN, f"data.root={root}", *KEYS).error


def test_parts_give_the_masks_of_whole_images(command: Command, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", nodata=-9999)
    assert command(*TRAIN, TINY, "method=supervised", f"data.root={root}", *KEYS).code == 0
    large = write_raster(tmp_path / "large.tif", np.tile(reflectances(3)[0], (1, 12, 3)), nodata=500)
    for out, more in (("whole", ()), ("parts", ("--tile", "96"))):
        assert command("predict", "run", large, "--out", out, *more).code == 0
    with rasterio.open("whole/masks/large.tif") as whole, rasterio.open("parts/masks/large.tif") as parts:
        assert whole.shape == (480, 120)
        assert 0 < (whole.read(1) == 255).mean() < 1
        assert np.array_equal(whole.read(), parts.read())


def test_maps_of_numbers_from_bands(command: Command, tmp_path: Path) -> None:
    """Regression: a map has 65535 where the image has no data, and nowhere else."""
    root, gone = tmp_path / "data", np.zeros((40, 40), bool)
    gone[:8, :8] = True
    for number, split in enumerate(("train", "train", "val", "test")):
        values, mask = reflectances(number)
        values[:, gone] = np.nan
        write_raster(root / f"inputs/{split}/{number}.tif", values)
        (root / f"targets/{split}").mkdir(parents=True, exist_ok=True)
        np.save(root / f"targets/{split}/{number}.npy", np.where(gone, np.inf, mask).astype(np.float32))
    train = [each for each in TRAIN if each != "data=folder"]
    given = ("data=pairs", "task=regression", "method=supervised", TINY, f"data.root={root}", *KEYS)
    assert command("data", "check", root, *KEYS, "--kind", "regression").code == 0
    assert command(*train, *given).code == 0
    assert command("evaluate", "run").code == 0
    assert command("predict", "run", root / "inputs/test", "--out", "out").code == 0
    with rasterio.open("out/predictions/3.tif") as written:
        assert (written.crs, written.nodata) == (CRS, 65535)
        assert np.array_equal(written.read(1) == 65535, gone)
    refused = command(*train, *given, "data.kind=denoising", "run=other").error
    assert "data.bands: found it with data.kind=denoising, whose images are colours" in refused


def test_orthophotos_need_no_keys(
    command: Command, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of colours predicts GeoTIFF files in place, too; without rasterio a line says what is lost."""
    values = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    write_raster(tmp_path / "photos/a.tif", values)
    Image.fromarray(values.transpose(1, 2, 0)).save(tmp_path / "photos/b.png")
    result = command("predict", finished, tmp_path / "photos", "--out", "out")
    assert result.code == 0
    assert "georeference" not in result.err
    with rasterio.open("out/masks/a.tif") as written:
        assert written.crs == CRS
        assert np.array_equal(written.read(1), np.asarray(Image.open("out/masks/b.png")))
    for module in ("semipix.inference.predict", "semipix.data.files.rasters"):
        monkeypatch.setattr(f"{module}.has_rasterio", lambda: False)
    result = command("predict", finished, tmp_path / "photos", "--out", "without")
    assert result.code == 0
    assert "a.tif) have a georeference, which is lost in the PNG files of their maps, since rasterio is" in result.err
    assert Path("without/masks/a.png").read_bytes() == Path("without/masks/b.png").read_bytes()


def test_the_commands_of_the_page(command: Command, tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    page = (Path(__file__).parents[1] / "docs/rasters.md").read_text()
    script = page.partition("```bash\n")[2].partition("```")[0].splitlines()
    short = [*TRAIN[2:5], *TRAIN[6:], TINY]
    for line in script:
        program, *arguments = line.split()
        assert program == "semipix"
        assert command(*arguments, *(short if arguments[0] == "train" else ())).code == 0, line
    with rasterio.open("out/masks/7.tif") as written:
        assert written.crs == CRS


def test_pick_sees_three_bands(command: Command, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    found = command("data", "pick", root, *KEYS, "-n", "1", "--write", "names.txt")
    assert found.code == 0, found.err
    assert found.out.strip() in {"images/train/4.tif", "images/train/5.tif"}
    assert Path("names-sheet.jpg").is_file()


def test_arrays_of_bands(command: Command, tmp_path: Path) -> None:
    """An array is (H, W, C), and needs no rasterio."""
    root = write_folder(tmp_path / "data")
    for path in sorted((root / "images").rglob("*.tif")):
        with rasterio.open(path) as dataset:
            np.save(path.with_suffix(".npy"), dataset.read().transpose(1, 2, 0))
        path.unlink()
    assert command(*KNOWN, f"data.root={root}", *KEYS).code == 0
    assert command("predict", "run", root / "images/test", "--out", "out").code == 0
    assert np.array_equal(np.asarray(Image.open("out/masks/7.png")), reflectances(7)[1])
