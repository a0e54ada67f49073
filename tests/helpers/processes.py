"""Commands in processes of their own."""

import socket
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Of the repository."""


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
