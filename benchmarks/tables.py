"""Write the figures of benchmarks/results as tables into README.md and docs, between `<!-- NAME -->` markers.

python -m benchmarks.tables            write the tables; prints nothing
python -m benchmarks.tables --check    write nothing; name the pages that differ from the results and exit with status 1

`python -m benchmarks.evidence` says which records each table has, and how they are measured.
"""

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import accuracy_tables, choice_tables, common, error_tables, grid_tables, speed_tables
from benchmarks.accuracy.compare import REGRESSION
from benchmarks.common import run
from semipix.errors import SemipixError

SEGMENTATION = ("portrait", "camvid_1000", "camvid_long", "camvid")
MAIN = ("portrait", "camvid_long", "camvid_1000", "error_maps")


class Table(NamedTuple):
    """A table of the documentation that is made from records.

    Attributes:
        page: the file, from the root of the repository.
        marker: name in the comments around it.
        content: makes its text.
        records: benchmarks whose records it shows, each a file of benchmarks/results.
    """

    page: str
    marker: str
    content: Callable[[], str]
    records: tuple[str, ...]

    @property
    def name(self) -> str:
        """Page and marker."""
        return f"{self.page}#{self.marker}"

    def shown(self, root: Path) -> str:
        """What the page has now.

        Raises:
            SemipixError: the page has no such markers.
        """
        return between(self.page, (root / self.page).read_text(), self.marker)


class Sentence(NamedTuple):
    """Figures of a page's text that come from records.

    Attributes:
        page: the file, from the root of the repository.
        content: makes the words that the page has, whichever way its lines are broken.
        records: benchmarks whose records they show.
    """

    page: str
    content: Callable[[], str]
    records: tuple[str, ...]


SENTENCES = (
    Sentence("docs/data.md", speed_tables.names, ("loading",)),
    Sentence("docs/inference.md", speed_tables.startup, ("startup",)),
    Sentence("docs/speed.md", speed_tables.allocator, ("allocator",)),
    Sentence("docs/speed.md", speed_tables.scaling, ("scaling",)),
)
"""Sentences with the figures of a whole benchmark, which are written by hand and compared."""

TABLES = (
    Table("README.md", "short_results", accuracy_tables.short_results, ("portrait", "camvid_1000", "error_maps")),
    Table("docs/results.md", "main_results", accuracy_tables.main_results, MAIN),
    Table("docs/results.md", "weak_views", accuracy_tables.weak_views, ("portrait", "error_maps")),
    Table("docs/results.md", "diagnosis", accuracy_tables.diagnosis, ("portrait_diagnosis",)),
    Table("docs/results.md", "headroom", accuracy_tables.headroom, ("headroom", *SEGMENTATION, *REGRESSION)),
    Table(
        "docs/results.md", "rare_classes", accuracy_tables.rare_classes, ("rare_classes", "camvid_1000", "error_maps")
    ),
    Table("docs/results.md", "other_tasks", accuracy_tables.other_tasks, REGRESSION),
    Table("docs/results.md", "made_tasks", accuracy_tables.made_tasks, ("error_maps",)),
    Table(
        "docs/methods/README.md",
        "results",
        partial(accuracy_tables.results, *SEGMENTATION),
        (*SEGMENTATION, "error_maps"),
    ),
    Table("docs/methods/auto.md", "choices", choice_tables.choices, ("choices",)),
    Table("docs/methods/README.md", "statistics", accuracy_tables.statistics_table, ("input_statistics",)),
    Table("docs/methods/README.md", "ablations", accuracy_tables.ablations, ("camvid_ablation",)),
    Table("docs/methods/README.md", "costs", speed_tables.costs, ("step",)),
    *(
        Table(f"docs/methods/{method}.md", "cost", partial(speed_tables.cost, method), ("step",))
        for method in speed_tables.METHODS
    ),
    Table("docs/tasks.md", "results", partial(accuracy_tables.results, *REGRESSION), REGRESSION),
    Table("docs/error-maps.md", "error_maps", error_tables.error_maps, ("error_maps",)),
    Table("docs/error-maps.md", "maps_of_values", error_tables.maps_of_values, ("error_maps",)),
    Table("docs/error-maps.md", "gates", error_tables.gates, error_tables.GATE_RECORDS),
    *(
        Table("docs/paper-tables.md", name, partial(grid_tables.content, name), (grid_tables.RECORDS,))
        for name in grid_tables.NAMES
    ),
    Table("docs/picking.md", "picks", choice_tables.picks, ("pick",)),
    Table("docs/picking.md", "trained_picks", choice_tables.trained_picks, ("pick",)),
    Table("docs/speed.md", "steps", speed_tables.steps, ("step",)),
    Table("docs/speed.md", "operations", speed_tables.operations, ("step",)),
    Table("docs/speed.md", "bf16", accuracy_tables.bf16, ("bf16", "camvid_long", "portrait", "earlier_statistics")),
    Table("docs/speed.md", "half_scale", accuracy_tables.half_scale, ("camvid_long", "portrait", "earlier_statistics")),
    Table("docs/data.md", "loading", speed_tables.loading, ("loading",)),
    Table("docs/models.md", "light_decoder", accuracy_tables.light_decoder, ("light_decoder", accuracy_tables.FURTHER)),
    Table("docs/models.md", "paper_steps", speed_tables.paper_steps, ("paper_steps",)),
    Table("docs/inference.md", "few_validation", error_tables.few_validation, ("few_validation",)),
    Table("docs/inference.md", "few_validation_levels", error_tables.few_validation_levels, ("few_validation",)),
    Table("docs/inference.md", "tile_seams", speed_tables.tile_seams, ("tile_seams",)),
    Table("docs/inference.md", "large_images", speed_tables.large_images, ("large_images",)),
    Table("docs/inference.md", "inference", speed_tables.inference, ("inference",)),
    Table("docs/export.md", "exports", speed_tables.exports, ("export",)),
    Table("docs/reliability.md", "reliability", speed_tables.reliability, ("reliability",)),
)
"""Every table of the documentation that shows records, in the order of the pages."""


def _pattern(marker: str) -> re.Pattern[str]:
    return re.compile(f"(?ms)^( *)<!-- {marker} -->\n(.*?)\n *<!-- /{marker} -->$")


def between(page: str, text: str, marker: str) -> str:
    """What lies between `<!-- marker -->` and `<!-- /marker -->`, without the indentation of a list.

    Raises:
        SemipixError: the page has no such markers.
    """
    found = _pattern(marker).search(text)
    if not found:
        raise SemipixError(f"{page}: no lines <!-- {marker} --> and <!-- /{marker} --> found; add them for its table")
    return "\n".join(line.removeprefix(found[1]) for line in found[2].split("\n"))


def filled(page: str, text: str, marker: str, content: str) -> str:
    """The text with other content between `<!-- marker -->` and `<!-- /marker -->`, indented as the first of them.

    Raises:
        SemipixError: the page has no such markers.
    """
    between(page, text, marker)

    def with_content(found: re.Match[str]) -> str:
        lines = [f"<!-- {marker} -->", *content.split("\n"), f"<!-- /{marker} -->"]
        return "\n".join(f"{found[1]}{line}" if line else "" for line in lines)

    return _pattern(marker).sub(with_content, text)


def pages() -> dict[Path, str]:
    """Every page with the present figures."""
    found: dict[Path, str] = {}
    for table in TABLES:
        path = common.ROOT / table.page
        text = found[path] if path in found else path.read_text()
        found[path] = filled(table.page, text, table.marker, table.content())
    return found


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = {path: text for path, text in pages().items() if path.read_text() != text}
    if options.check:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"{names}: not what benchmarks/results says; run python -m benchmarks.tables" if stale else 0)
    for path, text in stale.items():
        path.write_text(text)


if __name__ == "__main__":
    run(main)
