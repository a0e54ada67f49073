"""Class names of a folder of masks, and checks of the values in its masks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from semipix.batch import VOID
from semipix.errors import SemipixError

CLASSES_FILE = "classes.txt"

_IGNORE = "__ignore__"
"""labelme's first line. It names the pixels of no class, which have no index in its masks."""

_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d{1,3},\d{1,3},\d{1,3})?:[^:]*:[^:]*")
"""A line of CVAT's labelmap.txt: name, colour, parts and actions."""

_COLOURED = re.compile(r"(?P<name>\S.*?)(\s*[,\s]\s*\d{1,3}){3}")
"""A line with a colour after the name, as `data.colours` reads it."""

VOID_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled", _IGNORE})
"""Names, in lower case, that mark pixels of no class in lists of colours."""

_NUMBERED = re.compile(r"(?P<index>\d+)(\s*[:,;=\t]\s*|\s+)(?P<name>\S.*)")
"""A line with an index before the name."""


def read_classes(root: Path) -> list[str] | None:
    """Class names from `classes.txt`, in the order of their index; None if there is no such file.

    Raises:
        SemipixError: see `read_class_list`.
    """
    path = root / CLASSES_FILE
    return read_class_list(path) if path.is_file() else None


def read_class_list(path: Path, fewest: int = 2) -> list[str]:
    """Class names of a file, in the order of their index.

    The file has one name a line; empty lines and comments (lines that begin with #) are ignored. These forms are read
    too: labelme's list, whose first line `__ignore__` has no index; CVAT's `labelmap.txt` (name:colour:parts:actions);
    lists with a colour after each name (`name red green blue`), in which void has no index; and lists with the index
    before each name, in any order.

    Args:
        path: the file.
        fewest: least number of classes.

    Raises:
        SemipixError: the file contains too few or too many classes, a class twice, lines of different forms, or indices
            that do not count from 0, or it is no UTF-8 text.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SemipixError(f"{path}: not UTF-8 text; expected one class name a line") from None
    names = _without_markup(path, [line for line in lines if line and not line.startswith("#")])
    if len(names) < fewest:
        raise SemipixError(f"{path}: found {len(names)} class names, expected at least {fewest}, one a line")
    for name in names:
        if names.count(name) > 1:
            raise SemipixError(f"{path}: class {name!r} is there {names.count(name)} times; give each its own name")
    check_class_count(path, len(names))
    return names


def infer_classes(where: Path, present: set[int]) -> list[str]:
    """Class names "0", "1", ... up to the largest value in the training masks that is not void; at least 2 names.

    Args:
        where: the folder of the masks.
        present: the values that occur.

    Raises:
        SemipixError: there are more than 255 classes.
    """
    count = max((value for value in present if value != VOID), default=0) + 1
    check_class_count(where, count)
    return [str(index) for index in range(max(2, count))]


def binary_problem(where: Path, present: set[int]) -> str | None:
    """An error message if the masks contain only 0 and 255, so that 255 is probably a class; None otherwise."""
    if VOID in present and present <= {0, VOID}:
        return (
            f"{where}: the masks hold only 0 and 255, and 255 means void; "
            "map it to class 1 with data.mask_values={0:0,255:1}"
        )
    return None


def binary_kinds_problems(
    masks: Mapping[str, Path], present: Mapping[str, set[int]], kinds: Mapping[str, str]
) -> dict[str, str]:
    """Masks in which white is void although it is class 1 in the masks of another kind.

    Masks of 0 and 1 in 1 bit a pixel or in a palette, beside grey ones of 0 and 255, are the same masks saved by two
    programs.

    Args:
        masks: the file by the name of its image.
        present: the values that occur in each mask.
        kinds: what the values of each mask are in its file, such as "1-bit".

    Returns:
        The error messages by name of the image.
    """
    problems = {}
    by_kind: dict[str, set[int]] = {}
    for name, values in present.items():
        by_kind.setdefault(kinds[name], set()).update(values)
    for kind, values in by_kind.items():
        others = [name for name in present if kinds[name] != kind and 1 in present[name]]
        if not others or not values <= {0, VOID} or any(by_kind[kinds[name]] - {0, 1, VOID} for name in others):
            continue
        for name in present:
            if kinds[name] == kind and VOID in present[name]:
                problems[name] = (
                    f"{masks[name]}: white is 255 ({kind}), which means void, but class 1 in {masks[others[0]]} "
                    f"({kinds[others[0]]}); make it class 1 with data.mask_values={{0:0,255:1}}, or set {{255:255}} if "
                    "255 is void"
                )
    return problems


def outside_problem(mask: Path, outside: Mapping[int, int], classes: int) -> str:
    """The error message for mask values that are no class; `outside` is their number of pixels by value."""
    values = ", ".join(str(value) for value in sorted(outside)[:5])
    return (
        f"{mask}: found mask value {values} ({sum(outside.values())} pixels), expected 0 to {classes - 1} or 255 for "
        "void; fix classes.txt or map the values with data.mask_values={VALUE:CLASS}"
    )


def class_values_warnings(where: Path, present: set[int], classes: Sequence[str], named: bool) -> list[str]:
    """Warnings about unusual values in the training masks, which suggest `data.mask_values`.

    Args:
        where: the folder of the masks.
        present: the class indices that occur, without void.
        classes: names of all classes.
        named: whether the names come from a list, and not from the masks.
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
    advice = f"if these are {len(present)} classes, set data.mask_values={suggested_mask_values(present)}"
    values = ", ".join(map(str, sorted(present)[:8])) + (", ..." if len(present) > 8 else "")
    if len(present) < 2:
        return [f"{where}: all pixels have the value {values}, but at least 2 classes are needed; check the masks"]
    if absent == [0]:
        return [f"{where}: no pixel of class 0, the masks' values are {values}; {advice}"]
    gaps = f"{len(absent)} of the {len(classes)} classes have no pixel{', class 0 among them' if 0 in absent else ''}"
    return [f"{where}: the masks' values are {values}, with gaps: {gaps}; {advice}"]


def suggested_mask_values(present: set[int]) -> str:
    """A value of `data.mask_values` that gives the present values the indices 0, 1, ... without gaps."""
    pairs = [f"{value}:{index}" for index, value in enumerate(sorted(present))]
    return "{" + ",".join(pairs if len(pairs) <= 8 else [*pairs[:7], "..."]) + "}"


def check_same_classes(classes: Sequence[str], file: Sequence[str], path: Path) -> None:
    """Check that a file of class names agrees with the classes of a run.

    A run without a file of class names calls its classes 0, 1, ...; a file with other names may be added later.

    Args:
        classes: the run's names.
        file: the names in the file.
        path: the file.

    Raises:
        SemipixError: the number of classes, a name or the order differs.
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
    """Check that there are at most 255 classes: a mask of 8 bits has 255 values beside void.

    Raises:
        SemipixError: there are more than 255 classes.
    """
    if count > VOID:
        raise SemipixError(
            f"{origin}: found {count} classes, expected at most {VOID}, since index {VOID} is void; merge classes"
        )


def _without_markup(path: Path, lines: list[str]) -> list[str]:
    """The names in the order of their index, without the markup of other tools."""
    if lines and lines[0] == _IGNORE:
        lines = lines[1:]
    if _IGNORE in lines:
        raise SemipixError(f"{path}: found {_IGNORE} after the first line, expected it first or not at all; move it")
    coloured = [_COLOURED.fullmatch(line) for line in lines]
    if lines and all(coloured):
        names = [match["name"].rstrip(",") for match in coloured if match]
        return [name for name in names if name.lower() not in VOID_NAMES]
    for pattern, form in ((_CVAT, "name:red,green,blue:parts:actions"), (_NUMBERED, "index name")):
        found = [pattern.fullmatch(line) for line in lines]
        matches = [match for match in found if match]
        if not matches:
            continue
        if len(matches) < len(lines):
            if pattern is _NUMBERED:  # a name such as "2 wheeler" among names without an index
                continue
            other = next(line for line, match in zip(lines, found, strict=True) if not match)
            raise SemipixError(
                f"{path}: found {other!r} among lines of the form {form}; expected one form, fix the line"
            )
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
