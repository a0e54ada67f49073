"""Names and values of the classes of a folder's masks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from semipix.batch import VOID
from semipix.errors import SemipixError

CLASSES_FILE = "classes.txt"

_IGNORE = "__ignore__"
"""labelme's first line: pixels of no class, which its masks do not count as an index."""

_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d{1,3},\d{1,3},\d{1,3})?:[^:]*:[^:]*")
"""CVAT's labelmap.txt: name, colour, parts and actions."""

_NUMBERED = re.compile(r"(?P<index>\d+)(\s*[:,;=\t]\s*|\s+)(?P<name>\S.*)")
"""A name with its index before it."""


def read_classes(root: Path) -> list[str] | None:
    """Class names from `classes.txt`, in the order of their index; None where there is no such file.

    One name a line; empty lines and comments (lines that begin with #) are ignored. Read as they are meant are:
    labelme's list, whose first line `__ignore__` has no index; CVAT's `labelmap.txt` (name:colour:parts:actions);
    and lists with each name's index before it, in any order.

    Raises:
        SemipixError: the file names fewer than two or too many classes, names one twice, mixes forms, has indices that
            do not count from 0, or is no text.
    """
    path = root / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SemipixError(f"{path}: not UTF-8 text; expected one class name a line") from None
    names = _without_markup(path, [line for line in lines if line and not line.startswith("#")])
    if len(names) < 2:
        raise SemipixError(f"{path}: found {len(names)} class names, expected at least 2, one a line")
    for name in names:
        if names.count(name) > 1:
            raise SemipixError(f"{path}: class {name!r} is there {names.count(name)} times; give each its own name")
    check_class_count(path, len(names))
    return names


def infer_classes(where: Path, present: set[int]) -> list[str]:
    """Class names "0", "1", ... up to the largest value present in the training masks that is not void; at least 2.

    Args:
        where: the folder of the masks.
        present: the values that occur.

    Raises:
        SemipixError: there are too many.
    """
    count = max((value for value in present if value != VOID), default=0) + 1
    check_class_count(where, count)
    return [str(index) for index in range(max(2, count))]


def binary_problem(where: Path, present: set[int]) -> str | None:
    """What to say of masks that hold 0 and 255 only, where 255 was surely meant as a class."""
    if VOID in present and present <= {0, VOID}:
        return (
            f"{where}: the masks hold only 0 and 255, and 255 means void; "
            "map it to class 1 with data.mask_values={0:0,255:1}"
        )
    return None


def outside_problem(mask: Path, outside: Mapping[int, int], classes: int) -> str:
    """What to say of mask values that are no class; `outside` is their number of pixels by value."""
    values = ", ".join(str(value) for value in sorted(outside)[:5])
    return (
        f"{mask}: found mask value {values} ({sum(outside.values())} pixels), expected 0 to {classes - 1} or 255 for "
        "void; mend classes.txt or map the values with data.mask_values={VALUE:CLASS}"
    )


def class_values_warnings(where: Path, present: set[int], classes: Sequence[str], named: bool) -> list[str]:
    """What is unusual about the classes of the training masks, a line that names `data.mask_values`.

    Args:
        where: the folder of the masks.
        present: the class indices that occur, without void.
        classes: names of all classes.
        named: whether they come from a list, and not from the masks.
    """
    absent = [index for index in range(len(classes)) if index not in present]
    if not absent or not present:
        return []
    if named:
        several = ", ".join(classes[index] for index in absent[:5]) + (", ..." if len(absent) > 5 else "")
        return [
            f"{where}: no pixel of {len(absent)} of the {len(classes)} classes ({several}); they cannot be learned. If "
            "the masks store other values for them, set data.mask_values={VALUE:CLASS}"
        ]
    mend = f"if these are {len(present)} classes, set data.mask_values={suggested_mask_values(present)}"
    values = ", ".join(map(str, sorted(present)[:8])) + (", ..." if len(present) > 8 else "")
    if len(present) < 2:
        return [f"{where}: all pixels have the value {values}, so that there is nothing to tell apart; check the masks"]
    if absent == [0]:
        return [f"{where}: no pixel of class 0, the masks' values are {values}; {mend}"]
    gaps = f"{len(absent)} of the {len(classes)} classes have no pixel{', class 0 among them' if 0 in absent else ''}"
    return [f"{where}: the masks' values are {values}, with gaps: {gaps}; {mend}"]


def suggested_mask_values(present: set[int]) -> str:
    """A value for `data.mask_values` that numbers the present values from 0 without gaps."""
    pairs = [f"{value}:{index}" for index, value in enumerate(sorted(present))]
    return "{" + ",".join(pairs if len(pairs) <= 8 else [*pairs[:7], "..."]) + "}"


def check_same_classes(classes: Sequence[str], file: Sequence[str], path: Path) -> None:
    """Check that the file of class names agrees with the classes of a run.

    A run that counted its classes in the masks calls them 0, 1, ...; a file may name them afterwards.

    Args:
        classes: the run's names.
        file: the names in the file.
        path: the file.

    Raises:
        SemipixError: their number, a name or their order differs.
    """
    counted = [str(index) for index in range(len(file))]
    if list(classes) in (list(file), counted):
        return
    differing = next((index for index, pair in enumerate(zip(classes, file, strict=False)) if len(set(pair)) > 1), None)
    if differing is None or len(file) != len(classes):
        what = f"names {len(file)} classes, but the run has {len(classes)} ({', '.join(classes[:5])})"
    else:
        what = f"names class {differing} {file[differing]!r}, but the run has {classes[differing]!r} there"
    raise SemipixError(
        f"{path}: {what}; expected the list that the run was trained with, restore it or train again with the new one"
    )


def check_class_count(origin: Path, count: int) -> None:
    """Refuse more classes than a mask of 8 bits holds beside void.

    Raises:
        SemipixError: there are more than 255.
    """
    if count > VOID:
        raise SemipixError(f"{origin}: found {count} classes, expected at most {VOID}, for index {VOID} means void")


def _without_markup(path: Path, lines: list[str]) -> list[str]:
    """The names in index order, without what other tools write beside them."""
    if lines and lines[0] == _IGNORE:
        lines = lines[1:]
    if _IGNORE in lines:
        raise SemipixError(f"{path}: found {_IGNORE} after the first line, expected it first or not at all; move it")
    for pattern, form in ((_CVAT, "name:red,green,blue:parts:actions"), (_NUMBERED, "index name")):
        found = [pattern.fullmatch(line) for line in lines]
        matches = [match for match in found if match]
        if not matches:
            continue
        if len(matches) < len(lines):
            if pattern is _NUMBERED:  # such as "2 wheeler" among other names
                continue
            other = next(line for line, match in zip(lines, found, strict=True) if not match)
            raise SemipixError(f"{path}: found {other!r} among lines of the form {form}; expected one form, mend it")
        names = [match["name"].strip() for match in matches]
        return names if pattern is _CVAT else _by_index(path, [int(match["index"]) for match in matches], names)
    return lines


def _by_index(path: Path, indices: list[int], names: list[str]) -> list[str]:
    if sorted(indices) != list(range(len(indices))):
        raise SemipixError(
            f"{path}: each line begins with a number, but they are not 0 to {len(indices) - 1}, each once (found "
            f"{', '.join(map(str, indices[:5]))}{', ...' if len(indices) > 5 else ''}); expected one class name a line "
            "in the order of the mask values"
        )
    return [name for _, name in sorted(zip(indices, names, strict=True))]
