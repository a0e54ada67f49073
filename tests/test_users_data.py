"""Data as users bring them, by the real commands: what is right is measured, the rest is refused or counted.

The model knows the classes by their colours, so that every figure is known beforehand.
"""

import json
import os
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Result

Command = Callable[..., Result]
Mask = NDArray[np.uint8]

COLOURS = np.array([[10, 10, 10], [240, 10, 10], [10, 240, 10], [10, 10, 240]], np.uint8)
STORED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""How an upright image is stored under an orientation tag."""

NO_TEXT = os.fsdecode(b"caf\xe9.png")
"""A name in Latin-1, where names are UTF-8."""

KNOWN = (
    *("data=folder", "data.workers=0", "data.crop=32", "data.batch_size=2", "method=supervised", "run=run"),
    *("model._target_=tests.helpers.tiny.ColourModel", "optimizer.lr=0", "steps=1", "trainer.accelerator=cpu"),
)


def regions(height: int = 64, width: int = 96) -> Mask:
    """A mask of four classes, without any symmetry."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 3, : width // 3] = 1
    mask[height // 2 :, width // 2 :] = 2
    mask[height // 8 : height // 3, 2 * width // 3 :] = 3
    return mask


def photograph(mask: Mask) -> Image.Image:
    return Image.fromarray(COLOURS[mask])


def path_of(root: Path, kind: str, split: str, name: str) -> Path:
    path = root / kind / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(
    root: Path,
    mask: Mask,
    stored: Callable[[Mask], Mask] = lambda mask: mask,
    image: str = "png",
    label: str = "png",
    splits: Sequence[str] = ("train", "train", "val", "test"),
    **options: Any,
) -> None:
    """Write one image and mask for each split that is named, the mask's values as they are to be stored."""
    for index, split in enumerate(splits):
        photograph(mask).save(path_of(root, "images", split, f"{index}.{image}"), **options)
        Image.fromarray(stored(mask)).save(path_of(root, "masks", split, f"{index}.{label}"))


def tag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def problems(printed: str) -> list[str]:
    """The problems that `semipix data check` lists."""
    lines = printed.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("  problems"))
    return [line.strip() for line in lines[start + 1 :]]


def train_known(command: Command, root: Path, *more: str) -> Result:
    return command("train", *KNOWN, f"data.root={root}", *more)


def measured(command: Command, split: str = "test") -> dict[str, float]:
    """The metrics of a run, without the figures of its error maps and its confusion matrix."""
    assert command("evaluate", "run", "--split", split).code == 0
    figures = json.loads(Path(f"run/evaluation-{split}.json").read_text())
    return {name: value for name, value in figures.items() if not name.startswith(("errors/", "confusion"))}


def miou_of_files(root: Path, out: Path, split: str = "test") -> float:
    """Mean intersection over union of predicted masks, by plain numpy, over the classes that occur."""
    matrix = np.zeros((256, 256), np.int64)
    for predicted in sorted((out / "masks").glob("*.png")):
        label = next((root / "masks" / split).glob(f"{predicted.stem}.*"))
        pairs = np.asarray(Image.open(label)).astype(int) * 256 + np.asarray(Image.open(predicted))
        matrix += np.bincount(pairs.ravel(), minlength=2**16).reshape(256, 256)
    both = np.diag(matrix)
    either = matrix.sum(0) + matrix.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


def assert_refused_alike(command: Command, root: Path, words: str, *keys: str) -> None:
    """What the check refuses, training refuses in the same line, and writes nothing."""
    found = command("data", "check", root, *keys)
    assert found.code == 2
    printed = train_known(command, root, *keys).error
    assert words in printed
    assert printed.removeprefix("semipix: error: ") in problems(found.out)
    assert not Path("run").exists()


class TestOrientation:
    """Tags are applied once, whatever the format."""

    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    def test_turned_tiffs(self, command: Command, tmp_path: Path, compression: str | None) -> None:
        root, mask = tmp_path / "data", regions()
        for index, (split, orientation) in enumerate(zip(("train", "train", "val", "test"), STORED, strict=True)):
            for number in range(2):
                name = f"{index}{number}"
                turn = STORED[orientation]
                stored = photograph(mask) if turn is None else photograph(mask).transpose(turn)
                path = path_of(root, "images", split, f"{name}.tif")
                stored.save(path, tiffinfo={274: orientation}, compression=compression)
                Image.fromarray(mask).save(path_of(root, "masks", split, f"{name}.png"))
        shutil.copytree(root / "images/test", root / "unlabeled")
        checked = command("data", "check", root)
        assert checked.code == 0
        assert "image 10.tif has one (orientation 3)" in checked.out, "it may be meant either way"
        assert "and 1 more such masks" in checked.out, "the size says that masks of photos on their side are upright"
        for more in ((), ("data.resize=72",)):
            shutil.rmtree("run", ignore_errors=True)
            assert train_known(command, root, "method=mean_teacher", *more).code == 0
            assert measured(command)["miou"] > (0.99 if not more else 0.9)
            assert measured(command, "val")["miou"] > (0.99 if not more else 0.9)

    def test_masks_as_they_are_stored_are_refused(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "data", regions())
        for path in (tmp_path / "data/masks").rglob("*.png"):
            Image.open(path).transpose(STORED[6]).save(path)
        for path in (tmp_path / "data/images").rglob("*.png"):
            Image.open(path).transpose(STORED[6]).save(path.with_suffix(".tif"), tiffinfo={274: 6})
            path.unlink()
        assert_refused_alike(command, tmp_path / "data", "mask is 64x96 pixels, its image 0.tif is 96x64 (each upright")

    @pytest.mark.parametrize("tagged", [True, False])
    def test_masks_drawn_on_stored_pixels(self, command: Command, tmp_path: Path, tagged: bool) -> None:
        root, mask = tmp_path / "data", regions(96, 96)
        for index, split in enumerate(("train", "train", "test", "test")):
            orientation = (3, 6)[index % 2]
            turn, exif = STORED[orientation], tag(orientation)
            assert turn is not None
            image = path_of(root, "images", split, f"{index}.jpg")
            photograph(mask).transpose(turn).save(image, exif=exif, quality=98, subsampling=0)
            label = Image.fromarray(mask).transpose(turn)
            label.save(path_of(root, "masks", split, f"{index}.png"), **({"exif": exif} if tagged else {}))
        warning = "has no orientation tag, but its image 0.jpg has one (orientation 3)"
        checked, trained = command("data", "check", root), train_known(command, root, "data.val=0")
        assert (checked.code, trained.code) == (0, 0)
        for printed in (checked.out, trained.err):
            assert (warning in printed) != tagged
            assert ("and 3 more such masks" in printed) != tagged
        if tagged:
            assert measured(command)["miou"] > 0.99


class TestValues:
    """What stored numbers mean."""

    def test_binary_masks_beside_a_class_list(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, np.minimum(regions(), 1), stored=lambda mask: mask * 255)
        (root / "classes.txt").write_text("background\nlesion\n")
        assert_refused_alike(command, root, "255 means void; map it to class 1 with data.mask_values={0:0,255:1}")
        assert command("data", "check", root, "data.mask_values={0:0,255:1}").code == 0
        assert command("data", "check", root, "mask_values={0:0,255:1}").code == 0
        by_the_shell = ("data.mask_values=0:0", "data.mask_values=255:1")  # what it makes of {0:0,255:1}
        assert command("data", "check", root, *by_the_shell).code == 0
        assert train_known(command, root, *by_the_shell, "run=parted").code == 0
        assert train_known(command, root, "data.mask_values={0:0,255:1}").code == 0
        assert measured(command)["iou/lesion"] == 1

    @pytest.mark.parametrize(
        ("label", "values"), [("jpg", (0, 1, 2, 3)), ("jfif", (0, 80, 160, 240)), ("webp", (0, 1, 2, 3))]
    )
    def test_lossy_masks_are_refused(
        self, command: Command, tmp_path: Path, label: str, values: tuple[int, ...]
    ) -> None:
        write(tmp_path / "data", regions(), stored=lambda mask: np.array(values, np.uint8)[mask], label=label)
        assert_refused_alike(command, tmp_path / "data", "lossy")

    @pytest.mark.parametrize(
        ("values", "words", "fix"),
        [
            ((0, 70, 140, 210), "with gaps: 207 of the 211 classes have no pixel", "{0:0,70:1,140:2,210:3}"),
            ((1, 2, 3, 4), "no pixel of class 0, the masks' values are 1, 2, 3, 4", "{1:0,2:1,3:2,4:3}"),
        ],
    )
    def test_gaps_are_a_warning(
        self, command: Command, tmp_path: Path, values: tuple[int, ...], words: str, fix: str
    ) -> None:
        write(tmp_path / "data", regions(), stored=lambda mask: np.array(values, np.uint8)[mask])
        checked, trained = command("data", "check", tmp_path / "data"), train_known(command, tmp_path / "data")
        assert (checked.code, trained.code) == (0, 0)
        for printed in (checked.out, trained.err):
            assert words in printed
            assert f"data.mask_values={fix}" in printed
        shutil.rmtree("run")
        again = train_known(command, tmp_path / "data", f"data.mask_values={fix}")
        assert "warning" not in again.err
        assert measured(command)["miou"] == 1

    def test_a_class_of_the_list_without_a_pixel(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "data", regions())
        (tmp_path / "data/classes.txt").write_text("a\nb\nc\nd\nroof\n")
        printed = train_known(command, tmp_path / "data").err
        assert "warning" in printed
        assert "no pixel of 1 of the 5 classes (roof)" in printed
        assert "data.mask_values=" in printed

    @pytest.mark.parametrize("depth", [2, 4])
    def test_low_bit_grey(self, command: Command, tmp_path: Path, depth: int) -> None:
        write(tmp_path / "data", regions())
        for path in (tmp_path / "data/masks").rglob("*.png"):
            values = np.asarray(Image.open(path))
            path.unlink()
            path.write_bytes(low_bit_png(values, depth))
        assert train_known(command, tmp_path / "data").code == 0
        assert measured(command) == {"miou": 1, "accuracy": 1, **{f"iou/{index}": 1 for index in range(4)}}

    def test_palettes_of_another_order_are_refused(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "data", regions())
        for path in sorted((tmp_path / "data/masks").rglob("*.png")):
            mask = Image.fromarray(np.asarray(Image.open(path)), "P")
            order = [0, 1, 2, 3] if path.stem != "1" else [0, 2, 1, 3]
            mask.putpalette([int(value) for index in order for value in COLOURS[index]])
            mask.save(path)
        other = tmp_path / "data/masks/train/1.png"
        assert_refused_alike(command, tmp_path / "data", "masks/train/1.png: index 1 of its palette is the colour")
        shutil.copy(tmp_path / "data/masks/train/0.png", tmp_path / "later.png")
        shutil.move(other, tmp_path / "other.png")
        shutil.copy(tmp_path / "later.png", other)
        assert train_known(command, tmp_path / "data").code == 0
        shutil.copy(tmp_path / "other.png", tmp_path / "data/masks/test/3.png")
        assert "so the same index may mean two classes; save the masks" in command("evaluate", "run").error

    def test_all_void_in_validation_is_reported(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "data", regions())
        Image.new("L", (96, 64), 255).save(tmp_path / "data/masks/val/2.png")
        assert "masks/val: all pixels of the 1 masks are void" in command("data", "check", tmp_path / "data").out
        assert "masks/val: all pixels of the 1 masks are void" in train_known(command, tmp_path / "data").err


def low_bit_png(values: Mask, depth: int) -> bytes:
    """A grey PNG of 2 or 4 bits a pixel."""
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(len(values), -1), axis=-1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


class TestClasses:
    """The run's own list counts."""

    def test_a_class_that_the_run_does_not_know(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, np.where(regions() == 3, 0, regions()).astype(np.uint8))
        assert train_known(command, root, "steps=2", "checkpoint_every=1").code == 0
        (Path("run") / "summary.json").unlink()
        state = Path("run/checkpoints/last.ckpt")
        Image.fromarray(regions()).save(root / "masks/test/3.png")
        assert "masks/test/3.png: found mask value 3" in command("evaluate", "run").error
        assert state.exists()
        Image.fromarray(regions()).save(root / "masks/train/0.png")
        Image.fromarray(regions()).save(root / "masks/train/1.png")
        config = Path("run/config.yaml")
        config.write_text(config.read_text().replace("steps: 2", "steps: 3"))
        assert "found mask value 3" in command("train", "resume=run").error
        shutil.rmtree("run")
        Image.fromarray(np.minimum(regions(), 2)).save(root / "masks/train/0.png")
        Image.fromarray(np.minimum(regions(), 2)).save(root / "masks/train/1.png")
        assert_refused_alike(command, root, "masks/test/3.png: found mask value 3")

    @pytest.mark.parametrize(
        ("edited", "words"), [("b\na\n", "names class 0 'b', but the run has 'a'"), ("a\n b\nc\n", "names 3 classes")]
    )
    def test_an_edited_list_is_noticed(self, command: Command, tmp_path: Path, edited: str, words: str) -> None:
        root = tmp_path / "data"
        write(root, np.minimum(regions(), 1))
        (root / "classes.txt").write_bytes("\ufeffa\r\nb\r\n".encode())
        assert train_known(command, root, "checkpoint_every=1").code == 0
        (root / "classes.txt").write_text(edited)
        assert f"classes.txt: {words}" in command("evaluate", "run").error
        assert f"classes.txt: {words}" in command("train", "resume=run").error


class TestCounts:
    """All labels are used, and nothing is left out without a line."""

    def test_the_start_of_a_run(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, regions(), splits=["train"] * 20 + ["test"] * 4)
        for index in range(12):
            photograph(regions()).save(path_of(root, "unlabeled", "", f"u{index}.png"))
        line = "data: 18 labeled, 12 unlabeled, 0 labels hidden by data.labels=all, 2 held out for validation"
        assert train_known(command, root, "method=mean_teacher").out.splitlines()[1] == line
        line = "data: 6 labeled, 24 unlabeled, 12 labels hidden by data.labels=1/3, 2 held out for validation"
        result = train_known(command, root, "method=mean_teacher", "data.labels=1/3", "run=third")
        assert result.out.splitlines()[1] == line

    def test_what_is_not_read_is_counted(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, np.minimum(regions(), 1), splits=["train"] * 6 + ["valid"] * 2 + ["test"] * 2)
        for index in (1, 3, 5):
            path = root / f"masks/train/{index}.png"
            Image.open(path).save(path.with_suffix(".gif"))
            path.unlink()
        photograph(regions()).save(root / "images/train/phone.jfif", "JPEG")
        photograph(regions()).save(root / "images/train/more.jp2")
        (root / "images/train/iphone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        (root / "images/train/.hidden.png").write_bytes(b"hidden")
        pages = [photograph(regions()) for _ in range(3)]
        pages[0].save(root / "images/train/scan.tif", save_all=True, append_images=pages[1:])
        bands = np.dstack([COLOURS[regions()], regions() * 50])
        Image.fromarray(bands, "RGBX").save(root / "images/train/infrared.tif")
        checked, trained = command("data", "check", root), train_known(command, root, "data.val=2")
        assert (checked.code, trained.code) == (0, 0)
        for printed in (checked.out, trained.err):
            assert "images/train: 2 files are not read (1 .heic, 1 .jp2); expected png, jpeg" in printed
            assert "images/train: 1 hidden files or folders are left out (.hidden.png)" in printed
            assert "images/valid: a folder of 2 files that is not read" in printed
            assert "masks/valid: a folder of 2 files that is not read" in printed
            assert "1 image files hold several pages, of which only the first is read" in printed
            assert "1 image files hold further bands" in printed
        assert "train           6 with mask       3 without" in checked.out
        assert trained.out.splitlines()[1].startswith("data: 4 labeled, 3 unlabeled")
        assert measured(command)["miou"] == 1

    def test_a_mask_that_is_not_read_is_a_problem(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "data", regions())
        (tmp_path / "data/masks/train/0.png").rename(tmp_path / "data/masks/train/0.heic")
        assert_refused_alike(command, tmp_path / "data", "masks/train/0.heic: a label of a format that is not read")


class TestPairs:
    """Images and target images."""

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_what_the_check_refuses_is_refused_before_training(
        self, command: Command, tmp_path: Path, split: str
    ) -> None:
        root = tmp_path / "data"
        for part in ("train", "val", "test"):
            for kind in ("inputs", "targets"):
                photograph(regions()).save(path_of(root, kind, part, f"{part}.png"))
        keys = ("task=denoising", "data=pairs", f"data.root={root}", "model._target_=tests.helpers.tiny.TinyModel")
        usual = [item for item in KNOWN if not item.startswith(("data=", "model."))]
        assert command("data", "check", root).code == 0
        assert command("train", *usual, *keys).code == 0
        photograph(regions()).save(root / "inputs/train/train.png", exif=tag(3))
        for result in (command("data", "check", root), command("train", *usual, *keys, "run=turned")):
            assert result.code == 0
            assert "train.png: has no orientation tag, but its image train.png has one" in result.out + result.err
        photograph(regions(60, 90)).save(root / f"targets/{split}/{split}.png")
        found, printed = command("data", "check", root), command("train", *usual, *keys, "run=other").error
        assert found.code == 2
        assert f"targets/{split}/{split}.png: target is 90x60 pixels, its image {split}.png is 96x64" in printed
        assert printed.removeprefix("semipix: error: ") in problems(found.out)
        assert not Path("other").exists()


class TestOneRoad:
    """What evaluate measures is what predict writes."""

    @pytest.mark.parametrize("resize", [None, 100])
    def test_predicted_files_have_the_figure_of_evaluate(
        self, command: Command, tmp_path: Path, resize: int | None
    ) -> None:
        """Thin bars near the right and lower border, where a partial column of a reduced JPEG used to shift them."""
        mask = np.zeros((601, 801), np.uint8)
        for left in range(690, 795, 16):
            mask[:550, left : left + 8] = 1
        for top in range(560, 600, 16):
            mask[top : top + 8] = 2
        mask[100:200, 100:200] = 3
        found = {}
        for image in ("png", "jpg", "tif"):
            root = tmp_path / image
            options = {"quality": 98, "subsampling": 0} if image == "jpg" else {}
            write(root, mask, image=image, splits=("train", "test"), **options)
            more = [f"data.resize={resize}"] if resize else []
            assert train_known(command, root, "data.val=0", f"run={image}/run", *more).code == 0
            assert command("evaluate", f"{image}/run").code == 0
            found[image] = json.loads(Path(f"{image}/run/evaluation-test.json").read_text())["miou"]
            assert command("predict", f"{image}/run", root / "images/test", "--out", f"{image}/out").code == 0
            assert miou_of_files(root, Path(f"{image}/out")) == pytest.approx(found[image], abs=1e-6)
        assert found["tif"] == found["png"]
        assert found["jpg"] == pytest.approx(found["png"], abs=0.02)
        assert (found["png"] == 1) == (resize is None)

    def test_a_folder_to_predict(self, command: Command, tmp_path: Path, shared_run: Path) -> None:
        todo = tmp_path / "todo"
        photo = photograph(regions())
        for name in (
            "todo/a.jpg",
            "todo/.checkpoints/a.jpg",
            "elsewhere/b.jpg",
            "elsewhere/c.jpg",
            "todo/scan.tif/p.png",
        ):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path)
        (todo / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        (todo / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (todo / "linked/back").symlink_to(todo, target_is_directory=True)
        (todo / "notes.txt").write_text("not an image")
        result = command("predict", shared_run, todo, "--out", "out")
        assert result.code == 0
        found = sorted(path.relative_to("out/masks").as_posix() for path in Path("out/masks").rglob("*.png"))
        assert found == ["a.png", "linked/b.png", "linked/c.png", "scan.tif/p.png"]
        assert "2 hidden files or folders are left out" in result.err
        assert "1 links are not followed" in result.err
        assert "1 files are not read (1 .txt)" in result.err

    def test_names_in_another_form_of_unicode(self, command: Command, tmp_path: Path) -> None:
        """As macOS, and everybody else, write an accent."""
        root = tmp_path / "data"
        write(root, regions())
        image, mask = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
        for split in ("train", "test"):
            photograph(regions()).save(root / f"images/{split}/{image}.png")
            Image.fromarray(regions()).save(root / f"masks/{split}/{mask}.png")
        result = train_known(command, root)
        assert result.out.splitlines()[1].startswith("data: 3 labeled, 0 unlabeled")
        for name in (root / f"images/test/{image}.png", root / f"images/train/{image}.png"):
            name.rename(name.with_name(f"{mask}.png"))  # the folder moves to another system
        assert measured(command)["miou"] == 1

    @pytest.mark.skipif(os.name == "nt", reason="names are text there")
    def test_names_that_are_no_text(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, regions())
        for kind in ("images", "masks"):
            for split, name in (("train", "0.png"), ("test", "3.png")):
                (root / kind / split / name).rename(root / kind / split / NO_TEXT)
        assert command("data", "check", root).code == 0
        assert train_known(command, root).code == 0
        assert measured(command)["miou"] == 1
        assert command("predict", "run", root / "images/test", "--out", "out").code == 0
        assert [path.name for path in Path("out/masks").iterdir()] == [NO_TEXT]
        printed = train_known(command, root, f"run='{NO_TEXT}'").error
        assert "a name that is not UTF-8 text" in printed
        (root / "images/test" / NO_TEXT).write_bytes(b"broken")
        assert "not a readable image" in command("evaluate", "run").error
        assert command("data", "check", root).code == 2

    def test_too_many_pixels(self, command: Command, tmp_path: Path) -> None:
        root = tmp_path / "data"
        write(root, regions())
        words = "96x64 pixels, more than data.max_pixels=5000"
        assert_refused_alike(command, root, words, "data.max_pixels=5000")
        assert train_known(command, root).code == 0
        refused = command("predict", "run", root / "images/test", "--out", "out", "--max-pixels", "5000")
        assert refused.code == 2
        assert words in refused.err.splitlines()[-1]
        assert command("predict", "run", root / "images/test", "--out", "out", "--max-pixels", "6144").code == 0
        assert words in command("evaluate", "run", "--max-pixels", "5000").error
        assert command("evaluate", "run", "--max-pixels", "6144").code == 0
