"""Keeping Pillow and libtiff from printing what is wrong with a file, which semipix says in one line or can read."""

import contextlib
import ctypes
import importlib
import warnings


def quiet_decoders() -> None:
    """Have Pillow warn of nothing and libtiff, which writes to the screen past Python, print nothing."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # No such function: Pillow was built without libtiff, or with one that cannot be reached.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)
