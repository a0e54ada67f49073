"""One self-contained HTML page: a sentence that answers, tables, charts and pictures, without anything from a network.

`semipix evaluate --report`, `semipix compare` and `semipix demo` fill the same structure, which one template shows.
Jinja escapes all text; texts in charts are escaped by `semipix.report.page_charts`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from semipix.atomic import write_text
from semipix.errors import SemipixError
from semipix.report.pictures import ImageRow

Figure = Mapping[str, Any]
"""A Plotly figure as plain values, with `data` and `layout`."""


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        columns: titles.
        rows: cells.
        note: what the table says and what it was measured on.
        marked: indices of rows that are shown in bold.
        texts: indices of columns that are aligned to the left, with long cells in several lines.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marked: Sequence[int] = ()
    texts: Sequence[int] = (0,)
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Chart:
    """A Plotly chart.

    Attributes:
        title: of the chart.
        figure: see `semipix.report.page_charts`.
        note: what it shows and on how many images and seeds.
    """

    title: str
    figure: Figure
    note: str = ""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Pictures:
    """Pictures of some images, each with a slider between two of its pictures.

    Attributes:
        rows: one for each image.
        note: how they were chosen.
        pair: captions of the two pictures with which the sliders begin.
    """

    rows: Sequence[ImageRow]
    note: str
    pair: tuple[str, str]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        title: the heading.
        parts: tables, charts and pictures in their order.
        text: a paragraph above them.
    """

    title: str
    parts: Sequence[Table | Chart | Pictures]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
        title: the heading.
        sentence: the answer.
        sections: in their order; those without parts are left out.
        remarks: lines below the answer: what is missing and what limits it.
        footer: versions, folders.
    """

    title: str
    sentence: str
    sections: Sequence[Section]
    remarks: Sequence[str] = ()
    footer: Sequence[str] = field(default=())


def require_plotly() -> None:
    """Check that Plotly is there, before a command computes what it could not show.

    Raises:
        SemipixError: it is not.
    """
    _plotly_script()


def write_page(page: Page, file: Path) -> None:
    """Write a page, completely or not at all.

    Raises:
        SemipixError: Plotly is not installed.
        OSError: the file cannot be written; the error names it.
    """
    write_text(file, render(page), errors="backslashreplace")  # a file name need not be text


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        SemipixError: Plotly is not installed.
    """
    templates = Environment(
        loader=PackageLoader("semipix", "report/templates"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(
        page=page,
        sections=[section for section in page.sections if section.parts],
        style=_text_of("page.css"),
        script=_text_of("page.js"),
        plotly=Markup(_plotly_script()),
        figure=_figure,
    )


def _figure(chart: Chart) -> Markup:
    """A chart's figure as JSON that may stand within a script element."""
    text = json.dumps(chart.figure, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _text_of(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text("utf-8"))


def _plotly_script() -> str:
    """Plotly's script, which the page holds whole, so that it needs no network."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise SemipixError(
            "plotly: the package, which draws the charts of pages, is not installed; install it: pip install plotly"
        ) from None
    return str(get_plotlyjs())
