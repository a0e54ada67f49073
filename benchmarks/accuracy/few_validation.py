"""How well does a calibrated map find errors if few validation images calibrate it?

Maps are fitted on random choices of the validation images of finished runs, and measured on pixels of all test images,
beside the maps that cost nothing.

    python -m benchmarks.accuracy.few_validation RUN [RUN ...] --json benchmarks/results/few_validation.json
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from benchmarks.common import Record, new_parser, records_in, run, write_records
from semipix.errors import SemipixError
from semipix.functional.cues import feature_names
from semipix.functional.error_measures import SCORE_BINS, calibration_error, score_bins
from semipix.launch.variants import environment
from semipix.training.build import data_of_run, trained_method
from semipix.training.calibration_fit import PIXELS_OF_IMAGE, Drawn, draw, fit
from semipix.training.run_folder import load_config

Values = NDArray[np.float64]

COUNTS = (2, 3, 5, 10)
"""Numbers of validation images, beside all."""

CHOICES = 10
"""Random choices of so many."""

FREE = ("softmax", "disagreement", "flaw")
"""Maps that need no validation image."""

TEST_PIXELS = 400
"""Pixels of each test image that are ranked."""


class Pixels(NamedTuple):
    """Pixels of one split of a run.

    Attributes:
        images: what was drawn of each image.
        cues: names of the cues.
    """

    images: list[Drawn]
    cues: list[str]

    def features(self) -> tuple[Values, list[str]]:
        """Features (P, F) of all pixels, and their names."""
        pixel, image = feature_names(self.cues)
        parts = [np.hstack([each.pixel, np.repeat(each.image[None], len(each.errors), 0)]) for each in self.images]
        return np.concatenate(parts).astype(np.float64), [*pixel, *image]


def pixels_of(run_folder: Path, split: str, each: int) -> Pixels:
    """Pixels of the images of a split, with the cues of the run's network.

    Raises:
        SemipixError: the run is not one of classification, or has no image in this split.
    """
    configuration = load_config(run_folder)
    method = trained_method(configuration, run_folder).eval()
    if not method.task.classification:
        raise SemipixError(f"{run_folder}: a run of classification expected")
    data = data_of_run(configuration, run_folder, method.task, ["train", "val", "test"])
    samples = (data.val_dataloader() if split == "val" else data.test_dataloader()).dataset
    images, cues = [], list[str]()
    for number in tqdm(range(len(samples)), desc=f"{run_folder.name}, {split}", unit="image"):  # type: ignore[arg-type]
        found, names = draw(method, samples[number], number, each)
        if found is not None:
            images.append(found)
            cues = names
    if not images:
        raise SemipixError(f"{run_folder}: no {split} image with a label found")
    return Pixels(images, cues)


def values_of_map(validation: Sequence[Drawn], cues: Sequence[str], features: Values) -> Values:
    """Probabilities (P,) of a map that is fitted on some images, at pixels of others with features (P, F)."""
    found = fit(validation, cues, classification=True)
    names = [name for part in feature_names(cues) for name in part]
    columns = [names.index(name) for name in found["weights"]]
    scores = features[:, columns] @ np.array([*found["weights"].values()]) + found["intercept"]
    return np.asarray(np.interp(scores, found["knot_scores"], found["knot_values"]), np.float64)


def level_error(values: Values, errors: Values) -> float:
    """The expected calibration error of probabilities (P,) that pixels are wrong, of which `errors` (P,) are."""
    bins = score_bins(torch.from_numpy(values)).long()
    wrong = torch.from_numpy(errors)
    parts = [torch.bincount(bins, share, SCORE_BINS).double() for share in (1 - wrong, wrong)]
    return float(calibration_error(*parts))


def measure(run_folder: Path) -> list[Record]:
    """Records of a run by the number of validation images: AUROC and ECE of each fitted map, and of the free maps."""
    validation = pixels_of(run_folder, "val", PIXELS_OF_IMAGE)
    test = pixels_of(run_folder, "test", TEST_PIXELS)
    features, names = test.features()
    errors = np.concatenate([each.errors for each in test.images])
    free = {name: float(roc_auc_score(errors, features[:, names.index(name)])) for name in FREE if name in names}
    free_level = level_error(features[:, names.index("doubt")], errors)  # the cue is 1 - the largest probability
    records = []
    for count in [*(count for count in COUNTS if count < len(validation.images)), len(validation.images)]:
        generator = np.random.default_rng(count)
        found, levels = [], []
        for _ in range(1 if count == len(validation.images) else CHOICES):
            chosen = sorted(generator.choice(len(validation.images), count, replace=False))
            values = values_of_map([validation.images[place] for place in chosen], test.cues, features)
            found.append(float(roc_auc_score(errors, values)))
            levels.append(level_error(values, errors))
        all_of_them = count == len(validation.images)
        records.append(
            {
                "setting": run_folder.parent.name,
                "run": run_folder.name,
                "images": "all" if all_of_them else count,
                "map": found,
                "ece": levels,
                "free": free,
                "softmax_ece": free_level,
                **environment(),
            }
        )
        print(
            f"{run_folder.name} {count:4}: AUROC {np.mean(found):.3f}, lowest {min(found):.3f}; free {free}; "
            f"ECE {np.mean(levels):.3f}, highest {max(levels):.3f}; softmax {free_level:.3f}",
            flush=True,
        )
    return records


def main() -> None:
    parser = new_parser("accuracy.few_validation", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs of classification")
    given = parser.parse_args()
    records = records_in(given.json)
    for folder in given.runs:
        new = measure(folder)
        records = [
            record for record in records if (record["setting"], record["run"]) != (folder.parent.name, folder.name)
        ]
        records += new
        write_records(given.json, records, environment())


if __name__ == "__main__":
    run(main)
