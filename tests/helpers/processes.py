"""Commands in processes of their own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""Of the repository."""

SCRIPT = str(Path(sys.executable).with_name("semipix"))
"""The command."""


def environment() -> dict[str, str]:
    """Environment of a command in a new process: one thread, no GPU, this source code."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until a process has written a file, or has ended."""
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
