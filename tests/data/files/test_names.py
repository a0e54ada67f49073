"""Lists of very many names."""

import pickle

import pytest

from semipix.data.files.names import Names

GIVEN = ["a.png", "", "bücher/ß.jpg", "bad\udcff.png", "z"]


def test_as_a_list() -> None:
    names = Names(GIVEN)
    assert list(names) == GIVEN
    assert [names[index] for index in range(5)] == GIVEN
    assert names[-2] == GIVEN[-2]
    assert names[1:4] == GIVEN[1:4]
    assert len(names) == 5
    assert names == GIVEN
    assert names == Names(GIVEN)
    assert names != Names(["a.pngb", *GIVEN[2:]])
    assert names != GIVEN[:4]
    assert names + ["x"] == [*GIVEN, "x"]  # noqa: RUF005
    assert ["x"] + names == ["x", *GIVEN]  # noqa: RUF005
    assert "z" in names
    assert "y" not in names
    assert Names() == []
    with pytest.raises(IndexError):
        names[5]


def test_only_the_arrays_are_sent_to_a_process() -> None:
    names = Names(f"images/train/{number:08d}.jpg" for number in range(1000))
    copied = pickle.loads(pickle.dumps(names))
    assert copied == names
    assert names.nbytes == 1000 * (8 + 25)
    assert len(pickle.dumps(names)) < 1.05 * names.nbytes
