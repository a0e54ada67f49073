"""Unlabeled images in shards."""

import functools
import io
import json
import shutil
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch

from semipix.data.batches.shards import Shards, images_of
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.scenes import ScenesSource
from semipix.errors import SemipixError
from semipix.training.checkpoints import read_checkpoint
from semipix.training.learner import Learner
from tests.conftest import Result
from tests.helpers.data import encoded, module, write
from tests.helpers.tiny_files import MemorySource, noise

COUNTS = (5, 3, 6)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Three shards with 14 images and other files; every pixel of image i is i."""
    number = 0
    for shard, count in enumerate(COUNTS):
        files: dict[str, bytes] = {}
        for _ in range(count):
            files |= {f"{number:03d}.cls": b"1", f"{number:03d}.png": encoded(number), f"{number:03d}.seg.png": b"x"}
            number += 1
        write(tmp_path / f"pool-{shard}.tar", {"__meta__": b"", **files})
    return tmp_path


def data(pool: Path, rank: int = 0, world_size: int = 1, **options: Any) -> SemiSupervisedDataModule:
    settings = {"batch_size": 8, "labeled_per_batch": 4, "scale": (1, 1), "shard_buffer": 3, **options}
    made = module(MemorySource(), **{"shards": f"{pool}/pool-{{0..2}}.tar", **settings})
    made.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, training=False)  # type: ignore[assignment]
    return made


def epoch(made: SemiSupervisedDataModule, number: int = 0, done: int = 0) -> list[list[int]]:
    """The images of each batch of an epoch, beginning at a place."""
    loader = made.train_dataloader().iterables["unlabeled"]
    loader.stream.continue_at(number * made.batches_per_epoch + done, done)
    batches = list(loader)
    for batch in batches:
        assert torch.allclose(batch.image[:, 0, 0, 0] * 255, torch.tensor([float(int(n[-7:-4])) for n in batch.names]))
    return [[int(name[-7:-4]) for name in batch.names] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_each_image_once_an_epoch(pool: Path, workers: int, world_size: int) -> None:
    orders = []
    for number in range(2):
        ranks = [epoch(data(pool, rank, world_size, workers=workers), number) for rank in range(world_size)]
        assert all(len(batch) == 4 // world_size for batches in ranks for batch in batches)
        drawn = [image for batches in ranks for batch in batches for image in batch]
        counts = Counter(drawn)
        assert set(counts) == set(range(14))
        assert len(drawn) == 16  # four batches of four: the last is filled up
        assert max(counts.values()) <= 2
        orders.append(drawn)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_follows_from_the_seed_and_goes_on_where_it_stopped(pool: Path, workers: int) -> None:
    whole = epoch(data(pool, workers=workers), 1)
    assert epoch(data(pool, workers=workers), 1) == whole
    assert epoch(data(pool, workers=workers, seed=1), 1) != whole
    assert epoch(data(pool, workers=workers), 1, done=1) == whole[1:]
    assert epoch(data(pool, workers=workers), 1, done=3) == whole[3:]


def test_epochs_and_steps_count_the_pool(pool: Path) -> None:
    made = data(pool)
    assert (made.unlabeled_count, made.batches_per_epoch, made.mixed) == (14, 4, True)
    assert made.split.unlabeled == []


@pytest.mark.parametrize("pattern", ["pool-{0..2}.tar", "pool-*.tar", "pool-0.tar::POOL/pool-{1..2}.tar", "index.json"])
def test_patterns(pool: Path, pattern: str) -> None:
    listed = [{"url": f"pool-{shard}.tar", "nsamples": count} for shard, count in enumerate(COUNTS)]
    (pool / "index.json").write_text(json.dumps({"shardlist": listed}))
    shards = Shards(f"{pool}/{pattern.replace('POOL', str(pool))}")
    assert shards.counts.tolist() == list(COUNTS)


def test_urls_are_counted_by_reading(pool: Path) -> None:
    shards = Shards(f"pipe:cat {pool}/pool-{{0..2}}.tar")
    assert shards.counts.tolist() == list(COUNTS)
    drawn = epoch(data(pool, shards=f"pipe:cat {pool}/pool-{{0..2}}.tar"))
    assert {image for batch in drawn for image in batch} == set(range(14))


def test_a_command_that_fails(pool: Path) -> None:
    with pytest.raises(SemipixError, match=r"^pipe:cat .*none\.tar: truncated or damaged shard"):
        Shards(f"pipe:cat {pool}/none.tar")


def test_a_failed_command_is_reported_with_its_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> None:
        raise OSError(f"((['curl', '-f', '{url}'],), {{'bufsize': 8192}}): exit 7 (read) {{}}")

    monkeypatch.setattr("semipix.data.batches.shards._open_shard", fail)
    with pytest.raises(SemipixError, match=r"^http://there/pool\.tar: truncated .* ended with exit status 7\); fix"):
        Shards("http://there/pool.tar")


@pytest.fixture
def server(pool: Path) -> Iterator[str]:
    """The address of a web server with the shards."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=pool)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads http by curl")
@pytest.mark.parametrize("workers", [0, 2])
def test_over_http(server: str, pool: Path, workers: int) -> None:
    drawn = epoch(data(pool, shards=f"{server}/pool-{{0..2}}.tar", workers=workers))
    assert {image for batch in drawn for image in batch} == set(range(14))
    with pytest.raises(SemipixError, match=r"^http:.*/none\.tar: truncated or damaged shard"):
        Shards(f"{server}/none.tar")


class TestObjectStorage:
    """Schemes that webdataset does not know are opened by fsspec; its memory file system replaces a bucket."""

    def test_each_image_once(self, pool: Path) -> None:
        bucket = fsspec.filesystem("memory")
        for path in pool.glob("*.tar"):
            bucket.pipe_file(f"/bucket/{path.name}", path.read_bytes())
        url = "memory://bucket/pool-{0..2}.tar"
        assert Shards(url).counts.tolist() == list(COUNTS)
        drawn = epoch(data(pool, shards=url))
        assert {image for batch in drawn for image in batch} == set(range(14))

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("memory://bucket/none.tar", r"no such shard; fix data\.shards"),
            ("nosuch://bucket/pool.tar", r"cannot be opened \(Protocol not known: nosuch\); install what fsspec needs"),
        ],
    )
    def test_missing_shards(self, url: str, message: str) -> None:
        with pytest.raises(SemipixError, match=message):
            Shards(url)


class TestDamage:
    """Shards and images that cannot be read are handled by `data.on_error`."""

    @pytest.fixture
    def broken(self, pool: Path) -> Path:
        """A shard that ends in the middle of an image."""
        files = {f"{number:03d}.png": noise(3000).tobytes() for number in range(20, 23)}
        path = write(pool / "pool-2.tar", {"010.png": encoded(10), "011.png": encoded(11), **files})
        path.write_bytes(path.read_bytes()[: 2 * 1024 + 2000])
        return pool

    def test_at_the_start(self, broken: Path) -> None:
        pattern = (
            r"pool-2\.tar: truncated or damaged shard \(unexpected end of data\); replace it .* data\.on_error=skip"
        )
        with pytest.raises(SemipixError, match=pattern):
            data(broken)
        made = data(broken, on_error="skip")
        assert made.unlabeled_count == 5 + 3 + 3 - 1
        made.skipped.path = broken / "skipped.txt"
        drawn = epoch(made)
        assert {image for batch in drawn for image in batch} == {*range(8), 10, 11}
        assert "pool-2.tar: truncated" in made.skipped.lines()[0]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_in_the_middle_of_an_epoch(self, pool: Path, workers: int) -> None:
        made, skipping = data(pool, workers=workers), data(pool, workers=workers, on_error="skip")
        path = pool / "pool-2.tar"
        path.write_bytes(path.read_bytes()[: 11 * 512])
        message = ""
        try:
            epoch(made)
        except SemipixError as error:
            message = str(error)
        assert f"{path}: truncated" in message
        assert "data.on_error=skip" in message
        skipping.skipped.path = pool / "skipped.txt"
        assert sum(map(len, epoch(skipping))) == 16
        assert skipping.skipped.count() == 1
        assert f"{path}: truncated" in (pool / "skipped.txt").read_text()

    def test_an_image_in_a_shard(self, pool: Path) -> None:
        write(pool / "pool-0.tar", {"000.png": b"broken", "001.png": encoded(1)})
        with pytest.raises(SemipixError, match=r"pool-0\.tar/000\.png: not a readable image; .* data\.on_error=skip"):
            epoch(data(pool))
        made = data(pool, on_error="skip")
        made.skipped.path = pool / "skipped.txt"
        drawn = epoch(made)
        assert all(len(batch) == 4 for batch in drawn)
        assert 0 not in {image for batch in drawn for image in batch}
        assert made.skipped.count() == 1

    def test_nothing_can_be_read(self, pool: Path) -> None:
        for shard in range(3):
            write(pool / f"pool-{shard}.tar", {f"{number:03d}.png": b"broken" for number in range(4)})
        made = data(pool, on_error="skip")
        made.skipped.path = pool / "skipped.txt"
        with pytest.raises(SemipixError, match=r"none of the images next to it could be read; check data\.shards"):
            epoch(made)


class TestErrors:
    """Each error is one line."""

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("none.tar", r"data\.shards=.*none\.tar: no such file: .*none\.tar; expected tar archives, fix"),
            ("none-*.tar", r"no such file: .*none-\*\.tar"),
            ("none.json", r"data\.shards=.*none\.json: no such file"),
            ("bad.json", r'data\.shards=.*bad\.json: not an index of shards, expected JSON with "shardlist"'),
            ("text.tar", r"text\.tar: truncated or damaged shard"),
            ("empty.tar", r"found no image in 1 shards, expected samples with one of the extensions \.bmp"),
        ],
    )
    def test_patterns(self, pool: Path, pattern: str, message: str) -> None:
        (pool / "bad.json").write_text('{"shards": []}')
        (pool / "text.tar").write_text("no archive" * 200)
        write(pool / "empty.tar", {"a.txt": b"a"})
        with pytest.raises(SemipixError, match=message):
            Shards(f"{pool}/{pattern}")

    def test_matting_needs_trimaps(self, pool: Path) -> None:
        with pytest.raises(SemipixError, match=r"data\.shards=.*: images for matting need trimaps"):
            module(ScenesSource(32, train=8, val=1, kind="matting"), shards=f"{pool}/pool-0.tar")

    def test_several_crops_of_an_image(self, pool: Path) -> None:
        with pytest.raises(SemipixError, match=r"image=3: shards are .*; set data\.samples_per_image=\[3,1\]$"):
            data(pool, samples_per_image=3)
        assert data(pool, samples_per_image=[3, 1]).samples_of_a_pass()[1] == 14

    def test_small_images(self, pool: Path) -> None:
        with pytest.raises(SemipixError, match=r"pool-\d\.tar/\d+\.png: image is 16x12 pixels, smaller than"):
            epoch(data(pool, crop=13))

    def test_without_webdataset(self, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
        with pytest.raises(SemipixError, match=r"pip install 'semipix\[shards\]'"):
            Shards(f"{pool}/pool-0.tar")


def test_compressed_shards_hold_the_same(pool: Path) -> None:
    with tarfile.open(pool / "a.tar.gz", "w:gz") as archive:
        archive.add(pool / "pool-0.tar", "ignored.bin")
        member = tarfile.TarInfo("deep/000.png")
        member.size = len(encoded(7))
        archive.addfile(member, io.BytesIO(encoded(7)))
    assert Shards(f"{pool}/a.tar.gz").counts.tolist() == [1]
    assert [image.name.rpartition("tar.gz/")[2] for image in images_of(f"{pool}/a.tar.gz")] == ["deep/000.png"]


def test_trained_and_resumed(pool: Path, train: Callable[..., Result], command: Callable[..., Result]) -> None:
    overrides = [f"data.shards={pool}/pool-*.tar", "data.crop=8", "method=mean_teacher", "validations=0", "steps=9"]
    assert train(*overrides, "run=whole").code == 0
    assert json.loads(Path("whole/summary.json").read_text())["unlabeled"] == 14
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semipix.training.learner.Learner.on_train_batch_start", stop_after(4))
        assert "cut off" in train(*overrides, "run=cut", "checkpoint_every=4").error
    assert command("train", "resume=cut").code == 0
    states = [read_checkpoint(Path(run, "checkpoints/last.ckpt"))["state_dict"] for run in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def stop_after(steps: int) -> Callable[..., None]:
    """An `on_train_batch_start` that fails after some steps, counted over all epochs."""
    begin = Learner.on_train_batch_start

    def on_train_batch_start(self: Learner, *args: Any) -> None:
        if self.trainer.global_step == steps:
            raise SemipixError("cut off")
        begin(self, *args)

    return on_train_batch_start
