"""Memory of this process as the operating system counts it."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def held_bytes() -> int:
    """Resident bytes now; where the system does not tell, the most so far."""
    return _status("VmRSS:") if STATUS.exists() else peak_bytes()


def peak_bytes() -> int:
    """The largest number of resident bytes since the process began, or since `forget_peak`."""
    if STATUS.exists():
        return _status("VmHWM:")
    # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let Linux count the peak from now on: imports may have needed more than what is measured."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
