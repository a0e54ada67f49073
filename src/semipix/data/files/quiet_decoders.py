"""Keep Pillow and libtiff from printing warnings about files.

semipix reports a damaged file itself, in one line, or can read it.
"""

import contextlib
import ctypes
import importlib
import warnings


def quiet_decoders() -> None:
    """Turn off the warnings of Pillow, and those that libtiff prints directly to the terminal."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # The functions are missing if Pillow was built without libtiff, or hides it.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)
