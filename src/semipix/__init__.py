"""semipix: pixel-wise models from a few labeled images and many unlabeled ones."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semipix.api import Run, load, train

__all__ = ["Run", "__version__", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API when it is used: `import semipix` loads no library."""
    if name in ("Run", "load", "train"):
        from semipix import api

        return getattr(api, name)
    raise AttributeError(f"module 'semipix' has no attribute {name!r}")
