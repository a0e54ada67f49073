"""`semipix data pick` and `semipix data check --coverage`, with mean colours in place of the encoder's features."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from semipix.cli import _parser
from semipix.data import pick_features
from semipix.data.pick import coverage_lines, pick
from semipix.data.pick_choice import STRATEGIES
from semipix.data.pick_features import CHANNELS, DEPTHS
from semipix.data.sources.folder import FolderSource
from semipix.data.splits import make_split
from semipix.errors import SemipixError
from tests.conftest import QUICK, Result
from tests.helpers.tiny_files import save_image, save_mask

Command = Callable[..., Result]


class MeanColour(nn.Module):
    """Gives an image's mean red, green and blue as the features of all maps."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((-2, -1)).repeat(1, sum(CHANNELS) // 3 + 1)[:, : sum(CHANNELS)]


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pick_features, "Encoder", MeanColour)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Six dark images, three grey and two light ones; one of each kind is named `b`. None has a label."""
    for kind, value, count in (("dark", 10, 6), ("grey", 120, 3), ("light", 240, 2)):
        for number in range(count):
            save_image(tmp_path / f"data/images/train/{kind}{number}.png", value=value + number)
    return tmp_path / "data"


def kinds(names: list[str]) -> list[str]:
    return [Path(name).stem[:-1] for name in names]


def label(root: Path, *stems: str) -> None:
    for stem in stems:
        save_mask(root / f"masks/train/{stem}.png")


def test_a_folder_without_labels(greys: Path) -> None:
    found = pick(greys, 3)
    assert kinds(found.names) == ["dark", "grey", "light"]
    assert [len(cell) for cell in found.cells] == [6, 3, 2]
    assert found.notes == ["3 of 11 images picked by kmeans; they represent 6 to 2 images each"]


def test_labeled_images_count_as_covered(greys: Path) -> None:
    label(greys, "dark0", "dark1")
    found = pick(greys, 2)
    assert kinds(found.names) == ["grey", "light"]
    assert found.notes[-1].endswith("; 4 others are nearer to the 2 labeled images")
    assert kinds(pick(greys, 3, labels="none").names) == ["dark", "grey", "light"]
    names = greys.parent / "names.txt"
    names.write_text("light1\n")
    assert sorted(kinds(pick(greys, 2, labels=str(names)).names)) == ["dark", "grey"]


def test_a_folder_with_all_labels_is_for_an_experiment(greys: Path) -> None:
    label(greys, *(path.stem for path in greys.glob("images/train/*")))
    found = pick(greys, 3)
    assert kinds(found.names) == ["dark", "grey", "light"]
    assert "all 11 training images have a label; picked as if none had one" in found.notes[0]


def test_images_that_are_the_same_are_picked_once(greys: Path) -> None:
    for number in range(4):
        shutil.copy(greys / "images/train/dark0.png", greys / f"images/train/copy{number}.png")
    found = pick(greys, 15)
    assert len(found.names) < 12
    assert found.notes[-1] == (
        f"{15 - len(found.names)} fewer than -n 15: all other images are nearly the same as these"
    )


def test_pairs_and_the_folder_unlabeled(tmp_path: Path) -> None:
    for folder, value in (("inputs/train", 0), ("unlabeled", 200)):
        save_image(tmp_path / folder / "a.png", value=value)
    found = pick(tmp_path, 2)
    assert sorted(found.names) == ["inputs/train/a.png", "unlabeled/a.png"]
    assert found.notes[-1].startswith(
        "1 of the picked images are in unlabeled/: when you label one, move it to inputs/train under the same name, "
        "with its target in targets/train"
    )


def test_a_picked_image_that_moves_out_of_unlabeled_is_found(tmp_path: Path) -> None:
    root, names = tmp_path / "data", tmp_path / "names.txt"
    for folder, value in (("images/train", 0), ("unlabeled/deep", 120), ("unlabeled", 200)):
        save_image(root / folder / f"{value}.png", value=value)
    label(root, "0")
    pick(root, 2).write(names)
    assert sorted(names.read_text().split()) == ["unlabeled/200.png", "unlabeled/deep/120.png"]
    with pytest.raises(SemipixError, match="no label for 2 of its 2 names"):
        make_split(FolderSource(root), str(names), val=0, seed=0)
    for name in ("200", "deep/120"):
        (root / f"images/train/{name}.png").parent.mkdir(exist_ok=True)
        (root / f"unlabeled/{name}.png").rename(root / f"images/train/{name}.png")
        save_mask(root / f"masks/train/{name}.png")
    split = make_split(FolderSource(root), str(names), val=0, seed=0)
    assert split.labeled == ["images/train/200.png", "images/train/deep/120.png"]


def test_files_that_cannot_be_read_are_named(greys: Path) -> None:
    (greys / "images/train/dark5.png").write_bytes(b"no image")
    save_image(greys / "images/train/a\nb.png", value=60)
    found = pick(greys, 2)
    assert not {"images/train/dark5.png", "images/train/a\nb.png"} & {name for cell in found.cells for name in cell}
    assert found.notes[0] == "2 of 12 images are left out:"
    assert "a line break in its name" in found.notes[1]
    assert "dark5.png" in found.notes[2]


@pytest.mark.parametrize(
    ("count", "pattern"),
    [(0, "-n 0: expected at least 1"), (12, "-n 12: .* has 11 images to choose from"), (11, "has 10 readable images")],
)
def test_more_than_there_are(greys: Path, count: int, pattern: str) -> None:
    if count == 11:
        (greys / "images/train/dark5.png").write_bytes(b"no image")
    with pytest.raises(SemipixError, match=pattern):
        pick(greys, count)


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(SemipixError, match="an empty folder, expected training images"):
        pick(tmp_path, 1)
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(SemipixError, match=r"none of the 1 training images can be used; the first: .*a\.png"):
        pick(tmp_path, 1)


def test_without_a_cache(greys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (greys.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(greys.parent / "file"))
    found = pick(greys, 1)
    assert "features are not kept there for the next time" in found.notes[0]
    assert len(found.names) == 1


def test_coverage(greys: Path) -> None:
    with pytest.raises(SemipixError, match="no training image has a label"):
        coverage_lines(greys)
    label(greys, "dark0", "dark1", "dark2", "dark3", "dark4", "dark5", "light0", "light1")
    lines = coverage_lines(greys)
    assert "of 8 clusters (3 of 11 images) have no labeled image; 8 labels drawn at random would leave" in lines[0]
    assert all(f"images/train/grey{number}.png" in " ".join(lines[1:]) for number in range(3))
    assert "dark" not in " ".join(lines)
    names = greys.parent / "names.txt"
    names.write_text("dark1\n")
    assert coverage_lines(greys, str(names))[0].startswith("7 of 8 clusters")
    with pytest.raises(SemipixError, match=r"data\.labels=8: --coverage takes a file of names"):
        coverage_lines(greys, "8")


def test_the_command_writes_what_training_takes(photos: Path, command: Command) -> None:
    found = command("data", "pick", photos, "-n", "2", "--labels", "none", "--write", "out/labels.txt")
    assert found.code == 0
    names = found.out.splitlines()
    assert len(names) == 2
    assert Path("out/labels.txt").read_text() == found.out
    assert Path("out/labels-sheet.jpg").stat().st_size > 1000
    for name in names:
        label(photos, Path(name).stem)
        shutil.copy(next(photos.glob("masks/val/*")), (photos / name.replace("images", "masks")).with_suffix(".png"))
    keys = [item for item in QUICK if not item.startswith("data.labels")]
    overrides: Any = [*keys, f"data.root={photos}", "data.labels=out/labels.txt", "method=supervised", "run=run"]
    trained = command("train", *overrides)
    assert trained.code == 0, trained.err
    assert "data: 2 labeled, 10 unlabeled" in trained.out
    (photos / "masks/train" / Path(names[0]).with_suffix(".png").name).unlink()
    refused = command("train", *overrides[:-1], "run=other")
    assert "out/labels.txt: no label for 1 of its 2 names" in refused.error


def test_errors_of_the_command(greys: Path, command: Command) -> None:
    assert "-n 99: " in command("data", "pick", greys, "-n", "99").error
    assert "--sheet a.pdf: " in command("data", "pick", greys, "-n", "1", "--sheet", "a.pdf").error
    assert "nowhere.txt: No such file" in command("data", "pick", greys, "-n", "1", "--labels", "nowhere.txt").error
    assert "found nothing, expected a data folder" in command("data", "pick", "nowhere", "-n", "1").error


def test_check_with_coverage(photos: Path, command: Command) -> None:
    found = command("data", "check", photos, "--coverage")
    assert found.code == 0
    assert "clusters (" in found.out
    assert "clusters (" not in command("data", "check", photos).out


@pytest.mark.parametrize(("option", "known"), [("--by", STRATEGIES), ("--depth", DEPTHS)])
def test_help_names_what_there_is(option: str, known: Any) -> None:
    for value in known:
        assert value in vars(_parser().parse_args(["data", "pick", "ROOT", "-n", "1", option, value])).values()
