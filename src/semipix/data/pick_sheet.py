"""The contact sheet of `semipix data pick`: each picked image with some of the images that it represents."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semipix.atomic import written
from semipix.data.files.decode import unit_range
from semipix.data.files.reader import Reader
from semipix.errors import SemipixError
from semipix.functional.display import shown_colours
from semipix.interruption import raise_if_interrupted

PICTURES = (".jpg", ".jpeg", ".png")
PAGES = (".html", ".htm")
"""Extensions that a sheet may have."""

MEMBERS = 6
"""Images shown beside a picked one: from the nearest to the farthest that it represents, evenly spaced."""

MOST_ROWS = 200
"""Picked images that a sheet shows at most; a JPEG has at most 65,535 rows of pixels."""

BOX = 160, 120
"""Width and height of a picked image in the sheet."""

SMALL = 120, 90
"""Width and height of the images beside it."""

_GAP, _TITLE = 8, 22

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Images to label first</title>
<style>body{font:15px sans-serif;margin:2em}h2{font-size:1em}img{margin-right:6px;vertical-align:top}</style>
<h1>Images to label first</h1>
<p>Each row: a picked image, then some of the images that it represents, the most similar first.</p>
{% for title, pictures in rows %}
<h2>{{ title }}</h2>
{% for name, data in pictures %}<img src="data:image/jpeg;base64,{{ data }}" alt="{{ name }}" title="{{ name }}">
{% endfor %}{% endfor %}
{% if left_out %}<p>{{ left_out }}</p>{% endif %}
</html>
"""


def check_sheet(path: Path) -> None:
    """Check that a sheet can be written in the format of the path's extension.

    Raises:
        SemipixError: it cannot.
    """
    if path.suffix.lower() not in (*PICTURES, *PAGES):
        raise SemipixError(f"--sheet {path}: expected a name that ends in {', '.join((*PICTURES, *PAGES))}")


def write_sheet(path: Path, root: Path, cells: Sequence[Sequence[str]], reader: Reader | None = None) -> None:
    """Write a contact sheet.

    Args:
        path: a picture or a page, by its extension.
        root: the data folder.
        cells: for each picked image the names of the images that it represents, its own first.
        reader: reads the images, but at the size of the sheet; by default as colours.

    Raises:
        SemipixError: the extension is another one, or an image cannot be read any more.
    """
    check_sheet(path)
    reader = reader or Reader()
    rows = []
    for number, cell in enumerate(cells[:MOST_ROWS], start=1):
        raise_if_interrupted()
        shown = np.unique(np.linspace(0, len(cell) - 1, MEMBERS + 1).round().astype(int)).tolist()
        title = f"{number}. {_printable(cell[0])}: {len(cell)} image{'s' if len(cell) > 1 else ''}"
        pictures = [
            (_printable(cell[index]), _thumbnail(root / cell[index], SMALL if place else BOX, reader))
            for place, index in enumerate(shown)
        ]
        rows.append((title, pictures))
    left_out = f"{len(cells) - MOST_ROWS} further picked images are not shown." if len(cells) > MOST_ROWS else ""
    if path.suffix.lower() in PAGES:
        data = _page(rows, left_out).encode()
    else:
        data = _encoded(_picture(rows, left_out), "PNG" if path.suffix.lower() == ".png" else "JPEG")
    with written(path) as file:
        file.write(data)


Row = tuple[str, list[tuple[str, Image.Image]]]


def _thumbnail(path: Path, box: tuple[int, int], reader: Reader) -> Image.Image:
    """An image that fits into a box of this width and height, upright."""
    pixels = Reader(max(box), max_pixels=reader.max_pixels, bands=reader.bands).image(path)
    pixels = pixels if reader.bands is None else shown_colours(pixels)
    picture = Image.fromarray((unit_range(pixels.contiguous()) * 255).round().byte().permute(1, 2, 0).numpy())
    picture.thumbnail(box)
    return picture


def _picture(rows: Sequence[Row], left_out: str) -> Image.Image:
    """All rows in one picture."""
    font = ImageFont.load_default(14)
    step = _TITLE + BOX[1] + _GAP
    width = BOX[0] + MEMBERS * (SMALL[0] + _GAP) + 2 * _GAP
    sheet = Image.new("RGB", (width, len(rows) * step + _GAP + (_TITLE if left_out else 0)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(rows):
        top = number * step + _GAP
        draw.text((_GAP, top), title, fill="black", font=font)
        left = _GAP
        for place, (_, picture) in enumerate(pictures):
            sheet.paste(picture, (left, top + _TITLE))
            left += (SMALL if place else BOX)[0] + _GAP
    draw.text((_GAP, len(rows) * step + _GAP), left_out, fill="black", font=font)
    return sheet


def _page(rows: Sequence[Row], left_out: str) -> str:
    """All rows as a page that contains its pictures."""
    import jinja2

    shown = [
        (title, [(name, base64.b64encode(_encoded(picture, "JPEG")).decode()) for name, picture in pictures])
        for title, pictures in rows
    ]
    return jinja2.Environment(autoescape=True).from_string(_PAGE).render(rows=shown, left_out=left_out)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=85)
    return buffer.getvalue()


def _printable(name: str) -> str:
    """A file name as text; bytes that are no UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
