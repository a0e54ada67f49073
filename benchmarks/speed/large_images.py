"""How much memory and time does `semipix predict` take for large images?

Each case is a child process that predicts one image with a `unet` that was trained for one step from ImageNet weights.
The system counts its peak of resident memory and its processor time, start-up included. `--tree` also measures the
package of another source tree in the same run, to compare two versions. A record of the same tree and case is replaced.

    OMP_NUM_THREADS=2 python -m benchmarks.speed.large_images --json benchmarks/results/large_images.json
    OMP_NUM_THREADS=2 python -m benchmarks.speed.large_images --tree before=../other/src --megapixels 1 4 9
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from semipix.launch import runner
from semipix.launch.variants import environment

HERE = Path(__file__).resolve().parents[2] / "src"


def make_data(root: Path, classes: int) -> None:
    """A data folder to train one step on."""
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"{index}\n" for index in range(classes)))
    for number in range(8):
        photo = draw.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(photo).save(root / f"images/train/{number}.png")
        Image.fromarray(draw.integers(0, classes, (96, 96), np.uint8)).save(root / f"masks/train/{number}.png")


def make_photo(path: Path, megapixels: int) -> None:
    """A smooth random square photo with noise, as a JPEG."""
    side = round(1000 * megapixels**0.5)
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (side // 50, side // 50, 3), np.uint8))
    photo = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    photo = (photo + draw.integers(-8, 9, photo.shape, np.int16)).clip(0, 255).astype(np.uint8)
    Image.fromarray(photo).save(path)


def run(source: Path, *arguments: object) -> dict[str, float]:
    """Run a command of semipix; its seconds by the clock and of processor time, and its peak of resident memory."""
    before = time.perf_counter()
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    variables = runner.surroundings(PYTHONPATH=str(source))
    with runner.started(runner.semipix(*map(str, arguments)), env=variables, **streams) as process:
        assert process.stderr is not None
        printed = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)  # which says what it used, as Popen.wait does not
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: exit status {process.returncode}\n{printed[-2000:]}")
    kib = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "peak_mib": round(kib / 1024),
        "seconds": round(time.perf_counter() - before, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[1, 4, 9, 36])
    parser.add_argument("--methods", nargs="+", default=["supervised", "gct"])
    parser.add_argument("--tile", type=int, help="of semipix predict")
    parser.add_argument("--overlap", type=int, help="of semipix predict, with --tile")
    parser.add_argument(
        "--keys", nargs="*", default=[], metavar="KEY=VALUE", help="of the training, such as model.NAME"
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 21])
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=SRC", help="another tree to measure too")
    parser.add_argument("--only-tree", action="store_true", help="do not measure this tree")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    trees = {name: Path(path).resolve() for name, path in (given.split("=", 1) for given in options.tree)}
    if not options.only_tree:
        trees["this"] = HERE
    records = json.loads(options.json.read_text())["records"] if options.json and options.json.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for classes in options.classes:
            make_data(folder / f"data{classes}", classes)
        for megapixels in options.megapixels:
            photo = folder / f"{megapixels}.jpg"
            make_photo(photo, megapixels)
            for method in options.methods:
                for classes in options.classes:
                    trained = folder / f"{method}{classes}"
                    if not trained.exists():
                        data = f"data.root={folder / f'data{classes}'}", "data.val=0", "data.crop=64", "data.workers=0"
                        model = "model=unet", "data=folder", f"method={method}", "steps=1"
                        data = *data, "data.batch_size=4", "data.labels=4", *options.keys
                        run(HERE, "train", *model, *data, f"run={trained}")
                    for tree, source in trees.items():
                        found: dict[str, Any] = {
                            "tree": tree,
                            "threads": torch.get_num_threads(),
                            "method": method,
                            "classes": classes,
                            "megapixels": megapixels,
                        }
                        if options.tile or options.keys:
                            found |= {"tile": options.tile, "overlap": options.overlap, "keys": options.keys}
                        before = os.getloadavg()[0]
                        large: list[Any] = ["--max-pixels", 10**9]
                        large += ["--tile", options.tile] if options.tile else []
                        large += ["--overlap", options.overlap] if options.overlap else []
                        measured = run(source, "predict", trained, photo, "--out", folder / "out", *large)
                        records = [record for record in records if any(record.get(key) != found[key] for key in found)]
                        loads = {"load_average": [round(load, 1) for load in (before, os.getloadavg()[0])]}
                        records.append({**found, **measured, **loads})
                        print(json.dumps(records[-1]), flush=True)
                        if options.json:
                            about = environment("CPU", torch.get_num_threads())
                            options.json.write_text(
                                json.dumps({**about, "seed": 0, "records": records}, indent=2) + "\n"
                            )


if __name__ == "__main__":
    main()
