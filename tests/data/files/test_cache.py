"""Caches of decoded images, in memory and on disk."""

import hashlib
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semipix.data.files import reader
from semipix.data.files.cache import GIB, Cache, DiskCache, MemoryCache
from semipix.data.files.reader import Reader
from semipix.data.sources.folder import FolderSource
from semipix.errors import SemipixError, UnreadableFileError
from tests.helpers.data import module, steps
from tests.helpers.tiny_files import noise, save

LIMIT = 100_000
MakeCache = Callable[..., Cache]


def key(number: int) -> bytes:
    return hashlib.blake2b(bytes([number]), digest_size=16).digest()


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeCache:
    def cache(limit: int = LIMIT) -> Cache:
        return MemoryCache(limit) if request.param == "memory" else DiskCache(tmp_path / "kept", limit)

    return cache


def test_keeps_what_it_is_given(make: MakeCache) -> None:
    cache = make()
    given = [noise(5, 7, 3), noise(9, 4).astype(np.int32), noise(6, 6, 3).astype(np.float32), noise(31)]
    for number, values in enumerate(given):
        assert cache.get(key(number)) is None
        cache.put(key(number), values)
    for number, values in enumerate(given):
        found = cache.get(key(number))
        assert found is not None
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_keeps_its_limit(make: MakeCache, tmp_path: Path) -> None:
    cache = make()
    for number in range(20):
        cache.put(key(number), noise(10_000, seed=number))
    kept = [number for number in range(20) if cache.get(key(number)) is not None]
    assert kept == list(range(9 if isinstance(cache, DiskCache) else 10))
    assert sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.npy")) <= LIMIT


def put(cache: Cache, start: int) -> None:
    for number in range(start, start + 4):
        cache.put(key(number), np.full(1000, number, np.uint8))


def test_processes_share_it(make: MakeCache) -> None:
    cache = make()
    processes = [multiprocessing.get_context("fork").Process(target=put, args=(cache, start)) for start in (0, 2, 4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for number in range(8):
        found = cache.get(key(number))
        assert found is not None
        assert (found == number).all()


def test_a_process_that_is_not_forked_gets_its_part_of_the_memory() -> None:
    cache = MemoryCache(LIMIT, readers=4)
    cache.put(key(0), noise(100))
    copied = pickle.loads(pickle.dumps(cache))
    assert copied.limit == LIMIT // 4
    assert copied.get(key(0)) is None
    copied.put(key(0), noise(100))
    assert copied.get(key(0)) is not None


class TestDisk:
    """The cache on disk is kept after its process has ended."""

    def cache(self, tmp_path: Path, limit: int = LIMIT) -> DiskCache:
        return DiskCache(tmp_path / "kept", limit)

    @pytest.mark.parametrize("damage", [b"", b"nonsense" * 100, None])
    def test_a_damaged_entry_is_written_again(self, tmp_path: Path, damage: bytes | None) -> None:
        cache = self.cache(tmp_path)
        values = noise(50, 50)
        cache.put(key(1), values)
        (path,) = (tmp_path / "kept").rglob("*.npy")
        path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
        assert cache.get(key(1)) is None
        cache.put(key(1), values)
        found = cache.get(key(1))
        assert found is not None
        np.testing.assert_array_equal(found, values)

    def test_another_process_finds_it_and_a_lower_limit_removes_the_oldest(self, tmp_path: Path) -> None:
        cache = self.cache(tmp_path)
        for number in range(4):
            cache.put(key(number), noise(10_000))
            (path,) = (tmp_path / "kept").rglob(f"{key(number).hex()[2:]}.npy")
            os.utime(path, (number, number))
        again = self.cache(tmp_path)
        assert all(again.get(key(number)) is not None for number in range(4))
        small = self.cache(tmp_path, 25_000)
        assert [number for number in range(4) if small.get(key(number)) is not None] == [2, 3]

    def test_unfinished_entries_are_removed(self, tmp_path: Path) -> None:
        self.cache(tmp_path).put(key(0), noise(10))
        (path,) = (tmp_path / "kept").rglob("*.npy")
        dead = path.with_name(".x.partial")
        dead.write_bytes(b"unfinished")
        os.utime(dead, (0, 0))
        self.cache(tmp_path)
        assert not dead.exists()
        assert path.exists()

    def test_what_another_process_is_writing_is_no_strange_file(self, tmp_path: Path) -> None:
        self.cache(tmp_path)
        for name, age in ((".0123456789abcdef.partial", 1e9), (".fedcba9876543210.partial", 0.0)):
            (tmp_path / "kept" / name).write_text("1")
            os.utime(tmp_path / "kept" / name, (time.time() - age, time.time() - age))
        self.cache(tmp_path)
        assert [path.name for path in (tmp_path / "kept").glob(".*")] == [".fedcba9876543210.partial"]

    def test_it_is_opened_while_others_write(self, tmp_path: Path) -> None:
        cache = self.cache(tmp_path)
        with ThreadPoolExecutor(1) as writer:
            written = writer.submit(lambda: [cache.put(key(number), noise(9)) for number in range(250)])
            while not written.done():
                self.cache(tmp_path)
            written.result()
        assert all(cache.get(key(number)) is not None for number in range(250))

    @pytest.mark.parametrize("name", ["used", "lock"])
    def test_a_link_is_not_written_through(self, tmp_path: Path, name: str) -> None:
        cache = DiskCache(tmp_path / "kept", LIMIT)
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "kept" / name).unlink(missing_ok=True)
        (tmp_path / "kept" / name).symlink_to(tmp_path / "mine")
        cache.put(key(0), noise(9))
        assert (tmp_path / "mine").read_text() == "mine"

    def test_a_folder_that_everybody_may_write_to_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o1777)
        with pytest.raises(SemipixError, match=r"everybody may write to it \(drwxrwxrwt\).*set data.cache_folder=PATH"):
            DiskCache(tmp_path / "cache", GIB)

    @pytest.mark.parametrize("name", ["photo.jpg", "used"])
    def test_a_folder_of_other_files_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / name).symlink_to(tmp_path / "mine")
        with pytest.raises(SemipixError, match=f"{name} found in it, an empty folder or a cache expected"):
            self.cache(tmp_path)
        assert (tmp_path / "mine").read_text() == "mine"

    def test_only_entries_are_removed(self, tmp_path: Path) -> None:
        (tmp_path / "kept/ab").mkdir(parents=True)
        (tmp_path / "kept/ab/mine.npy").write_bytes(b"mine" * 100)
        self.cache(tmp_path, 10)
        assert (tmp_path / "kept/ab/mine.npy").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(
            SemipixError, match=r"data\.cache_folder=.*file/kept: cannot be written to .*; set data\.cac"
        ):
            DiskCache(tmp_path / "file" / "kept", LIMIT)


class TestReader:
    """With a cache, each file is decoded once."""

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        decoded: list[str] = []
        read = reader.read_pixels
        monkeypatch.setattr(
            reader,
            "read_pixels",
            lambda path, *given, **kept: [decoded.append(path.name), read(path, *given, **kept)][1],
        )
        return decoded

    def test_a_changed_file_or_size_is_read_again(self, make: MakeCache, tmp_path: Path, decoded: list[str]) -> None:
        path = save(tmp_path / "a.png", noise(20, 30, 3))
        cache = make()
        first, again = Reader(None, cache).image(path), Reader(None, cache).image(path)
        assert torch.equal(first, again)
        assert len(decoded) == 1
        assert Reader(10, cache).image(path).shape == (3, 7, 10)
        assert len(decoded) == 2
        save(path, noise(20, 30, 3, seed=1))
        os.utime(path, (5, 5))
        assert not torch.equal(Reader(None, cache).image(path), first)

    def test_reduction_can_be_switched_off(self, make: MakeCache, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", noise(20, 30, 3))
        cache = make()
        assert Reader(10, cache).image(path).shape == (3, 7, 10)
        assert Reader(10, cache).image(path, whole=True).shape == (3, 20, 30)
        assert Reader(10, cache, reduced=False).image(path).shape == (3, 20, 30)

    def test_a_limit_holds_for_what_is_cached_too(self, make: MakeCache, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", noise(20, 30))
        cache = make()
        for read in (Reader(None, cache).image, Reader(None, cache).mask):
            read(path)
        for read in (Reader(None, cache, max_pixels=599).image, Reader(None, cache, max_pixels=599).mask):
            with pytest.raises(UnreadableFileError, match=r"30x20 pixels, more than data\.max_pixels=599"):
                read(path)

    @pytest.mark.parametrize("cache", ["memory", "disk"])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_training_batches_are_the_same(
        self, folder: Path, tmp_path: Path, decoded: list[str], cache: Any, workers: int
    ) -> None:
        settings = {"crop": 4, "workers": workers, "batch_size": 4}
        expected = steps(module(FolderSource(folder), **settings))
        data = module(FolderSource(folder), cache=cache, cache_folder=tmp_path / "kept", **settings)
        steps(data)
        decoded.clear()
        found = steps(data)
        if workers == 0:
            assert not decoded
        for batch, other in zip(found, expected, strict=True):
            for part in batch:
                assert batch[part].names == other[part].names
                assert torch.equal(batch[part].image, other[part].image)
            assert torch.equal(batch["labeled"].target, other["labeled"].target)


def test_a_limit_is_of_a_machine(folder: Path) -> None:
    data = module(FolderSource(folder), crop=4, cache="memory", cache_limit=0.5)
    data.train_dataloader()
    cache = data.source.reader.cache
    assert isinstance(cache, MemoryCache)
    assert cache.limit == GIB // 2
