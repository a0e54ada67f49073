"""Writing a file whole or not at all."""

import threading
from pathlib import Path

import pytest

from semipix.atomic import ENDING, write_text, written, written_folder


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder/a.txt"
    write_text(path, "first")
    with written(path) as file:
        file.write(b"second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    with pytest.raises(KeyError), written(path) as file:
        file.write(b"half of")
        raise KeyError
    assert path.read_text() == "second"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


def test_rights_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "text")
    (tmp_path / "b.txt").write_text("text")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_links_are_replaced_and_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a.txt").symlink_to(tmp_path / "secret")
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / f".known{ENDING}").symlink_to(tmp_path / "secret")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "secret").read_text() == "secret"
    monkeypatch.undo()
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "a.txt").is_symlink()


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path, barrier = tmp_path / "a.txt", threading.Barrier(2)

    def write(letter: bytes) -> None:
        with written(path) as file:
            barrier.wait(10)
            file.write(letter * 10**6)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(path.read_text())) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_errors_name_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with pytest.raises(OSError, match="too long") as caught:
        write_text(path, "text")
    assert caught.value.filename == str(path)


def test_a_folder_is_there_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()  # an empty one is replaced
    with written_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("a")
        assert not list((tmp_path / "new").iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "a"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_folder(tmp_path / "deep/new") as folder:
        (folder / "a").write_text("a")
        raise KeyboardInterrupt
    assert not list((tmp_path / "deep").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), written_folder(tmp_path / "file/new"):
        pass
