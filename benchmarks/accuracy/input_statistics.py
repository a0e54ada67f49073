"""What changes if the default encoder is evaluated with other input statistics than those it was trained with?

Until November 2026 the encoder was trained with (x - 127/255) / (128/255), but evaluated, predicted with and resumed
with (x - 0.5) / 0.5. This evaluates finished runs twice, with the statistics in their checkpoint and with 0.5 and 0.5.
Weights and images are the same, so only the statistics make the difference. Prints the test mIoU of each run with both,
and the mean difference.

    python -m benchmarks.accuracy.input_statistics runs/compare/portrait/8-* \\
        --json benchmarks/results/input_statistics.json
"""

import shutil
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.common import Record, new_parser, run, write_records
from semipix.errors import SemipixError
from semipix.inference.evaluate import measured
from semipix.launch.variants import environment
from semipix.training.checkpoints import read_checkpoint
from semipix.training.run_folder import checkpoint_of

EARLIER = 0.5
"""Mean and standard deviation that evaluation used before."""


def with_earlier_statistics(run: Path, folder: Path) -> Path:
    """A copy of a run folder whose networks use the earlier statistics."""
    copy = folder / run.name
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "split.json"):
        shutil.copy(run / name, copy / name)
    checkpoint = checkpoint_of(run)
    state = read_checkpoint(checkpoint)
    changed = [key for key in state["state_dict"] if key.endswith(("normalize.mean", "normalize.std"))]
    if not changed:
        raise SemipixError(f"{checkpoint}: holds no input statistics; expected a run of unet or pspnet")
    for key in changed:
        state["state_dict"][key].fill_(EARLIER)
    torch.save(state, copy / "checkpoints" / checkpoint.name)
    return copy


def main() -> None:
    parser = new_parser("accuracy.input_statistics", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    given = parser.parse_args()
    torch.set_num_threads(1)
    records: list[Record] = []
    for folder in given.runs:
        with tempfile.TemporaryDirectory() as kept:
            earlier = with_earlier_statistics(folder, Path(kept))
            figures = {"trained": measured(folder).figures, "earlier": measured(earlier).figures}
        records.append({"run": folder.name, **{name: 100 * found["miou"] for name, found in figures.items()}})
        print("{run:24} mIoU {trained:6.2f}, on 0.5 and 0.5 {earlier:6.2f}".format(**records[-1]))
    differences = [record["trained"] - record["earlier"] for record in records]
    print(
        f"mean difference {statistics.mean(differences):+.3f}, from {min(differences):+.3f} to {max(differences):+.3f}"
    )
    write_records(given.json, records, environment())


if __name__ == "__main__":
    run(main)
