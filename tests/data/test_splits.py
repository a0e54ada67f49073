"""Choosing labeled and validation images."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.data.splits import Amount, Split, check_overlap, hold_out, listed_names, make_split, parse_labels
from semipix.errors import SemipixError
from tests.helpers.tiny_files import MemorySource

MakeSource = Callable[..., Source]


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        ("all", 24),
        ("1/1", 24),
        (1.0, 24),
        ("1.0", 24),
        (1, 1),
        ("1", 1),
        (8, 8),
        ("8", 8),
        ("1/8", 3),
        (0.125, 3),
        ("0.125", 3),
        ("1/100", 1),
        ("2/3", 16),
    ],
)
def test_parse_labels(labels: Amount, count: int) -> None:
    assert parse_labels(labels, 24) == count


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        (25, "only 24 labeled images"),
        (0, "at least one label"),
        (0.0, "at least one label"),
        (-3, "at least one label"),
        (-0.5, "at least one label"),
        ("1/0", "found neither a number nor a file"),
        ("nonsense", "found neither a number nor a file"),
        ("3/2", "found a share above 1"),
        (2.5, "found a share above 1"),
        (True, "found neither a number nor a file"),
    ],
)
def test_parse_labels_errors(labels: Amount, pattern: str) -> None:
    with pytest.raises(SemipixError, match=pattern) as caught:
        parse_labels(labels, 24)
    assert f"data.labels={labels}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_cover_the_training_images_without_overlap(source: MakeSource) -> None:
    data = source(labeled=20, unlabeled=5, test=3)
    split = make_split(data, labels=6, val=0.25, seed=0)
    assert (len(split.labeled), len(split.unlabeled), len(split.val)) == (6, 14, 5)
    assert sorted(split.labeled + split.unlabeled + split.val) == sorted(data.labeled() + data.unlabeled())
    assert split.test == data.test()
    assert all(names == sorted(names) for names in (split.labeled, split.unlabeled, split.val))


def test_the_sources_own_validation_images_are_kept(source: MakeSource) -> None:
    data = source(labeled=20, val=3)
    split = make_split(data, labels="1/2", val=0.5, seed=0)
    assert split.val == data.val()
    assert len(split.labeled) == 10


def test_shares_count_what_validation_leaves(source: MakeSource) -> None:
    assert len(make_split(source(labeled=20), labels="1/2", val=10, seed=0).labeled) == 5


@pytest.mark.parametrize(
    ("labeled", "val", "count"), [(7, 0.1, 1), (8, 0.1, 2), (8, "1/8", 2), (8, 1, 1), (8, "1", 1), (40, 0.1, 4)]
)
def test_a_share_of_eight_labels_validates_on_two_images(
    source: MakeSource, labeled: int, val: Amount, count: int
) -> None:
    """With one, no error map could be calibrated."""
    assert len(make_split(source(labeled=labeled), labels="all", val=val, seed=0).val) == count


def test_no_validation(source: MakeSource) -> None:
    split = make_split(source(labeled=8), labels="all", val=0, seed=0)
    assert (len(split.val), len(split.labeled), len(split.unlabeled)) == (0, 8, 0)


def test_fewer_labels_are_among_more(source: MakeSource) -> None:
    data = source(labeled=60)
    few, more = (make_split(data, labels=count, val=0.1, seed=3) for count in (8, 16))
    assert set(few.labeled) < set(more.labeled)
    assert few.val == more.val


def test_the_seed_decides(source: MakeSource) -> None:
    data = source(labeled=60)
    first, again, other = (make_split(data, labels=8, val=0.1, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.labeled != other.labeled
    assert first.val != other.val


def test_the_choice_is_the_same_in_every_process(source: MakeSource) -> None:
    # Python hashes strings differently in each process, so a choice by Python's hash would not give this list.
    assert make_split(source(labeled=40), 3, 0, seed=5).labeled == ["labeled/015", "labeled/019", "labeled/021"]


@pytest.mark.parametrize(("val", "count"), [(0.5, "4"), (8, "8"), (1.0, "8")])
def test_validation_must_leave_images(source: MakeSource, val: Amount, count: str) -> None:
    data = source(labeled=int(count) if count == "8" else 1)
    with pytest.raises(SemipixError, match=rf"data\.val={val} sets"):
        make_split(data, labels=1, val=val, seed=0)


@pytest.mark.parametrize(("val", "pattern"), [(-1, "expected 0"), ("many", "found neither"), (1.5, "above 1")])
def test_validation_errors(source: MakeSource, val: Amount, pattern: str) -> None:
    with pytest.raises(SemipixError, match=rf"data\.val={val}: .*{pattern}"):
        make_split(source(labeled=8), labels=1, val=val, seed=0)


def test_too_many_labels_after_validation(source: MakeSource) -> None:
    with pytest.raises(SemipixError, match=r"data\.labels=7: only 6 labeled images"):
        make_split(source(labeled=8), labels=7, val=2, seed=0)


def test_no_labeled_image(source: MakeSource) -> None:
    with pytest.raises(SemipixError, match="no labeled training image"):
        make_split(source(labeled=0, unlabeled=4), labels=1, val=0, seed=0)


class TestListFile:
    """`data.labels=FILE` takes the names from a text file."""

    def test_names_and_stems(self, source: MakeSource, tmp_path: Path) -> None:
        data = source(labeled=12)
        (tmp_path / "names.txt").write_text("labeled/002\n\n 007 \n002\n")
        split = make_split(data, str(tmp_path / "names.txt"), val=0, seed=0)
        assert split.labeled == ["labeled/002", "labeled/007"]
        assert len(split.unlabeled) == 10

    def test_listed_images_are_not_set_aside(self, source: MakeSource, tmp_path: Path) -> None:
        names = source(labeled=12).labeled()[:10]
        (tmp_path / "names.txt").write_text("\n".join(names))
        split = make_split(source(labeled=12), str(tmp_path / "names.txt"), val=2, seed=0)
        assert split.labeled == names
        assert len(split.val) == 2
        with pytest.raises(SemipixError, match=r"data\.val=3 sets 3 images aside, but only 2 of the 12"):
            make_split(source(labeled=12), str(tmp_path / "names.txt"), val=3, seed=0)

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [
            (
                b"001\n999\n998",
                "no training image for 2 of its 3 names, e.g. '999'; expected names such as labeled/0",
            ),
            (b" \n", "found no name"),
            (b"012\n999", "no label for 1 of its 2 names, e.g. '012'; label these images"),
            ("001".encode("utf-16"), "not UTF-8 text"),
        ],
    )
    def test_errors(self, source: MakeSource, tmp_path: Path, text: bytes, pattern: str) -> None:
        (tmp_path / "names.txt").write_bytes(text)
        with pytest.raises(SemipixError, match=rf"names\.txt: {pattern}"):
            make_split(source(labeled=12, unlabeled=2), str(tmp_path / "names.txt"), val=0, seed=0)

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        """File names of Linux are bytes."""
        (tmp_path / "names.txt").write_bytes(b"images/train/\xff.png\r\n")
        name = os.fsdecode(b"images/train/\xff.png")
        assert listed_names(tmp_path / "names.txt", [name, "images/train/b.png"]) == [name]
        with pytest.raises(SemipixError, match=r"no label for 1 of its 1 names, e\.g\. 'images/train/\\udcff\.png'"):
            listed_names(tmp_path / "names.txt", ["images/train/b.png"], [name])

    def test_an_image_that_has_left_the_folder_unlabeled(self, tmp_path: Path) -> None:
        """It may have another extension now; one that is still there has no label, whatever has its stem."""
        path, labeled = tmp_path / "names.txt", ["images/train/a.png", "images/train/b.png"]
        path.write_text("unlabeled/a.jpg\n")
        assert listed_names(path, labeled, ["unlabeled/b.jpg"]) == ["images/train/a.png"]
        with pytest.raises(SemipixError, match=r"no label for 1 of its 1 names, e\.g\. 'unlabeled/a\.jpg'"):
            listed_names(path, labeled, ["unlabeled/a.jpg"])

    def test_ambiguous_stem(
        self, folder: Path, write_image: Callable[..., Path], write_mask: Callable[..., Path]
    ) -> None:
        from semipix.data.sources.folder import FolderSource

        write_image(folder / "images/train/deep/a.png")
        write_mask(folder / "masks/train/deep/a.png")
        (folder / "names.txt").write_text("a")
        with pytest.raises(SemipixError, match="'a' matches 2 images"):
            make_split(FolderSource(folder), str(folder / "names.txt"), val=0, seed=0)
        (folder / "names.txt").write_text("deep/a\nb.png\n")
        split = make_split(FolderSource(folder), str(folder / "names.txt"), val=0, seed=0)
        assert split.labeled == ["images/train/b.png", "images/train/deep/a.png"]


class TestSplitFile:
    """A split is the same after writing and reading its file."""

    def test_round_trip(self, source: MakeSource, tmp_path: Path) -> None:
        split = make_split(source(labeled=12), labels=4, val=2, seed=0)
        split.to_json(tmp_path / "split.json")
        assert Split.from_json(tmp_path / "split.json") == split

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"labeled": []}', '{"labeled": 1, "unlabeled": 1, "val": 1, "test": 1}']
    )
    def test_other_content(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(SemipixError, match=r"split\.json: not a split file, expected JSON with the lists labeled"):
            Split.from_json(tmp_path / "split.json")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SemipixError, match=r"split\.json: no such file"):
            Split.from_json(tmp_path / "split.json")


class TestScenes:
    """If a source names scenes, all images of a scene are in the same part."""

    @pytest.fixture
    def bursts(self, source: MakeSource) -> Callable[..., Source]:
        """Images whose numbers differ only in the last digit are one scene."""

        def make(**counts: int) -> Source:
            made = source(**counts)
            made.scene = lambda name: name[:-1].replace("unlabeled", "labeled")  # type: ignore[method-assign]
            return made

        return make

    def test_labels_count_scenes(self, bursts: Callable[..., Source]) -> None:
        data = bursts(labeled=40)
        split = make_split(data, labels=2, val=1, seed=0)
        assert (len(split.labeled), len(split.unlabeled), len(split.val)) == (20, 10, 10)
        parts = [{data.scene(name) for name in names} for names in (split.labeled, split.unlabeled, split.val)]
        assert [len(part) for part in parts] == [2, 1, 1]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]

    def test_more_labels_keep_the_scenes_of_fewer(self, bursts: Callable[..., Source]) -> None:
        few, more = (make_split(bursts(labeled=60), labels=count, val=1, seed=1) for count in (2, 4))
        assert set(few.labeled) < set(more.labeled)
        assert few.val == more.val

    def test_too_many_scenes(self, bursts: Callable[..., Source]) -> None:
        with pytest.raises(SemipixError, match=r"data\.labels=8: only 4 labeled scenes are there"):
            make_split(bursts(labeled=40), labels=8, val=0, seed=0)
        with pytest.raises(SemipixError, match=r"data\.val=4 sets 4 scenes aside, but only 3 of the 4 labeled scenes"):
            make_split(bursts(labeled=40), labels=1, val=4, seed=0)

    def test_labels_by_image(self, bursts: Callable[..., Source]) -> None:
        data = bursts(labeled=40)
        data.labels_by_scene = False  # type: ignore[misc]
        split = make_split(data, labels=8, val=1, seed=0)
        assert (len(split.labeled), len(split.val)) == (8, 10)
        assert not {data.scene(name) for name in split.val} & {data.scene(name) for name in split.labeled}

    def test_validation_shows_nothing_that_unlabeled_images_show(self, bursts: Callable[..., Source]) -> None:
        data = bursts(labeled=40)
        unlabeled = {scene for scene in map(data.scene, data.labeled()) if not scene.endswith("01")}
        data.unlabeled = lambda: [f"un{scene}X" for scene in sorted(unlabeled)]  # type: ignore[method-assign]
        split = make_split(data, labels="all", val=1, seed=0)
        assert {data.scene(name) for name in split.val} == {"labeled/01"}


class TestOverlap:
    """No image or scene is in both training and evaluation."""

    @pytest.mark.parametrize("pair", [("labeled", "val"), ("labeled", "test"), ("unlabeled", "val"), ("val", "test")])
    def test_an_image_in_two_parts(self, source: MakeSource, pair: tuple[str, str]) -> None:
        parts = {"labeled": ["a"], "unlabeled": ["b"], "val": ["c"], "test": ["d"]}
        check_overlap(Split(**parts), source())
        with pytest.raises(SemipixError, match=rf"split: x is both in {pair[0]} and in {pair[1]}"):
            check_overlap(
                Split(**{part: [*names, "x"] if part in pair else names for part, names in parts.items()}), source()
            )

    def test_a_source_that_repeats_an_image_is_refused(self, source: MakeSource) -> None:
        data = source(labeled=4, val=1)
        data.parts["val"] = [data.labeled()[0]]  # type: ignore[attr-defined]
        with pytest.raises(SemipixError, match=r"split: labeled/000 is both in labeled and in val"):
            SemiSupervisedDataModule(data, labels="all")

    @pytest.mark.parametrize("train", ["labeled", "unlabeled"])
    @pytest.mark.parametrize("held_out", ["val", "test"])
    def test_a_scene_on_both_sides(self, source: MakeSource, train: str, held_out: str) -> None:
        data = source()
        data.scene = lambda name: name[0]  # type: ignore[method-assign]
        parts = {"labeled": ["a1"], "unlabeled": ["b1"], "val": ["c1"], "test": ["d1"]}
        check_overlap(Split(**parts), data)
        parts[train], parts[held_out] = ["x1"], ["x2"]
        with pytest.raises(SemipixError, match=rf"split: x2 of {held_out} shows the scene x, .* training image x1"):
            check_overlap(Split(**parts), data)

    def test_a_stored_split_is_checked_too(self, source: MakeSource) -> None:
        data = source(labeled=4, val=1)
        names = data.labeled()
        with pytest.raises(SemipixError, match="split: labeled/001 is both in labeled and in unlabeled"):
            SemiSupervisedDataModule(data, split=Split(names[:2], names[1:], data.val(), []))


class OfScenes(MemorySource):
    """Two images a scene, whatever part they are in."""

    def scene(self, name: str) -> str:
        return str(int(name[-3:]) // 2)


@pytest.mark.parametrize(
    ("labeled", "val", "of_data", "share", "least", "held_out"),
    [
        pytest.param(20, 2, 0, 0.25, 3, 5, id="a share of the labels, with those that are set aside already"),
        pytest.param(20, 8, 0, 0.25, 3, 8, id="more are set aside already"),
        pytest.param(8, 0, 0, 0.25, 3, 3, id="at least so many"),
        pytest.param(8, 0, 5, 0.25, 3, 5, id="validation images of the data suffice"),
        pytest.param(8, 0, 2, 0.25, 3, 3, id="validation images of the data are too few"),
        pytest.param(6, 0, 0, 0.25, 3, 3, id="half of the labels"),
        pytest.param(5, 0, 0, 0.25, 3, None, id="more than half of them"),
        pytest.param(3, 1, 0, 0.25, 3, None, id="more than half of those that are left"),
    ],
)
def test_labels_are_held_out(
    labeled: int, val: int, of_data: int, share: float, least: int, held_out: int | None, source: MakeSource
) -> None:
    data = source(labeled, 4, of_data)
    split = make_split(data, "all", val, seed=1)
    found = hold_out(split, data, share, least, seed=1)
    if held_out is None:
        assert found is None
        return
    assert found is not None
    check_overlap(found, data)
    assert len(found.val) == held_out
    assert {*split.val} <= {*found.val}
    assert {*found.labeled} | {*found.val} == {*split.labeled} | {*split.val}
    assert found.unlabeled == split.unlabeled
    if not of_data:  # those that a larger `data.val` would have set aside
        assert found.val == make_split(data, "all", held_out, seed=1).val


def test_scenes_are_held_out_whole_and_their_unlabeled_images_are_left_out() -> None:
    data = OfScenes(labeled=9, unlabeled=5)  # the ninth labeled and the first unlabeled image show one scene
    split = make_split(data, "all", 0, seed=0)
    left_out = set()
    for seed in range(6):
        found = hold_out(split, data, 0.01, 2, seed)
        assert found is not None
        check_overlap(found, data)
        assert len({data.scene(name) for name in found.val}) == 2
        left_out |= {*split.unlabeled} - {*found.unlabeled}
    assert left_out == {split.unlabeled[0]}
    assert hold_out(split, data, 0.01, 4, seed=0) is None
