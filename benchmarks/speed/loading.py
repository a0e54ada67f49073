"""How fast are images read, decoded and augmented, and what do millions of files cost?

    python -m benchmarks.speed.loading speed      images/s of JPEG and PNG, 500 and 4,000 px, by cache and workers
    python -m benchmarks.speed.loading names      a list of 1,000,000 files: seconds to start, memory of each worker
    python -m benchmarks.speed.loading shards     200,000 small images in shards: memory at start, middle and end

Prints its records. `--json` writes them to a file and keeps the records of the other two there. Variants of a size and
format take turns, and the figure is the median of the rounds, because the speed of a machine varies. If one process
does all the work, its processor time is given too, which depends less on other processes.
"""

import io
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from benchmarks.common import Record, new_parser, records_in, run, write_records
from benchmarks.speed.memory import held_bytes
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.files.decode import unit_range
from semipix.data.files.names import Names
from semipix.data.sources.folder import FolderSource
from semipix.data.splits import Split
from semipix.launch.variants import environment

CROP = 256
COUNTS = {500: 24, 4000: 4}
"""Images of each size; a pass over them is one measurement."""


def write_photo(path: Path, side: int, seed: int) -> None:
    """A smooth scene with a camera's noise, 4:3."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), np.int16)
    noise = draw.normal(0, 3, smooth.shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(path)


def make_folder(root: Path, extension: str, side: int) -> Path:
    """One labeled image and `COUNTS[side]` unlabeled ones."""
    write_photo(root / f"images/train/a.{extension}", side, 0)
    (root / "masks/train").mkdir(parents=True)
    mask = np.zeros((side * 3 // 4, side), np.uint8)
    mask[: side // 2] = 1
    Image.fromarray(mask).save(root / "masks/train/a.png")
    (root / "classes.txt").write_text("ground\nsky\n")
    for number in range(COUNTS[side]):
        write_photo(root / f"unlabeled/{number}.{extension}", side, number + 1)
    return root


class Variant:
    """One way of reading a folder."""

    def __init__(self, root: Path, kept: Path, workers: int, cache: Any, resize: int | None) -> None:
        self.data = SemiSupervisedDataModule(
            FolderSource(root),
            labels="all",
            val=0,
            batch_size=5,
            labeled_per_batch=1,
            crop=CROP,
            resize=resize,
            pad=True,
            workers=workers,
            cache=cache,
            cache_limit=1,
            cache_folder=kept,
        )
        self.loader = self.data.train_dataloader().iterables["unlabeled"]
        self.rates: list[float] = []
        self.costs: list[float] = []

    def read(self) -> None:
        """A pass over the unlabeled images."""
        began, spent = time.perf_counter(), time.process_time()
        images = sum(len(batch.image) for batch in self.loader)
        self.rates.append(images / (time.perf_counter() - began))
        self.costs.append((time.process_time() - spent) / images)


def full_scale(variant: Variant) -> Variant:
    """The same without decoding at reduced scale: the whole image as floats, then resized."""
    source = variant.data.source
    source.reader.reduced = False
    read = source.image
    source.image = lambda name, seed=None: tv_tensors.Image(unit_range(read(name, seed)))  # type: ignore[method-assign]
    return variant


def speed(rounds: int) -> list[Record]:
    records = []
    for side in COUNTS:
        for extension in ("jpg", "png"):
            with tempfile.TemporaryDirectory() as folder:
                root, kept = make_folder(Path(folder) / "data", extension, side), Path(folder) / "kept"
                variants: dict[tuple[Any, ...], Variant] = {}
                for workers in (0, 1, 2):
                    for cache in (None, "memory", "disk"):
                        variants[None, "as it is", cache, workers] = Variant(root, kept, workers, cache, None)
                for resize in (250, 500)[: 1 if side == 500 else 2]:
                    variants[resize, "reduced", None, 0] = Variant(root, kept, 0, None, resize)
                    variants[resize, "full", None, 0] = full_scale(Variant(root, kept, 0, None, resize))
                variants[None, "whole as floats", None, 0] = full_scale(Variant(root, kept, 0, None, None))
                for number in range(rounds + 1):
                    for variant in variants.values():
                        variant.read()
                        if number == 0:
                            variant.rates.clear()  # workers start, caches fill
                            variant.costs.clear()
                for (resize, decoding, cache, workers), variant in variants.items():
                    record = {
                        "case": "speed",
                        "format": extension,
                        "side": side,
                        "crop": CROP,
                        "resize": resize,
                        "decoding": decoding,
                        "cache": cache or "none",
                        "workers": workers,
                        "images_per_s": round(statistics.median(variant.rates), 1),
                        "rounds": rounds,
                    }
                    if workers == 0:
                        record["cpu_ms_per_image"] = round(1000 * statistics.median(variant.costs), 2)
                    records.append(record)
                    print(
                        {key: value for key, value in record.items() if key not in ("case", "crop", "rounds")},
                        flush=True,
                    )
    return records


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    fields = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    return sum(1024 * int(field[1]) for field in fields if field[0] in ("Private_Clean:", "Private_Dirty:"))


def _read_all(names: Any, grown: Any) -> None:
    before = private_bytes()
    order = np.random.default_rng(0).permutation(len(names))
    before += order.nbytes
    letters = 0
    for index in order:
        letters += len(names[int(index)])
    grown.put(private_bytes() - before)


def growth(names: Any) -> int:
    """Bytes by which a forked process grows while it reads all names in random order."""
    context = multiprocessing.get_context("fork")
    grown = context.Queue()
    process = context.Process(target=_read_all, args=(names, grown))
    process.start()
    result = int(grown.get())
    process.join()
    return result


def names(count: int) -> list[Record]:
    """Empty files stand for the images; nothing of them is read before training."""
    record: Record = {"case": "names", "files": count}
    with tempfile.TemporaryDirectory() as folder:
        root = make_folder(Path(folder), "jpg", 500)
        for number in range(count):
            part = root / f"unlabeled/{number // 10000:03d}"
            if number % 10000 == 0:
                part.mkdir()
            os.close(os.open(part / f"{number:08d}.jpg", os.O_CREAT))
        steps: dict[str, Callable[[], Any]] = {}
        made: dict[str, Any] = {}
        steps["list_s"] = lambda: made.update(source=FolderSource(root))
        settings: dict[str, Any] = {"labels": "all", "val": 0, "crop": CROP, "workers": 0}
        steps["split_s"] = lambda: made.update(data=SemiSupervisedDataModule(made["source"], **settings))
        steps["first_draw_s"] = lambda: next(iter(made["data"].train_dataloader().iterables["unlabeled"].sampler))
        split = Path(folder) / "split.json"
        steps["write_split_s"] = lambda: made["data"].split.to_json(split)
        steps["read_split_s"] = lambda: made.update(split=Split.from_json(split))
        for name, step in steps.items():
            began, spent = time.perf_counter(), time.process_time()
            step()
            record[name] = round(time.perf_counter() - began, 2)
            record[f"{name[:-2]}_cpu_s"] = round(time.process_time() - spent, 2)
        held: Names = made["data"].split.unlabeled
        record["names_bytes"] = held.nbytes
        record["grown_bytes_per_worker"] = growth(held)
        record["grown_bytes_per_worker_of_a_list"] = growth(list(held))
    print(record, flush=True)
    return [record]


def shards(count: int) -> list[Record]:
    """Memory of this process, which reads the shards itself; once in the first tenth, in the middle and at the end."""
    side, per_shard, record = 64, 2000, {"case": "shards", "images": count, "side": 64}
    with tempfile.TemporaryDirectory() as folder:
        root = make_folder(Path(folder) / "data", "jpg", 500)
        for shard in range(0, count, per_shard):
            with tarfile.open(Path(folder) / f"pool-{shard // per_shard:05d}.tar", "w") as archive:
                for number in range(shard, shard + per_shard):
                    buffer = io.BytesIO()
                    pixels = np.full((side, side, 3), number % 256, np.uint8)
                    Image.fromarray(pixels).save(buffer, format="JPEG")
                    member = tarfile.TarInfo(f"{number:08d}.jpg")
                    member.size = buffer.tell()
                    buffer.seek(0)
                    archive.addfile(member, buffer)
        began = time.process_time()
        data = SemiSupervisedDataModule(
            FolderSource(root),
            labels="all",
            val=0,
            batch_size=64,
            labeled_per_batch=1,
            crop=side,
            scale=[1, 1],
            workers=0,
            shards=f"{folder}/pool-*.tar",
        )
        record["count_cpu_s"] = round(time.process_time() - began, 2)
        loader = data.train_dataloader().iterables["unlabeled"]
        places = {len(loader) // 10: "start", len(loader) // 2: "middle", len(loader): "end"}
        seen = np.zeros(count, np.int64)
        began = time.process_time()
        for number, batch in enumerate(loader, 1):
            for name in batch.names:
                seen[int(name[-12:-4])] += 1
            if number in places:
                record[f"rss_{places[number]}_bytes"] = held_bytes()
        record["images_per_cpu_s"] = round(int(seen.sum()) / (time.process_time() - began), 1)
        record["missing"] = int((seen == 0).sum())
        record["repeated"] = int(seen.sum()) - count
    print(record, flush=True)
    return [record]


def main() -> None:
    parser = new_parser("speed.loading", __doc__)
    parser.add_argument("case", choices=("speed", "names", "shards"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, help="files or images; by default 1,000,000 names and 200,000 in shards")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.case == "speed":
        records = speed(given.rounds)
    elif given.case == "names":
        records = names(given.count or 1_000_000)
    else:
        records = shards(given.count or 200_000)
    kept = [record for record in records_in(given.json) if record["case"] != given.case]
    write_records(given.json, kept + records, environment())


if __name__ == "__main__":
    run(main)
