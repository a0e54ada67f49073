"""Is an early signal ever lost, or answered by anything but one line and the right status?

Starts `semipix train` again and again, with a tiny model and two reading processes, and sends a signal at a random
moment. As from a terminal it goes to the whole process group. A try is good if the status is 128 + the signal's number,
one line is printed (beside the notice that a step is being finished), no process is left, and the run folder is gone or
can be resumed. In the first tenth of a second Python itself starts, and knows no handlers yet.

    python benchmarks/interruption.py --tries 20 --from 0.2 --to 6
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from semipix.report.comparison import environment

ROOT = Path(__file__).resolve().parents[1]
TRAINING = [
    *("train", "data=scenes", "data.size=64", "data.train=12", "data.val=4", "data.test=0", "data.labels=1/2"),
    *("data.crop=64", "data.workers=2", "data.batch_size=4", "method=supervised", "trainer.accelerator=cpu"),
    *("model._target_=tests.tiny.TinyModel", "steps=100000", "validations=10000", "run=run"),
]
NOTICE = "stopping after this step"
PATIENCE = 60.0
"""Seconds until a process counts as hanging."""


def of_group(group: int) -> list[int]:
    """Processes of a group that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def attempt(number: int, delay: float, folder: Path) -> dict[str, Any]:
    """What one signal after some seconds came to."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "semipix.cli", *TRAINING],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(delay)
    began = time.monotonic()
    os.killpg(process.pid, number)
    try:
        err = process.communicate(timeout=PATIENCE)[1]
        seconds = time.monotonic() - began
        time.sleep(0.1)
    except subprocess.TimeoutExpired:
        seconds, err = PATIENCE, ""
    remaining = of_group(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shown = [line for line in err.replace("\r", "\n").splitlines() if line and not line.startswith("train:")]
    lines = [line for line in shown if NOTICE not in line]
    run = folder / "run"
    left = "nothing" if not run.exists() else "checkpoint" if (run / "checkpoints/last.ckpt").exists() else "rest"
    good = process.returncode == 128 + number and len(lines) == 1 and not remaining and left != "rest"
    return {
        "delay_s": round(delay, 2),
        "seconds": round(seconds, 2),
        "status": process.returncode,
        "left": left,
        "processes_left": len(remaining),
        "good": good and "memory" not in err and "Traceback" not in err,
        "shown": lines[0] if len(lines) == 1 else err[-2000:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--from", type=float, default=0.2, dest="first", help="seconds after the start, at least")
    parser.add_argument("--to", type=float, default=6.0, dest="last", help="and at most")
    parser.add_argument("--signal", choices=("SIGINT", "SIGTERM", "SIGHUP"), default="SIGINT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    records = []
    for _ in range(options.tries):
        with tempfile.TemporaryDirectory() as folder:
            delay = draw.uniform(options.first, options.last)
            records.append(attempt(signal.Signals[options.signal], delay, Path(folder)))
        print("  ".join(f"{key} {value}" for key, value in records[-1].items()), flush=True)
    good = sum(record["good"] for record in records)
    print(f"{good} of {len(records)} as they should be")
    if options.json:
        load = {"load_average": round(os.getloadavg()[0], 1)}
        options.json.write_text(json.dumps({**environment(), **load, "good": good, "records": records}, indent=2))


if __name__ == "__main__":
    main()
