"""A page escapes what users name, and works in a browser without a network. Also tests report/page_charts.py."""

import base64
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import torch

from semipix.errors import SemipixError
from semipix.report.page import Chart, Page, Pictures, Section, Table, render, require_plotly, write_page
from semipix.report.page_charts import Line, bar_chart, confusion_chart, line_chart
from semipix.report.pictures import ImageRow, coloured, data_uri
from tests.helpers.html import ReadPage

NASTY = '<script>alert("a&b")</script> </script> \' {{ 7 * 7 }}'
SURROGATE = "b\udcffc"
PAIR = ("image", NASTY)


def a_page() -> Page:
    """Everything that a page may hold, with names that would break it."""
    ramp = torch.linspace(0, 1, 64).expand(48, 64).contiguous()
    pictures = {"image": data_uri(coloured(ramp.numpy())), NASTY: data_uri(coloured(1 - ramp.numpy()))}
    lines = [Line(NASTY, [1, 2, 4], [0.5, math.nan, 0.7], [0.4, 0.4, 0.6], [0.6, 0.6, 0.8], points=True)]
    return Page(
        title=NASTY,
        sentence=f"{NASTY} {SURROGATE}",
        remarks=[NASTY],
        sections=[
            Section(NASTY, [Table(["name", NASTY], [[NASTY, "0.5"], [SURROGATE, "0.25"]], NASTY, [0])], NASTY),
            Section(
                "Charts",
                [
                    Chart(NASTY, line_chart(lines, NASTY, "y", logarithmic=True, ticks=[1, 2, 4]), NASTY),
                    Chart("bars", bar_chart({NASTY: [(0.5, 0.4, 0.6), (0.2, math.nan, math.nan)]}, ["a", NASTY], "y")),
                    Chart("confusion", confusion_chart([NASTY, SURROGATE], [[3, 1], [0, 0]])),
                ],
            ),
            Section("Images", [Pictures([ImageRow(NASTY, NASTY, pictures)], NASTY, PAIR)]),
            Section("nothing", []),
        ],
        footer=[NASTY],
    )


def test_texts_of_users_are_shown_as_they_are(tmp_path: Path) -> None:
    write_page(a_page(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    page = ReadPage(text)
    assert page.tables[0] == [["name", NASTY], [NASTY, "0.5"], ["b\\udcffc", "0.25"]]
    assert page.text.count(NASTY) == 13
    assert f"{NASTY} b\\udcffc" in page.text
    assert [alt for alt, _ in page.images] == ["image", NASTY]
    kinds = [given.get("type", "code") for tag, given in page.tags if tag == "script"]
    assert kinds == ["application/json"] * 3 + ["code"] * 2, "ours alone"
    assert page.figures.keys() == {NASTY, "bars", "confusion"}
    assert "nothing" not in page.text, "a section without parts"


def test_a_page_needs_nothing_from_elsewhere() -> None:
    text = render(a_page())
    head, _, rest = text.partition("<script>")
    assert "default-src 'none'" in head
    page = ReadPage(text)
    addresses = [given[key] for _, given in page.tags for key in ("src", "href") if key in given]
    assert addresses and all(str(address).startswith("data:image/webp;base64,") for address in addresses)
    assert not re.search(r"@import|url\(", head)
    assert rest.count("</script>") == 2, "Plotly's script does not end before its end"


def test_figures_have_gaps_intervals_and_plain_texts() -> None:
    figures = ReadPage(render(a_page())).figures
    (line,) = figures[NASTY]["data"]
    assert line["y"] == [0.5, None, 0.7]
    assert line["error_y"]["array"] == pytest.approx([0.1, None, 0.1])
    assert line["error_y"]["arrayminus"] == pytest.approx([0.1, None, 0.1])
    assert line["name"] == NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    (bars,) = figures["bars"]["data"]
    assert (bars["y"], bars["error_y"]["array"][1]) == ([0.5, 0.2], None)
    (matrix,) = figures["confusion"]["data"]
    assert matrix["z"] == [[0.75, 0.25], [None, None]], "shares of each label; the second has no pixel"
    assert matrix["customdata"][0][1][2] == 1
    assert figures["confusion"]["layout"]["yaxis"]["ticktext"][1] == "b\\udcffc"


def test_without_plotly_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(SemipixError, match=r"pip install plotly$"):
        require_plotly()


PROBE = """
<script>window.problems = []; addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));</script>
"""

ACTIONS = """
<script>
addEventListener("load", () => setTimeout(() => {
  const found = {};
  const ground = () => getComputedStyle(document.body).backgroundColor;
  const axis = () => getComputedStyle(document.querySelector(".chart .xtick text")).fill;
  const shades = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return new Set(context.getImageData(0, 0, canvas.width, canvas.height).data).size;
  };
  const theme = document.getElementById("theme"), pair = document.querySelector(".pair");
  const over = pair.querySelector(".over"), edge = pair.querySelector("input"), left = pair.querySelector(".left");
  found.charts = document.querySelectorAll(".chart .main-svg").length > 0 &&
    [...document.querySelectorAll(".chart")].every((chart) => chart.querySelector(".main-svg"));
  found.legend = document.querySelector(".chart .xtitle").textContent;
  found.light = [ground(), axis(), theme.textContent];
  theme.click();
  found.dark = [ground(), axis(), theme.textContent];
  found.before = getComputedStyle(over).clipPath;
  edge.value = 20;
  edge.dispatchEvent(new Event("input"));
  found.after = getComputedStyle(over).clipPath;
  found.shown = [over.alt, pair.querySelector(".under").alt];
  left.selectedIndex = 1;
  left.dispatchEvent(new Event("change"));
  found.chosen = over.alt;
  found.same = over.src === document.querySelectorAll(".pictures img")[1].src;
  found.shades = [...document.images].map(shades);
  found.spread = [...document.querySelectorAll("body *")].filter((each) => !each.closest(".scroll, .chart") &&
    each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML.slice(0, 80));
  found.width = [document.documentElement.scrollWidth, innerWidth];
  found.problems = problems;
  parent.postMessage(btoa(encodeURIComponent(JSON.stringify(found))), "*");
}, 300));
</script>
"""

PHONE = """
<!doctype html><title>phone</title><pre id="report"></pre>
<script>addEventListener("message", (event) => {
  document.getElementById("report").textContent = event.data;
});</script>
<iframe src="page.html" width="375" height="800"></iframe>
"""
"""A window of Chromium is not as narrow as a phone, but a frame in it can be."""


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")
def test_a_browser_shows_it_without_errors(tmp_path: Path) -> None:
    """Charts, toggle and slider at the width of a phone; the page reports what it finds to the one around it."""
    text = render(dataclasses.replace(a_page(), sentence=NASTY))
    text = text.replace("<head>", f"<head>{PROBE}").replace("</body>\n</html>", f"{ACTIONS}</body>\n</html>")
    (tmp_path / "page.html").write_text(text, errors="backslashreplace")
    (tmp_path / "phone.html").write_text(PHONE)
    flags = [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    flags += ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    result = subprocess.run(
        [str(chromium()), *flags, (tmp_path / "phone.html").as_uri()], capture_output=True, text=True, timeout=400
    )
    assert "CONSOLE" not in result.stderr, "the console has no message"
    report = re.findall(r'<pre id="report">(.*?)</pre>', result.stdout)[0]
    found = json.loads(urllib.parse.unquote(base64.b64decode(report)))
    assert found["problems"] == []
    assert found["charts"] is True
    assert found["legend"] == NASTY, "Plotly shows tags as text"
    light, dark = found["light"], found["dark"]
    assert (light[2], dark[2]) == ("Dark", "Light")
    assert light[0] != dark[0] and light[1] != dark[1], "ground and text of charts change"
    assert (found["before"], found["after"]) == ("inset(0px 50% 0px 0px)", "inset(0px 80% 0px 0px)")
    assert found["shown"] == ["image", NASTY]
    assert (found["chosen"], found["same"]) == (NASTY, True)
    assert len(found["shades"]) == 4 and min(found["shades"]) > 10, "no picture is blank"
    assert found["spread"] == [], "no element is wider than the window"
    content, window = found["width"]
    assert content <= window == 375, "no horizontal scrolling"
