"""Charts as SVG text: lines over a logarithmic axis, and bars from p50 to p99. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 860
LEFT, RIGHT, TOP, BOTTOM = 78, 230, 46, 52
PLOT_HEIGHT = 330
FONT = "font-family='sans-serif'"
INK, FAINT = "#222222", "#dddddd"

#: Of Okabe and Ito, which people who see colours differently tell apart, and darker ones of them.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f7f7f",
    "#8c564b",
    "#5e3c99",
    "#1b7837",
    "#a6761d",
    "#333333",
)
DASHES = ("", "7 4", "2 3")

#: What begins with it is drawn so that it is seen among the others.
OWN = "MindBus"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels. least, most: in values; begin, end: in pixels."""

    least: float
    most: float
    begin: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a value is."""
        share = (self._of(value) - self._of(self.least)) / (
            (self._of(self.most) - self._of(self.least)) or 1.0
        )
        return self.begin + share * (self.end - self.begin)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value

    def ticks(self) -> list[float]:
        """Round numbers on it."""
        if not self.is_log:
            step = nice_step(self.most - self.least)
            count = int((self.most - self.least) / step + 1e-9)
            return [self.least + step * number for number in range(count + 1)]
        low = math.floor(math.log10(self.least) + 1e-9)
        high = math.ceil(math.log10(self.most) - 1e-9)
        leading = (1, 2, 5) if high - low <= 3 else (1,)
        found = [digit * 10.0**power for power in range(low, high + 1) for digit in leading]
        return [value for value in found if self.least * 0.999 <= value <= self.most * 1.001]


def nice_step(extent: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five steps cover an extent."""
    if extent <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(extent / 5))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= extent / 5 * 0.999)


def number(value: float) -> str:
    """A value as a label: 12,000 is 12k."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 1_000:
        return f"{value / 1_000:g}k"
    return f"{value:.3g}"


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Points],
    *,
    is_log_y: bool = False,
) -> str:
    """Lines over x, which is logarithmic; an x of 0 stands one step left of the smallest other."""
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    if not xs:
        return _document(title, TOP + 40, [_text(LEFT, TOP + 20, "nothing was measured")])
    place = _places(xs)
    x_axis = Axis(min(place.values()), max(place.values()), LEFT, WIDTH - RIGHT)
    least = min(y for y in ys) * 0.8 if is_log_y else 0.0
    most = max(ys) * (1.25 if is_log_y else 1.08) or 1.0
    y_axis = Axis(least, most, TOP + PLOT_HEIGHT, TOP, is_log_y)
    parts = _grid(y_axis)
    for x in xs:
        parts.append(_text(x_axis.at(place[x]), TOP + PLOT_HEIGHT + 18, number(x), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, TOP + PLOT_HEIGHT + 40, x_label, "middle"))
    parts.append(_upright(18, TOP + PLOT_HEIGHT / 2, y_label))
    for index, (name, points) in enumerate(series.items()):
        dots = [(x_axis.at(place[x]), y_axis.at(y)) for x, y in sorted(points)]
        parts += _line(index, name, dots)
    return _document(title, max(TOP + PLOT_HEIGHT + BOTTOM, TOP + 20 * len(series) + 20), parts)


def _places(xs: Sequence[float]) -> dict[float, float]:
    """x as it is drawn: logarithms, and 0 one decade left of the first of them."""
    logs = {x: math.log10(x) for x in xs if x > 0}
    first = min(logs.values(), default=0.0)
    return {x: logs.get(x, first - 1.0) for x in xs}


def _grid(y_axis: Axis) -> list[str]:
    parts = []
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(
            f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='{FAINT}'/>"
        )
        parts.append(_text(LEFT - 8, y + 4, number(tick), "end"))
    return parts


def _line(index: int, name: str, dots: Points) -> list[str]:
    colour = COLOURS[index % len(COLOURS)]
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    y = TOP + 8 + 20 * index
    at = WIDTH - RIGHT + 18
    width = 3 if name.startswith(OWN) else 2
    style = f"stroke='{colour}' stroke-width='{width}' stroke-dasharray='{dash}' fill='none'"
    return [
        f"<polyline points='{path}' {style}/>",
        *(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in dots),
        f"<line x1='{at}' x2='{at + 22}' y1='{y}' y2='{y}' {style}/>",
        _text(at + 28, y + 4, name),
    ]


def range_chart(title: str, x_label: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """A bar from p50 to p99 for each row, over a logarithmic axis."""
    height = TOP + 24 * len(rows) + 8
    if not rows:
        return _document(title, TOP + 40, [_text(LEFT, TOP + 20, "nothing was measured")])
    left = 300
    least = min(low for _, low, _ in rows) * 0.8
    most = max(high for _, _, high in rows) * 1.25
    axis = Axis(least, most, left, WIDTH - 40, is_log=True)
    parts = []
    for tick in axis.ticks():
        x = axis.at(tick)
        line = f"x1='{x:.1f}' x2='{x:.1f}' y1='{TOP}' y2='{height}' stroke='{FAINT}'"
        parts += [f"<line {line}/>", _text(x, height + 18, number(tick), "middle")]
    for index, (name, low, high) in enumerate(rows):
        y = TOP + 24 * index + 6
        colour = COLOURS[0] if name.startswith(OWN) else COLOURS[6]
        begin, end = axis.at(low), axis.at(high)
        box = f"x='{begin:.1f}' y='{y}' width='{max(2.0, end - begin):.1f}' height='12'"
        parts += [
            f"<rect {box} fill='{colour}' fill-opacity='0.55'/>",
            f"<rect x='{begin - 1.5:.1f}' y='{y - 2}' width='3' height='16' fill='{colour}'/>",
            _text(left - 10, y + 10, name, "end"),
        ]
    parts.append(_text((left + WIDTH - 40) / 2, height + 40, x_label, "middle"))
    return _document(title, height + BOTTOM, parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} {FONT} font-size='12' fill='{INK}'>{escape(text)}</text>"


def _upright(x: float, y: float, text: str) -> str:
    turn = f"transform='rotate(-90 {x:.1f} {y:.1f})'"
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {turn} text-anchor='middle' {FONT} font-size='12' "
        f"fill='{INK}'>{escape(text)}</text>"
    )


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    size = f"width='{WIDTH}' height='{height:.0f}' viewBox='0 0 {WIDTH} {height:.0f}'"
    heading = (
        f"<text x='16' y='26' {FONT} font-size='16' font-weight='bold' fill='{INK}'>"
        f"{escape(title)}</text>"
    )
    body = "\n".join([heading, *parts])
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>\n"
        f"<rect width='100%' height='100%' fill='#ffffff'/>\n{body}\n</svg>\n"
    )
