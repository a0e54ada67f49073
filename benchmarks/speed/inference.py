"""How close are `semipix predict` and `evaluate` to the speed of the model's bare forward pass?

Three things take turns in one run: bare forward passes over images that are already decoded, in the batches that
`predict` makes, and whole passes of `predict` and of `evaluate` over the folder of files. Some cases predict in tiles;
their images are computed whole by the others. `predict` is compared with the prediction and its flaw map, `evaluate`
with all candidates for deployment, which is what each has to compute.
Figures are medians of images a second. Shares are medians over the rounds: by the clock, and for `predict` by processor
time too, which is the share to expect if reading and writing have no core of their own. A record of the same case and
threads is replaced.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.inference --json benchmarks/results/inference.json
    python -m benchmarks.speed.inference --json benchmarks/results/inference.json
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch import nn

from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.sources.folder import FolderSource
from semipix.functional.grouping import batch_pixels
from semipix.inference.files import find_images
from semipix.inference.pipeline import predict_files
from semipix.inference.predictor import Predictor
from semipix.launch.variants import environment
from semipix.methods.base import Method
from semipix.methods.gct import GCT
from semipix.methods.supervised import Supervised
from semipix.methods.tiles import Tiling
from semipix.models.adapt import make_model
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.models.smp import SMP
from semipix.tasks.segmentation import Segmentation
from semipix.training.learner import Learner
from semipix.training.quiet import quiet

CLASSES = 11


class Case(NamedTuple):
    """A method and model, the files they are given, and the tiles that `predict` computes them in, if any."""

    method: Callable[..., Method]
    model: Callable[..., nn.Module]
    height: int
    width: int
    images: int
    suffix: str
    tiling: Tiling | None = None


CASES = {
    "unet_160x120_jpeg": Case(Supervised, partial(SMP, pretrained=False), 120, 160, 257, "jpg"),
    "unet_480x360_jpeg": Case(Supervised, partial(SMP, pretrained=False), 360, 480, 65, "jpg"),
    "unet_1600x1200_jpeg": Case(Supervised, partial(SMP, pretrained=False), 1200, 1600, 5, "jpg"),
    "unet_1600x1200_jpeg_tiles_of_512": Case(
        Supervised, partial(SMP, pretrained=False), 1200, 1600, 5, "jpg", Tiling(512, 64)
    ),
    "unet_1600x1200_jpeg_tiles_of_1024": Case(
        Supervised, partial(SMP, pretrained=False), 1200, 1600, 5, "jpg", Tiling(1024, 384)
    ),
    "gct_unet_160x120_png": Case(GCT, partial(SMP, pretrained=False), 120, 160, 257, "png"),
    "deeplab_v2_321x321_jpeg": Case(Supervised, partial(DeepLabV2, pretrained=False), 321, 321, 9, "jpg"),
}


def make_folder(root: Path, case: Case) -> None:
    """Write smooth random photos, as compressible as real ones, with masks of blocks."""
    draw = np.random.default_rng(0)
    root.joinpath("classes.txt").write_text("".join(f"{index}\n" for index in range(CLASSES)))
    for number in range(case.images):
        split = "test" if number else "train"
        small = draw.integers(0, 256, (case.height // 8, case.width // 8, 3), np.uint8)
        photo = np.asarray(Image.fromarray(small).resize((case.width, case.height), Image.Resampling.BICUBIC), np.int16)
        photo = (photo + draw.integers(-8, 9, photo.shape)).clip(0, 255).astype(np.uint8)
        mask = Image.fromarray(draw.integers(0, CLASSES, (4, 4), np.uint8)).resize(
            (case.width, case.height), Image.Resampling.NEAREST
        )
        for kind, picture, suffix in (("images", Image.fromarray(photo), case.suffix), ("masks", mask, "png")):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            picture.save(root / kind / split / f"{number:04d}.{suffix}")


def rounds_of(case: Case, root: Path, repeats: int) -> Iterator[dict[str, float]]:
    """Images a second of each way, round after round."""
    torch.manual_seed(0)
    task = Segmentation(classes=[str(index) for index in range(CLASSES)])
    method = case.method(task, lambda number: make_model(case.model, task.in_channels, task.channels))
    files = find_images([root / "images/test"]).files
    predictor = Predictor(method, root / "out", tiling=case.tiling)
    photos = [predictor.read(*pair) for pair in files]
    size = max(1, batch_pixels(predictor.device.type) // (case.height * case.width))
    batches = [torch.stack([photo.seen for photo in photos[at : at + size]]) for at in range(0, len(photos), size)]
    data = SemiSupervisedDataModule(FolderSource(root), labels="all", val=0, workers=2, batch_size=1)
    learner = Learner(method, optimizer=partial(torch.optim.SGD, lr=0.1), channels_last=True)
    trainer = pl.Trainer(
        devices=1, logger=False, enable_model_summary=False, enable_progress_bar=False, enable_checkpointing=False
    )

    def bare(compute: Callable[[torch.Tensor], object]) -> None:
        method.eval().to(predictor.device)
        with torch.inference_mode():
            for batch in batches:
                compute(batch.to(predictor.device, memory_format=predictor.memory_format))
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()

    def predict() -> None:
        shutil.rmtree(predictor.out, ignore_errors=True)
        assert list(predict_files(predictor, files)) == [None] * len(files)

    def evaluate() -> None:
        trainer.test(learner, data.test_dataloader(), verbose=False)

    ways: dict[str, Callable[[], object]] = {"forward": partial(bare, method), "predict": predict, "evaluate": evaluate}
    if type(method).evidence is not Method.evidence:
        ways["evidence"] = partial(bare, method.evidence)
    if len(method.candidates()) > 1:
        ways["candidates"] = partial(bare, method.candidate_outputs)
    for number in range(repeats + 1):
        found = {}
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            way()
            found[name] = len(files) / (time.perf_counter() - began)
            found[f"{name}_cpu"] = len(files) / (time.process_time() - used)
        if number:  # the first warms caches up
            yield found


def measure(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """Medians of a case, and what share of the bare model `predict` and `evaluate` reach."""
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), case)
        rounds = list(rounds_of(case, Path(folder), repeats))
    bare = "evidence" if "evidence" in rounds[0] else "forward"
    all_candidates = "candidates" if "candidates" in rounds[0] else "forward"
    shares = {
        "predict_share": statistics.median(found["predict"] / found[bare] for found in rounds),
        "predict_share_cpu": statistics.median(found["predict_cpu"] / found[f"{bare}_cpu"] for found in rounds),
        "evaluate_share": statistics.median(found["evaluate"] / found[all_candidates] for found in rounds),
    }
    medians = {
        f"{way}_per_s": round(statistics.median(found[way] for found in rounds), 2)
        for way in rounds[0]
        if not way.endswith("_cpu")
    }
    return {
        "case": name,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        **medians,
        **{key: round(value, 3) for key, value in shares.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quiet()
    records = json.loads(options.json.read_text())["records"] if options.json and options.json.exists() else []
    for name in options.case:
        found = measure(name, CASES[name], options.repeats)
        records = [record for record in records if any(record[key] != found[key] for key in ("case", "threads"))]
        records.append(found)
        print("  ".join(f"{key} {value}" for key, value in found.items()), flush=True)
        if options.json:
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
            about = environment(device, torch.get_num_threads())
            about["load_average"] = os.getloadavg()[0]
            options.json.write_text(json.dumps({**about, "seed": 0, "records": records}, indent=2))


if __name__ == "__main__":
    main()
