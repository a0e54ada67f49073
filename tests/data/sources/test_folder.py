"""Reading images and masks from folders."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision import tv_tensors

from semipix.data.check import check_folder
from semipix.data.files.decode import read_image
from semipix.data.files.decode_masks import read_indices
from semipix.data.sources.folder import FolderSource
from semipix.errors import SemipixError
from tests.conftest import Result

Write = Callable[..., Path]


def expect_error(pattern: str, folder: Path, **options: object) -> None:
    """The folder is refused, at once or when all its files are read, with an error of one line."""
    with pytest.raises(SemipixError, match=pattern) as caught:
        source = FolderSource(folder, **options)  # type: ignore[arg-type]
        for name in source.labeled() + source.val() + source.test():
            source.image(name)
            source.pair(name)[1]
        for name in source.unlabeled():
            source.image(name)
    assert "\n" not in str(caught.value)


def test_lists_each_part_of_the_folder_sorted(folder: Path) -> None:
    source = FolderSource(folder)
    assert source.labeled() == [f"images/train/{name}.png" for name in "abcd"]
    assert source.unlabeled() == ["images/train/x.png", "unlabeled/y.jpg"]
    assert source.val() == ["images/val/v.png", "images/val/w.png"]
    assert source.test() == ["images/test/t.png"]


def test_an_image_and_its_target(folder: Path) -> None:
    source = FolderSource(folder)
    image, target = source.pair("images/train/a.png")
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (3, 6, 8)
    assert image.dtype == torch.uint8
    assert (image == 100).all()
    assert torch.equal(source.image("images/train/a.png"), image)
    assert isinstance(target, tv_tensors.Mask)
    assert target.dtype == torch.uint8
    assert target.tolist() == [[1] * 8] + [[0] * 8] * 5


def test_a_run_that_knows_its_classes_opens_no_file(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert FolderSource(folder, run_classes=["sky", "road"], needed_splits=()).classes == ["sky", "road"]
    expect_error(r"masks/train/a\.png: not a readable image", folder, run_classes=["sky", "road"])


def test_subfolders_upper_case_and_hidden_files(folder: Path, write_image: Write, write_mask: Write) -> None:
    write_image(folder / "images/train/deep/a.b.JPG")
    write_mask(folder / "masks/train/deep/a.b.PNG")
    (folder / "images/train/._a.png").write_bytes(b"not an image")
    (folder / "images/train/Thumbs.db").write_bytes(b"not an image")
    source = FolderSource(folder)
    assert "images/train/deep/a.b.JPG" in source.labeled()
    assert source.pair("images/train/deep/a.b.JPG")[1].shape == (6, 8)
    assert len(source.labeled() + source.unlabeled()) == 7


def test_an_evaluation_folder_without_masks_is_not_used(folder: Path) -> None:
    (folder / "masks/test/t.png").unlink()
    assert FolderSource(folder).test() == []


class TestImageFormats:
    """Every kind of image becomes RGB in [0, 1]."""

    @pytest.mark.parametrize("extension", ["png", "PNG", "jpg", "jpeg", "webp", "bmp", "tif", "TIFF"])
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_extensions(self, tmp_path: Path, extension: str, mode: str) -> None:
        path = tmp_path / f"a.{extension}"
        Image.new(mode, (8, 6), 51 if mode == "L" else (51, 51, 51)).save(path)
        image = read_image(path)
        assert image.shape == (3, 6, 8)
        assert image.dtype == torch.float32
        assert torch.allclose(image, torch.tensor(0.2), atol=0.01)

    @pytest.mark.parametrize(
        ("mode", "colour"),
        [("RGBA", (255, 0, 51, 0)), ("P", None), ("CMYK", (0, 255, 204, 0))],
    )
    def test_colour_modes(self, tmp_path: Path, mode: str, colour: tuple[int, ...] | None) -> None:
        path = tmp_path / "a.tif"
        image = Image.new(mode, (8, 6), colour or 3)
        if mode == "P":
            image.putpalette([0, 0, 0] * 3 + [255, 0, 51])
        image.save(path)
        assert torch.allclose(read_image(path), torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 6, 8))

    @pytest.mark.parametrize(("mode", "value", "expected"), [("1", 1, 1.0), ("LA", (51, 0), 0.2)])
    def test_grey_modes(self, tmp_path: Path, mode: str, value: int | tuple[int, int], expected: float) -> None:
        Image.new(mode, (8, 6), value).save(tmp_path / "a.png")
        assert torch.allclose(read_image(tmp_path / "a.png"), torch.full((3, 6, 8), expected))

    def test_palette_with_transparency_keeps_its_colour(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 6), 1)
        image.putpalette([0, 0, 0, 255, 0, 51])
        image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
        assert torch.allclose(read_image(tmp_path / "a.png")[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))

    @pytest.mark.parametrize("extension", ["png", "tif"])
    def test_16_bit_is_scaled_by_its_type_not_by_its_maximum(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"a.{extension}"
        Image.fromarray(np.full((6, 8), 13107, np.uint16)).save(path)
        assert torch.allclose(read_image(path), torch.full((3, 6, 8), 0.2))

    def test_float_in_range(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((6, 8), 0.2, np.float32)).save(tmp_path / "a.tif")
        assert torch.allclose(read_image(tmp_path / "a.tif"), torch.full((3, 6, 8), 0.2))

    def test_float_of_unknown_range_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((6, 8), 1000, np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(SemipixError, match=r"a\.tif: found values from 1000 to 1000 .* expected 0 to 1"):
            read_image(tmp_path / "a.tif")

    def test_exif_orientation_is_applied(self, tmp_path: Path) -> None:
        pixels = np.zeros((6, 8, 3), np.uint8)
        pixels[0] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise: the first row becomes the last column
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        image = read_image(tmp_path / "a.png")
        assert image.shape == (3, 8, 6)
        assert image[:, :, -1].min() == 1
        assert image[:, :, :-1].max() == 0


class TestMaskFormats:
    """Class indices are read as they are stored."""

    def test_grey(self, tmp_path: Path, write_mask: Write) -> None:
        assert read_indices(write_mask(tmp_path / "a.png", [[0, 7], [255, 1]])).tolist() == [[0, 7], [255, 1]]

    def test_palette_gives_the_index_not_the_colour(self, tmp_path: Path) -> None:
        mask = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8), "P")
        mask.putpalette([9, 9, 9, 128, 0, 0, 0, 128, 0, *range(253), *range(253), *range(253)])
        mask.save(tmp_path / "a.png")
        assert read_indices(tmp_path / "a.png").tolist() == [[0, 1], [2, 255]]

    def test_one_bit(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
        assert read_indices(tmp_path / "a.png").tolist() == [[1, 0]]

    @pytest.mark.parametrize("extension", ["png", "tif"])
    def test_16_bit(self, tmp_path: Path, extension: str) -> None:
        Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / f"a.{extension}")
        assert read_indices(tmp_path / f"a.{extension}").tolist() == [[0, 300]]

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_colours_are_refused(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (8, 6)).save(tmp_path / "a.png")
        with pytest.raises(SemipixError, match=rf"a\.png: found a mask of colours \(mode {mode}\), expected class ind"):
            read_indices(tmp_path / "a.png")


class TestClasses:
    """Where the class names come from."""

    def test_from_the_file(self, folder: Path) -> None:
        (folder / "classes.txt").write_text("sky\n\n road \r\n")
        assert FolderSource(folder).classes == ["sky", "road"]

    @pytest.mark.parametrize(
        ("values", "classes"),
        [([0, 1, 3, 255], ["0", "1", "2", "3"]), ([0, 0], ["0", "1"]), ([0, 1, 255], ["0", "1"])],
    )
    def test_from_the_masks(self, folder: Path, write_mask: Write, values: list[int], classes: list[str]) -> None:
        for name in "abcd":
            write_mask(folder / f"masks/train/{name}.png", [(values * 4)[:8]] * 6)
        for path in folder.glob("masks/[vt][ae][ls]*/*.png"):
            write_mask(path, [[0] * 8] * 6)
        assert FolderSource(folder).classes == classes

    @pytest.mark.parametrize("values", [[0, 255], [255, 255]])
    def test_only_0_and_255_is_an_error(self, folder: Path, write_mask: Write, values: list[int]) -> None:
        for name in "abcd":
            write_mask(folder / f"masks/train/{name}.png", [values * 4] * 6)
        expect_error(r"255 means void; map it to class 1 with data\.mask_values=\{0:0,255:1\}", folder)

    @pytest.mark.parametrize(("kind", "word"), [("1", "1-bit"), ("P", "palette")])
    def test_white_is_not_class_1_here_and_void_there(self, folder: Path, kind: str, word: str) -> None:
        """The same masks saved by two programs: 1 bit or a palette in training, 8-bit grey for validation."""
        white = np.zeros((6, 8), np.uint8)
        white[0] = 255
        for path in folder.glob("masks/*/*.png"):
            mask = Image.fromarray(white // 255 if kind == "P" else white)
            if kind == "P":
                mask.putpalette([0, 0, 0, 255, 255, 255])
            mask.convert(kind).save(path)
        assert FolderSource(folder).classes == ["0", "1"]
        Image.fromarray(white).save(folder / "masks/val/v.png")
        expect_error(
            rf"val/v\.png: white is 255 \(grey\), which means void, but class 1 in .*a\.png \({word}\); "
            r"make it class 1 with data\.mask_values=\{0:0,255:1\}, or set \{255:255\} if",
            folder,
        )
        target = FolderSource(folder, mask_values={0: 0, 255: 1}).target
        assert target("images/val/v.png").tolist() == target("images/train/a.png").tolist()
        assert 255 in FolderSource(folder, mask_values={255: 255}).target("images/val/v.png")

    def test_mask_values_map_before_classes_are_counted(self, folder: Path, write_mask: Write) -> None:
        for path in folder.glob("masks/*/*.png"):
            write_mask(path, [[0] * 4 + [255] * 4] * 6)
        source = FolderSource(folder, mask_values={0: 0, 255: 1})
        assert source.classes == ["0", "1"]
        assert source.pair("images/train/a.png")[1][0].tolist() == [0] * 4 + [1] * 4

    def test_nodata_of_a_geotiff_is_void_unless_it_is_named(self, folder: Path) -> None:
        for path in folder.glob("masks/*/*.png"):
            values = np.array([[2] * 4 + [7] * 4] * 6, np.uint8)
            Image.fromarray(values).save(path.with_suffix(".tif"), tiffinfo={42113: "7"})
            path.unlink()
        source = FolderSource(folder)
        assert source.target("images/train/a.png")[0].tolist() == [2] * 4 + [255] * 4
        assert "a.tif: 7 is the file's nodata and counts as void; if it is a class, set data.mask" in source.warnings[0]
        assert any("and 6 more such masks" in line for line in check_folder(folder).warnings)
        named = FolderSource(folder, mask_values={2: 0, 7: 1})
        assert named.target("images/train/a.png")[0].tolist() == [0] * 4 + [1] * 4
        assert named.warnings == []
        expect_error(
            r"7 is the file's nodata, .* but data\.mask_values names 255; .* add 7:255", folder, mask_values={255: 1}
        )

    def test_values_that_are_not_mapped_stay(self, folder: Path) -> None:
        assert FolderSource(folder, mask_values={7: 0}).pair("images/train/a.png")[1][0, 0] == 1

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [
            ("", r"classes\.txt: found 0 class names, expected at least 2"),
            ("sky\nroad\nsky\n", r"classes\.txt: class 'sky' is there 2 times"),
            ("\n".join(map(str, range(256))), r"classes\.txt: found 256 classes, expected at most 255"),
        ],
    )
    def test_class_file_errors(self, folder: Path, text: str, pattern: str) -> None:
        (folder / "classes.txt").write_text(text)
        expect_error(pattern, folder)

    def test_class_file_of_bytes(self, folder: Path) -> None:
        (folder / "classes.txt").write_bytes(b"\xff\xfe\x00")
        expect_error(r"classes\.txt: not UTF-8 text", folder)

    @pytest.mark.parametrize("mask_values", [{-1: 0}, {0: 256}, {70000: 0}])
    def test_mask_values_out_of_range(self, folder: Path, mask_values: dict[int, int]) -> None:
        expect_error(r"data\.mask_values: found .* expected a value from 0 to 65535", folder, mask_values=mask_values)


class TestLayoutErrors:
    """A wrong layout is reported in one line."""

    def test_missing_root(self, tmp_path: Path) -> None:
        expect_error(r"nowhere: found nothing, expected a data folder", tmp_path / "nowhere")

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        expect_error(r"file: found a file, expected a data folder", tmp_path / "file")

    def test_no_training_folder(self, tmp_path: Path) -> None:
        expect_error(r"images/train: found no such folder, expected training images", tmp_path)

    def test_empty_training_folder(self, tmp_path: Path) -> None:
        (tmp_path / "images/train").mkdir(parents=True)
        expect_error(r"images/train: found an empty folder", tmp_path)

    def test_other_files_only(self, tmp_path: Path) -> None:
        (tmp_path / "images/train").mkdir(parents=True)
        (tmp_path / "images/train/a.heic").touch()
        expect_error(r"images/train: found no image among 1 files \(a\.heic", tmp_path)

    def test_no_labeled_image(self, folder: Path) -> None:
        for path in folder.glob("masks/train/*"):
            path.unlink()
        expect_error(r"masks/train: no labeled image: found no mask for any of the 5 images", folder)

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_mask_without_image(self, folder: Path, write_mask: Write, split: str) -> None:
        write_mask(folder / f"masks/{split}/lonely.png")
        expect_error(rf"masks/{split}/lonely\.png: mask without an image", folder)

    def test_validation_image_without_mask(self, folder: Path) -> None:
        (folder / "masks/val/v.png").unlink()
        expect_error(r"images/val/v\.png: val image without a mask", folder)

    @pytest.mark.parametrize("part", ["images/train", "masks/train", "unlabeled"])
    def test_two_files_with_one_stem(self, folder: Path, write_image: Write, part: str) -> None:
        write_image(folder / part / "a.png")
        write_image(folder / part / "a.bmp")
        expect_error(rf"{part}/a\.png: same stem as a\.bmp", folder)


class TestFileErrors:
    """A wrong file is reported in one line that names it."""

    def test_sizes_differ(self, folder: Path, write_mask: Write) -> None:
        write_mask(folder / "masks/train/b.png", height=3, width=4)
        expect_error(r"masks/train/b\.png: mask is 4x3 pixels, its image b\.png is 8x6", folder)

    def test_the_upright_size_counts(self, folder: Path, write_mask: Write) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 6)).save(folder / "images/train/b.png", exif=exif)
        expect_error(r"mask is 8x6 pixels, its image b\.png is 6x8", folder)
        write_mask(folder / "masks/train/b.png", height=8, width=6)
        assert FolderSource(folder).pair("images/train/b.png")[1].shape == (8, 6)

    def test_value_that_is_no_class(self, folder: Path, write_mask: Write) -> None:
        (folder / "classes.txt").write_text("sky\nroad\n")
        write_mask(folder / "masks/val/v.png", [[0, 1, 2, 2, 9, 255, 0, 0]] * 6)
        expect_error(r"masks/val/v\.png: found mask value 2, 9 \(18 pixels\), expected 0 to 1 or 255", folder)

    def test_colour_mask(self, folder: Path, write_image: Write) -> None:
        write_image(folder / "masks/train/c.png")
        expect_error(r"masks/train/c\.png: found a mask of colours", folder)

    @pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tif"])
    def test_truncated_image(self, folder: Path, extension: str) -> None:
        path = folder / f"unlabeled/half.{extension}"
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        expect_error(rf"unlabeled/half\.{extension}: (corrupt or truncated|not a readable) image", folder)
        assert not ImageFile.LOAD_TRUNCATED_IMAGES

    @pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n" + bytes(40)])
    @pytest.mark.parametrize("name", ["images/train/a.png", "masks/train/a.png"])
    def test_corrupt_file(self, folder: Path, name: str, content: bytes) -> None:
        (folder / "classes.txt").write_text("sky\nroad\n")
        (folder / name).write_bytes(content)
        expect_error(rf"{re.escape(name)}: (corrupt or truncated|not a readable) image", folder)

    def test_missing_file(self, folder: Path) -> None:
        source = FolderSource(folder)
        (folder / "images/train/a.png").unlink()
        with pytest.raises(SemipixError, match=r"images/train/a\.png: no such file"):
            source.image("images/train/a.png")


class TestColours:
    """`colours=True`: masks are pictures whose colours are the classes."""

    @pytest.fixture
    def coloured(self, folder: Path) -> Path:
        for path in folder.glob("masks/*/*.png"):
            values = np.asarray(Image.open(path))
            Image.fromarray(np.array([(10, 20, 30), (200, 0, 0)], np.uint8)[values]).save(path)
        (folder / "classes.txt").write_text("road 10 20 30\nsky 200 0 0\nvoid 0 0 0\n")
        return folder

    def test_targets_are_class_indices(self, coloured: Path) -> None:
        source = FolderSource(coloured, colours=True)
        assert source.classes == ["road", "sky"]
        assert source.pair("images/train/a.png")[1].tolist() == [[1] * 8] + [[0] * 8] * 5
        assert source.warnings == []
        report = check_folder(coloured, colours=True)
        assert (report.problems, dict(report.pixels)) == ([], {0: 7 * 40, 1: 7 * 8})

    def test_without_the_key_the_message_names_it(self, coloured: Path) -> None:
        expect_error("found a mask of colours .* data.colours=true", coloured)

    def test_unknown_colours_are_refused_before_training(self, coloured: Path) -> None:
        Image.new("RGB", (8, 6), (1, 1, 1)).save(coloured / "masks/train/b.png")
        expect_error(r"b\.png: no class has the colour \(1 1 1\) at 48 pixels", coloured, colours=True)

    def test_void_beside_one_class_is_no_binary_mask(self, coloured: Path) -> None:
        for path in coloured.glob("masks/train/*.png"):
            Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
        Image.new("RGB", (8, 6)).save(coloured / "masks/train/b.png")
        assert FolderSource(coloured, colours=True).classes == ["road", "sky"]

    def test_other_mask_values_contradict_it(self, coloured: Path) -> None:
        expect_error("data.mask_values: found it beside data.colours=true", coloured, colours=True, mask_values={1: 0})

    def test_a_run_keeps_its_classes(self, coloured: Path) -> None:
        expect_error(r"classes\.txt: class 1 is 'sky'|'sky'", coloured, colours=True, run_classes=["road", "tree"])

    def test_training_and_evaluation_read_colours(
        self, photos: Path, train: Callable[..., Result], command: Callable[..., Result]
    ) -> None:
        for path in photos.glob("masks/*/*.png"):
            values = np.asarray(Image.open(path))
            Image.fromarray(np.array([(10, 20, 30), (200, 0, 0)], np.uint8)[values]).save(path)
        (photos / "labelmap.txt").write_text("ground:10,20,30::\nsquare:200,0,0::\n")
        assert train(f"data.root={photos}", "data.colours=true").code == 0
        result = command("evaluate", "run")
        assert result.code == 0
        assert "square" in result.out
