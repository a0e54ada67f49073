"""Find errors in the user's own code, such as a model that a `_target_` names."""

import re
import sysconfig
import traceback
from pathlib import Path

_OURS = Path(__file__).parent
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_IN_TEXT = re.compile(r'^\s*File "(.+?)", line (\d+), in (\w+)$', re.MULTILINE)
"""A line of the stack trace in an error that a data-loading worker sends as text."""


def note(error: BaseException) -> None:
    """Add a note to an error that says where in the user's code it was raised; no note if it was raised elsewhere."""
    if place := place_of(error):
        error.add_note(
            f"semipix: the error is in {place}, which is not part of semipix; check its arguments and what it returns"
        )


def place_of(error: BaseException) -> str:
    """The innermost function of the user's code in an error's stack trace, with file and line; empty if none is."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if _is_users(code.co_filename):
            owner = frame.f_locals.get("self")
            name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
            place = f"{name} ({code.co_filename}:{line})"
    for file, number, function in _IN_TEXT.findall(str(error)) if "worker process" in str(error) else ():
        if _is_users(file):
            place = f"{function} ({file}:{number})"
    return place


def _is_users(file: str) -> bool:
    return not file.startswith(("<", str(_OURS), *_INSTALLED))
