"""Charts of a page as Plotly figures. The page's script sets the colours of text and grid, light or dark."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#3b82c4", "#d9622b", "#1a9c77", "#b965a8", "#d59b16", "#4fb0dd", "#8a6fd1", "#84919c")
"""Of lines and bars; readable on light and on dark ground, and different to colour-blind readers."""

HEIGHT = 360
"""Of a chart in pixels."""

SHOWN_SHARES = 12
"""Most classes of a confusion matrix whose shares are written into its cells; more would not be readable."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: in the legend.
        x, y: coordinates; NaN leaves a gap.
        low, high: ends of the error bar of each point; empty without.
        colour: place in `COLOURS`; lines with one colour belong together.
        dashed: draw it dashed.
        points: also draw its points.
        legend: whether it is in the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: int = 0
    dashed: bool = False
    points: bool = False
    legend: bool = True


def text_of(text: str) -> str:
    """A text as Plotly shows it: it would take some tags as such."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=False)


def line_chart(
    lines: Sequence[Line],
    x: str,
    y: str,
    *,
    square: bool = False,
    logarithmic: bool = False,
    ticks: Sequence[float] = (),
) -> dict[str, Any]:
    """Lines over a common axis.

    Args:
        lines: in the order of the legend.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        square: both axes are from 0 to 1.
        logarithmic: of the horizontal axis.
        ticks: of the horizontal axis; by default Plotly's.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure(layout=_layout(x, y))
    for line in lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        bars = None
        if line.high:
            bars = {
                "type": "data",
                "symmetric": False,
                "array": [_number(high - value) for high, value in zip(line.high, line.y, strict=True)],
                "arrayminus": [_number(value - low) for low, value in zip(line.low, line.y, strict=True)],
                "thickness": 1.5,
                "width": 5,
            }
        figure.add_scatter(
            x=[_number(value) for value in line.x],
            y=[_number(value) for value in line.y],
            error_y=bars,
            name=text_of(line.name),
            mode="lines+markers" if line.points else "lines",
            line={"color": colour, "width": 2, "dash": "dash" if line.dashed else "solid"},
            showlegend=line.legend,
        )
    if square:
        figure.update_xaxes(range=[0, 1])
        figure.update_yaxes(range=[0, 1.01])
    if logarithmic:
        figure.update_xaxes(type="log")
    if ticks:
        figure.update_xaxes(tickmode="array", tickvals=list(ticks), ticktext=[f"{tick:g}" for tick in ticks])
    return plain(figure)


def bar_chart(
    groups: Mapping[str, Sequence[tuple[float, float, float]]],
    names: Sequence[str],
    y: str,
    colours: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Bars with intervals: for each name one of each group, side by side.

    Args:
        groups: for each name its value, and the ends of its interval, NaN without.
        names: below the bars.
        y: title of the vertical axis.
        colours: place in `COLOURS` of each group; by default their order.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure(layout=_layout("", y))
    figure.update_layout(barmode="group")
    for number, (group, values) in enumerate(groups.items()):
        figure.add_bar(
            x=[text_of(name) for name in names],
            y=[_number(value) for value, _, _ in values],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [_number(high - value) for value, _, high in values],
                "arrayminus": [_number(value - low) for value, low, _ in values],
                "thickness": 1.5,
            },
            name=text_of(group),
            marker={"color": COLOURS[(colours or {}).get(group, number) % len(COLOURS)]},
        )
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="tozero")
    return plain(figure)


def confusion_chart(classes: Sequence[str], pixels: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A confusion matrix: of each label the shares of its pixels by predicted class.

    Args:
        classes: names, in index order.
        pixels: a row for each label.
    """
    from plotly import graph_objects

    names = [text_of(name) for name in classes]
    shares = [[count / sum(row) if sum(row) else math.nan for count in row] for row in pixels]
    figure = graph_objects.Figure(layout=_layout("predicted class", "label"))
    figure.add_heatmap(
        x=list(range(len(names))),
        y=list(range(len(names))),
        z=[[_number(share) for share in row] for row in shares],
        customdata=[
            [[label, predicted, count] for predicted, count in zip(names, row, strict=True)]
            for label, row in zip(names, pixels, strict=True)
        ],
        zmin=0,
        zmax=1,
        colorscale=[[0, "rgba(59,130,196,0.06)"], [1, "rgb(59,130,196)"]],
        hovertemplate="label %{customdata[0]}<br>predicted %{customdata[1]}<br>%{z:.1%}, %{customdata[2]} pixels"
        "<extra></extra>",
        texttemplate="%{z:.1%}" if len(names) <= SHOWN_SHARES else None,
        colorbar={"tickformat": ".0%", "thickness": 12},
        xgap=1,
        ygap=1,
    )
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names}
    figure.update_xaxes(**ticks)
    figure.update_yaxes(**ticks, autorange="reversed")
    figure.update_layout(height=max(HEIGHT, 140 + 26 * len(names)))
    return plain(figure)


def plain(figure: Any) -> dict[str, Any]:
    """A figure as plain values."""
    found: dict[str, Any] = figure.to_plotly_json()
    return found


def _layout(x: str, y: str) -> dict[str, Any]:
    clear = "rgba(0,0,0,0)"
    return {
        "template": "none",
        "height": HEIGHT,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "hovermode": "closest",
        "xaxis": {"title": {"text": text_of(x)}, "automargin": True, "zeroline": False},
        "yaxis": {"title": {"text": text_of(y)}, "automargin": True, "zeroline": False},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},  # below, it would cover the title of x
    }


def _number(value: float) -> float | None:
    """A number; None, a gap, where it is not finite."""
    return value if math.isfinite(value) else None
