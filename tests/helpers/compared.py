"""Run folders with figures of their images, as trainings and evaluations leave them, but without any training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from semipix.data.splits import Split
from semipix.tasks.segmentation import Segmentation
from semipix.training.image_figures import ImageRecords
from semipix.training.versions import versions

CLASSES = ("ground", "square")
IMAGES = 30

SETTINGS: dict[str, Any] = {
    "task": {"_target_": "semipix.tasks.segmentation.Segmentation", "classes": [*CLASSES]},
    "model": {"_target_": "semipix.models.smp.SMP"},
    "data": {"_target_": "semipix.data.sources.folder.FolderSource", "root": "/photos", "batch_size": 4},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001},
    "trainer": {"_target_": "lightning.pytorch.Trainer"},
    "epochs": 40,
    "steps": 100,
    "length": "full",
    "validations": 2,
    "checkpoint_every": 100,
    "channels_last": True,
    "memory": "full",
    "compile": False,
    "freeze_batch_norm": False,
    "calibrate": False,
}
"""Settings that all runs share."""

METHODS = {
    "supervised": "semipix.methods.supervised.Supervised",
    "supervised_short": "semipix.methods.supervised.Supervised",
    "all_labels": "semipix.methods.supervised.Supervised",
    "gct": "semipix.methods.gct.GCT",
    "unimatch": "semipix.methods.unimatch.UniMatch",
}


def a_split(labels: int, seed: int, images: int = IMAGES) -> Split:
    """48 training images, of which some are labeled, and test images that are the same for all."""
    training = sorted(np.random.default_rng(seed).permutation([f"train{number:02d}" for number in range(48)]).tolist())
    order = np.random.default_rng(seed).permutation(training).tolist()
    return Split(order[:labels], order[labels:], ["val0"], [f"test{number:02d}" for number in range(images)])


def write_run(
    folder: Path,
    method: str,
    labels: int,
    seed: int,
    quality: float,
    *,
    changes: dict[str, Any] | None = None,
    evaluated: bool = True,
    images: int = IMAGES,
    **summary: Any,
) -> Path:
    """A finished run whose IoUs are about a quality in (0, 1), on images that are as hard for all runs.

    Args:
        folder: of the run.
        method: a key of `METHODS`.
        labels: number of labeled images.
        seed: of the run.
        quality: about the IoU of both classes.
        changes: other values of keys of the configuration, by group.
        evaluated: whether the figures of its images are there.
        images: number of test images.
        summary: further content of summary.json.
    """
    folder.mkdir(parents=True)
    config: dict[str, Any] = {**SETTINGS, "method": {"_target_": METHODS[method]}, "seed": seed}
    config["data"] = {**SETTINGS["data"], "labels": "all" if method == "all_labels" else labels}
    config["length"] = "labeled" if method == "supervised_short" else "full"
    for group, values in (changes or {}).items():
        config[group] = {**config[group], **values} if isinstance(values, dict) else values
    command = f"semipix train {'variant=all_labels' if method == 'all_labels' else ''} seed={seed} run={folder}"
    config |= {"versions": versions(), "command": command}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    a_split(labels, seed, images).to_json(folder / "split.json")
    cost = {"steps": 100, "seconds": 120.0, "step_seconds": 1.0, "peak_memory_mib": 800.0}
    (folder / "summary.json").write_text(json.dumps({**cost, **summary}))
    if evaluated:
        write_figures(folder, quality, seed, images)
    return folder


def write_figures(folder: Path, quality: float, seed: int, images: int = IMAGES) -> None:
    """The figures of the images of a run."""
    records = ImageRecords()
    records.metric = Segmentation.primary
    hard = np.random.default_rng(7).normal(0, 0.05, images)
    noise = np.random.default_rng([seed, round(1000 * quality)]).normal(0, 0.01, (images, 2))
    for number in range(images):
        shares = np.clip(quality + hard[number] + noise[number], 0.01, 0.99)
        row = {"pixels": 1000}
        row |= {f"intersection/{name}": int(1000 * share) for name, share in zip(CLASSES, shares, strict=True)}
        row |= {f"union/{name}": 1000 for name in CLASSES}
        records.rows[f"test{number:02d}"] = {key: float(value) for key, value in row.items()}
    records.write(folder / "evaluation-test.csv", "last")
    sums = {key: sum(row[key] for row in records.rows.values()) for key in records.rows["test00"]}
    ious = [sums[f"intersection/{name}"] / sums[f"union/{name}"] for name in CLASSES]
    (folder / "evaluation-test.json").write_text(json.dumps({"miou": sum(ious) / len(ious)}))
