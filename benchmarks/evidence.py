"""Does every table of the documentation say what its records say, and how are they measured again?

    python -m benchmarks.evidence                    compare the tables with the records in benchmarks/results
    python -m benchmarks.evidence --list             every table with its records, their commands and minutes
    python -m benchmarks.evidence --train portrait gates --out FOLDER --data PORTRAIT=/data/portrait
                                                     measure again; then show the tables with the new records
    python -m benchmarks.evidence --records FOLDER   show the tables with the records in FOLDER again

Without --train nothing is trained or measured. Each table is listed with its state:

    equal     the page has what the records say; of the records: number, device, versions, date of the last commit
    differs   the page has something else: the first line of each
    missing   a file of records is not there
    empty     nothing was measured yet, and the page says so
    no record figures that were measured once, without a record; the page says so
    picture   not compared

The exit status is 1 if a table differs or is missing, or if a page has a table of figures that is not listed here.
--train runs the commands one after another. A finished command is listed in FOLDER/finished.json and not run again, and
an interrupted one continues where it can. Figures of new trainings differ from the old ones on other machines.
"""

import argparse
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import common, tables
from benchmarks.common import record_file, run
from benchmarks.measurements import DATA, MEASUREMENTS, duration_of, shown_command, train
from semipix.errors import SemipixError

UNRECORDED = {
    ("docs/formats.md", "`coco`"): "time and size of written annotations",
    ("docs/speed.md", "workers are started by"): "memory of data-loading workers",
}
"""Tables of figures that were measured without a record, by page and by the first heading that is not empty."""

STATED = {
    ("docs/data.md", "`data=`"): "what benchmarks contain",
    ("docs/error-maps.md", "map"): "definitions",
    ("docs/error-maps.md", "measure"): "definitions",
    ("docs/methods/README.md", "method"): "properties of classes, checked by tests/test_docs.py",
    ("docs/models.md", "model"): "counted parameters, checked by tests/models/test_page.py",
    ("docs/models.md", "architecture"): "counted parameters, checked by tests/models/test_page.py",
    ("docs/paper-tables.md", "segmentation"): "values of the paper and settings",
    ("docs/search.md", "form"): "examples of values",
    ("docs/tasks.md", "task"): "constants, checked by tests/test_docs.py",
    ("docs/tasks.md", "key of `data`"): "defaults, checked by tests/tasks/test_strong_changes.py",
    ("docs/tasks.md", "`task.loss`"): "definitions",
}
"""Tables with numbers that were not measured, and what these are."""

PICTURES = {"docs/images/strip.png": "accuracy.strip RUN, with a run of semipix demo"}
"""Pictures of results, and the modules below `benchmarks` that draw them."""

DEFINING = {"default", "file", "key", "meaning", "option", "point", "statement", "term", "what it does"}
"""Headings of tables that define something; their numbers are not measured."""


class State(NamedTuple):
    """What became of one table.

    Attributes:
        name: page and marker, or page and heading.
        state: `equal`, `differs`, `missing`, `empty`, `no record` or `picture`.
        detail: the records, or what is wrong.
    """

    name: str
    state: str
    detail: str


def pages_of(root: Path) -> list[str]:
    """README.md and every page of docs, from the root."""
    return ["README.md", *sorted(str(path.relative_to(root)) for path in (root / "docs").rglob("*.md"))]


def uncovered(page: str, text: str) -> list[str]:
    """Tables of figures of a page that are neither between markers nor in `UNRECORDED` or `STATED`.

    A table counts as one of figures if a cell after the first column begins with a number, unless one of its headings
    is in `DEFINING`.

    Returns:
        A line for each: the page, the line of the table, and its headings.
    """
    text = re.sub(r"(?ms)^ *```.*?^ *```$", lambda code: "\n" * code[0].count("\n"), text)
    marked = [found.span() for found in re.finditer(r"(?s)<!-- (\w+) -->.*?<!-- /\1 -->", text)]
    lines = []
    for table in re.finditer(r"(?m)^( *\|.*)\n *\|[ :|-]+\|\n((?: *\|.*(?:\n|\Z))+)", text):
        titles = _cells(table[1])
        first = next((title for title in titles if title), "")
        values = [value for line in table[2].splitlines() for value in _cells(line)[1:]]
        if (
            not any(begin <= table.start() < end for begin, end in marked)
            and not DEFINING & {*titles}
            and any(re.match(r"[*~<+±.-]*\d", value) for value in values)
            and (page, first) not in UNRECORDED
            and (page, first) not in STATED
        ):
            lines.append(f"{page}:{text.count(chr(10), 0, table.start()) + 1}: {', '.join(filter(None, titles))}")
    return lines


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def state_of(table: tables.Table) -> State:
    """Compare a table of a page with its records."""
    absent = [name for name in table.records if not record_file(name).exists()]
    if absent:
        return State(
            table.name, "missing", f"no file {', '.join(f'benchmarks/results/{name}.json' for name in absent)}"
        )
    shown, content = table.shown(common.ROOT), table.content()
    if shown != content:
        pairs = zip([*shown.split("\n"), "nothing"], [*content.split("\n"), "nothing"], strict=False)
        page, records = next(pair for pair in pairs if pair[0] != pair[1])
        return State(table.name, "differs", f"the page has {page!r}, the records give {records!r}")
    if content == "not measured":
        return State(table.name, "empty", f"{', '.join(table.records)}: not measured, and the page says so")
    return State(table.name, "equal", "; ".join(described(name) for name in table.records))


def state_of_sentence(sentence: tables.Sentence) -> State:
    """Compare figures in a page's text with their records."""
    content = sentence.content()
    if content not in " ".join((common.ROOT / sentence.page).read_text().split()):
        return State(sentence.page, "differs", f"the records give {content!r}, which is not in the page")
    return State(sentence.page, "equal", f"{content!r}: {'; '.join(map(described, sentence.records))}")


def states() -> list[State]:
    """The state of every table, of the sentences with figures, and of every picture."""
    unrecorded = [State(f"{page}#{title}", "no record", about) for (page, title), about in UNRECORDED.items()]
    drawn = [State(path, "picture", f"benchmarks.{command}") for path, command in PICTURES.items()]
    sentences = map(state_of_sentence, tables.SENTENCES)
    return [*map(state_of, tables.TABLES), *sentences, *unrecorded, *drawn]


def described(name: str) -> str:
    """Number, device, versions and date of the records of a file."""
    content = json.loads(record_file(name).read_text())
    records = content if isinstance(content, list) else content.get("records", [])
    about = {**(records[-1] if records else {}), **(content if isinstance(content, dict) else {})}
    device = about.get("device", "?")
    device = f"{device['kind']}, {device['cores']} cores" if isinstance(device, dict) else str(device)
    versions = about.get("versions", {})
    count = f"{len(records)} records, " if records else ""
    shown = ", ".join(f"{package} {versions[package]}" for package in ("semipix", "torch") if package in versions)
    when = committed().get(f"{name}.json")
    return f"{name}.json ({count}{device}{f', {shown}' if shown else ''}{f', {when}' if when else ''})"


@cache
def committed() -> dict[str, str]:
    """The day of the last commit of each file of records; empty without git or outside of a repository."""
    command = ["git", "log", "--format=%cs", "--name-only", "--", "benchmarks/results"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, cwd=common.ROOT, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = {}
    day = ""
    for line in filter(None, printed.splitlines()):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", line):
            day = line
        else:
            found.setdefault(Path(line).name, day)
    return found


def listed() -> str:
    """Every table with its records, then every file of records with its minutes and commands."""
    lines = [f"{table.name}: {', '.join(table.records)}" for table in tables.TABLES]
    lines += [f"{sentence.page}, a sentence: {', '.join(sentence.records)}" for sentence in tables.SENTENCES]
    for name, (commands, _, why_not) in MEASUREMENTS.items():
        lines += ["", f"{name}: {why_not or duration_of(name)}"]
        lines += [f"    {shown_command(command)}" for command in commands]
    lines += ["", *(f"{name}: {about}" for name, about in DATA.items())]
    return "\n".join(lines)


def with_records(folder: Path) -> str:
    """The tables that show records of a folder, made from these.

    Raises:
        SemipixError: the folder holds none.
    """
    names = {path.stem for path in folder.glob("*.json")} & MEASUREMENTS.keys()
    if not names:
        raise SemipixError(f"{folder}: no file of records found; expected one such as portrait.json")
    common.FOLDERS.insert(0, folder)
    try:
        parts = []
        for table in tables.TABLES:
            if names & {*table.records} and (content := table.content()) != table.shown(common.ROOT):
                parts.append(
                    f"{table.name}, with {', '.join(sorted(names & {*table.records}))} of {folder}:\n{content}\n"
                )
    finally:
        common.FOLDERS.remove(folder)
    return "\n".join(parts) or f"the tables are the same with the records of {folder}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.evidence", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--list", action="store_true", help="tables, records, commands and minutes")
    parser.add_argument("--train", nargs="+", default=[], metavar="NAME", help="files of records to measure again")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="folder of new records and runs")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="NAME=FOLDER", help=f"folders of data: {', '.join(DATA)}"
    )
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="show the tables with these records")
    given = parser.parse_args()
    if given.list:
        print(listed())
        return
    if given.train:
        data = {name: Path(folder).absolute() for name, _, folder in (each.partition("=") for each in given.data)}
        try:
            train(given.train, given.out.absolute(), data)
        except KeyboardInterrupt:
            print(f"interrupted; the same command continues in {given.out}", file=sys.stderr)
            sys.exit(130)
    if given.train or given.records:
        print(with_records((given.records or given.out).absolute()))
        return
    found = states()
    for each in found:
        print(f"{each.state:10}{each.name}: {each.detail}")
    missing = [line for page in pages_of(common.ROOT) for line in uncovered(page, (common.ROOT / page).read_text())]
    for line in missing:
        print(
            f"not listed {line}; make it from records (TABLES in benchmarks/tables.py), or name it in UNRECORDED or "
            "STATED in benchmarks/evidence.py"
        )
    wrong = sum(each.state in ("differs", "missing") for each in found) + len(missing)
    equal = sum(each.state == "equal" for each in found)
    compared = len(tables.TABLES) + len(tables.SENTENCES)
    print(f"{equal} of {compared} tables and sentences equal their records, {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run(main)
