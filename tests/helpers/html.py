"""What a page of semipix holds, read as a browser reads it."""

import json
from html.parser import HTMLParser
from typing import Any


class ReadPage(HTMLParser):
    """Reads a page.

    Attributes:
        text: all text outside of scripts and styles, by line.
        tables: rows of cells of each table, the titles first.
        figures: Plotly figures by their titles.
        images: alternative texts and addresses of pictures.
        tags: all elements, with their attributes.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.figures: dict[str, Any] = {}
        self.images: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._chart = self._json = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "img" and "src" in given:
            self.images.append((str(given["alt"]), str(given["src"])))
        if tag == "div" and given.get("class") == "chart":
            self._chart = str(given["aria-label"])
        if tag in ("meta", "img", "input"):
            return
        self._open.append("figure-json" if given.get("type") == "application/json" else tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        last = self._open.pop()
        if last == "figure-json":
            self.figures[self._chart], self._json = json.loads(self._json), ""
        assert last in (tag, "figure-json"), f"{last} is closed by {tag}"

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        if self._open[-1] == "figure-json":
            self._json += data
        elif self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._open[-1] not in ("script", "style") and data.strip():
            self.text.append(data.strip())

    def table(self, title: str) -> dict[str, list[str]]:
        """The rows of the first table that has a column of this title, by their first cell."""
        rows = next(rows for rows in self.tables if title in rows[0])
        return {row[0]: row[1:] for row in rows[1:]}
