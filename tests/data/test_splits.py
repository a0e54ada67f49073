"""Choosing labeled and validation images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from semipix.data.source import Source
from semipix.data.splits import Amount, Split, make_split, parse_labels
from semipix.errors import SemipixError

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
def test_parse_labels_slips(labels: Amount, pattern: str) -> None:
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
    # Python hashes strings differently in each process, so that a choice by hash would not meet this list twice.
    assert make_split(source(labeled=40), 3, 0, seed=5).labeled == ["labeled/015", "labeled/019", "labeled/021"]


@pytest.mark.parametrize(("val", "count"), [(0.5, "4"), (8, "8"), (1.0, "8")])
def test_validation_must_leave_images(source: MakeSource, val: Amount, count: str) -> None:
    data = source(labeled=int(count) if count == "8" else 1)
    with pytest.raises(SemipixError, match=rf"data\.val={val} sets"):
        make_split(data, labels=1, val=val, seed=0)


@pytest.mark.parametrize(("val", "pattern"), [(-1, "expected 0"), ("many", "found neither"), (1.5, "above 1")])
def test_validation_slips(source: MakeSource, val: Amount, pattern: str) -> None:
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

    def test_validation_leaves_the_listed_alone(self, source: MakeSource, tmp_path: Path) -> None:
        names = source(labeled=12).labeled()[:10]
        (tmp_path / "names.txt").write_text("\n".join(names))
        split = make_split(source(labeled=12), str(tmp_path / "names.txt"), val=2, seed=0)
        assert split.labeled == names
        assert len(split.val) == 2
        with pytest.raises(SemipixError, match=r"data\.val=3 sets 3 images aside, but only 2 of the 12"):
            make_split(source(labeled=12), str(tmp_path / "names.txt"), val=3, seed=0)

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [("999", "'999' is no training image with a label"), ("", "found no name"), ("012", "'012' is no training")],
    )
    def test_slips(self, source: MakeSource, tmp_path: Path, text: str, pattern: str) -> None:
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(SemipixError, match=rf"names\.txt: {pattern}"):
            make_split(source(labeled=12, unlabeled=2), str(tmp_path / "names.txt"), val=0, seed=0)

    def test_ambiguous_stem(
        self, folder: Path, write_image: Callable[..., Path], write_mask: Callable[..., Path]
    ) -> None:
        from semipix.data.folder import FolderSource

        write_image(folder / "images/train/deep/a.png")
        write_mask(folder / "masks/train/deep/a.png")
        (folder / "names.txt").write_text("a")
        with pytest.raises(SemipixError, match="'a' stands for 2 images"):
            make_split(FolderSource(folder), str(folder / "names.txt"), val=0, seed=0)
        (folder / "names.txt").write_text("deep/a\nb.png\n")
        split = make_split(FolderSource(folder), str(folder / "names.txt"), val=0, seed=0)
        assert split.labeled == ["images/train/b.png", "images/train/deep/a.png"]


class TestSplitFile:
    """A split survives its file."""

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
